//! Snapshots: what stands in for the log's beginning (Raft paper, section 7).

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use crate::{Index, Term};

/// A state machine's state, and where in the log it stands.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last log entry that had been applied.
    pub last_index: Index,
    /// That entry's term.
    pub last_term: Term,
    /// The state, as the driver has serialised it.
    pub data: Arc<[u8]>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} ({} bytes)", self.last_index, self.last_term, self.data.len())
    }
}

impl Hash for Snapshot {
    /// Without the data, of which there may be a lot: what is committed up to an index is the same
    /// everywhere.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.last_index, self.last_term, self.data.len()).hash(state);
    }
}

/// A snapshot to be made durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PersistSnapshot {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Entries before this index may be removed from the durable log once the snapshot is durable.
    pub first_index: Index,
    /// Whether the snapshot comes from a leader: the whole durable log is replaced by it.
    pub reset: bool,
}
