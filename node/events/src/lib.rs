//! The schema of the structured event log.
//!
//! Nodes, agents and the harness all write the same thing: one JSON object per line, a [`Record`].
//! A record says *who* saw *what*, and *when* on that host's monotonic and wall clocks. Every
//! figure of a run is derived from these records and from nothing else, so a field is only ever
//! added, never changed in meaning; an incompatible change raises [`SCHEMA`].
//!
//! ```
//! use sraft_events::{Event, Record, Source};
//! let record = Record {
//!     source: Source::Node(2),
//!     seq: 7,
//!     mono_ns: 1_000_000,
//!     wall_ns: 1_700_000_000_000_000_000,
//!     event: Event::Ready { term: 4, index: 12 },
//! };
//! let line = serde_json::to_string(&record).unwrap();
//! assert_eq!(
//!     line,
//!     r#"{"source":"node:2","seq":7,"mono_ns":1000000,"wall_ns":1700000000000000000,"event":"ready","term":4,"index":12}"#
//! );
//! assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
//! ```

mod event;
mod source;

pub use event::{
    Boot, CampaignKind, CampaignOutcome, DesignationReason, Event, Evidence, FaultAction,
    LossCause, Refusal, StepDownReason, Verdict,
};
pub use source::{ParseSourceError, Source};

use serde::{Deserialize, Serialize};

/// Version of this schema; written once per run into its manifest and in every `node_started`.
pub const SCHEMA: u32 = 2;

/// A node of the cluster, numbered from 1.
pub type NodeId = u64;

/// A Raft term.
pub type Term = u64;

/// A position in the log; the first entry has index 1, and 0 means "before the first".
pub type Index = u64;

/// One line of an event log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who wrote the record.
    pub source: Source,
    /// Counts the records of one process from 0, so that a lost line shows as a gap.
    pub seq: u64,
    /// The host's `CLOCK_MONOTONIC` when it happened, in nanoseconds.
    pub mono_ns: u64,
    /// The host's `CLOCK_REALTIME` when it happened, in nanoseconds since 1970.
    pub wall_ns: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}
