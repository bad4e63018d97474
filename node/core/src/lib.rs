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
//!    tickets and several may be made durable by one sync. Do not wait for it.
//! 2. **Journal.** Write [`Output::events`] to the event log. The driver itself adds what only it
//!    can know: that the node started and stopped, with which process of a peer it is connected,
//!    and whom it refused.
//! 3. **Send.** Send [`Output::messages`]. A message may be lost, delayed, duplicated or
//!    reordered; it must never be altered. The node itself holds back every message that promises
//!    something until what it promises is durable, so the driver may send all it is given at once
//!    and a leader's entries travel while its own disk still writes.
//! 4. **Apply.** Apply [`Output::committed`] to the application's state machine, in order.
//! 5. **Reply.** Only now answer clients.
//! 6. When the disk has made a ticket durable, call `handle` with [`Input::Persisted`]. One call
//!    with the highest ticket covers all before it.
//! 7. Call `handle` with [`Input::Timeout`] once [`Node::next_deadline`] has passed. Before that,
//!    pass on every message that has already arrived: a process that slept through a heartbeat
//!    must not blame the leader for it.
//! 8. `now` never runs backwards.
//!
//! After a crash, build a new node from what was durable ([`Restored`]). Inputs that arrive
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
//!     // ... journal output.events, send output.messages ...
//!     committed.extend(output.committed);
//! }
//! assert_eq!(node.status().leader, Some(1));
//! ```

mod campaign;
mod config;
mod designation;
mod follower;
mod leader;
mod log;
mod message;
mod mutation;
mod node;

mod time;
mod timing;
mod vote;

pub use config::{Config, ConfigError};
pub use designation::Designation;
pub use log::{Entry, Log};
pub use message::{
    AppendEntries, AppendReply, Appended, Conflict, Message, RequestVote, VoteReply,
};
#[cfg(feature = "mutants")]
pub use mutation::Mutation;
pub use node::{Node, Role, Status};
pub use time::Time;
pub use timing::{Detector, Preset, Protocol, Span, TimeoutRange, Timing, TimingKnobs};

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
    /// The log, from index 1, without gaps.
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
    /// To be applied, in order. No-ops are included, so that indices have no gaps.
    pub committed: Vec<Entry>,
}

impl Output {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.persist.is_none()
            && self.events.is_empty()
            && self.messages.is_empty()
            && self.committed.is_empty()
    }
}
