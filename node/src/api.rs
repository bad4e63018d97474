//! What clients talk to: etcd v3's gRPC API, and HTTP for administrators.
//!
//! [`Server`] has a thread and a runtime of its own and speaks with the driver only through the
//! [desk](crate::desk), so that nothing a client does can delay the protocol. What clients can make
//! it hold is bounded by [`Limits`]: connections, requests, and bytes on their way in and out.

mod admin;
mod connections;
mod exposition;
mod guests;
mod kv;
mod member;
mod request;
mod response;
mod room;
mod rpc;
mod status;
mod traffic;

use std::{io, net::TcpListener, sync::Arc, thread, time::Duration};

use sraft_core::NodeId;
use tokio::sync::{mpsc, oneshot};

use crate::desk::{Answers, Ask};

/// Where clients and administrators connect. Both must be listening already.
#[derive(Debug)]
pub struct Listeners {
    /// For gRPC (HTTP/2 without TLS).
    pub client: TcpListener,
    /// For `/status`, `/metrics`, `/healthz` and `/leader` (HTTP/1.1).
    pub admin: TcpListener,
}

/// What a server says of its node and of the cluster, and how much it takes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node.
    pub id: NodeId,
    /// Name of the cluster.
    pub cluster: String,
    /// Every member, this node included.
    pub members: Vec<Member>,
    /// How much it takes.
    pub limits: Limits,
}

/// A member of the cluster, as clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where it talks to other members, such as `http://10.0.1.10:5000`.
    pub peer_url: String,
    /// Where it talks to clients, such as `http://10.0.1.10:6000`, if that is known from the start;
    /// what [`PeerStatus`](crate::desk::PeerStatus) says counts for more.
    pub client_url: Option<String>,
}

/// How much clients can make a server hold, and for how long.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most connections of clients. For one more, the one that has waited for nothing for longest
    /// is closed; if all wait for answers, the new one is. Less if the process may not open as many
    /// files.
    pub connections: usize,
    /// Most connections of administrators.
    pub admin_connections: usize,
    /// Most requests at the same time on one connection; more wait on the client's side.
    pub streams: u32,
    /// Most requests at the same time on all connections. For one more, the oldest that has not
    /// been received as a whole is refused; if all have been, the new one is.
    pub requests: usize,
    /// Largest request in bytes, as in etcd.
    pub request_bytes: usize,
    /// Most bytes of all requests that are being received or answered. For more, the oldest request
    /// that has not been received as a whole is refused.
    pub received_bytes: usize,
    /// Most bytes of all answers that are being sent.
    pub sent_bytes: usize,
    /// Longest time for a request, from its first byte to the beginning of its answer. A client
    /// may name a shorter one (`grpc-timeout`).
    pub request_time: Duration,
    /// Longest time until a new connection has begun with HTTP/2's preface.
    pub preface_time: Duration,
    /// How long a connection may be silent before it is asked whether it lives, and how long it
    /// may take to answer.
    pub keepalive: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 4096,
            admin_connections: 64,
            streams: 1024,
            requests: 8192,
            request_bytes: 1536 * 1024,
            received_bytes: 128 << 20,
            sent_bytes: 256 << 20,
            request_time: Duration::from_secs(10),
            preface_time: Duration::from_secs(5),
            keepalive: Duration::from_secs(10),
        }
    }
}

/// Takes answers to where they are waited for.
#[derive(Clone, Debug)]
pub struct Post(mpsc::UnboundedSender<Answers>);

impl Post {
    /// Hands them over.
    pub fn send(&self, answers: Answers) {
        if let Err(mpsc::error::SendError(answers)) = self.0.send(answers) {
            answers.send();
        }
    }
}

async fn deliver(mut post: mpsc::UnboundedReceiver<Answers>) {
    while let Some(answers) = post.recv().await {
        answers.send();
    }
    // Without anybody who sends answers the servers go on, and say that the node is stopping.
    std::future::pending::<()>().await;
}

/// The running servers; they stop when this is dropped.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    post: Post,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Starts to serve on a thread of its own. Questions go to `ask`; when its other end is gone,
    /// clients are told that the node is stopping.
    ///
    /// # Errors
    /// The system refuses a thread, or a listener cannot be used.
    pub fn start(
        listeners: Listeners,
        mut settings: Settings,
        ask: mpsc::Sender<Ask>,
    ) -> io::Result<Server> {
        settings.limits.connections = connections::affordable(settings.limits.connections);
        let (stop, stopped) = oneshot::channel();
        let (post, posted) = mpsc::unbounded_channel();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        // The runtime lives and dies on its own thread: it must not be dropped on one that belongs
        // to another runtime.
        let thread = thread::Builder::new().name("sraft-api".to_owned()).spawn(move || {
            let opened = open(listeners);
            let (runtime, client, admin) = match opened {
                Ok(opened) => opened,
                Err(error) => return drop(tell.send(Err(error))),
            };
            // Whoever started it waits for this.
            let _ = tell.send(Ok(()));
            let traffic = Arc::new(traffic::Traffic::new(&settings.limits));
            let desk = member::Desk::new(&settings, ask);
            let administrators = admin::Admin::new(&settings.limits, &desk, &traffic);
            let clients = rpc::Rpc::new(&settings, &desk, &traffic);
            runtime.block_on(async move {
                tokio::select! {
                    _ = stopped => {}
                    () = deliver(posted) => {}
                    () = clients.run(client) => {}
                    () = administrators.run(admin) => {}
                }
            });
        })?;
        let server = Server { stop: Some(stop), post: Post(post), thread: Some(thread) };
        match told.recv() {
            Ok(outcome) => outcome.map(|()| server),
            Err(_) => Err(io::Error::other("the thread for clients has ended at once")),
        }
    }

    /// The way back to those who have asked, for more than a single answer.
    pub fn post(&self) -> Post {
        self.post.clone()
    }
}

/// A runtime, and the listeners in it.
fn open(
    listeners: Listeners,
) -> io::Result<(tokio::runtime::Runtime, tokio::net::TcpListener, tokio::net::TcpListener)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let inside = runtime.enter();
    let [client, admin] = [listeners.client, listeners.admin].map(|listener| {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    });
    drop(inside);
    Ok((runtime, client?, admin?))
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it has been reported where it happened.
            let _ = thread.join();
        }
    }
}

/// The cluster's id: the FNV-1a hash (64 bits) of its name, the same on every node.
pub fn cluster_id(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
