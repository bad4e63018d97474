use std::{
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use sraft_core::{Entry, HardState, Index, Persist, Restored, Snapshot, Term};

use super::{
    StorageError,
    engine::{Base, Batch, Content, Engine},
    identity::{self, Identity},
    snapshots, unpanicked,
    watermark::{Watermark, WatermarkFile},
};

/// Entries that are removed along with a group of writes at least, if there are any to remove.
const TRIM: Index = 256;

/// The open data directory.
pub struct Disk {
    engine: Engine,
    dir: PathBuf,
    watermark: WatermarkFile,
    mark: Watermark,
    /// The snapshot that the log continues.
    base: Base,
    /// Entries up to `base` that are still in the log, on their way out.
    waste: Vec<Range<Index>>,
    // Held until the engine, which is declared before it, has been closed.
    _lock: File,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("dir", &self.dir).field("mark", &self.mark).finish()
    }
}

impl Disk {
    /// Opens the data directory of `identity`, or makes it, and reads what is durable.
    ///
    /// # Errors
    /// The directory cannot be used, belongs to somebody else, is damaged, or holds less than was
    /// known to be durable.
    pub fn open(dir: &Path, identity: &Identity) -> Result<(Disk, Restored), StorageError> {
        let lock = identity::lock(dir)?;
        let log = dir.join("log");
        identity::check(dir, &log, identity)?;
        let (watermark, promised) = open_watermark(dir)?;
        let damaged = |path, what| StorageError::Damaged { path, what };
        let (engine, content) = unpanicked(&log, damaged, || {
            let engine = Engine::open(&log).map_err(|trouble| trouble.at(&log))?;
            let content = engine.content().map_err(|trouble| trouble.at(&log))?;
            Ok((engine, content))
        })?;
        if let Some(what) = promised.and_then(|promised| missing(&promised, &content)) {
            let watermark = watermark.path().to_owned();
            return Err(StorageError::Lost { path: log, watermark, what });
        }
        let base = content.base;
        let snapshot = (base.index > 0).then(|| snapshots::read(dir, base)).transpose()?;
        // Only once it is certain that nothing else is needed.
        snapshots::remove_others(dir, base.index)?;
        identity::sync_directory(dir)?;
        let last = content.entries.last();
        let mark = Watermark {
            term: content.hard_state.term,
            voted_for: content.hard_state.voted_for,
            last_index: last.map_or(base.index, |entry| entry.index),
            last_term: last.map_or(base.term, |entry| entry.term),
        };
        let dir = dir.to_owned();
        let Content { hard_state, entries, waste, .. } = content;
        let disk = Disk { engine, dir, watermark, mark, base, waste, _lock: lock };
        Ok((disk, Restored { hard_state, snapshot, entries }))
    }

    /// Where the log is, for messages.
    pub fn path(&self) -> &Path {
        self.engine.path()
    }

    /// The data directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a group of writes durable with one sync and returns its highest ticket. Snapshots in
    /// it are not looked at: they have their own ways to the disk.
    ///
    /// # Errors
    /// Nothing may be taken for durable after an error, not even by a later call.
    ///
    /// # Panics
    /// If `group` is empty, or replaces entries that a snapshot covers.
    pub fn write(&mut self, group: Vec<Persist>) -> Result<u64, StorageError> {
        let ticket = group.last().expect("a group has at least one write").ticket;
        let mut mark = self.mark;
        let mut entries: Vec<Entry> = Vec::new();
        let mut lowest = u64::MAX;
        for persist in group {
            if let Some(hard_state) = persist.hard_state {
                mark.term = hard_state.term;
                mark.voted_for = hard_state.voted_for;
            }
            let Some(first) = persist.entries.first().map(|entry| entry.index) else { continue };
            lowest = lowest.min(first);
            // One write of a group may replace what an earlier one of the same group wrote.
            entries.truncate(entries.partition_point(|entry| entry.index < first));
            entries.extend(persist.entries);
        }
        if let Some(last) = entries.last() {
            mark.last_index = last.index;
            mark.last_term = last.term;
        }
        if lowest <= self.mark.last_index {
            let last_term = self.term_at(lowest - 1)?;
            self.lower(lowest - 1, last_term)?;
        }

        let mut batch = self.engine.batch();
        if (mark.term, mark.voted_for) != (self.mark.term, self.mark.voted_for) {
            batch.hard_state(HardState { term: mark.term, voted_for: mark.voted_for })?;
        }
        for entry in &entries {
            batch.entry(entry);
        }
        for index in mark.last_index + 1..=self.mark.last_index {
            batch.remove(index);
        }
        if !entries.is_empty() {
            // Twice what comes in, so that under any load the waste comes to an end.
            trim(&mut batch, &mut self.waste, TRIM + 2 * entries.len() as Index);
        }
        batch.commit_durably()?;
        self.raise(mark)?;
        Ok(ticket)
    }

    /// Lets the log continue a snapshot of this node's own, which is durable. Returns whether it
    /// does: a snapshot from the leader may have come in between.
    ///
    /// # Errors
    /// Nothing may be taken for durable after an error.
    pub(super) fn continue_from(&mut self, base: Base) -> Result<bool, StorageError> {
        if base.index <= self.base.index {
            snapshots::remove_older(&self.dir, self.base.index)?;
            return Ok(false);
        }
        assert!(base.index <= self.mark.last_index, "a snapshot covers what is durable");
        let mut batch = self.engine.batch();
        batch.base(base)?;
        batch.commit_durably()?;
        self.waste.push(self.base.index + 1..base.index + 1);
        self.base = base;
        snapshots::remove_older(&self.dir, base.index)?;
        Ok(true)
    }

    /// Replaces the whole log by a snapshot from the leader, which it makes durable first.
    /// `hard_state` is made durable along with it: the log never reaches a later term.
    ///
    /// # Errors
    /// Nothing may be taken for durable after an error.
    ///
    /// # Panics
    /// If the snapshot is older than the one that the log continues.
    pub(super) fn replace_by(
        &mut self,
        snapshot: &Snapshot,
        hard_state: Option<HardState>,
    ) -> Result<(), StorageError> {
        let base = Base { index: snapshot.last_index, term: snapshot.last_term };
        assert!(base.index > self.base.index, "the leader's snapshots only move forward");
        snapshots::write(&self.dir, snapshot, &AtomicBool::new(false))?;
        let last = self.mark.last_index;
        if last > base.index {
            // What is promised has to hold before and after the change.
            self.lower(self.base.index, self.base.term)?;
        }
        let mut mark = Watermark { last_index: base.index, last_term: base.term, ..self.mark };
        let mut batch = self.engine.batch();
        if let Some(hard_state) = hard_state {
            batch.hard_state(hard_state)?;
            mark.term = hard_state.term;
            mark.voted_for = hard_state.voted_for;
        }
        batch.base(base)?;
        // Entries up to the base are waste from now on; those above it would seem to continue it.
        for index in base.index + 1..=last {
            batch.remove(index);
        }
        batch.commit_durably()?;
        self.waste.push(self.base.index + 1..last.min(base.index) + 1);
        self.base = base;
        self.raise(mark)?;
        snapshots::remove_older(&self.dir, base.index)
    }

    /// Removes some of what snapshots have made superfluous. Returns whether there is more.
    ///
    /// # Errors
    /// Nothing may be taken for durable after an error.
    pub(super) fn trim(&mut self) -> Result<bool, StorageError> {
        if !self.waste.is_empty() {
            let mut batch = self.engine.batch();
            trim(&mut batch, &mut self.waste, TRIM);
            // Whoever finds these entries after a crash passes over them.
            batch.commit()?;
        }
        Ok(!self.waste.is_empty())
    }

    /// Whether there is anything to trim.
    pub(super) fn has_waste(&self) -> bool {
        !self.waste.is_empty()
    }

    fn term_at(&self, index: Index) -> Result<Term, StorageError> {
        assert!(index >= self.base.index, "what a snapshot covers is not replaced");
        if index == self.base.index { Ok(self.base.term) } else { self.engine.term_at(index) }
    }

    fn lower(&mut self, last_index: Index, last_term: Term) -> Result<(), StorageError> {
        let lowered = Watermark { last_index, last_term, ..self.mark };
        self.watermark.lower(lowered).map_err(|error| self.engine.failed(&error))
    }

    fn raise(&mut self, mark: Watermark) -> Result<(), StorageError> {
        self.mark = mark;
        self.watermark.raise(mark).map_err(|error| self.engine.failed(&error))
    }

    /// Stands for a disk that fails: the entry can no longer be read.
    #[cfg(test)]
    pub(super) fn lose_entry(&self, index: Index) {
        self.engine.lose_entry(index);
    }
}

fn trim(batch: &mut Batch<'_>, waste: &mut Vec<Range<Index>>, mut most: Index) {
    while let Some(range) = waste.first_mut()
        && most > 0
    {
        let end = range.end.min(range.start.saturating_add(most));
        for index in range.start..end {
            batch.remove(index);
            most -= 1;
        }
        range.start = end;
        if range.is_empty() {
            waste.remove(0);
        }
    }
}

fn open_watermark(dir: &Path) -> Result<(WatermarkFile, Option<Watermark>), StorageError> {
    let path = dir.join("watermark");
    let is_new = !path.exists();
    if is_new {
        identity::write_whole(dir, &path, &Watermark::default().encode())?;
    }
    let (file, mark) = WatermarkFile::open(&path).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => {
            StorageError::Damaged { path: path.clone(), what: "its checksum is wrong".to_owned() }
        }
        _ => StorageError::Directory { path: path.clone(), source },
    })?;
    Ok((file, Some(mark).filter(|_| !is_new)))
}

/// What is missing of a state that was known to be durable.
fn missing(promised: &Watermark, content: &Content) -> Option<String> {
    let HardState { term, voted_for } = content.hard_state;
    if term < promised.term {
        return Some(format!("it is at term {term}, but term {} was durable", promised.term));
    }
    if let Some(vote) = promised.voted_for
        && term == promised.term
        && voted_for != Some(vote)
    {
        return Some(format!("the vote for node {vote} in term {term} is gone"));
    }
    let base = content.base;
    let last = content.entries.last().map_or(base.index, |entry| entry.index);
    if last < promised.last_index {
        return Some(format!(
            "the log ends with entry {last}, but entry {} was durable",
            promised.last_index
        ));
    }
    // Of what a snapshot has replaced nothing more can be said.
    let found = match promised.last_index.checked_sub(base.index)? {
        0 => base.term,
        place => content.entries.get(usize::try_from(place).ok()? - 1)?.term,
    };
    (found != promised.last_term).then(|| {
        format!(
            "log entry {} is of term {found}, but one of term {} was durable",
            promised.last_index, promised.last_term
        )
    })
}
