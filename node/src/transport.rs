//! Messages between peers over TCP, and evidence of a peer's death.
//!
//! Every node dials every other and sends on the connection it has dialled; it receives on those
//! that it has accepted. Both are watched in both directions, so that the end of a process is seen
//! at once. A lost connection is dialled again at once too: what answers then tells a dead process
//! from a broken connection (see [`link`]).
//!
//! Nothing here ever waits for a peer on behalf of another or of the driver: each connection has
//! its own task, and a queue that is full drops what does not fit, which Raft tolerates.

mod accept;
mod dial;
pub mod frame;
pub mod handshake;
pub mod link;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::process::{Resource, getrlimit};
use sraft_core::{Message, NodeId};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Notify, mpsc},
    task::AbortHandle,
};

use crate::peers::Address;
use handshake::Introduction;
use link::Change;

/// A side that has not said who it is within this time is cut off.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// Most connections whose other side has not said yet who it is.
pub const MAX_STRANGERS: usize = 64;

/// Higher than any descriptor that a node opens in the normal course of things, with thousands of
/// clients.
const HIGH_DESCRIPTOR: u64 = 32_000;

/// Messages that wait for one peer; what does not fit is dropped.
const OUTBOX: usize = 1024;

/// Messages that wait for the driver; what does not fit stays in the sockets.
const INBOX: usize = 4096;

/// What the network has to say.
#[derive(Debug)]
pub enum Incoming {
    /// A message.
    Message {
        /// Who sent it: the peer that introduced itself on the connection.
        from: NodeId,
        /// The message.
        message: Message,
    },
    /// Something has happened to a connection with a peer.
    Link {
        /// The peer.
        peer: NodeId,
        /// What.
        change: Change,
    },
    /// A connection was refused, by this node or by the other side.
    Refused {
        /// The other side's address.
        remote: SocketAddr,
        /// Why, for a human.
        reason: String,
    },
}

/// Why a node cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address means nothing on this machine.
    #[error("cannot listen on {address}: {source}; give --host an address of this machine")]
    Address {
        /// The address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error(
        "port {port} of {host} is already in use; `ss -ltnp 'sport = :{port}'` shows by whom; stop it or choose another {option}"
    )]
    Busy {
        /// The option that names the port.
        option: &'static str,
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
}

/// What the tasks of one peer's connections share.
#[derive(Debug, Default)]
struct Slot {
    /// Dial anew, now: the peer may have died, or may just have come.
    redial: Notify,
    /// The boot id at the other end of the dialled connection; 0 while there is none.
    dialled: AtomicU64,
    /// Where it serves clients, as far as it has said; 0 if it does not.
    client_port: AtomicU16,
    /// The task that reads the connection that the peer has dialled.
    reader: Mutex<Option<AbortHandle>>,
}

impl Slot {
    /// Makes `reader` the one that counts; a former one has been replaced and ends unheard.
    fn replace_reader(&self, reader: Option<AbortHandle>) {
        let mut slot = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = std::mem::replace(&mut *slot, reader) {
            former.abort();
        }
    }
}

/// Binds the port for peers.
///
/// # Errors
/// The address is not this machine's, or the port is busy.
pub async fn listen(address: &Address) -> Result<TcpListener, ListenError> {
    let listener = bind(address, "--port").await?;
    closing_first(listener)
        .map_err(|source| ListenError::Address { address: address.clone(), source })
}

/// Binds a port; `option` is what names it.
///
/// # Errors
/// The address is not this machine's, or the port is busy.
pub async fn bind(address: &Address, option: &'static str) -> Result<TcpListener, ListenError> {
    let wrong = |source| ListenError::Address { address: address.clone(), source };
    let mut resolved =
        tokio::net::lookup_host((address.host.as_str(), address.port)).await.map_err(wrong)?;
    let at = resolved.next().ok_or_else(|| wrong(io::ErrorKind::NotFound.into()))?;
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(wrong)?;
    // A node that restarts must not wait for the connections of its former life to be forgotten.
    socket.set_reuseaddr(true).map_err(wrong)?;
    let listener = socket.bind(at).and_then(|()| socket.listen(1024));
    listener.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => {
            ListenError::Busy { option, host: address.host.clone(), port: address.port }
        }
        _ => wrong(source),
    })
}

/// Gives the listener a descriptor above all others. When a process is killed, Linux closes its
/// descriptors from the highest number down (it queues them in rising order and works the queue
/// off from its end). A peer that sees a connection close then finds the port closed already, and
/// need not dial again and again until it is. Where the limit of open files is too low for that,
/// the listener stays as it is.
fn closing_first(listener: TcpListener) -> io::Result<TcpListener> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let high = HIGH_DESCRIPTOR.min(limit.saturating_sub(1)) as i32;
    match rustix::io::fcntl_dupfd_cloexec(&listener, high) {
        Ok(high) => TcpListener::from_std(high.into()),
        Err(_) => Ok(listener),
    }
}

/// The connections with all peers.
#[derive(Debug)]
pub struct Transport {
    outboxes: BTreeMap<NodeId, mpsc::Sender<Message>>,
    slots: Arc<BTreeMap<NodeId, Arc<Slot>>>,
    tasks: Vec<AbortHandle>,
}

impl Transport {
    /// Starts to accept and to dial. To be called within a tokio runtime.
    pub fn start(
        me: Introduction,
        listener: TcpListener,
        peers: &BTreeMap<NodeId, Address>,
    ) -> (Transport, mpsc::Receiver<Incoming>) {
        let me = Arc::new(me);
        let (inbox, incoming) = mpsc::channel(INBOX);
        let slots: Arc<BTreeMap<NodeId, Arc<Slot>>> =
            Arc::new(peers.keys().map(|id| (*id, Arc::default())).collect());
        let accept = accept::Acceptor::new(me.clone(), slots.clone(), inbox.clone());
        let own = listener.local_addr().ok().map(|at| at.ip()).filter(|ip| !ip.is_unspecified());
        let mut tasks = vec![tokio::spawn(accept.run(listener)).abort_handle()];
        let mut outboxes = BTreeMap::new();
        for (peer, address) in peers {
            let (outbox, queue) = mpsc::channel(OUTBOX);
            let (me, slot, inbox) = (me.clone(), slots[peer].clone(), inbox.clone());
            let dialer = dial::Dialer::new(me, *peer, address.clone(), own, slot, inbox);
            tasks.push(tokio::spawn(dialer.run(queue)).abort_handle());
            outboxes.insert(*peer, outbox);
        }
        (Transport { outboxes, slots, tasks }, incoming)
    }

    /// The port on which a peer serves clients, as it has said when it was connected last.
    pub fn client_port(&self, peer: NodeId) -> Option<u16> {
        let port = self.slots.get(&peer)?.client_port.load(Ordering::Relaxed);
        Some(port).filter(|port| *port != 0)
    }

    /// Queues a message; never waits. Returns whether it was queued: a full queue drops it.
    pub fn send(&self, to: NodeId, message: Message) -> bool {
        self.outboxes.get(&to).is_some_and(|outbox| outbox.try_send(message).is_ok())
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Slot {
    fn set_dialled(&self, boot_id: u64) {
        self.dialled.store(boot_id, Ordering::Relaxed);
    }

    fn set_client_port(&self, port: Option<u16>) {
        self.client_port.store(port.unwrap_or(0), Ordering::Relaxed);
    }

    fn dialled(&self) -> u64 {
        self.dialled.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
