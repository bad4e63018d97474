//! The file of operations, `ops.csv`.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::outcome::Outcome;

/// The line that says that a write has been acknowledged.
pub const READY: &str = "# ready";

/// One operation, or one finding of the audit. Instants are `CLOCK_MONOTONIC` of the probe's host in
/// nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The trial.
    pub trial: u64,
    /// `put`, `get`, `cas` or `audit`.
    pub op: &'static str,
    /// The key.
    pub key: String,
    /// What was written, or read.
    pub value: Option<String>,
    /// What a `cas` compared with; empty: with the absence of the key.
    pub expected: Option<String>,
    /// When it was meant to start.
    pub intended_ns: Option<u64>,
    /// When it started: just before it was handed to a connection.
    pub start_ns: u64,
    /// When its answer had been read, good or bad.
    pub end_ns: Option<u64>,
    /// What is known of it.
    pub outcome: Outcome,
    /// Whether a `get` found the key, a `cas` swapped, the audit found the key.
    pub found: Option<bool>,
    /// The store's revision in the answer.
    pub revision: Option<i64>,
    /// Where it was sent.
    pub endpoint: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
}

/// The file, being written. Rows become visible with [`Ops::flush`].
#[derive(Debug)]
pub(super) struct Ops {
    path: PathBuf,
    rows: csv::Writer<File>,
}

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct Unwritable {
    /// The file.
    path: PathBuf,
    /// What the system said.
    source: io::Error,
}

impl Ops {
    /// Makes the file anew. Its header is in it at once.
    pub(super) fn create(path: &Path) -> Result<Ops, Unwritable> {
        let file =
            File::create(path).map_err(|source| Unwritable { path: path.to_owned(), source })?;
        let rows = csv::WriterBuilder::new().has_headers(false).from_writer(file);
        let mut ops = Ops { path: path.to_owned(), rows };
        // The first row could be late; who reads the file wants to know its columns before.
        let header = [
            "trial",
            "op",
            "key",
            "value",
            "expected",
            "intended_ns",
            "start_ns",
            "end_ns",
            "outcome",
            "found",
            "revision",
            "endpoint",
            "error",
        ];
        let written = ops.rows.write_record(header);
        ops.check(written.map_err(io::Error::from))?;
        ops.flush()?;
        Ok(ops)
    }

    fn check<T>(&self, result: io::Result<T>) -> Result<T, Unwritable> {
        result.map_err(|source| Unwritable { path: self.path.clone(), source })
    }

    pub(super) fn write(&mut self, row: &Row) -> Result<(), Unwritable> {
        let written = self.rows.serialize(row);
        self.check(written.map_err(io::Error::from))
    }

    pub(super) fn flush(&mut self) -> Result<(), Unwritable> {
        let flushed = self.rows.flush();
        self.check(flushed)
    }

    /// Adds a line that is no row.
    pub(super) fn note(&mut self, line: &str) -> Result<(), Unwritable> {
        self.flush()?;
        let written = self.rows.get_ref().write_all(format!("{line}\n").as_bytes());
        self.check(written)
    }
}
