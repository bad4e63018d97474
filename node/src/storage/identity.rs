use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sraft_core::NodeId;

use super::StorageError;

/// Whose state a data directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Name of the cluster.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of cluster `{}`", self.node, self.cluster)
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StorageError + '_ {
    move |source| StorageError::Directory { path: path.to_owned(), source }
}

/// Makes the directory if it is absent and locks it against other processes.
pub(super) fn lock(dir: &Path) -> Result<File, StorageError> {
    fs::create_dir_all(dir).map_err(at(dir))?;
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(at(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StorageError::Locked { path: dir.to_owned() }),
        Err(error) => Err(at(&path)(error.into())),
    }
}

/// Compares the directory's identity with `wanted`, or gives it that identity if it is new.
pub(super) fn check(dir: &Path, log: &Path, wanted: &Identity) -> Result<(), StorageError> {
    let path = dir.join("identity.toml");
    let damaged = |what: String| StorageError::Damaged { path: path.clone(), what };
    match fs::read_to_string(&path) {
        Ok(text) => {
            let found: Identity =
                toml::from_str(&text).map_err(|error| damaged(error.message().to_owned()))?;
            if found != *wanted {
                let wanted = wanted.clone();
                return Err(StorageError::OtherIdentity { path, found, wanted });
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if log.exists() {
                return Err(damaged(format!("it is absent, but {} is there", log.display())));
            }
            let text = toml::to_string(wanted).map_err(|error| damaged(error.to_string()))?;
            write_whole(dir, &path, text.as_bytes())
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(damaged("it is not text".to_owned()))
        }
        Err(error) => Err(at(&path)(error)),
    }
}

/// Writes a file so that after a crash it is there whole or not at all.
pub(super) fn write_whole(dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let staged = path.with_extension("new");
    let mut file = File::create(&staged).map_err(at(&staged))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at(&staged))?;
    fs::rename(&staged, path).map_err(at(path))?;
    sync_directory(dir)
}

/// Makes new names in a directory durable.
pub(super) fn sync_directory(dir: &Path) -> Result<(), StorageError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(at(dir))
}
