use serde::{Deserialize, Serialize};
use sraft_events::{Index, Term};

use crate::{message::Conflict, snapshot::Snapshot};

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Its position; the first is 1.
    pub index: Index,
    /// The term of the leader that made it.
    pub term: Term,
    /// What the state machine is to do; empty is the no-op with which a leader begins its term.
    #[serde(with = "serde_bytes")]
    pub command: Vec<u8>,
}

/// The log in memory: what is durable, and what is on its way there. It begins after its *base*,
/// an entry of which only index and term are still known: the beginning of time, or the last entry
/// that a snapshot has made dispensable.
#[derive(Clone, Debug, Default, Hash)]
pub struct Log {
    base_index: Index,
    base_term: Term,
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
    /// A log with these entries, from index 1.
    ///
    /// # Panics
    /// If they do not count up from 1 with terms that never fall: the store must check that, and
    /// report it, before it lets a node start.
    pub fn new(entries: Vec<Entry>) -> Log {
        Log::after(0, 0, entries)
    }

    fn after(base_index: Index, base_term: Term, entries: Vec<Entry>) -> Log {
        for (index, entry) in (base_index + 1..).zip(&entries) {
            assert_eq!(entry.index, index, "the restored log has a gap");
        }
        let first_term = entries.first().map_or(base_term, |entry| entry.term);
        let falls = !entries.is_sorted_by_key(|e| e.term) || first_term < base_term;
        assert!(!falls, "the restored log's terms fall");
        Log { base_index, base_term, entries }
    }

    /// What a node finds on its disk. The entries may begin before the snapshot ends.
    pub(crate) fn restored(snapshot: Option<&Snapshot>, mut entries: Vec<Entry>) -> Log {
        let Some(&Snapshot { last_index, last_term, .. }) = snapshot else {
            return Log::new(entries);
        };
        match entries.first().map(|entry| entry.index) {
            // The snapshot covers all of them.
            _ if entries.last().is_none_or(|last| last.index < last_index) => {
                Log::after(last_index, last_term, Vec::new())
            }
            Some(first) if first <= last_index => {
                let base = entries.remove(0);
                let log = Log::after(base.index, base.term, entries);
                let fits = log.term_at(last_index) == Some(last_term);
                assert!(fits, "the restored log contradicts the snapshot up to {last_index}");
                log
            }
            _ => Log::after(last_index, last_term, entries),
        }
    }

    /// Index of the first entry that is still here, or that would be.
    pub fn first_index(&self) -> Index {
        self.base_index + 1
    }

    /// Index of the last entry before the first one.
    pub(crate) fn base_index(&self) -> Index {
        self.base_index
    }

    /// Index of the last entry, 0 if there has never been one.
    pub fn last_index(&self) -> Index {
        self.base_index + self.entries.len() as Index
    }

    /// Term of the last entry, 0 if there has never been one.
    pub fn last_term(&self) -> Term {
        self.entries.last().map_or(self.base_term, |entry| entry.term)
    }

    /// The term of the entry at `index`, also of the one before the first, 0 at index 0; empty past
    /// the end and for what is no more.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base_index {
            return Some(self.base_term);
        }
        self.get(index).map(|entry| entry.term)
    }

    /// The entry at `index`, if it is still or already here.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        self.entries.get(self.position(index)?)
    }

    /// The entries from `from` to `to`, both included, as far as they are here.
    pub fn range(&self, from: Index, to: Index) -> &[Entry] {
        let start = from.saturating_sub(self.first_index()).min(self.entries.len() as Index);
        let end = to.min(self.last_index()).saturating_sub(self.base_index).max(start);
        &self.entries[start as usize..end as usize]
    }

    fn position(&self, index: Index) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first_index())?).ok()
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
            // What a snapshot covers is committed, and every leader has it.
            None if prev_index < self.base_index => {}
            Some(term) => {
                let before = self.entries.partition_point(|entry| entry.term < term) as Index;
                let first_index = self.first_index() + before;
                return Err(Conflict { prev_index, term: Some(term), first_index });
            }
            None => {
                let first_index = self.last_index() + 1;
                return Err(Conflict { prev_index, term: None, first_index });
            }
        }
        let is_new = |entry: &Entry| {
            entry.index >= self.base_index && self.term_at(entry.index) != Some(entry.term)
        };
        let Some(new) = entries.iter().position(is_new) else {
            return Ok(Fit::Known);
        };
        let from = entries[new].index;
        let truncated = from <= self.last_index();
        assert!(from > commit, "a leader's entry {from} contradicts the committed log ({commit})");
        self.truncate(from - 1);
        self.entries.extend_from_slice(&entries[new..]);
        Ok(Fit::Extended { from, truncated })
    }

    /// Removes everything after `last`.
    pub(crate) fn truncate(&mut self, last: Index) {
        let kept = last.saturating_sub(self.base_index);
        self.entries.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }

    /// Removes everything up to `last`, which is in the log or before it.
    pub(crate) fn compact(&mut self, last: Index) {
        let Some(position) = self.position(last) else { return };
        self.base_index = last;
        self.base_term = self.entries[position].term;
        self.entries.drain(..=position);
    }

    /// Puts a snapshot in the place of everything.
    pub(crate) fn reset(&mut self, last_index: Index, last_term: Term) {
        *self = Log { base_index: last_index, base_term: last_term, entries: Vec::new() };
    }

    /// The last index of `term` in the log, if it has any.
    pub fn last_index_of_term(&self, term: Term) -> Option<Index> {
        let up_to = self.entries.partition_point(|entry| entry.term <= term);
        let last = self.base_index + up_to as Index;
        (last > 0 && self.term_at(last) == Some(term)).then_some(last)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn log_of(terms: &[Term]) -> Log {
        let entries = (1..).zip(terms).map(|(index, &term)| Entry { index, term, command: vec![] });
        Log::new(entries.collect())
    }

    prop_compose! {
        /// Terms that never fall.
        fn terms()(steps in prop::collection::vec(0..3u64, 1..12)) -> Vec<Term> {
            steps.iter().scan(1, |term, step| { *term += step; Some(*term) }).collect()
        }
    }

    proptest! {
        /// A log whose beginning is gone answers, and takes up what a leader sends, like the whole
        /// one, as long as the leader has what is committed.
        #[test]
        fn a_compacted_log_is_the_same_log(
            mine in terms(),
            theirs in terms(),
            cut in any::<(u8, u8, u8)>(),
        ) {
            let common = mine.iter().zip(&theirs).take_while(|(a, b)| a == b).count() as Index;
            prop_assume!(common > 0);
            let base = Index::from(cut.0) % common + 1;
            let (mut whole, leader) = (log_of(&mine), log_of(&theirs));
            let mut compacted = whole.clone();
            compacted.compact(base);
            prop_assert_eq!(compacted.first_index(), base + 1);
            prop_assert_eq!(compacted.last_index(), whole.last_index());
            prop_assert_eq!(compacted.last_term(), whole.last_term());
            let prev = Index::from(cut.1) % (leader.last_index() + 1);
            let end = prev + Index::from(cut.2) % (leader.last_index() - prev + 1);
            let prev_term = leader.term_at(prev).unwrap();
            let sent = leader.range(prev + 1, end);
            let results = [&mut whole, &mut compacted]
                .map(|log| log.splice(prev, prev_term, sent, base));
            match &results {
                // The term that is in the way may begin before the base, which is agreed upon.
                [Err(a), Err(b)] => prop_assert_eq!(a.first_index.max(base + 1), b.first_index),
                [a, b] => prop_assert_eq!(a, b),
            }
            prop_assert_eq!(whole.range(base + 1, Index::MAX), compacted.range(1, Index::MAX));
            for index in base..=whole.last_index() + 1 {
                prop_assert_eq!(whole.term_at(index), compacted.term_at(index));
            }
            for term in whole.term_at(base).unwrap()..=whole.last_term() {
                prop_assert_eq!(whole.last_index_of_term(term), compacted.last_index_of_term(term));
            }
            // And so it is after a restart, with a snapshot anywhere from its base on.
            let last_index = base + (Index::from(cut.1) % (compacted.last_index() - base + 1));
            let last_term = compacted.term_at(last_index).unwrap();
            let snapshot = Snapshot { last_index, last_term, data: Arc::from([]) };
            let restored = Log::restored(Some(&snapshot), compacted.entries.clone());
            prop_assert_eq!(restored.last_index(), compacted.last_index());
            prop_assert_eq!(restored.last_term(), compacted.last_term());
            prop_assert_eq!(restored.term_at(last_index), Some(last_term));
        }
    }
}
