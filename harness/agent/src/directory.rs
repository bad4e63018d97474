use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use sraft_events::NodeId;

const LOCK: &str = "agent.lock";

const PROBE: &str = "probe";

/// The agent's directory, held by a lock for as long as this lives.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    made: bool,
    /// Whether another agent was killed here before, so that what it had made is left.
    inherited: bool,
    _lock: File,
}

impl Directory {
    /// Makes the directory if it is absent and locks it.
    pub(crate) fn take(path: &str) -> Result<Directory, String> {
        let path = Path::new(path);
        if !path.is_absolute() {
            return Err(format!("the agent's directory `{}` is not absolute", path.display()));
        }
        // Agents take their locks along when they end. This one's was killed.
        let inherited = path.join(LOCK).exists();
        let made = !path.exists() || inherited;
        let failed = |error: io::Error| {
            format!(
                "cannot use {} as the agent's directory: {error}; set TMPDIR to a folder that can be written",
                path.display()
            )
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        // The real path, so that a link that changes later leads nowhere.
        let path = path.canonicalize().map_err(failed)?;
        let lock = File::create(path.join(LOCK)).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            format!("another agent uses {}; end it or name another directory", path.display())
        })?;
        Ok(Directory { path, made, inherited, _lock: lock })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a node, made if it is absent, emptied if it is to be fresh.
    pub(crate) fn node(&self, node: NodeId, fresh: bool) -> Result<PathBuf, String> {
        prepare(self.node_path(node), fresh)
    }

    /// The directory of the probe, made and empty.
    pub(crate) fn probe(&self) -> Result<PathBuf, String> {
        prepare(self.path.join(PROBE), true)
    }

    /// Where that is.
    pub(crate) fn node_path(&self, node: NodeId) -> PathBuf {
        self.path.join(format!("node-{node}"))
    }

    /// Removes the directories of these nodes, that of the probe if there was one and, if this
    /// agent made it, the directory itself. Nothing else is touched, and what cannot be removed is
    /// left.
    pub(crate) fn remove(self, nodes: impl Iterator<Item = NodeId>, probed: bool) {
        let left = if self.inherited { self.left() } else { Vec::new() };
        for path in left {
            let _ = fs::remove_dir_all(path);
        }
        for node in nodes {
            let path = self.node_path(node);
            // `remove_dir_all` removes a link instead of following it.
            let _ = fs::remove_dir_all(path);
        }
        if probed {
            let _ = fs::remove_dir_all(self.path.join(PROBE));
        }
        self.unlock();
    }

    /// Directories of nodes, whoever made them.
    fn left(&self) -> Vec<PathBuf> {
        let number = |name: &str| name.strip_prefix("node-")?.parse::<NodeId>().ok();
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries
            .filter(|entry| {
                let name = entry.file_name();
                name == "probe" || name.to_str().and_then(number).is_some()
            })
            .map(|entry| entry.path())
            .collect()
    }

    /// Gives the directory up and leaves what is in it.
    pub(crate) fn unlock(self) {
        let _ = fs::remove_file(self.path.join(LOCK));
        if self.made {
            let _ = fs::remove_dir(&self.path); // only if it is empty
        }
    }
}

/// Makes a directory if it is absent, empties it if it is to be fresh.
fn prepare(path: PathBuf, fresh: bool) -> Result<PathBuf, String> {
    let failed = |error: io::Error| format!("cannot prepare {}: {error}", path.display());
    match fs::symlink_metadata(&path) {
        // Following a link would let `fresh` empty a directory outside.
        Ok(meta) if !meta.is_dir() => {
            return Err(format!(
                "{} is not a directory but a link or a file; remove it",
                path.display()
            ));
        }
        Ok(_) if fresh => fs::remove_dir_all(&path).map_err(failed)?,
        Ok(_) => return Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    fs::create_dir(&path).map_err(failed)?;
    Ok(path)
}

/// Refuses what is not the plain name of a file in the node's directory.
fn plain_name(name: &str) -> Result<&str, String> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    plain.then_some(name).ok_or_else(|| format!("`{name}` is not a plain file name"))
}

/// The same for the names of files and of the log beside them.
pub(crate) fn plain_names(files: &[(String, String)], log_file: &str) -> Result<(), String> {
    plain_name(log_file)?;
    files.iter().try_for_each(|(name, _)| plain_name(name).map(drop))
}

/// Writes files into a directory.
pub(crate) fn write_files(dir: &Path, files: &[(String, String)]) -> Result<(), String> {
    for (name, content) in files {
        let path = dir.join(name);
        fs::write(&path, content)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}
