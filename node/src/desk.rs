//! The desk between clients and the driver: what the API may ask, and what it may be told.
//!
//! The API runs on a thread and a runtime of its own and sends an [`Ask`] through a bounded
//! channel, so that clients never delay the protocol. An asker that has lost patience drops its
//! end of the `reply`.

use std::{fmt, time::Duration};

use sraft_core::{Index, NodeId, Role, Term};
use tokio::sync::oneshot;

use crate::{
    metrics::Counts,
    store::{Op, Outcome, Revision, View},
};

/// The answer to a write: what came of it, and the term. The store right after it is not part of it:
/// as long as somebody holds a view, the next write has to copy what it changes.
pub type Written = Result<(Outcome, Term), Unserved>;

/// The answer to a read: a store to read from, and the term.
pub type Viewed = Result<(View, Term), Unserved>;

/// What the API asks of the driver.
#[derive(Debug)]
pub enum Ask {
    /// Replicate and apply. Answered once this node's own store has applied it.
    Write {
        /// What to do.
        op: Op,
        /// Where the outcome goes.
        reply: oneshot::Sender<Written>,
    },
    /// A store to read from.
    Read {
        /// Whether it must hold everything that was acknowledged, by any node, before this was
        /// asked; else it is this node's own as it is.
        linearizable: bool,
        /// Where it goes.
        reply: oneshot::Sender<Viewed>,
    },
    /// Who this node is, who leads, how far things are.
    Status {
        /// Where it goes.
        reply: oneshot::Sender<NodeStatus>,
    },
}

/// Answers that go out together. An answer that is sent from another thread wakes the asker's, at
/// the price of a system call; these are handed over as one and sent from there.
#[derive(Default)]
pub struct Answers(Vec<Box<dyn FnOnce() + Send>>);

impl Answers {
    /// Adds one.
    pub fn add<T: Send + 'static>(&mut self, reply: oneshot::Sender<T>, answer: T) {
        // Nobody may be there any more to hear it.
        self.0.push(Box::new(move || drop(reply.send(answer))));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends them, from this thread.
    pub fn send(self) {
        self.0.into_iter().for_each(|answer| answer());
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers", self.0.len())
    }
}

/// Why a request was not served. `NoLeader`, `TooLarge` and `Overloaded` promise that nothing was
/// done and nothing will be; with `TimedOut` and `Stopping` a write may yet take effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// No leader is known, and none appeared in the time that requests are held.
    #[error("no leader; ask again, or another node")]
    NoLeader,
    /// The request is too large for an entry of the log.
    #[error("the request has {bytes} bytes, at most {most} are taken; split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most there may be.
        most: usize,
    },
    /// Too many requests, or too many bytes of them, are waiting.
    #[error("too many requests are waiting; slow down and ask again")]
    Overloaded,
    /// It was passed on, but nothing came of it in the time that requests are held.
    #[error("the request timed out and may still take effect; read before asking again")]
    TimedOut,
    /// The node is stopping.
    #[error("the node is stopping; ask another")]
    Stopping,
}

/// What a node says of itself.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Its id.
    pub id: NodeId,
    /// Name of its cluster.
    pub cluster: String,
    /// Number of this life of the node.
    pub boot_id: u64,
    /// Time since it started.
    pub uptime: Duration,
    /// Its role.
    pub role: Role,
    /// Its rank among the sub-leaders, if it may still promote itself.
    pub rank: Option<u32>,
    /// Whether it leads and its no-op has committed.
    pub ready: bool,
    /// Whether it has been told to stop.
    pub stopping: bool,
    /// Its term.
    pub term: Term,
    /// The leader it knows, itself included.
    pub leader: Option<NodeId>,
    /// Its commit index.
    pub commit: Index,
    /// The last entry that its store has applied.
    pub applied: Index,
    /// Index of the oldest entry of its log; one more than `last_index` if there is none.
    pub first_index: Index,
    /// Index of the last entry of its log.
    pub last_index: Index,
    /// Bytes of commands in its log.
    pub log_bytes: u64,
    /// The last entry that its snapshot covers; 0 without one.
    pub snapshot_index: Index,
    /// Size of its snapshot in bytes; 0 without one.
    pub snapshot_bytes: u64,
    /// Snapshots taken since it started.
    pub snapshots_taken: u64,
    /// Snapshots received from a leader since it started.
    pub snapshots_installed: u64,
    /// Revision of its store.
    pub revision: Revision,
    /// Keys in its store.
    pub keys: u64,
    /// Bytes of keys and values in its store.
    pub store_bytes: u64,
    /// Writes of its own clients that it waits for.
    pub pending_writes: u64,
    /// Reads of its own clients that it waits for.
    pub pending_reads: u64,
    /// The other members.
    pub peers: Vec<PeerStatus>,
    /// What it has counted since it started.
    pub counts: Counts,
}

/// Another member, as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its id.
    pub id: NodeId,
    /// Whether there is a connection to it.
    pub connected: bool,
    /// Where it serves clients, such as `http://10.0.1.10:2379`, once it has said so.
    pub client_url: Option<String>,
}
