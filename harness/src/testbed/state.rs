//! What has been made, so that it can be removed: written before it is made, and kept where it
//! outlives a crash and a reboot.

use std::{
    fs::{self, DirBuilder, File},
    io,
    net::Ipv4Addr,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sraft_agent::boot_id;

use super::{network::Subnet, processes::Process};

/// Where testbeds are written down (Filesystem Hierarchy Standard 3.0, 5.8: state that persists).
const HOME: &str = "/var/lib/sraft/testbed";

/// A file in the testbed's folder that holds its id: a folder without it is not removed.
pub(super) const MARKER: &str = ".sraft-testbed";

/// A testbed, as far as it has been made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) name: String,
    /// Tells it from another testbed of the same name.
    pub(super) id: String,
    /// The boot of this machine that it belongs to: only the folder outlives it.
    boot: String,
    pub(super) dir: PathBuf,
    pub(super) subnet: Subnet,
    pub(super) bridge: Device,
    pub(super) hosts: Vec<HostState>,
}

/// A network device. Names are used again, indices are not as long as a machine runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Device {
    pub(super) name: String,
    /// Empty until it has been made.
    pub(super) index: Option<u32>,
}

/// A host, as far as it has been made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct HostState {
    pub(super) node: u8,
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    pub(super) namespace: String,
    /// The namespace's inode; empty until it has been made.
    pub(super) inode: Option<u64>,
    /// The end of its link that is on the bridge.
    pub(super) link: Device,
    pub(super) server: Option<Process>,
}

impl State {
    /// What is to be made.
    pub(super) fn plan(
        name: &str,
        dir: PathBuf,
        subnet: Subnet,
        hosts: u8,
    ) -> anyhow::Result<State> {
        let device = |name: String| Device { name, index: None };
        let host = |node: u8| HostState {
            node,
            name: format!("node-{node}"),
            address: subnet.host(node),
            namespace: format!("sraft-{name}-{node}"),
            inode: None,
            link: device(format!("sr-{name}-{node}")),
            server: None,
        };
        Ok(State {
            name: name.to_owned(),
            id: fs::read_to_string("/proc/sys/kernel/random/uuid")
                .context("cannot draw an id from /proc/sys/kernel/random/uuid")?
                .trim()
                .to_owned(),
            boot: boot_id()?,
            dir,
            subnet,
            bridge: device(format!("sraft-{name}")),
            hosts: (1..=hosts).map(host).collect(),
        })
    }

    /// Where the files of a host are.
    pub(super) fn host_dir(&self, at: usize) -> PathBuf {
        self.dir.join(&self.hosts[at].name)
    }

    /// Whether the machine has not been restarted since.
    pub(super) fn is_of_this_boot(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot)
    }

    /// Removes the testbed's folder, if it is the one that was made.
    pub(super) fn remove_dir(&self) -> anyhow::Result<()> {
        let failed = || format!("cannot remove {}", self.dir.display());
        match fs::symlink_metadata(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(failed),
            Ok(meta) if !meta.is_dir() => bail!("{} is no folder any more", self.dir.display()),
            Ok(_) => {}
        }
        match fs::read_to_string(self.dir.join(MARKER)) {
            Ok(id) if id == self.id => fs::remove_dir_all(&self.dir).with_context(failed),
            // Made, and interrupted before anything was written into it; or not ours.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::remove_dir(&self.dir).with_context(|| {
                    format!(
                        "{} does not belong to the testbed any more (it has no {MARKER}); look what \
                         is in it and remove it by hand",
                        self.dir.display()
                    )
                })
            }
            Ok(_) => bail!("{} belongs to another testbed; it is left alone", self.dir.display()),
            Err(error) => Err(error).with_context(failed),
        }
    }
}

/// Where a testbed is written down, held so that nobody else changes it.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    file: PathBuf,
    /// A lock on the folder: no file is needed that somebody would have to remove.
    _lock: File,
}

impl Store {
    pub(super) fn lock(name: &str) -> anyhow::Result<Store> {
        let dir = Path::new(HOME);
        let failed = || format!("cannot use {}", dir.display());
        // Its last user removes it, perhaps between these steps.
        for _ in 0..100 {
            DirBuilder::new().recursive(true).mode(0o755).create(dir).with_context(failed)?;
            let Ok(lock) = File::open(dir) else { continue };
            flock(&lock, FlockOperation::LockExclusive).with_context(failed)?;
            let inode = |meta: io::Result<fs::Metadata>| meta.map(|meta| meta.ino()).ok();
            if inode(lock.metadata()) == inode(fs::metadata(dir)) {
                let file = dir.join(format!("{name}.json"));
                return Ok(Store { dir: dir.to_owned(), file, _lock: lock });
            }
        }
        bail!("{}: others make and remove it all the time", failed())
    }

    /// The state of a testbed that is there, without holding it.
    pub(super) fn look(name: &str) -> anyhow::Result<State> {
        read(&Path::new(HOME).join(format!("{name}.json")))?.with_context(|| {
            format!(
                "there is no testbed `{name}`; make one with `sraft testbed up 5 --name {name}`"
            )
        })
    }

    pub(super) fn default_dir(&self) -> PathBuf {
        self.file.with_extension("")
    }

    pub(super) fn read(&self) -> anyhow::Result<Option<State>> {
        read(&self.file)
    }

    /// Replaces what was written, in one step.
    pub(super) fn write(&self, state: &State) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(state).context("cannot write the testbed down")?;
        let next = self.file.with_extension("json.next");
        let written = File::create(&next).and_then(|mut file| {
            io::Write::write_all(&mut file, &text)?;
            file.sync_all()?;
            fs::rename(&next, &self.file)
        });
        written.with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// Nothing of it is left.
    pub(super) fn forget(&self) -> anyhow::Result<()> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.file.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Store {
    /// Folders go if nothing is in them: another testbed may be.
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.dir).and_then(|()| match self.dir.parent() {
            Some(parent) => fs::remove_dir(parent),
            None => Ok(()),
        });
    }
}

fn read(path: &Path) -> anyhow::Result<Option<State>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| {
            format!(
                "{} is damaged; remove what `ip netns` and `ip link` show of it by hand, then the \
                 file",
                path.display()
            )
        }),
    }
}
