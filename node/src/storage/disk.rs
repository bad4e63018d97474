use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use sraft_core::{Entry, HardState, Index, Persist, Restored, Term};

use super::{
    StorageError,
    identity::{self, Identity},
    unpanicked,
    watermark::{Watermark, WatermarkFile},
};

const HARD_STATE: &[u8] = b"h";
const ENTRY: u8 = b'e';

/// The open data directory.
pub struct Disk {
    database: Database,
    keyspace: Keyspace,
    log: PathBuf,
    watermark: WatermarkFile,
    mark: Watermark,
    // Held until the database, which is declared before it, has been closed.
    _lock: File,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("log", &self.log).field("mark", &self.mark).finish()
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
        let (database, keyspace, restored) = unpanicked(&log, damaged, || {
            let (database, keyspace) = open_log(&log).map_err(|trouble| trouble.at(&log))?;
            let restored = restore(&keyspace).map_err(|trouble| trouble.at(&log))?;
            Ok((database, keyspace, restored))
        })?;
        if let Some(what) = promised.and_then(|promised| missing(&promised, &restored)) {
            let watermark = watermark.path().to_owned();
            return Err(StorageError::Lost { path: log, watermark, what });
        }
        identity::sync_directory(dir)?;
        let mark = Watermark {
            term: restored.hard_state.term,
            voted_for: restored.hard_state.voted_for,
            last_index: restored.entries.last().map_or(0, |entry| entry.index),
            last_term: restored.entries.last().map_or(0, |entry| entry.term),
        };
        let disk = Disk { database, keyspace, log, watermark, mark, _lock: lock };
        Ok((disk, restored))
    }

    /// Where the log is, for messages.
    pub fn path(&self) -> &Path {
        &self.log
    }

    /// Makes a group of writes durable with one sync and returns its highest ticket.
    ///
    /// # Errors
    /// Nothing may be taken for durable after an error, not even by a later call.
    ///
    /// # Panics
    /// If `group` is empty.
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
            let below = lowest - 1;
            let last_term = self.term_at(below)?;
            let lowered = Watermark { last_index: below, last_term, ..self.mark };
            self.watermark.lower(lowered).map_err(|error| self.failed(&error))?;
        }

        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        if (mark.term, mark.voted_for) != (self.mark.term, self.mark.voted_for) {
            let hard_state = HardState { term: mark.term, voted_for: mark.voted_for };
            let payload = postcard::to_stdvec(&hard_state).map_err(|error| self.failed(&error))?;
            batch.insert(&self.keyspace, HARD_STATE, seal(HARD_STATE, &payload));
        }
        for entry in &entries {
            let key = entry_key(entry.index);
            let mut payload = Vec::with_capacity(8 + entry.command.len());
            payload.extend_from_slice(&entry.term.to_le_bytes());
            payload.extend_from_slice(&entry.command);
            batch.insert(&self.keyspace, key, seal(&key, &payload));
        }
        for index in mark.last_index + 1..=self.mark.last_index {
            batch.remove(&self.keyspace, entry_key(index));
        }
        // An empty batch would not be synced, but then there is nothing to sync either: all that
        // an earlier call wrote is durable.
        batch.commit().map_err(|error| self.failed(&error))?;
        self.mark = mark;
        self.watermark.raise(mark).map_err(|error| self.failed(&error))?;
        Ok(ticket)
    }

    fn term_at(&self, index: Index) -> Result<Term, StorageError> {
        if index == 0 {
            return Ok(0);
        }
        let key = entry_key(index);
        let value = self.keyspace.get(key).map_err(|error| self.failed(&error))?;
        let entry = value.and_then(|value| decode_entry(&key, &value));
        entry.map(|entry| entry.term).ok_or_else(|| StorageError::Damaged {
            path: self.log.clone(),
            what: format!("log entry {index} cannot be read any more"),
        })
    }

    /// Stands for a disk that fails: the entry can no longer be read.
    #[cfg(test)]
    pub(super) fn lose_entry(&self, index: Index) {
        self.keyspace.remove(entry_key(index)).expect("the test's disk works");
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> StorageError {
        StorageError::Write { path: self.log.clone(), what: error.to_string() }
    }
}

enum Trouble {
    Io(io::Error),
    Damage(String),
}

impl Trouble {
    fn at(self, log: &Path) -> StorageError {
        let path = log.to_owned();
        match self {
            Trouble::Io(source) => StorageError::Directory { path, source },
            Trouble::Damage(what) => StorageError::Damaged { path, what },
        }
    }
}

impl From<fjall::Error> for Trouble {
    fn from(error: fjall::Error) -> Trouble {
        match error {
            // These two are what a file says that has been cut or overwritten.
            fjall::Error::Io(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
                ) =>
            {
                Trouble::Io(error)
            }
            error => Trouble::Damage(error.to_string()),
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

fn open_log(path: &Path) -> Result<(Database, Keyspace), Trouble> {
    if !path.exists() {
        make_log(path)?;
    }
    open_engine(path)
}

/// A process that is killed while the engine makes its files leaves some that the engine cannot
/// open. So they are made under another name and get theirs once they are whole.
fn make_log(path: &Path) -> Result<(), Trouble> {
    let staged = path.with_extension("new");
    match fs::remove_dir_all(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Trouble::Io(error)),
        _ => {}
    }
    let (database, keyspace) = open_engine(&staged)?;
    database.persist(PersistMode::SyncAll)?;
    drop((keyspace, database));
    fs::rename(&staged, path).map_err(Trouble::Io)
}

fn open_engine(path: &Path) -> Result<(Database, Keyspace), Trouble> {
    // The log is read once, at the start, and lives in memory from then on: a large cache would
    // only make the process slower to tear down. One worker is enough for the rare flush.
    let database = Database::builder(path).cache_size(256 << 10).worker_threads(1).open()?;
    let keyspace = database
        .keyspace("raft", || KeyspaceCreateOptions::default().max_memtable_size(16 << 20))?;
    Ok((database, keyspace))
}

fn restore(keyspace: &Keyspace) -> Result<Restored, Trouble> {
    let mut restored = Restored::default();
    for item in keyspace.iter() {
        let (key, value) = item.into_inner()?;
        if *key == *HARD_STATE {
            let hard_state =
                unseal(&key, &value).and_then(|payload| postcard::from_bytes(payload).ok());
            restored.hard_state = hard_state.ok_or_else(|| {
                Trouble::Damage("the record of term and vote has a wrong checksum".to_owned())
            })?;
            continue;
        }
        let next = restored.entries.len() as Index + 1;
        let Some(entry) = decode_entry(&key, &value) else {
            return Err(Trouble::Damage(format!(
                "the record where log entry {next} should be has a wrong checksum"
            )));
        };
        if entry.index != next {
            return Err(Trouble::Damage(format!(
                "log entry {next} is missing (entry {} follows)",
                entry.index
            )));
        }
        if restored.entries.last().is_some_and(|last| last.term > entry.term) {
            return Err(Trouble::Damage(format!(
                "log entry {next} has a lower term than the one before it"
            )));
        }
        restored.entries.push(entry);
    }
    let last_term = restored.entries.last().map_or(0, |entry| entry.term);
    if last_term > restored.hard_state.term {
        return Err(Trouble::Damage(format!(
            "the log reaches term {last_term}, but the recorded term is {}",
            restored.hard_state.term
        )));
    }
    Ok(restored)
}

/// What is missing of a state that was known to be durable.
fn missing(promised: &Watermark, restored: &Restored) -> Option<String> {
    let HardState { term, voted_for } = restored.hard_state;
    if term < promised.term {
        return Some(format!("it is at term {term}, but term {} was durable", promised.term));
    }
    if let Some(vote) = promised.voted_for
        && term == promised.term
        && voted_for != Some(vote)
    {
        return Some(format!("the vote for node {vote} in term {term} is gone"));
    }
    let last = restored.entries.last().map_or(0, |entry| entry.index);
    if last < promised.last_index {
        return Some(format!(
            "the log ends with entry {last}, but entry {} was durable",
            promised.last_index
        ));
    }
    let position = usize::try_from(promised.last_index).ok()?.checked_sub(1)?;
    let found = restored.entries.get(position)?.term;
    (found != promised.last_term).then(|| {
        format!(
            "log entry {} is of term {found}, but one of term {} was durable",
            promised.last_index, promised.last_term
        )
    })
}

fn entry_key(index: Index) -> [u8; 9] {
    let mut key = [ENTRY; 9];
    // Big-endian, so that the keyspace's order is the log's.
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

fn decode_entry(key: &[u8], value: &[u8]) -> Option<Entry> {
    let index = match key {
        [ENTRY, index @ ..] => Index::from_be_bytes(index.try_into().ok()?),
        _ => return None,
    };
    let (term, command) = unseal(key, value)?.split_first_chunk::<8>()?;
    Some(Entry { index, term: Term::from_le_bytes(*term), command: command.to_vec() })
}

/// A value with a checksum that covers its key too: a record in the wrong place is as wrong as a
/// changed one.
fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(4 + payload.len());
    value.extend_from_slice(&checksum(key, payload).to_le_bytes());
    value.extend_from_slice(payload);
    value
}

fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (sum, payload) = value.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*sum) == checksum(key, payload)).then_some(payload)
}

fn checksum(key: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(payload);
    hasher.finalize()
}
