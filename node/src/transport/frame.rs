//! Messages as bytes: a length of four bytes, big-endian, and postcard.

use std::io;

use bytes::{Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::codec::{Encoder, LengthDelimitedCodec};

/// Largest frame between peers that know one another, in bytes. The core batches no more than one
/// mebibyte of commands.
pub const MAX_FRAME: usize = 8 << 20;

/// Largest frame before the other side has said who it is, in bytes.
pub const MAX_HANDSHAKE: usize = 4 << 10;

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection broke, or announced a frame beyond the limit.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes of a frame are not what should be there.
    #[error("a frame of {length} bytes that is no message of this version ({what})")]
    NotAMessage {
        /// Its length.
        length: usize,
        /// What the decoder said.
        what: String,
    },
    /// A message would not fit into a frame.
    #[error("a message of {length} bytes is larger than the {MAX_FRAME} bytes of a frame")]
    TooLarge {
        /// Its length.
        length: usize,
    },
}

/// A codec that accepts frames of up to `limit` bytes.
pub fn codec(limit: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(limit).new_codec()
}

/// Appends a message as a frame.
///
/// # Errors
/// It is larger than the codec's limit; nothing has been appended then.
pub fn append<T: Serialize>(
    codec: &mut LengthDelimitedCodec,
    message: &T,
    to: &mut BytesMut,
) -> Result<(), FrameError> {
    let bytes = postcard::to_stdvec(message)
        .map_err(|error| FrameError::NotAMessage { length: 0, what: error.to_string() })?;
    let length = bytes.len();
    codec.encode(Bytes::from(bytes), to).map_err(|_| FrameError::TooLarge { length })
}

/// Reads the content of a frame. It must be one message and nothing else.
///
/// # Errors
/// It is not.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, FrameError> {
    let length = frame.len();
    match postcard::take_from_bytes(frame) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(FrameError::NotAMessage {
            length,
            what: format!("{} bytes are left over", rest.len()),
        }),
        Err(error) => Err(FrameError::NotAMessage { length, what: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};
    use sraft_core::{
        AppendEntries, AppendReply, Appended, Conflict, Designation, Entry, Message, RequestVote,
        VoteReply,
    };
    use sraft_events::{CampaignKind, Refusal};
    use tokio_util::codec::Decoder;

    use super::*;

    fn message() -> impl Strategy<Value = Message> {
        let entry = (any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..40))
            .prop_map(|(index, term, command)| Entry { index, term, command });
        let designation = (any::<u64>(), any::<u64>(), vec(any::<u64>(), 0..5), any::<u64>())
            .prop_map(|(term, epoch, ranks, largest_rtt_us)| Designation {
                term,
                epoch,
                ranks,
                largest_rtt_us,
            });
        let kinds = prop::sample::select(CampaignKind::ALL);
        let refusals = option::of(prop::sample::select(Refusal::ALL));
        prop_oneof![
            (any::<[u64; 3]>(), any::<bool>(), kinds, any::<Option<u32>>()).prop_map(
                |([term, last_index, last_term], pre_vote, campaign, rank)| {
                    Message::RequestVote(RequestVote {
                        term,
                        pre_vote,
                        campaign,
                        rank,
                        last_index,
                        last_term,
                    })
                }
            ),
            (any::<[u64; 2]>(), any::<bool>(), refusals).prop_map(
                |([term, for_term], pre_vote, refusal)| Message::VoteReply(VoteReply {
                    term,
                    for_term,
                    pre_vote,
                    refusal
                })
            ),
            (any::<[u64; 5]>(), vec(entry, 0..6), option::of(designation)).prop_map(
                |([term, seq, prev_index, prev_term, commit], entries, designation)| {
                    Message::AppendEntries(AppendEntries {
                        term,
                        seq,
                        prev_index,
                        prev_term,
                        entries,
                        commit,
                        designation,
                    })
                }
            ),
            (any::<[u64; 5]>(), any::<Option<u64>>(), any::<bool>()).prop_map(
                |([term, seq, match_index, prev_index, first_index], conflict, fits)| {
                    let result = if fits {
                        Ok(Appended { match_index })
                    } else {
                        Err(Conflict { prev_index, term: conflict, first_index })
                    };
                    let for_term = term;
                    Message::AppendReply(AppendReply { term, for_term, seq, result })
                }
            ),
            any::<u64>().prop_map(|term| Message::TimeoutNow { term }),
            vec(any::<u8>(), 0..40).prop_map(|command| Message::Forward { command }),
        ]
    }

    proptest! {
        #[test]
        fn messages_survive_however_the_stream_is_cut(
            messages in vec(message(), 1..6),
            piece in 1usize..64,
        ) {
            let mut sender = codec(MAX_FRAME);
            let mut stream = BytesMut::new();
            for message in &messages {
                append(&mut sender, message, &mut stream).unwrap();
            }
            let mut receiver = codec(MAX_FRAME);
            let mut buffer = BytesMut::new();
            let mut received: Vec<Message> = Vec::new();
            for piece in stream.chunks(piece) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = receiver.decode(&mut buffer).unwrap() {
                    received.push(decode(&frame).unwrap());
                }
            }
            prop_assert_eq!(received, messages);
        }

        #[test]
        fn arbitrary_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
            if let Ok(message) = decode::<Message>(&bytes) {
                // Whatever is understood is understood the same way when it is passed on.
                let mut again = BytesMut::new();
                append(&mut codec(MAX_FRAME), &message, &mut again).unwrap();
                prop_assert_eq!(decode::<Message>(&again[4..]).unwrap(), message);
            }
            let mut buffer = BytesMut::from(&bytes[..]);
            let mut receiver = codec(MAX_HANDSHAKE);
            while let Ok(Some(frame)) = receiver.decode(&mut buffer) {
                prop_assert!(frame.len() <= MAX_HANDSHAKE);
            }
        }
    }

    #[test]
    fn frames_beyond_the_limit_are_refused_by_either_side() {
        let large = Message::Forward { command: vec![0; MAX_FRAME] };
        let mut stream = BytesMut::new();
        let error = append(&mut codec(MAX_FRAME), &large, &mut stream).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { .. }), "{error}");
        assert!(stream.is_empty());
        let mut announced = BytesMut::from(&(MAX_HANDSHAKE as u32 + 1).to_be_bytes()[..]);
        assert!(codec(MAX_HANDSHAKE).decode(&mut announced).is_err());
    }

    #[test]
    fn bytes_after_a_message_are_an_error() {
        let mut bytes = postcard::to_stdvec(&Message::TimeoutNow { term: 1 }).unwrap();
        bytes.push(0);
        assert!(decode::<Message>(&bytes).unwrap_err().to_string().contains("left over"));
    }
}
