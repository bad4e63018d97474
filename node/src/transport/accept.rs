use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use futures_core::Stream;
use sraft_core::NodeId;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::{
    HANDSHAKE_TIMEOUT, Incoming, MAX_STRANGERS, Slot,
    frame::{self, FrameError, MAX_FRAME, MAX_HANDSHAKE},
    handshake::{self, HandshakeError, Hello, Introduction, Reply},
    link::Change,
};

type Frames = FramedRead<TcpStream, LengthDelimitedCodec>;

/// The next frame of a connection; empty at its end.
pub(super) async fn next_frame(frames: &mut Frames) -> Option<io::Result<BytesMut>> {
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *frames).poll_next(cx)).await
}

/// Accepts connections and finds out who is there.
#[derive(Clone, Debug)]
pub(super) struct Acceptor {
    me: Arc<Introduction>,
    slots: Arc<BTreeMap<NodeId, Arc<Slot>>>,
    inbox: mpsc::Sender<Incoming>,
}

impl Acceptor {
    pub(super) fn new(
        me: Arc<Introduction>,
        slots: Arc<BTreeMap<NodeId, Arc<Slot>>>,
        inbox: mpsc::Sender<Incoming>,
    ) -> Acceptor {
        Acceptor { me, slots, inbox }
    }

    pub(super) async fn run(self, listener: TcpListener) {
        let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => match strangers.clone().try_acquire_owned() {
                    Ok(permit) => {
                        tokio::spawn(self.clone().meet(stream, remote, permit));
                    }
                    Err(_) => {
                        drop(stream);
                        let reason = format!(
                            "{MAX_STRANGERS} connections have not introduced themselves yet"
                        );
                        self.refused(remote, reason).await;
                    }
                },
                // Out of descriptors, or a connection that broke before it was accepted. The
                // listener itself stays good; a pause keeps the former from becoming a busy loop.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    async fn refused(&self, remote: SocketAddr, reason: String) {
        let _ = self.inbox.send(Incoming::Refused { remote, reason }).await;
    }

    async fn meet(self, stream: TcpStream, remote: SocketAddr, permit: OwnedSemaphorePermit) {
        let mut frames = FramedRead::new(stream, frame::codec(MAX_HANDSHAKE));
        let hello = match timeout(HANDSHAKE_TIMEOUT, self.hello(&mut frames)).await {
            Ok(Ok(hello)) => hello,
            // Nothing was said at all: a peer that dials in the moment of its own end, or a port
            // scan. Neither is worth a record.
            Ok(Err(None)) => return,
            Ok(Err(Some(error))) => {
                let mut answer = BytesMut::new();
                if handshake::append(&handshake::refusal(&error), &mut answer).is_ok() {
                    let write = frames.get_mut().write_all(&answer);
                    let _ = timeout(HANDSHAKE_TIMEOUT, write).await;
                }
                return self.refused(remote, error.to_string()).await;
            }
            Err(_) => {
                let reason = format!(
                    "it has not introduced itself within {} s",
                    HANDSHAKE_TIMEOUT.as_secs()
                );
                return self.refused(remote, reason).await;
            }
        };
        // Only members get here, and a member has only one connection that counts.
        drop(permit);
        let peer = hello.from.node;
        let Some(slot) = self.slots.get(&peer).cloned() else { return };
        frames.decoder_mut().set_max_frame_length(MAX_FRAME);
        let reader = Reader { peer, remote, slot: slot.clone(), inbox: self.inbox.clone() };
        // The former reader must be gone before the answer is sent: after that the peer closes the
        // connection that this one replaces, which would look like a loss.
        let mut answer = BytesMut::new();
        slot.replace_reader(None);
        if handshake::append(&Reply::Welcome((*self.me).clone()), &mut answer).is_err() {
            return;
        }
        let boot_id = hello.from.boot_id;
        let task = tokio::spawn(reader.run(frames, boot_id, answer));
        slot.replace_reader(Some(task.abort_handle()));
    }

    /// The introduction of the other side; no error at all if it has closed without a word.
    async fn hello(&self, frames: &mut Frames) -> Result<Hello, Option<HandshakeError>> {
        frames.get_ref().set_nodelay(true).map_err(|_| None)?;
        let frame = match next_frame(frames).await {
            Some(Ok(frame)) => frame,
            None => return Err(None),
            Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                let reason = format!("its first frame is no handshake ({error})");
                return Err(Some(HandshakeError::Foreign(reason)));
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::Other => {
                let reason = "its first frame breaks off".to_owned();
                return Err(Some(HandshakeError::Foreign(reason)));
            }
            Some(Err(_)) => return Err(None),
        };
        let hello: Hello = handshake::decode(&frame).map_err(Some)?;
        self.me.check_hello(&hello).map_err(Some)?;
        Ok(hello)
    }
}

/// Reads what a peer sends until its connection ends.
struct Reader {
    peer: NodeId,
    remote: SocketAddr,
    slot: Arc<Slot>,
    inbox: mpsc::Sender<Incoming>,
}

impl Reader {
    async fn run(self, mut frames: Frames, boot_id: u64, answer: BytesMut) {
        let Reader { peer, remote, slot, inbox } = self;
        let link = |change| inbox.send(Incoming::Link { peer, change });
        if frames.get_mut().write_all(&answer).await.is_ok() {
            if link(Change::Accepted { boot_id }).await.is_err() {
                return;
            }
            // It has just come, or come back: no need to wait out the pause between attempts.
            if slot.dialled() != boot_id {
                slot.redial.notify_one();
            }
            let reason = loop {
                let frame = match next_frame(&mut frames).await {
                    Some(Ok(frame)) => frame,
                    None => break None,
                    Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                        break Some(FrameError::from(error));
                    }
                    Some(Err(_)) => break None,
                };
                match frame::decode(&frame) {
                    Ok(message) => {
                        if inbox.send(Incoming::Message { from: peer, message }).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => break Some(error),
                }
            };
            if let Some(error) = reason {
                let reason = format!("node {peer} has sent {error}");
                let _ = inbox.send(Incoming::Refused { remote, reason }).await;
            }
        }
        // The loss is told first: if it came after the answer to the new attempt, the peer would
        // count as lost with nothing left to bring it back.
        let _ = link(Change::AcceptedLost).await;
        slot.redial.notify_one();
    }
}
