//! S-Raft as a state machine without input or output of its own.
//!
//! S-Raft is Raft (Ongaro and Ousterhout, USENIX ATC 2014; Ongaro's dissertation, 2014) in which
//! the leader names its successors ahead of time. [`Node`] implements both: original Raft is the
//! same machine with no sub-leaders. It has no clock, no sockets, no threads and no randomness of
//! its own. The same calls with the same arguments give the same outputs, to the byte.
//!
//! # The contract of a driver
//!
//! A driver owns the clock, the disk and the network. It calls [`Node::handle`] with each
//! [`Input`] and then carries out what [`Node::take_output`] returns, in this order:
//!
//! 1. **Persist.** Hand [`Output::persist`] to the disk. Writes are applied in the order of their
//!    tickets and several may be made durable by one sync. Within one write the snapshot comes
//!    first: either all of a write survives a crash, or what was there before it. Do not wait for
//!    it.
//! 2. **Journal.** Write [`Output::events`] to the event log. The driver itself adds what only it
//!    can know: that the node started and stopped, with which process of a peer it is connected,
//!    and whom it refused.
//! 3. **Send.** Send [`Output::messages`]. A message may be lost, delayed, duplicated or
//!    reordered; it must never be altered. The node itself holds back every message that promises
//!    something until what it promises is durable, so the driver may send all it is given at once
//!    and a leader's entries travel while its own disk still writes.
//! 4. **Install.** If there is an [`Output::install`], put the application's state machine into
//!    that state, whatever it was in.
//! 5. **Apply.** Apply [`Output::committed`] to the state machine, in order.
//! 6. **Reply.** Only now answer clients. A read in [`Output::reads`] is served from the state
//!    machine once everything up to its index has been applied, which may be some outputs later.
//! 7. When the disk has made a ticket durable, call `handle` with [`Input::Persisted`]. One call
//!    with the highest ticket covers all before it.
//! 8. Call `handle` with [`Input::Timeout`] once [`Node::next_deadline`] has passed. Before that,
//!    pass on every message that has already arrived: a process that slept through a heartbeat
//!    must not blame the leader for it.
//! 9. `now` never runs backwards, and it is taken after the input has arrived: a leader that
//!    serves reads by its lease relies on it.
//! 10. When the log has become long, serialise the state machine as it is after some applied entry
//!     and call `handle` with [`Input::Snapshot`]. It may take its time over that, in another
//!     thread, while entries are applied: what is too old by then is ignored.
//!
//! After a crash, put the state machine into the state of the durable snapshot (or the empty one)
//! and build a new node from what was durable ([`Restored`]). The node hands out again what has
//! been committed after the snapshot, once it learns that it has. Inputs that arrive
//! between two calls of `take_output` may be batched: their writes share one ticket.
//!
//! ```
//! use std::time::Duration;
//! use sraft_core::{Input, Node, Protocol, Restored, Time, Timing};
//!
//! let config = Timing::reference().lower(Protocol::SRaft, 1, &[1]).unwrap();
//! let mut now = Time::ZERO;
//! let mut node = Node::new(config, Restored::default(), 42, now);
//! let mut committed = Vec::new();
//! // The loop to write: wait for the next message, write or deadline, then
//! while committed.is_empty() {
//!     if let Some(deadline) = node.next_deadline() {
//!         now = now.max(deadline); // a real driver sleeps
//!         node.handle(now, Input::Timeout);
//!     }
//!     let output = node.take_output();
//!     if let Some(persist) = output.persist {
//!         // ... write, sync ...
//!         node.handle(now, Input::Persisted { ticket: persist.ticket });
//!     }
//!     // ... journal output.events, send output.messages, take over output.install ...
//!     committed.extend(output.committed);
//! }
//! assert_eq!(node.status().leader, Some(1));
//! ```

mod campaign;
mod config;
mod designation;
mod durability;
mod follower;
mod leader;
mod log;
mod message;
mod mutation;
mod node;
mod read;
mod snapshot;
mod time;
mod timing;
mod vote;

pub use config::{Config, ConfigError};
pub use designation::Designation;
pub use log::{Entry, Log};
pub use message::{
    AppendEntries, AppendReply, Appended, Conflict, InstallReply, InstallSnapshot, Message,
    RequestVote, VoteReply,
};
#[cfg(feature = "mutants")]
pub use mutation::Mutation;
pub use node::{Node, Role, Status};
pub use read::ReadReply;
pub use snapshot::{PersistSnapshot, Snapshot};
pub use time::Time;
pub use timing::{Detector, Preset, Protocol, Span, TimeoutRange, Timing, TimingKnobs};

use std::sync::Arc;

pub use sraft_events::{Event, Index, NodeId, Term};

/// What must survive a crash besides the log (Raft paper, figure 2).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct HardState {
    /// The latest term the node has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted_for: Option<NodeId>,
}

/// What a node finds on its disk when it starts.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Term and vote.
    pub hard_state: HardState,
    /// The newest snapshot, if there is one. The driver has put its state machine into this state
    /// before it builds the node.
    pub snapshot: Option<Snapshot>,
    /// The log, without gaps: from the entry after the snapshot's last (or from index 1 if there
    /// is none), or from an earlier one that [`PersistSnapshot::first_index`] said to keep.
    pub entries: Vec<Entry>,
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message from a peer has arrived.
    Message {
        /// Who sent it; the transport vouches for it.
        from: NodeId,
        /// The message.
        message: Message,
    },
    /// The deadline has passed.
    Timeout,
    /// Everything up to this ticket is durable.
    Persisted {
        /// The highest durable ticket.
        ticket: u64,
    },
    /// A connection to the peer was lost, or more has become known about the loss.
    PeerLost {
        /// The peer.
        peer: NodeId,
        /// What is known.
        cause: sraft_events::LossCause,
    },
    /// The peer is connected (again).
    PeerBack {
        /// The peer.
        peer: NodeId,
        /// Whether it is the process that was connected before: the loss was a false alarm.
        same_process: bool,
    },
    /// A command for the replicated state machine. A leader appends it; a follower forwards it to
    /// the leader it knows, else drops it (see [`Node::status`]).
    Propose {
        /// The command, opaque to the core. It is dropped if it is empty (empty is the no-op) or
        /// larger than [`Config::max_append_bytes`]: an entry that no frame of the transport can
        /// carry would keep all that follows from committing.
        command: Vec<u8>,
    },
    /// A client wants to read. Answered in [`Output::reads`]: with the index up to which the state
    /// machine must have been applied for the read to be linearizable, or that it has to be asked
    /// again, because no leader is known, or it was lost, or it did not answer in time.
    Read {
        /// Names the read in the answer. The driver gives every read of a node's life another.
        id: u64,
    },
    /// The driver has serialised its state machine as it was after applying entry `index`. The node
    /// makes that durable ([`Persist::snapshot`]) and then drops the log up to there, less what
    /// [`Config::retained_entries`] keeps. One that is older than what the node has is ignored.
    Snapshot {
        /// The last entry that had been applied.
        index: Index,
        /// The state, opaque to the core.
        data: Arc<[u8]>,
    },
    /// Hand leadership to the Primary, or to the follower with the longest log if there is none
    /// (dissertation, 3.10). Nothing happens on a node that does not lead.
    Transfer,
}

/// A message and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// The receiver.
    pub to: NodeId,
    /// The message.
    pub message: Message,
}

/// Something to make durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// Tickets count up by one; report the highest durable one with [`Input::Persisted`].
    pub ticket: u64,
    /// The new term and vote, if they changed.
    pub hard_state: Option<HardState>,
    /// A new snapshot, in the place of the one before: to be made durable before `entries`, or
    /// together with them.
    pub snapshot: Option<PersistSnapshot>,
    /// New entries, if any. Everything in the log from the first one's index on is replaced.
    pub entries: Vec<Entry>,
}

/// What the driver has to do, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// To be made durable.
    pub persist: Option<Persist>,
    /// To be written to the event log; all happened at the `now` of the last call.
    pub events: Vec<(Time, Event)>,
    /// To be sent.
    pub messages: Vec<Envelope>,
    /// A snapshot from the leader: the state machine is to be replaced by it *before* `committed`
    /// is applied. It covers more than has been applied so far.
    pub install: Option<Snapshot>,
    /// To be applied, in order. No-ops are included, so that indices have no gaps.
    pub committed: Vec<Entry>,
    /// Answers to reads.
    pub reads: Vec<ReadReply>,
}

impl Output {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.persist.is_none()
            && self.events.is_empty()
            && self.messages.is_empty()
            && self.install.is_none()
            && self.committed.is_empty()
            && self.reads.is_empty()
    }
}
