//! The store, and the snapshots that are taken of it and that replace it.
//!
//! Neither making a snapshot nor reading one may keep the protocol waiting: both are done by
//! threads of their own. While one is being read, committed entries wait for it.

use std::sync::Arc;

use anyhow::Context;
use sraft_core::{Entry, Index, Snapshot};
use tokio::sync::mpsc;

use crate::store::{Damaged, Outcome, RequestId, Store};

/// What a record of the log takes besides its command, roughly.
const ENTRY_OVERHEAD: u64 = 64;

/// What such a thread hands back.
pub(super) enum Finished {
    /// A snapshot is made.
    Encoded { index: Index, data: Arc<[u8]> },
    /// A snapshot is read.
    Decoded { index: Index, store: Result<Store, Damaged> },
}

/// The store and what is done with it.
pub(super) struct Machine {
    store: Store,
    /// Bytes of log that make a snapshot due.
    most: u64,
    /// Bytes of log applied since the last snapshot.
    bytes: u64,
    encoding: bool,
    /// The snapshot that is to replace the store, and what was committed after it.
    installing: Option<Index>,
    backlog: Vec<Entry>,
    finished: mpsc::UnboundedSender<Finished>,
    /// The last entry covered by the newest snapshot.
    pub(super) snapshot_index: Index,
    /// Bytes of that snapshot.
    pub(super) snapshot_bytes: u64,
    pub(super) installed: u64,
}

impl Machine {
    /// The store as it was at the snapshot.
    ///
    /// # Errors
    /// The snapshot is not one of this version's.
    pub(super) fn new(
        snapshot: Option<&Snapshot>,
        most: u64,
        finished: mpsc::UnboundedSender<Finished>,
    ) -> anyhow::Result<Machine> {
        let mut machine = Machine {
            store: Store::default(),
            most,
            bytes: 0,
            encoding: false,
            installing: None,
            backlog: Vec::new(),
            finished,
            snapshot_index: 0,
            snapshot_bytes: 0,
            installed: 0,
        };
        if let Some(snapshot) = snapshot {
            let index = snapshot.last_index;
            let store = Store::decode(&snapshot.data).with_context(|| unreadable(index))?;
            machine.replace(index, store);
            machine.note(index, snapshot.data.len());
        }
        Ok(machine)
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Bytes of log applied since the last snapshot.
    pub(super) fn log_bytes(&self) -> u64 {
        self.bytes
    }

    /// Applies what has committed, or keeps it until the snapshot before it is there.
    pub(super) fn apply(&mut self, entries: Vec<Entry>, mut told: impl FnMut(RequestId, Outcome)) {
        if self.installing.is_some() {
            self.backlog.extend(entries);
            return;
        }
        for entry in &entries {
            self.bytes += entry.command.len() as u64 + ENTRY_OVERHEAD;
            if let Some((id, outcome)) = self.store.apply(entry) {
                told(id, outcome);
            }
        }
    }

    /// Starts to make a snapshot if one is due.
    ///
    /// # Errors
    /// The system has no thread to spare.
    pub(super) fn take_snapshot(&mut self) -> anyhow::Result<()> {
        if self.bytes <= self.most || self.encoding || self.installing.is_some() {
            return Ok(());
        }
        self.encoding = true;
        self.bytes = 0;
        let (store, finished) = (self.store.clone(), self.finished.clone());
        spawn("encode", move || {
            let data = store.encode().into();
            // The node may have ended meanwhile.
            let _ = finished.send(Finished::Encoded { index: store.applied(), data });
        })
    }

    /// A snapshot has come from the leader.
    ///
    /// # Errors
    /// The system has no thread to spare.
    pub(super) fn install(&mut self, snapshot: Snapshot) -> anyhow::Result<()> {
        let index = snapshot.last_index;
        self.installing = Some(index);
        self.backlog.clear();
        self.note(index, snapshot.data.len());
        let finished = self.finished.clone();
        spawn("decode", move || {
            let store = Store::decode(&snapshot.data);
            let _ = finished.send(Finished::Decoded { index, store });
        })
    }

    /// A snapshot is made: it goes to the core, if it is still of use.
    pub(super) fn encoded(&mut self, index: Index, data: Arc<[u8]>) -> Option<(Index, Arc<[u8]>)> {
        self.encoding = false;
        if index <= self.snapshot_index {
            return None;
        }
        self.note(index, data.len());
        Some((index, data))
    }

    /// A snapshot is read: it replaces the store, unless a newer one has come. Returns what has
    /// committed since.
    ///
    /// # Errors
    /// It is no snapshot of this version's.
    pub(super) fn decoded(
        &mut self,
        index: Index,
        store: Result<Store, Damaged>,
    ) -> anyhow::Result<Vec<Entry>> {
        if self.installing != Some(index) {
            return Ok(Vec::new());
        }
        let store = store.with_context(|| unreadable(index))?;
        self.installing = None;
        self.installed += 1;
        self.replace(index, store);
        Ok(std::mem::take(&mut self.backlog))
    }

    fn replace(&mut self, index: Index, store: Store) {
        assert_eq!(store.applied(), index, "a snapshot is of the place that it is said to be of");
        self.store = store;
        self.bytes = 0;
    }

    fn note(&mut self, index: Index, bytes: usize) {
        self.snapshot_index = index;
        self.snapshot_bytes = bytes as u64;
    }
}

fn unreadable(index: Index) -> String {
    format!(
        "the snapshot of the store after entry {index} is whole but makes no sense to this \
         version; run the same version of the program on every node"
    )
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map(drop).with_context(|| format!("cannot start the thread `{name}`"))
}
