//! Linearizable reads (dissertation, 6.4).

use crate::Index;

/// The answer to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadReply {
    /// The read.
    pub id: u64,
    /// The read may be served once the state machine has applied everything up to here. Empty if
    /// it has to be asked again.
    pub index: Option<Index>,
}
