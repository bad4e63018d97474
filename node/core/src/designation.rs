//! Who is to replace the leader: ranking by round-trip time, with hysteresis.

use serde::{Deserialize, Serialize};
use sraft_events::{NodeId, Term};

/// A leader's list of those who are to replace it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Designation {
    /// The term of the leader that made it.
    pub term: Term,
    /// Counts the designations of one term from 1.
    pub epoch: u64,
    /// The sub-leaders, Primary first.
    pub ranks: Vec<NodeId>,
    /// The largest round trip that the leader knows, in microseconds: a promotion that waits for
    /// the farthest voter needs to know how far that is.
    pub largest_rtt_us: u64,
}
