//! Which operation comes next.

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::config::Config;
use crate::operation::{Answer, Operation};

/// Of the writes, this share goes to registers if there are reads or compare-and-sets at all: a
/// history without plain writes would show less.
const REGISTER_WRITES: f64 = 0.25;

/// An operation about to start.
#[derive(Clone, Debug)]
pub(super) struct Draw {
    pub(super) operation: Operation,
    /// The register that it is about; `None`: a key of its own.
    pub(super) register: Option<u32>,
    /// What it writes, without the filling.
    pub(super) value: Option<String>,
    /// What it expects, without the filling.
    pub(super) expected: Option<String>,
}

/// The seeded sequence of operations.
#[derive(Debug)]
pub(super) struct Workload {
    config: Config,
    rng: ChaCha8Rng,
    /// Operations drawn so far; makes values unique.
    drawn: u64,
    /// Keys of their own written so far.
    written: u64,
    /// What each register held when somebody last looked; empty: nothing, as far as is known.
    /// As it was stored: another trial may have filled up its values to another size.
    known: Vec<Option<Bytes>>,
}

impl Workload {
    pub(super) fn new(config: &Config) -> Workload {
        Workload {
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            known: vec![None; config.keys as usize],
            config: config.clone(),
            drawn: 0,
            written: 0,
        }
    }

    /// How many keys of their own have been drawn: they are `key(0)`, `key(1)`, ...
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// The next operation.
    pub(super) fn draw(&mut self) -> Draw {
        let Config { reads, cas, keys, .. } = self.config;
        let kind: f64 = self.rng.random();
        if kind < reads {
            let register = self.rng.random_range(0..keys);
            let operation = Operation::Get { key: register_key(register) };
            return Draw { operation, register: Some(register), value: None, expected: None };
        }
        let value = format!("{}.{}", self.config.trial, self.drawn);
        self.drawn += 1;
        let stored = self.filled(&value);
        if kind < reads + cas {
            let register = self.rng.random_range(0..keys);
            let expected = self.known[register as usize].clone();
            let operation = Operation::Swap {
                key: register_key(register),
                expected: expected.clone(),
                value: stored,
            };
            let expected = expected.as_deref().map(emptied);
            return Draw { operation, register: Some(register), value: Some(value), expected };
        }
        let registers = reads + cas > 0.0 && self.rng.random_bool(REGISTER_WRITES);
        let register = registers.then(|| self.rng.random_range(0..keys));
        let key = match register {
            Some(register) => register_key(register),
            None => {
                self.written += 1;
                key(self.config.trial, self.written - 1).into()
            }
        };
        let operation = Operation::Put { key, value: stored };
        Draw { operation, register, value: Some(value), expected: None }
    }

    /// Takes up what an operation has shown of its register. Returns the value that it read.
    pub(super) fn learn(&mut self, draw: &Draw, answer: &Answer) -> Option<String> {
        if let Some(register) = draw.register {
            let holds = match (&draw.operation, answer.found) {
                (Operation::Put { value, .. }, _) | (Operation::Swap { value, .. }, Some(true)) => {
                    Some(value)
                }
                _ => answer.value.as_ref(),
            };
            self.known[register as usize] = holds.cloned();
        }
        answer.value.as_deref().map(emptied)
    }

    /// A value as it is stored: filled up to the size that was asked for.
    fn filled(&self, value: &str) -> Bytes {
        format!("{value:-<width$}", width = self.config.value_size).into()
    }
}

/// A stored value without the filling.
fn emptied(stored: &[u8]) -> String {
    // What somebody else has put there may hold line ends, which the file of rows must not.
    let text = String::from_utf8_lossy(stored).replace(|c: char| c.is_control(), " ");
    text.trim_end_matches('-').to_owned()
}

fn register_key(register: u32) -> Bytes {
    format!("r/{register}").into()
}

/// What the keys of a trial begin with.
pub(super) fn prefix(trial: u64) -> String {
    format!("w/{trial}/")
}

/// The trial's key number `n`. In the order of their numbers they are in the order of a range.
pub(super) fn key(trial: u64, n: u64) -> String {
    format!("{}{n:010}", prefix(trial))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn workload(rest: &str) -> Workload {
        let text = format!("trial = 3\nendpoints = [\"a:1\"]\nrate = 10\nseed = 5\n{rest}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("probe.toml");
        std::fs::write(&path, text).unwrap();
        Workload::new(&Config::read(Path::new(&path)).unwrap())
    }

    #[test]
    fn without_reads_there_are_only_keys_written_once() {
        let mut workload = workload("value_size = 9");
        for n in 0..100 {
            let draw = workload.draw();
            let (key, value) = (format!("w/3/{n:010}"), format!("{:-<9}", format!("3.{n}")));
            assert_eq!(draw.operation, Operation::Put { key: key.into(), value: value.into() });
        }
        assert_eq!(workload.written(), 100);
    }

    #[test]
    fn a_mix_has_its_shares_and_is_the_same_with_the_same_seed() {
        let draws = || {
            let mut workload = workload("reads = 0.3\ncas = 0.2\nkeys = 3");
            (0..10_000).map(|_| workload.draw().operation).collect::<Vec<_>>()
        };
        let ops = draws();
        assert_eq!(ops, draws());
        let count = |wanted: fn(&Operation) -> bool| ops.iter().filter(|op| wanted(op)).count();
        assert!((2800..3200).contains(&count(|op| matches!(op, Operation::Get { .. }))));
        assert!((1800..2200).contains(&count(|op| matches!(op, Operation::Swap { .. }))));
        let own = |op: &Operation| matches!(op, Operation::Put { key, .. } if key[0] == b'w');
        assert!((3500..4000).contains(&count(own)));
    }

    #[test]
    fn a_compare_and_set_expects_what_was_seen_last() {
        let mut workload = workload("cas = 1.0\nkeys = 1\nvalue_size = 0");
        let answer = |found, value: Option<&'static str>| Answer {
            found: Some(found),
            value: value.map(|text| Bytes::from_static(text.as_bytes())),
            revision: 1,
            term: 1,
        };
        let first = workload.draw();
        assert_eq!(first.expected, None);
        // It was there already, from an earlier trial.
        assert_eq!(workload.learn(&first, &answer(false, Some("2.9---"))), Some("2.9".into()));
        let second = workload.draw();
        assert_eq!(second.expected.as_deref(), Some("2.9"));
        let Operation::Swap { expected, .. } = &second.operation else { panic!("{second:?}") };
        assert_eq!(expected.as_deref(), Some(&b"2.9---"[..]));
        workload.learn(&second, &answer(true, None));
        assert_eq!(workload.draw().expected.as_deref(), Some("3.1"));
    }
}
