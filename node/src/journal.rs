//! The event log: one JSON object per line, each written by one system call.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use sraft_core::{Event, NodeId, Time};
use sraft_events::{Record, Source};

use crate::clock;

/// Why the event log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be opened.
    #[error("cannot open the event log {path}: {source}; name a writable file with --log-file")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A record could not be written whole.
    #[error("cannot write to the event log {path}: {source}; free space on its disk and restart")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where a node's records go.
#[derive(Debug)]
pub struct Journal {
    node: NodeId,
    seq: u64,
    line: Vec<u8>,
    file: Option<(File, PathBuf)>,
}

impl Journal {
    /// Opens the log for appending, or one that goes nowhere if there is no path.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: Option<&Path>, node: NodeId) -> Result<Journal, JournalError> {
        let file = match path {
            None => None,
            Some(path) => {
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .map_err(|source| JournalError::Open { path: path.to_owned(), source })?;
                Some((file, path.to_owned()))
            }
        };
        Ok(Journal { node, seq: 0, line: Vec::with_capacity(512), file })
    }

    /// Writes one record of what happened at `at`.
    ///
    /// # Errors
    /// The record could not be written whole: the log can be trusted only up to there.
    pub fn record(&mut self, at: Time, event: Event) -> Result<(), JournalError> {
        let Some((file, path)) = &mut self.file else { return Ok(()) };
        let record = Record {
            source: Source::Node(self.node),
            seq: self.seq,
            mono_ns: at.as_nanos(),
            wall_ns: clock::wall(at),
            event,
        };
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, &record)
            .map_err(io::Error::from)
            .and_then(|()| {
                self.line.push(b'\n');
                // One write per record: with O_APPEND a reader, or a kill, meets whole lines.
                match file.write(&self.line)? {
                    n if n == self.line.len() => Ok(()),
                    _ => Err(io::ErrorKind::WriteZero.into()),
                }
            });
        written.map_err(|source| JournalError::Write { path: path.clone(), source })?;
        self.seq += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_numbered_lines_and_a_second_process_appends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.log");
        for _ in 0..2 {
            let mut journal = Journal::open(Some(&path), 3).unwrap();
            for index in 0..2 {
                journal.record(clock::now(), Event::Ready { term: 1, index }).unwrap();
            }
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let records: Vec<Record> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.iter().map(|r| r.seq).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert!(records.iter().all(|r| r.source == Source::Node(3)));
        assert!(records.is_sorted_by_key(|r| r.mono_ns));
    }

    #[test]
    fn a_log_that_cannot_be_opened_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = Journal::open(Some(&dir.path().join("absent/node.log")), 1).unwrap_err();
        assert!(error.to_string().contains("absent/node.log"), "{error}");
    }

    #[test]
    fn a_full_disk_is_an_error_not_a_lost_record() {
        let mut journal = Journal::open(Some(Path::new("/dev/full")), 1).unwrap();
        let error = journal.record(clock::now(), Event::Ready { term: 1, index: 1 }).unwrap_err();
        assert!(error.to_string().contains("/dev/full"), "{error}");
    }
}
