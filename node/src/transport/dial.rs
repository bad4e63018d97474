use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use sraft_core::{Message, NodeId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_util::codec::FramedRead;

use super::{
    HANDSHAKE_TIMEOUT, Incoming, Slot,
    accept::next_frame,
    frame::{self, FrameError, MAX_FRAME, MAX_HANDSHAKE},
    handshake::{self, HandshakeError, Hello, Introduction, Reply},
    link::Change,
};
use crate::{peers::Address, process};

/// Pause after the first attempt that failed; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Longest pause where nothing listens: a node that restarts is to be back soon.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Longest pause where a host cannot be reached or the peer will not talk.
const LONGEST_REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Attempts without a pause when connections break before the handshake. The kernel closes the
/// descriptors of a dying process one after the other, and while its listener is still open it
/// completes connections that nobody will ever answer.
const EAGER_ATTEMPTS: u32 = 16;

/// A connection that ends sooner than this has not been of much use...
const SHORT_LIFE: Duration = Duration::from_millis(100);

/// ... and after so many of them in a row the dialler pauses.
const SHORT_LIVES: u32 = 8;

/// Messages that are written with one system call.
const BATCH: usize = 64;

/// How an attempt ended.
enum Attempt {
    Connected(TcpStream, Introduction),
    /// Nothing listens: `ECONNREFUSED`.
    NothingListens,
    /// It was accepted and then broke.
    Broken,
    /// The host cannot be reached, or nobody answers.
    Unreachable,
    /// Somebody answered, but not the peer that should be there.
    Rejected(SocketAddr, HandshakeError),
}

/// Keeps the connection to one peer and sends on it.
pub(super) struct Dialer {
    me: Arc<Introduction>,
    peer: NodeId,
    address: Address,
    /// The address that this node listens on, if it is a certain one: it dials from there.
    own: Option<IpAddr>,
    slot: Arc<Slot>,
    inbox: mpsc::Sender<Incoming>,
    /// Where the peer is looked for: a name is not looked up again while a death is in doubt.
    known_at: Option<SocketAddr>,
    /// Where it was found last. Only there does it mean anything that nothing listens.
    found_at: Option<SocketAddr>,
    /// Counts look-ups of the name, to try all of its addresses in turn.
    lookups: usize,
}

impl Dialer {
    pub(super) fn new(
        me: Arc<Introduction>,
        peer: NodeId,
        address: Address,
        own: Option<IpAddr>,
        slot: Arc<Slot>,
        inbox: mpsc::Sender<Incoming>,
    ) -> Dialer {
        Dialer { me, peer, address, own, slot, inbox, known_at: None, found_at: None, lookups: 0 }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        // Kept until the one that replaces it stands: to close it earlier would tell a peer that
        // lives, and only wants to be asked again, that this node has gone.
        let mut former: Option<TcpStream> = None;
        let mut short_lived = 0;
        loop {
            let (stream, peer) = self.connect(&mut former).await;
            // What was asked for so far has just been answered.
            self.forget_redial();
            former = None;
            self.slot.set_dialled(peer.boot_id);
            self.slot.set_client_port(peer.client_port);
            // Waiting messages are of the time before the loss.
            while queue.try_recv().is_ok() {}
            let boot_id = peer.boot_id;
            if self.link(Change::Dialled { boot_id }).await.is_err() {
                return;
            }
            let since = Instant::now();
            let (stream, end) = self.send_all(stream, &mut queue).await;
            // Two processes with one id would replace each other's connections without end.
            short_lived = if since.elapsed() < SHORT_LIFE { short_lived + 1 } else { 0 };
            if short_lived > SHORT_LIVES {
                tokio::time::sleep(jittered(SHORT_LIFE)).await;
            }
            match end {
                End::Broken => {
                    self.slot.set_dialled(0);
                    if self.link(Change::DialledLost).await.is_err() {
                        return;
                    }
                }
                End::Redial => former = Some(stream),
                End::Closed => return,
            }
        }
    }

    async fn link(&self, change: Change) -> Result<(), ()> {
        let peer = self.peer;
        self.inbox.send(Incoming::Link { peer, change }).await.map_err(|_| ())
    }

    fn forget_redial(&self) {
        let mut notified = std::pin::pin!(self.slot.redial.notified());
        notified.as_mut().enable();
    }

    async fn connect(&mut self, former: &mut Option<TcpStream>) -> (TcpStream, Introduction) {
        let mut broken = 0;
        let mut pause = FIRST_PAUSE;
        loop {
            let longest = match self.attempt().await {
                Attempt::Connected(stream, peer) => return (stream, peer),
                Attempt::NothingListens => {
                    if self.known_at == self.found_at {
                        *former = None;
                        self.slot.set_dialled(0);
                        let _ = self.link(Change::NothingListens).await;
                    } else {
                        self.known_at = None;
                    }
                    LONGEST_PAUSE
                }
                Attempt::Broken => {
                    broken += 1;
                    if broken <= EAGER_ATTEMPTS {
                        continue;
                    }
                    LONGEST_PAUSE
                }
                Attempt::Unreachable => {
                    self.known_at = None;
                    LONGEST_REFUSED_PAUSE
                }
                Attempt::Rejected(remote, error) => {
                    self.known_at = None;
                    let reason = format!("node {}: {error}", self.peer);
                    let _ = self.inbox.send(Incoming::Refused { remote, reason }).await;
                    LONGEST_REFUSED_PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(jittered(pause)) => pause = (pause * 2).min(longest),
                () = self.slot.redial.notified() => pause = FIRST_PAUSE,
            }
        }
    }

    async fn attempt(&mut self) -> Attempt {
        match timeout(HANDSHAKE_TIMEOUT, self.handshake()).await {
            Ok(attempt) => attempt,
            Err(_) => Attempt::Unreachable,
        }
    }

    async fn handshake(&mut self) -> Attempt {
        let remote = match self.known_at {
            Some(remote) => remote,
            None => match self.resolve().await {
                Some(remote) => *self.known_at.insert(remote),
                None => return Attempt::Unreachable,
            },
        };
        let mut stream = match self.open(remote).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Attempt::NothingListens;
            }
            // Reset while it was being set up: the listener was just being closed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Attempt::Broken,
            Err(_) => return Attempt::Unreachable,
        };
        // TCP lets a socket connect to itself if its own port, drawn by the kernel, happens to be
        // the one that it dials. Then nobody listens there.
        if stream.local_addr().is_ok_and(|local| local == remote) {
            return Attempt::NothingListens;
        }
        let hello = Hello { to: self.peer, from: (*self.me).clone() };
        let mut bytes = BytesMut::new();
        let rejected = |error| Attempt::Rejected(remote, error);
        if let Err(error) = handshake::append(&hello, &mut bytes) {
            return rejected(error.into());
        }
        if stream.set_nodelay(true).is_err() || stream.write_all(&bytes).await.is_err() {
            return Attempt::Broken;
        }
        let mut frames = FramedRead::new(stream, frame::codec(MAX_HANDSHAKE));
        let reply = match next_frame(&mut frames).await {
            Some(Ok(reply)) => reply,
            Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return rejected(FrameError::from(error).into());
            }
            Some(Err(_)) | None => return Attempt::Broken,
        };
        let checked = handshake::decode::<Reply>(&reply)
            .and_then(|reply| self.me.check_reply(self.peer, reply));
        match checked {
            Ok(peer) => {
                self.found_at = Some(remote);
                Attempt::Connected(frames.into_inner(), peer)
            }
            Err(error) => rejected(error),
        }
    }

    /// Connects. A node that listens on a certain address also dials from it, so that packet
    /// filters, of operators and of experiments, can tell nodes on one host apart.
    async fn open(&self, remote: SocketAddr) -> io::Result<TcpStream> {
        let Some(own) = self.own.filter(|own| may_dial(*own, remote.ip())) else {
            return TcpStream::connect(remote).await;
        };
        let socket = if own.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(own, 0))?;
        socket.connect(remote).await
    }

    async fn resolve(&mut self) -> Option<SocketAddr> {
        let Address { host, port } = &self.address;
        if let Ok(ip) = host.parse() {
            return Some(SocketAddr::new(ip, *port));
        }
        let all: Vec<SocketAddr> =
            tokio::net::lookup_host((host.as_str(), *port)).await.ok()?.collect();
        self.lookups += 1;
        all.get((self.lookups - 1) % all.len().max(1)).copied()
    }

    /// Sends what is queued until the connection ends, or somebody asks to dial anew.
    async fn send_all(
        &self,
        mut stream: TcpStream,
        queue: &mut mpsc::Receiver<Message>,
    ) -> (TcpStream, End) {
        let mut codec = frame::codec(MAX_FRAME);
        let mut batch = Vec::with_capacity(BATCH);
        let mut bytes = BytesMut::with_capacity(8 << 10);
        // The peer says nothing on this connection after the handshake. If it does, this buffer is
        // where it ends.
        let mut unheard = [0; 64];
        let (mut reading, mut writing) = stream.split();
        let end = loop {
            tokio::select! {
                biased;
                read = reading.read(&mut unheard) => {
                    if !matches!(read, Ok(n) if n > 0) {
                        break End::Broken;
                    }
                }
                () = self.slot.redial.notified() => break End::Redial,
                received = queue.recv_many(&mut batch, BATCH), if bytes.is_empty() => {
                    if received == 0 {
                        break End::Closed;
                    }
                    for message in batch.drain(..) {
                        // One that is larger than a frame is lost: nothing could receive it.
                        let _ = frame::append(&mut codec, &message, &mut bytes);
                    }
                    match writing.try_write(&bytes) {
                        Ok(written) => drop(bytes.split_to(written)),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => break End::Broken,
                    }
                }
                written = writing.write_buf(&mut bytes), if !bytes.is_empty() => {
                    if !matches!(written, Ok(n) if n > 0) {
                        break End::Broken;
                    }
                }
            }
        };
        (stream, end)
    }
}

/// Whether anything could get from one address to another: not from a machine's own loopback to
/// another machine.
fn may_dial(from: IpAddr, to: IpAddr) -> bool {
    from.is_ipv4() == to.is_ipv4() && (!from.is_loopback() || to.is_loopback())
}

/// Why a connection is not sent on any more.
enum End {
    Broken,
    Redial,
    /// The node ends.
    Closed,
}

/// A pause drawn from three quarters to five quarters of `pause`, so that nodes which lost one
/// another at the same time do not dial at the same times for ever.
fn jittered(pause: Duration) -> Duration {
    let share = process::random().map_or(0.5, |drawn| (drawn >> 11) as f64 / (1u64 << 53) as f64);
    pause.mul_f64(0.75 + share / 2.0)
}
