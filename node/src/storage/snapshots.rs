//! The files that hold snapshots.
//!
//! `snapshot-INDEX`, by the index of the last entry that it covers: a header of magic number,
//! index, term and length with a checksum, the state machine's bytes, and a checksum of all of it.
//! A file is written as `snapshot-INDEX.new` and renamed once it is durable.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use sraft_core::{Index, Snapshot};

use super::{StorageError, engine::Base, identity};

const MAGIC: &[u8; 8] = b"SRAFTSN1";
const HEADER: usize = 8 + 3 * 8 + 4;
const PREFIX: &str = "snapshot-";

/// Bytes written between two syncs. Small ones keep the queue of the disk short, in which the
/// log's own syncs wait.
const PIECE: usize = 1 << 20;

/// Where the snapshot that ends with this entry is kept.
pub(super) fn path(dir: &Path, index: Index) -> PathBuf {
    dir.join(format!("{PREFIX}{index:020}"))
}

/// Makes a snapshot durable under its name. Returns whether it did: it stops in the middle once
/// `abandoned` is set.
///
/// # Errors
/// The disk is full or fails. What has been written so far is removed, if that is possible.
pub(super) fn write(
    dir: &Path,
    snapshot: &Snapshot,
    abandoned: &AtomicBool,
) -> Result<bool, StorageError> {
    let path = path(dir, snapshot.last_index);
    let staged = path.with_extension("new");
    let written = write_staged(&staged, snapshot, abandoned).and_then(|whole| {
        if whole {
            fs::rename(&staged, &path)?;
        } else {
            fs::remove_file(&staged)?;
        }
        Ok(whole)
    });
    match written {
        Ok(true) => identity::sync_directory(dir).map(|()| true),
        Ok(false) => Ok(false),
        Err(error) => {
            // On a full disk half of a snapshot is what the next start needs least.
            let _ = fs::remove_file(&staged);
            Err(StorageError::Write { path: staged, what: error.to_string() })
        }
    }
}

fn write_staged(path: &Path, snapshot: &Snapshot, abandoned: &AtomicBool) -> io::Result<bool> {
    let header = header(snapshot);
    let mut sum = crc32fast::Hasher::new();
    sum.update(&header);
    let mut file = File::create(path)?;
    file.write_all(&header)?;
    for piece in snapshot.data.chunks(PIECE) {
        if abandoned.load(Ordering::Relaxed) {
            return Ok(false);
        }
        sum.update(piece);
        file.write_all(piece)?;
        file.sync_data()?;
    }
    file.write_all(&sum.finalize().to_le_bytes())?;
    file.sync_all()?;
    Ok(true)
}

fn header(snapshot: &Snapshot) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    let fields = [snapshot.last_index, snapshot.last_term, snapshot.data.len() as u64];
    for (slot, field) in bytes[8..32].chunks_exact_mut(8).zip(fields) {
        slot.copy_from_slice(&field.to_le_bytes());
    }
    let sum = crc32fast::hash(&bytes[..32]);
    bytes[32..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Reads the snapshot that the log continues.
///
/// # Errors
/// It is not there, or it is not what was written.
pub(super) fn read(dir: &Path, base: Base) -> Result<Snapshot, StorageError> {
    let path = path(dir, base.index);
    let damaged = |what: &str| StorageError::Damaged { path: path.clone(), what: what.to_owned() };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged("the snapshot that the log continues is not there"));
        }
        Err(source) => return Err(StorageError::Directory { path: path.clone(), source }),
    };
    let short = || damaged("it is cut off");
    let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or_else(short)?;
    if &header[..8] != MAGIC || header[32..] != crc32fast::hash(&header[..32]).to_le_bytes() {
        return Err(damaged("its header has a wrong checksum"));
    }
    let field = |n: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&header[8 + 8 * n..16 + 8 * n]);
        u64::from_le_bytes(word)
    };
    if (field(0), field(1)) != (base.index, base.term) {
        return Err(damaged("it is a snapshot of another place in the log"));
    }
    let (data, sum) = rest.split_last_chunk::<4>().ok_or_else(short)?;
    if data.len() as u64 != field(2) {
        return Err(damaged("it is not as long as its header says"));
    }
    if *sum != crc32fast::hash(&bytes[..bytes.len() - 4]).to_le_bytes() {
        return Err(damaged("its checksum is wrong"));
    }
    Ok(Snapshot { last_index: base.index, last_term: base.term, data: data.into() })
}

/// Removes every snapshot file, whole or not, but that of `keep`.
///
/// # Errors
/// The directory cannot be read, or a file not removed.
pub(super) fn remove_others(dir: &Path, keep: Index) -> Result<(), StorageError> {
    remove(dir, |index, whole| index != keep || !whole)
}

/// Removes the snapshots of entries before `index`. One that is being written may be among them
/// and is left alone.
///
/// # Errors
/// The directory cannot be read, or a file not removed.
pub(super) fn remove_older(dir: &Path, index: Index) -> Result<(), StorageError> {
    remove(dir, |other, whole| other < index && whole)
}

fn remove(dir: &Path, unwanted: impl Fn(Index, bool) -> bool) -> Result<(), StorageError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| StorageError::Directory { path, source }
    };
    for file in fs::read_dir(dir).map_err(at(dir))? {
        let path = file.map_err(at(dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(name) = name.strip_prefix(PREFIX) else { continue };
        let staged = name.strip_suffix(".new");
        let Ok(index) = staged.unwrap_or(name).parse::<Index>() else { continue };
        if unwanted(index, staged.is_none()) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(at(&path)(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
