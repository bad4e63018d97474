//! The replicated state machine: keys and values with the revisions of etcd v3.
//!
//! A store begins at revision 1. Every request that changes something raises the revision by one,
//! a transaction as a whole; one that changes nothing (a deletion of nothing) leaves it. A key
//! carries the revision at which it was created, the one at which it was last changed, and how
//! often it has been changed since its creation (etcd API reference, "Key-value pair"). Only the
//! latest revision is kept.
//!
//! What [`Store::apply`] does depends on the log alone, so every node that has applied the same
//! entries holds the same store, to the byte of [`Store::encode`]. A request that occurs in the log
//! twice, because it was proposed again when a leader was lost, is applied once
//! ([`RequestId`], after the dissertation, 6.3).

mod image;
mod op;
mod outcome;
mod sessions;
#[cfg(test)]
mod tests;
mod view;

pub use image::Damaged;
pub use op::{
    Action, Command, Compare, Delete, KeyRange, Op, Order, Put, Query, Relation, RequestId,
    SortKey, Test, Txn,
};
pub use outcome::{Done, Outcome, Part, Refusal};
pub use sessions::{MAX_PENDING, MAX_SESSIONS};
pub use view::{KeyValue, Listed, Record, Revision, View};

use sraft_core::{Entry, Index};

use sessions::{Admission, Sessions};

/// The state machine. Cloning it takes constant time: clones share what neither has changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Store {
    applied: Index,
    view: View,
    sessions: Sessions,
}

impl Store {
    /// Applies a committed entry, and returns what came of the request in it, if it holds one. The
    /// same request a second time changes nothing and returns what came of it the first time.
    /// Nothing is returned for a request that its session no longer waits for; it is not applied
    /// either.
    ///
    /// An entry that is no command of this version changes nothing but [`Store::applied`], on
    /// every node alike.
    ///
    /// # Panics
    /// If entries come out of order: the core promises that they do not.
    pub fn apply(&mut self, entry: &Entry) -> Option<(RequestId, Outcome)> {
        assert_eq!(entry.index, self.applied + 1, "committed entries come in order");
        self.applied = entry.index;
        let command = Command::decode(&entry.command)?;
        let id = command.id;
        match self.sessions.admit(id, command.oldest, entry.index) {
            Admission::New => {
                let outcome = self.view.perform(command.op);
                self.sessions.remember(id, &outcome);
                Some((id, outcome))
            }
            Admission::Again(outcome) => Some((id, outcome)),
            Admission::Stale => None,
        }
    }

    /// The last entry applied, or covered by the snapshot that the store was made from.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// The keys and values as they are now, to read from; takes constant time.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Revision of the store.
    pub fn revision(&self) -> Revision {
        self.view.revision()
    }
}
