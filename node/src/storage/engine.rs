//! The log in the storage engine: how it is laid out, made, opened and read back.
//!
//! | key | value |
//! |---|---|
//! | `e` + index, big-endian | term and command of a log entry |
//! | `h` | term and vote |
//! | `s` | index and term of the snapshot that the log continues |
//!
//! Each value begins with a checksum of key and value.

use std::{
    error::Error,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use sraft_core::{Entry, HardState, Index, Term};

use super::StorageError;

const ENTRY: u8 = b'e';
const HARD_STATE: &[u8] = b"h";
const BASE: &[u8] = b"s";

/// The last entry that a snapshot covers; 0 and 0 without a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) index: Index,
    pub(super) term: Term,
}

/// What the log holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) hard_state: HardState,
    pub(super) base: Base,
    /// From `base.index + 1` on, without gaps.
    pub(super) entries: Vec<Entry>,
    /// Entries up to `base.index` that are still there, and of no use.
    pub(super) waste: Vec<Range<Index>>,
}

/// The open log.
pub(super) struct Engine {
    database: Database,
    keyspace: Keyspace,
    path: PathBuf,
}

/// Changes that become visible, and after a crash are found, all together or not at all.
pub(super) struct Batch<'a> {
    engine: &'a Engine,
    batch: OwnedWriteBatch,
}

/// Why the log cannot be read.
pub(super) enum Trouble {
    Io(io::Error),
    Damage(String),
}

impl Trouble {
    pub(super) fn at(self, log: &Path) -> StorageError {
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

impl Engine {
    /// Opens the log in the directory `path`, or makes it.
    pub(super) fn open(path: &Path) -> Result<Engine, Trouble> {
        if !path.exists() {
            make(path)?;
        }
        let (database, keyspace) = open(path)?;
        Ok(Engine { database, keyspace, path: path.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all of it.
    pub(super) fn content(&self) -> Result<Content, Trouble> {
        let hard_state = self.record(HARD_STATE, "term and vote")?.unwrap_or_default();
        let (index, term) = self.record(BASE, "the snapshot's place")?.unwrap_or_default();
        let base = Base { index, term };
        let mut content = Content { hard_state, base, ..Content::default() };
        let mut last_term = base.term;
        for item in self.keyspace.prefix([ENTRY]) {
            let (key, value) = item.into_inner()?;
            let index = entry_index(&key)
                .ok_or_else(|| Trouble::Damage("it holds a record of no known kind".to_owned()))?;
            if index <= base.index {
                match content.waste.last_mut() {
                    Some(range) if range.end == index => range.end += 1,
                    _ => content.waste.push(index..index + 1),
                }
                continue;
            }
            let next = base.index + 1 + content.entries.len() as Index;
            if index != next {
                return Err(Trouble::Damage(format!(
                    "log entry {next} is missing (entry {index} follows)"
                )));
            }
            let Some(entry) = decode_entry(&key, &value) else {
                return Err(Trouble::Damage(format!(
                    "the record where log entry {next} should be has a wrong checksum"
                )));
            };
            if entry.term < last_term {
                return Err(Trouble::Damage(format!(
                    "log entry {next} has a lower term than the one before it"
                )));
            }
            last_term = entry.term;
            content.entries.push(entry);
        }
        if last_term > content.hard_state.term {
            return Err(Trouble::Damage(format!(
                "the log reaches term {last_term}, but the recorded term is {}",
                content.hard_state.term
            )));
        }
        Ok(content)
    }

    fn record<T: serde::de::DeserializeOwned>(
        &self,
        key: &[u8],
        what: &str,
    ) -> Result<Option<T>, Trouble> {
        let Some(value) = self.keyspace.get(key)? else { return Ok(None) };
        let record = unseal(key, &value).and_then(|payload| postcard::from_bytes(payload).ok());
        record
            .map(Some)
            .ok_or_else(|| Trouble::Damage(format!("the record of {what} has a wrong checksum")))
    }

    /// The term of an entry of the log.
    pub(super) fn term_at(&self, index: Index) -> Result<Term, StorageError> {
        let key = entry_key(index);
        let value = self.keyspace.get(key).map_err(|error| self.failed(&error))?;
        let entry = value.and_then(|value| decode_entry(&key, &value));
        entry.map(|entry| entry.term).ok_or_else(|| StorageError::Damaged {
            path: self.path.clone(),
            what: format!("log entry {index} cannot be read any more"),
        })
    }

    pub(super) fn batch(&self) -> Batch<'_> {
        Batch { engine: self, batch: self.database.batch() }
    }

    pub(super) fn failed(&self, error: &(dyn Error + 'static)) -> StorageError {
        // The engine speaks to debuggers; what the system said, such as that no space is left, is at
        // the bottom of it.
        let mut bottom = error;
        while let Some(source) = bottom.source() {
            bottom = source;
        }
        let said = if bottom.is::<io::Error>() { bottom } else { error };
        StorageError::Write { path: self.path.clone(), what: said.to_string() }
    }

    /// Stands for a disk that fails: the entry can no longer be read.
    #[cfg(test)]
    pub(super) fn lose_entry(&self, index: Index) {
        self.keyspace.remove(entry_key(index)).expect("the test's disk works");
    }
}

impl Batch<'_> {
    pub(super) fn hard_state(&mut self, hard_state: HardState) -> Result<(), StorageError> {
        self.record(HARD_STATE, &hard_state)
    }

    pub(super) fn base(&mut self, base: Base) -> Result<(), StorageError> {
        self.record(BASE, &(base.index, base.term))
    }

    fn record(&mut self, key: &[u8], value: &impl serde::Serialize) -> Result<(), StorageError> {
        let payload = postcard::to_stdvec(value).map_err(|error| self.engine.failed(&error))?;
        self.batch.insert(&self.engine.keyspace, key, seal(key, &[&payload]));
        Ok(())
    }

    pub(super) fn entry(&mut self, entry: &Entry) {
        let key = entry_key(entry.index);
        let value = seal(&key, &[&entry.term.to_le_bytes(), &entry.command]);
        self.batch.insert(&self.engine.keyspace, key, value);
    }

    pub(super) fn remove(&mut self, index: Index) {
        self.batch.remove(&self.engine.keyspace, entry_key(index));
    }

    /// Makes the changes, and everything before them, durable.
    pub(super) fn commit_durably(self) -> Result<(), StorageError> {
        // An empty batch is not synced, but then there is nothing to sync either: all that an
        // earlier call wrote is durable, or is not to be relied on.
        let batch = self.batch.durability(Some(PersistMode::SyncData));
        batch.commit().map_err(|error| self.engine.failed(&error))
    }

    /// Makes changes that nobody relies on.
    pub(super) fn commit(self) -> Result<(), StorageError> {
        self.batch.commit().map_err(|error| self.engine.failed(&error))
    }
}

/// A process that is killed while the engine makes its files leaves some that the engine cannot
/// open. So they are made under another name and get theirs once they are whole.
fn make(path: &Path) -> Result<(), Trouble> {
    let staged = path.with_extension("new");
    match fs::remove_dir_all(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Trouble::Io(error)),
        _ => {}
    }
    let (database, keyspace) = open(&staged)?;
    database.persist(PersistMode::SyncAll)?;
    drop((keyspace, database));
    fs::rename(&staged, path).map_err(Trouble::Io)
}

fn open(path: &Path) -> Result<(Database, Keyspace), Trouble> {
    // The log is read once, at the start, and lives in memory from then on: a large cache would
    // only make the process slower to tear down. One worker is enough for the rare flush.
    let database = Database::builder(path).cache_size(256 << 10).worker_threads(1).open()?;
    let keyspace = database
        .keyspace("raft", || KeyspaceCreateOptions::default().max_memtable_size(16 << 20))?;
    Ok((database, keyspace))
}

fn entry_key(index: Index) -> [u8; 9] {
    let mut key = [ENTRY; 9];
    // Big-endian, so that the keyspace's order is the log's.
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

fn entry_index(key: &[u8]) -> Option<Index> {
    match key {
        [ENTRY, index @ ..] => Some(Index::from_be_bytes(index.try_into().ok()?)),
        _ => None,
    }
}

fn decode_entry(key: &[u8], value: &[u8]) -> Option<Entry> {
    let index = entry_index(key)?;
    let (term, command) = unseal(key, value)?.split_first_chunk::<8>()?;
    Some(Entry { index, term: Term::from_le_bytes(*term), command: command.to_vec() })
}

/// A value with a checksum that covers its key too: a record in the wrong place is as wrong as a
/// changed one.
fn seal(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut value = Vec::with_capacity(4 + length);
    value.extend_from_slice(&[0; 4]);
    parts.iter().for_each(|part| value.extend_from_slice(part));
    let sum = checksum(key, &value[4..]);
    value[..4].copy_from_slice(&sum.to_le_bytes());
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
