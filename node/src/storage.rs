//! Durable term, vote and log.
//!
//! A data directory holds
//!
//! | name | content |
//! |---|---|
//! | `lock` | locked for as long as a process uses the directory |
//! | `identity.toml` | the cluster and the node that the state belongs to |
//! | `log/` | term, vote and log entries in a fjall keyspace, each with its own checksum |
//! | `watermark` | the last state known to be durable, to notice when a disk has lost some of it |
//!
//! What is made there is made under a name that ends in `.new` and renamed once it is whole, so that
//! a node can be killed at any moment of its first start.
//!
//! All writing is done by one thread. It takes everything that is queued, writes it as one batch
//! with one sync, and reports the highest ticket: under load several rounds of the protocol share
//! one sync (group commit).

mod disk;
mod identity;
mod watermark;

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sraft_core::Persist;
use tokio::sync::mpsc::UnboundedSender;

pub use disk::Disk;
pub use identity::Identity;

use crate::process;

/// What a damaged or incomplete data directory leaves to do.
const REMEDY: &str = "restore the directory from a backup of this very node, or leave the node \
     stopped: started with an empty directory it would forget votes and entries that the cluster \
     has counted on";

/// Why durable state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The data directory, or something in it, cannot be used.
    #[error(
        "cannot use the data directory: {path}: {source}; name a writable directory with --data-dir"
    )]
    Directory {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses it.
    #[error(
        "the data directory {path} is in use by another process; `fuser -v {path}/lock` names it"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It belongs to another node or another cluster.
    #[error(
        "{path} says that its directory belongs to {found}, but this is {wanted}; give --data-dir another directory, or correct --node-id or --cluster"
    )]
    OtherIdentity {
        /// The identity file.
        path: PathBuf,
        /// Whose it is.
        found: Identity,
        /// Who asked.
        wanted: Identity,
    },
    /// Something in it does not make sense.
    #[error("the durable state in {path} is damaged: {what}; {REMEDY}")]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Less is there than was known to be durable.
    #[error(
        "the durable state in {path} has gone back: {what}; {REMEDY} (to start it all the same, remove {watermark})"
    )]
    Lost {
        /// The directory of the log.
        path: PathBuf,
        /// The file that remembers.
        watermark: PathBuf,
        /// What is missing.
        what: String,
    },
    /// A write or a sync has failed while the node ran.
    #[error(
        "cannot write to {path}: {what}; the node stops, because it could not keep its promises; check the disk and its free space, then restart it"
    )]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the storage engine said.
        what: String,
    },
}

/// What the storage thread says.
#[derive(Debug)]
pub enum Report {
    /// Everything up to this ticket is durable.
    Durable {
        /// The highest ticket of the group.
        ticket: u64,
        /// How many tickets the group held.
        tickets: u64,
        /// How long writing and syncing took.
        took: Duration,
    },
    /// Nothing will be made durable any more.
    Failed(StorageError),
}

/// The storage thread.
#[derive(Debug)]
pub struct Storage {
    queue: Option<mpsc::Sender<Persist>>,
    thread: Option<JoinHandle<()>>,
}

impl Storage {
    /// Starts the thread. It reports through `reports`.
    ///
    /// # Errors
    /// The system has no thread to spare.
    pub fn start(disk: Disk, reports: UnboundedSender<Report>) -> io::Result<Storage> {
        let (queue, work) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("storage".to_owned())
            .spawn(move || write_groups(disk, &work, &reports))?;
        Ok(Storage { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues a write; never blocks. After a [`Report::Failed`] it does nothing.
    pub fn persist(&self, persist: Persist) {
        if let Some(queue) = &self.queue {
            // The thread only ends early once it has reported why.
            let _ = queue.send(persist);
        }
    }
}

impl Drop for Storage {
    /// Waits until everything that is queued has been written.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write_groups(mut disk: Disk, work: &mpsc::Receiver<Persist>, reports: &UnboundedSender<Report>) {
    while let Ok(first) = work.recv() {
        let group: Vec<Persist> = std::iter::once(first).chain(work.try_iter()).collect();
        let start = Instant::now();
        let path = disk.path().to_owned();
        let tickets = group.len() as u64;
        let failed = |path, what| StorageError::Write { path, what };
        let written = unpanicked(&path, failed, || disk.write(group));
        let report = match written {
            Ok(ticket) => Report::Durable { ticket, tickets, took: start.elapsed() },
            Err(error) => Report::Failed(error),
        };
        let failed = matches!(report, Report::Failed(_));
        if reports.send(report).is_err() || failed {
            return;
        }
    }
}

/// Runs code of the storage engine, which panics on some damaged files and, once a thread of its
/// own has panicked, on locks. `error` makes an error of it.
fn unpanicked<T>(
    path: &Path,
    error: fn(PathBuf, String) -> StorageError,
    run: impl FnOnce() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    let at = path.to_owned();
    let explain =
        move |text: &str| error(at.clone(), format!("the storage engine gave up: {text}"));
    let whole = explain.clone();
    process::catch_panics(move |text| whole(text).to_string(), run)
        .unwrap_or_else(|text| Err(explain(&text)))
}

#[cfg(test)]
mod tests;
