//! Who is there? The first frame in each direction of a connection.
//!
//! The node that dials introduces itself and says whom it expects; the other one introduces
//! itself in turn or says why it will not talk. Both frames begin with the same six bytes in every
//! version of the protocol, so that even versions that share nothing else can name the difference.

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use sraft_core::NodeId;

use super::frame::{self, FrameError, MAX_HANDSHAKE};

/// Version of the protocol between peers. Nodes of different versions do not talk.
pub const PROTOCOL: u16 = 2;

const MAGIC: &[u8; 4] = b"SRFT";

/// Longest reason that is sent or taken from the other side, in bytes.
const MAX_REASON: usize = 300;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// Name of its cluster.
    pub cluster: String,
    /// Its id.
    pub node: NodeId,
    /// Drawn anew by every process.
    pub boot_id: u64,
    /// Version of its program.
    pub program: String,
    /// Every member of the cluster, in rising order: nodes with different lists would disagree on
    /// what a majority is.
    pub members: Vec<NodeId>,
    /// The port on which it serves clients, if it does.
    pub client_port: Option<u16>,
}

/// The first frame of the node that dials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Whom it expects.
    pub to: NodeId,
    /// Who it is.
    pub from: Introduction,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The connection stands.
    Welcome(Introduction),
    /// It does not.
    Refused {
        /// Why, for a human.
        reason: String,
    },
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The bytes are no handshake.
    #[error("the other side is no sraft node: {0}")]
    Foreign(String),
    /// The frame could not be read.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// Another version of the protocol.
    #[error(
        "it speaks version {theirs} of the peer protocol, this node speaks version {PROTOCOL}; run the same program on every node"
    )]
    Version {
        /// The other side's version.
        theirs: u16,
    },
    /// Another cluster.
    #[error(
        "it belongs to cluster `{theirs}`, this node to cluster `{ours}`; correct --cluster or --peers"
    )]
    Cluster {
        /// Its cluster.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// It looks for another node than this one.
    #[error(
        "it looks for node {wanted} at the address of node {ours}; give every node the same --peers"
    )]
    WrongReceiver {
        /// Whom it looks for.
        wanted: NodeId,
        /// Who we are.
        ours: NodeId,
    },
    /// It is not the node that should be there, or no member at all.
    #[error(
        "it says that it is node {theirs}, which {why}; give every node the same --peers and its own --node-id"
    )]
    WrongNode {
        /// Who it says it is.
        theirs: NodeId,
        /// What is wrong with that.
        why: String,
    },
    /// Its list of members is another one.
    #[error(
        "node {theirs} counts the members {its:?}, this node counts {ours:?}; give every node the same --peers"
    )]
    Members {
        /// Who it is.
        theirs: NodeId,
        /// Its list.
        its: Vec<NodeId>,
        /// Ours.
        ours: Vec<NodeId>,
    },
    /// It has refused us.
    #[error("the other side refuses: {0}")]
    Refused(String),
}

/// Appends a first frame.
///
/// # Errors
/// It is too large, which a cluster name and members within their limits never are.
pub fn append<T: Serialize>(message: &T, to: &mut BytesMut) -> Result<(), FrameError> {
    append_version(PROTOCOL, message, to)
}

fn append_version<T: Serialize>(
    version: u16,
    message: &T,
    to: &mut BytesMut,
) -> Result<(), FrameError> {
    let body = postcard::to_stdvec(message)
        .map_err(|error| FrameError::NotAMessage { length: 0, what: error.to_string() })?;
    let length = MAGIC.len() + 2 + body.len();
    if length > MAX_HANDSHAKE {
        return Err(FrameError::TooLarge { length });
    }
    to.extend_from_slice(&(length as u32).to_be_bytes());
    to.extend_from_slice(MAGIC);
    to.extend_from_slice(&version.to_be_bytes());
    to.extend_from_slice(&body);
    Ok(())
}

/// Reads the content of a first frame.
///
/// # Errors
/// It is none, or one of another version.
pub fn decode<T: serde::de::DeserializeOwned>(frame: &[u8]) -> Result<T, HandshakeError> {
    let Some((head, body)) = frame.split_first_chunk::<6>() else {
        return Err(HandshakeError::Foreign(format!("its first frame has {} bytes", frame.len())));
    };
    let (magic, version) = head.split_at(4);
    if magic != MAGIC {
        return Err(HandshakeError::Foreign("its first frame is no handshake".to_owned()));
    }
    match u16::from_be_bytes([version[0], version[1]]) {
        PROTOCOL => Ok(frame::decode(body)?),
        theirs => Err(HandshakeError::Version { theirs }),
    }
}

impl Introduction {
    /// Checks, as the node that was dialled, who dials.
    ///
    /// # Errors
    /// Why not to talk.
    pub fn check_hello(&self, hello: &Hello) -> Result<(), HandshakeError> {
        self.check(&hello.from)?;
        if hello.to != self.node {
            return Err(HandshakeError::WrongReceiver { wanted: hello.to, ours: self.node });
        }
        Ok(())
    }

    /// Checks, as the node that has dialled `expected`, what came back.
    ///
    /// # Errors
    /// Why not to talk.
    pub fn check_reply(
        &self,
        expected: NodeId,
        reply: Reply,
    ) -> Result<Introduction, HandshakeError> {
        let from = match reply {
            Reply::Welcome(from) => from,
            Reply::Refused { reason } => {
                return Err(HandshakeError::Refused(printable(&reason)));
            }
        };
        self.check(&from)?;
        if from.node != expected {
            let why = format!("should be at the address of another one, node {expected} here");
            return Err(HandshakeError::WrongNode { theirs: from.node, why });
        }
        Ok(from)
    }

    fn check(&self, theirs: &Introduction) -> Result<(), HandshakeError> {
        if theirs.cluster != self.cluster {
            return Err(HandshakeError::Cluster {
                theirs: printable(&theirs.cluster),
                ours: self.cluster.clone(),
            });
        }
        let wrong =
            |why: &str| Err(HandshakeError::WrongNode { theirs: theirs.node, why: why.to_owned() });
        if theirs.node == self.node {
            return wrong("is this node's own id");
        }
        if !self.members.contains(&theirs.node) {
            return wrong("is not among the members here");
        }
        if theirs.members != self.members {
            return Err(HandshakeError::Members {
                theirs: theirs.node,
                its: theirs.members.clone(),
                ours: self.members.clone(),
            });
        }
        Ok(())
    }
}

/// The answer that tells the other side why.
pub fn refusal(error: &HandshakeError) -> Reply {
    Reply::Refused { reason: shortened(error.to_string()) }
}

/// What the other side wrote, fit for a terminal and a line of a log.
fn printable(text: &str) -> String {
    shortened(text.chars().filter(|c| !c.is_control()).collect())
}

fn shortened(mut reason: String) -> String {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(node: NodeId) -> Introduction {
        Introduction {
            cluster: "c".to_owned(),
            node,
            boot_id: 7,
            program: "0.1.0".to_owned(),
            members: vec![1, 2, 3],
            client_port: None,
        }
    }

    #[test]
    fn members_of_one_cluster_recognise_each_other() {
        let hello = Hello { to: 2, from: node(1) };
        let mut bytes = BytesMut::new();
        append(&hello, &mut bytes).unwrap();
        let received: Hello = decode(&bytes[4..]).unwrap();
        assert_eq!(received, hello);
        node(2).check_hello(&received).unwrap();
        assert_eq!(node(1).check_reply(2, Reply::Welcome(node(2))).unwrap(), node(2));
    }

    #[test]
    fn every_difference_is_named() {
        let hello = |to, from| node(2).check_hello(&Hello { to, from }).unwrap_err().to_string();
        let other = Introduction { cluster: "d".to_owned(), ..node(1) };
        assert!(hello(2, other).contains("cluster `d`"));
        let escape = Introduction { cluster: "d\u{1b}[2J\n".to_owned(), ..node(1) };
        assert!(hello(2, escape).contains("cluster `d[2J`"));
        assert!(hello(3, node(1)).contains("looks for node 3 at the address of node 2"));
        assert!(hello(2, node(2)).contains("own id"));
        assert!(hello(2, node(9)).contains("not among the members"));
        let fewer = Introduction { members: vec![1, 2], ..node(1) };
        assert!(hello(2, fewer).contains("counts the members [1, 2]"));
        let wrong = node(1).check_reply(2, Reply::Welcome(node(3))).unwrap_err();
        assert!(wrong.to_string().contains("node 3"), "{wrong}");
        let said = Reply::Refused { reason: "no\nway\u{1b}[2J".to_owned() };
        let refused = node(1).check_reply(2, said).unwrap_err().to_string();
        assert!(refused.ends_with("noway[2J"), "{refused}");
    }

    #[test]
    fn another_version_is_told_from_garbage() {
        let mut bytes = BytesMut::new();
        append_version(9, &(), &mut bytes).unwrap();
        let error = decode::<Hello>(&bytes[4..]).unwrap_err();
        assert!(matches!(error, HandshakeError::Version { theirs: 9 }), "{error}");
        let error = decode::<Hello>(b"GET / HTTP/1.1").unwrap_err();
        assert!(matches!(error, HandshakeError::Foreign(_)), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode::<Hello>(&bytes);
            let mut head = b"SRFT\0\x01".to_vec();
            head.extend_from_slice(&bytes);
            let _ = decode::<Hello>(&head);
            let _ = decode::<Reply>(&head);
        }

        #[test]
        fn a_refusal_always_fits(reason in ".{0,2000}") {
            let refused = refusal(&HandshakeError::Refused(reason));
            let mut bytes = BytesMut::new();
            append(&refused, &mut bytes).unwrap();
        }
    }
}
