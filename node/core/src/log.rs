use serde::{Deserialize, Serialize};
use sraft_events::{Index, Term};

use crate::message::Conflict;

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Its position; the first is 1.
    pub index: Index,
    /// The term of the leader that made it.
    pub term: Term,
    /// What the state machine is to do; empty is the no-op with which a leader begins its term.
    pub command: Vec<u8>,
}

/// The log in memory: what is durable, and what is on its way there.
#[derive(Clone, Debug, Default, Hash)]
pub struct Log {
    entries: Vec<Entry>,
}

/// How a follower's log takes up what a leader sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Fit {
    /// It has nothing that was not there already.
    Known,
    /// The log ends with these entries now; the first may replace what stood there before.
    Extended {
        /// Index of the first entry that is new.
        from: Index,
        /// Whether entries had to go to make room.
        truncated: bool,
    },
}

impl Log {
    /// A log with these entries.
    ///
    /// # Panics
    /// If they do not count up from 1 with terms that never fall: the store must check that, and
    /// report it, before it lets a node start.
    pub fn new(entries: Vec<Entry>) -> Log {
        for (position, entry) in entries.iter().enumerate() {
            assert_eq!(entry.index, position as Index + 1, "the restored log has a gap");
        }
        assert!(entries.is_sorted_by_key(|e| e.term), "the restored log's terms fall");
        Log { entries }
    }

    /// Index of the first entry that is still here.
    pub fn first_index(&self) -> Index {
        1
    }

    /// Index of the last entry, 0 if there is none.
    pub fn last_index(&self) -> Index {
        self.entries.len() as Index
    }

    /// Term of the last entry, 0 if there is none.
    pub fn last_term(&self) -> Term {
        self.entries.last().map_or(0, |entry| entry.term)
    }

    /// The term of the entry at `index`; 0 at index 0, empty past the end.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        match index {
            0 => Some(0),
            _ => self.get(index).map(|entry| entry.term),
        }
    }

    /// The entry at `index`.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        self.entries.get(usize::try_from(index).ok()?.checked_sub(1)?)
    }

    /// The entries from `from` (at least 1) to `to`, both included, as far as they exist.
    pub fn range(&self, from: Index, to: Index) -> &[Entry] {
        let start = (from.max(1) - 1).min(self.last_index()) as usize;
        let end = to.min(self.last_index()) as usize;
        &self.entries[start..end.max(start)]
    }

    /// Appends a command and returns its index.
    ///
    /// # Panics
    /// If `term` is below the last entry's: leaders' terms only grow.
    pub fn append(&mut self, term: Term, command: Vec<u8>) -> Index {
        assert!(term >= self.last_term(), "a leader appends in its own term");
        let index = self.last_index() + 1;
        self.entries.push(Entry { index, term, command });
        index
    }

    /// Takes up what a leader sent, if the entry before it is here (Raft paper, 5.3). An entry
    /// that is here already stays, also when the message is old and the log has grown since.
    ///
    /// # Errors
    /// The hint that lets the leader step back a whole term at a time.
    ///
    /// # Panics
    /// If an entry at or below `commit` would have to go: State Machine Safety would be broken.
    pub fn splice(
        &mut self,
        prev_index: Index,
        prev_term: Term,
        entries: &[Entry],
        commit: Index,
    ) -> Result<Fit, Conflict> {
        match self.term_at(prev_index) {
            Some(term) if term == prev_term => {}
            Some(term) => {
                let first = self.entries.partition_point(|entry| entry.term < term) as Index + 1;
                return Err(Conflict { prev_index, term: Some(term), first_index: first });
            }
            None => {
                let first_index = self.last_index() + 1;
                return Err(Conflict { prev_index, term: None, first_index });
            }
        }
        let Some(new) = entries.iter().position(|e| self.term_at(e.index) != Some(e.term)) else {
            return Ok(Fit::Known);
        };
        let from = entries[new].index;
        let truncated = from <= self.last_index();
        assert!(from > commit, "a leader's entry {from} contradicts the committed log ({commit})");
        self.entries.truncate(from as usize - 1);
        self.entries.extend_from_slice(&entries[new..]);
        Ok(Fit::Extended { from, truncated })
    }

    /// Removes everything after `last`.
    pub(crate) fn truncate(&mut self, last: Index) {
        self.entries.truncate(usize::try_from(last).unwrap_or(usize::MAX));
    }

    /// The last index of `term` in the log, if it has any.
    pub fn last_index_of_term(&self, term: Term) -> Option<Index> {
        let past = self.entries.partition_point(|entry| entry.term <= term);
        (past > 0 && self.entries[past - 1].term == term).then_some(past as Index)
    }
}
