//! Durable term, vote, log and snapshot.
//!
//! A data directory holds
//!
//! | name | content |
//! |---|---|
//! | `lock` | locked for as long as a process uses the directory |
//! | `identity.toml` | the cluster and the node that the state belongs to |
//! | `log/` | term, vote and log entries in a fjall keyspace, each with its own checksum |
//! | `snapshot-INDEX` | the state machine after that entry; the log continues it |
//! | `watermark` | the last state known to be durable, to notice when a disk has lost some of it |
//!
//! What is made there is made under a name that ends in `.new` and renamed once it is whole, so that
//! a node can be killed at any moment.
//!
//! All writing to the log is done by one thread. It takes everything that is queued, writes it as
//! one batch with one sync, and reports the highest ticket: under load several rounds of the
//! protocol share one sync (group commit).
//!
//! # Snapshots
//!
//! A snapshot takes its place in five steps, and between any two of them the process may be
//! killed: write `snapshot-INDEX.new` and sync it, rename it, sync the directory, commit a record
//! to the log that says which snapshot it continues, remove the older snapshot. Only that record
//! makes it count: at the start, entries up to it are passed over and other snapshots are removed;
//! a snapshot that the record names and that is damaged or missing keeps the node from starting.
//! The entries that it replaces are removed bit by bit afterwards, so that no write waits for them.
//!
//! A snapshot that the node took itself is written by a second thread, and its ticket is reported
//! before it is durable. That breaks no promise: until it is, the log holds all that is in it. One
//! that came from the leader replaces the log and is written in its turn, before later tickets.

mod disk;
mod engine;
mod identity;
mod snapshots;
mod watermark;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sraft_core::{Index, Persist, Snapshot};
use tokio::sync::mpsc::UnboundedSender;

pub use disk::Disk;
pub use identity::Identity;

use crate::process;
use engine::Base;

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
    /// A snapshot of this node's own is durable; the log continues it.
    Snapshot {
        /// The last entry that it covers.
        index: Index,
        /// The bytes of the state machine.
        bytes: u64,
        /// How long writing it took.
        took: Duration,
    },
    /// Nothing will be made durable any more.
    Failed(StorageError),
}

/// The storage threads.
#[derive(Debug)]
pub struct Storage {
    queue: mpsc::Sender<Work>,
    abandoned: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What the log's thread is given.
#[derive(Debug)]
enum Work {
    Persist(Persist),
    /// The snapshots' thread has written one (`None`: it was told to stop), or failed.
    Written(Result<Option<Written>, StorageError>),
    Stop,
}

#[derive(Debug)]
struct Written {
    base: Base,
    bytes: u64,
    took: Duration,
}

impl Storage {
    /// Starts the threads. They report through `reports`.
    ///
    /// # Errors
    /// The system has no thread to spare.
    pub fn start(disk: Disk, reports: UnboundedSender<Report>) -> io::Result<Storage> {
        let (queue, work) = mpsc::channel();
        let (snapshots, to_write) = mpsc::channel();
        let abandoned = Arc::new(AtomicBool::new(false));
        let (dir, done, stop) = (disk.dir().to_owned(), queue.clone(), Arc::clone(&abandoned));
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(run)
        };
        let log = Log { disk, snapshots, reports };
        let threads = vec![
            spawn("snapshots", Box::new(move || write_snapshots(&dir, &to_write, &done, &stop)))?,
            spawn("storage", Box::new(move || log.run(&work)))?,
        ];
        Ok(Storage { queue, abandoned, threads })
    }

    /// Queues a write; never blocks. After a [`Report::Failed`] it does nothing.
    pub fn persist(&self, persist: Persist) {
        // The thread only ends early once it has reported why.
        let _ = self.queue.send(Work::Persist(persist));
    }
}

impl Drop for Storage {
    /// Waits until everything that is queued has been written. A snapshot of this node's own is
    /// given up: the log has all of it.
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
        let _ = self.queue.send(Work::Stop);
        for thread in self.threads.drain(..).rev() {
            let _ = thread.join();
        }
    }
}

/// The thread that writes the log.
struct Log {
    disk: Disk,
    /// To the thread that writes snapshots.
    snapshots: mpsc::Sender<Snapshot>,
    reports: UnboundedSender<Report>,
}

/// The thread has nothing more to do: it was told to stop, or has reported why it must.
struct Ended;

impl Log {
    fn run(mut self, work: &mpsc::Receiver<Work>) {
        while let Some(first) = self.next(work) {
            let mut group = Vec::new();
            let mut stops = false;
            for work in std::iter::once(first).chain(work.try_iter()) {
                let done = match work {
                    Work::Persist(persist) => self.take(persist, &mut group),
                    Work::Written(written) => self.continue_from(written),
                    Work::Stop => {
                        stops = true;
                        break;
                    }
                };
                if done.is_err() {
                    return;
                }
            }
            if self.write(group).is_err() || stops {
                return;
            }
        }
    }

    /// Waits for work. While there is none, it tidies up.
    fn next(&mut self, work: &mpsc::Receiver<Work>) -> Option<Work> {
        while self.disk.has_waste() {
            if let Ok(work) = work.try_recv() {
                return Some(work);
            }
            self.attempt(Disk::trim).ok()?;
        }
        work.recv().ok()
    }

    /// Adds a write to the group. A snapshot in it goes its own way.
    fn take(&mut self, mut persist: Persist, group: &mut Vec<Persist>) -> Result<(), Ended> {
        if let Some(arrived) = persist.snapshot.take() {
            if arrived.reset {
                self.write(std::mem::take(group))?;
                let hard_state = persist.hard_state.take();
                self.attempt(|disk| disk.replace_by(&arrived.snapshot, hard_state))?;
            } else {
                // The thread ends after this one.
                let _ = self.snapshots.send(arrived.snapshot);
            }
        }
        group.push(persist);
        Ok(())
    }

    fn write(&mut self, group: Vec<Persist>) -> Result<(), Ended> {
        if group.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        let tickets = group.len() as u64;
        let ticket = self.attempt(|disk| disk.write(group))?;
        self.report(Report::Durable { ticket, tickets, took: start.elapsed() })
    }

    fn continue_from(
        &mut self,
        written: Result<Option<Written>, StorageError>,
    ) -> Result<(), Ended> {
        match written {
            Ok(None) => Ok(()),
            Ok(Some(Written { base, bytes, took })) => {
                if self.attempt(|disk| disk.continue_from(base))? {
                    self.report(Report::Snapshot { index: base.index, bytes, took })?;
                }
                Ok(())
            }
            Err(error) => self.fail(error),
        }
    }

    fn attempt<T>(
        &mut self,
        run: impl FnOnce(&mut Disk) -> Result<T, StorageError>,
    ) -> Result<T, Ended> {
        let path = self.disk.path().to_owned();
        let failed = |path, what| StorageError::Write { path, what };
        match unpanicked(&path, failed, || run(&mut self.disk)) {
            Ok(value) => Ok(value),
            Err(error) => self.fail(error),
        }
    }

    fn report(&self, report: Report) -> Result<(), Ended> {
        self.reports.send(report).map_err(|_| Ended)
    }

    fn fail<T>(&self, error: StorageError) -> Result<T, Ended> {
        let _ = self.reports.send(Report::Failed(error));
        Err(Ended)
    }
}

/// The thread that writes the snapshots that the node takes itself.
fn write_snapshots(
    dir: &Path,
    to_write: &mpsc::Receiver<Snapshot>,
    done: &mpsc::Sender<Work>,
    abandoned: &AtomicBool,
) {
    while let Ok(first) = to_write.recv() {
        // A newer one makes those before it superfluous.
        let snapshot = to_write.try_iter().last().unwrap_or(first);
        let start = Instant::now();
        let base = Base { index: snapshot.last_index, term: snapshot.last_term };
        let bytes = snapshot.data.len() as u64;
        let written = snapshots::write(dir, &snapshot, abandoned)
            .map(|whole| whole.then(|| Written { base, bytes, took: start.elapsed() }));
        if done.send(Work::Written(written)).is_err() {
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
