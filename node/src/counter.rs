//! The replicated application: a counter, as in the prototype.

use serde::{Deserialize, Serialize};
use sraft_core::{Entry, Index};

/// What a client may ask of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Adds to it; the sum wraps around at the ends of its range.
    Increment(i64),
    /// Replaces it.
    Set(i64),
}

impl Command {
    /// The bytes that go into a log entry; never empty, for empty is the no-op.
    pub fn encode(self) -> Vec<u8> {
        postcard::to_stdvec(&self).expect("a command of two small variants always encodes")
    }

    /// Reads the bytes of a log entry; empty if they are no command of this version.
    pub fn decode(bytes: &[u8]) -> Option<Command> {
        match postcard::take_from_bytes(bytes) {
            Ok((command, [])) => Some(command),
            _ => None,
        }
    }
}

/// The counter's state: the same on every node that has applied the same entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Its value.
    pub value: i64,
    /// The last entry applied.
    pub applied: Index,
}

impl Counter {
    /// Applies a committed entry. An entry that is no command of this version changes nothing but
    /// `applied`, on every node alike.
    ///
    /// # Panics
    /// If entries come out of order: the core promises that they do not.
    pub fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.index, self.applied + 1, "committed entries come in order");
        self.applied = entry.index;
        match Command::decode(&entry.command) {
            Some(Command::Increment(by)) => self.value = self.value.wrapping_add(by),
            Some(Command::Set(to)) => self.value = to,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: Index, command: Vec<u8>) -> Entry {
        Entry { index, term: 1, command }
    }

    #[test]
    fn increments_and_sets_apply_and_the_no_op_does_not() {
        let mut counter = Counter::default();
        counter.apply(&entry(1, Vec::new()));
        counter.apply(&entry(2, Command::Set(40).encode()));
        counter.apply(&entry(3, Command::Increment(2).encode()));
        counter.apply(&entry(4, vec![9, 9, 9]));
        assert_eq!(counter, Counter { value: 42, applied: 4 });
        counter.apply(&entry(5, Command::Set(i64::MAX).encode()));
        counter.apply(&entry(6, Command::Increment(1).encode()));
        assert_eq!(counter.value, i64::MIN);
    }

    #[test]
    fn commands_survive_the_log_and_are_never_empty() {
        for command in [Command::Increment(0), Command::Increment(-7), Command::Set(i64::MIN)] {
            assert!(!command.encode().is_empty());
            assert_eq!(Command::decode(&command.encode()), Some(command));
        }
        let mut trailing = Command::Set(1).encode();
        trailing.push(0);
        assert_eq!(Command::decode(&trailing), None);
    }
}
