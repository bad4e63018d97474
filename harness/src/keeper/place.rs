//! Where a node lives on its host, and which process it is.

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, flock},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sraft_agent::{boot_id, start_time};

use super::Restart;

pub(super) const CONFIG: &str = "node.toml";
pub(crate) const EVENT_LOG: &str = "events.jsonl";
pub(super) const OUTPUT: &str = "output.log";
pub(super) const DATA: &str = "data";
pub(crate) const PROCESS: &str = "process.json";
const STARTED: &str = "start.json";
const LOCK: &str = "lock";

/// A process: its number may pass to another one, all three together may not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: u32,
    /// When it started, ticks since the machine did.
    pub(crate) start: u64,
    /// The machine's life that it is of: start times are counted anew in each.
    pub(crate) boot: String,
}

impl Process {
    /// This one.
    pub(super) fn own() -> io::Result<Process> {
        let pid = std::process::id();
        let start = start_time(pid)
            .ok_or_else(|| io::Error::other("cannot read /proc/self/stat; is /proc mounted?"))?;
        Ok(Process { pid, start, boot: boot_id()? })
    }

    /// Something that is readable once it has ended, if it still lives.
    pub(super) fn handle(&self) -> Option<Handle> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Looked at only now that the number cannot pass on any more.
        let same = start_time(self.pid) == Some(self.start)
            && boot_id().is_ok_and(|boot| boot == self.boot);
        same.then_some(Handle(handle))
    }
}

/// A process that cannot be mistaken.
#[derive(Debug)]
pub(super) struct Handle(OwnedFd);

impl Handle {
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.0, signal)?)
    }

    /// Waits for its end. False if it has not ended in that time.
    pub(super) fn ends_within(&self, time: Duration) -> Result<bool, String> {
        let mut ended = [PollFd::new(&self.0, PollFlags::IN)];
        let timeout = Timespec::try_from(time).ok();
        rustix::io::retry_on_intr(|| poll(&mut ended, timeout.as_ref()))
            .map(|ready| ready > 0)
            .map_err(|error| format!("cannot wait for a process: {error}"))
    }
}

/// How a node was started last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) config: String,
    /// The program's file.
    pub(super) program: PathBuf,
    pub(super) restart: Restart,
    /// The unit of systemd, if it is one.
    pub(super) unit: Option<String>,
}

/// The node's folder.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
}

impl Place {
    /// That of the host's folder.
    pub(super) fn below(dir: &Path) -> Place {
        Place { path: dir.join("cluster") }
    }

    /// That of a node.
    pub(super) fn at(path: &Path) -> Place {
        Place { path: path.to_owned() }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the folder if it is absent, and keeps others from starting or stopping the node
    /// meanwhile.
    pub(super) fn lock(&self) -> Result<File, String> {
        let failed = |error: io::Error| format!("cannot use {}: {error}", self.path.display());
        fs::create_dir_all(&self.path).map_err(failed)?;
        let lock = File::create(self.file(LOCK)).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(lock),
            Err(_) => Err(format!(
                "somebody else is starting or stopping the node in {}; try again",
                self.path.display()
            )),
        }
    }

    /// The process, if it lives.
    pub(super) fn process(&self) -> Option<(Process, Handle)> {
        let process: Process = self.read(PROCESS)?;
        let handle = process.handle()?;
        Some((process, handle))
    }

    pub(super) fn write_process(&self, process: &Process) -> io::Result<()> {
        self.write(PROCESS, process)
    }

    pub(super) fn forget_process(&self) -> io::Result<()> {
        match fs::remove_file(self.file(PROCESS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn started(&self) -> Option<Started> {
        self.read(STARTED)
    }

    pub(super) fn write_started(&self, started: &Started) -> io::Result<()> {
        self.write(STARTED, started)
    }

    /// What cannot be read or understood is as good as absent: both files say what once was.
    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.file(name)).ok()?).ok()
    }

    /// A file is there whole or not at all.
    fn write(&self, name: &str, content: &impl Serialize) -> io::Result<()> {
        let new = self.file(&format!(".{name}.new"));
        fs::write(&new, serde_json::to_vec(content)?)?;
        fs::rename(new, self.file(name))
    }

    /// The last lines of what the node said besides its events, from `from` on, as the end of a
    /// sentence.
    pub(super) fn last_words(&self, from: u64) -> String {
        const LINES: usize = 3;
        let text = fs::read(self.file(OUTPUT)).unwrap_or_default();
        let text = String::from_utf8_lossy(text.get(from as usize..).unwrap_or_default());
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).rev().take(LINES).collect();
        match lines.is_empty() {
            true => "it said nothing".to_owned(),
            false => lines.into_iter().rev().collect::<Vec<_>>().join(" | "),
        }
    }

    /// How much the node has said so far.
    pub(super) fn words(&self) -> u64 {
        fs::metadata(self.file(OUTPUT)).map_or(0, |meta| meta.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_has_passed_to_another_process_is_no_process() {
        let own = Process::own().unwrap();
        assert!(own.handle().is_some());
        assert!(Process { start: own.start + 1, ..own.clone() }.handle().is_none());
        assert!(Process { boot: "another".to_owned(), ..own }.handle().is_none());
        assert!(Process { pid: 0, ..own }.handle().is_none());
    }

    #[test]
    fn what_is_damaged_is_as_good_as_absent() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::below(folder.path());
        let lock = place.lock().unwrap();
        assert!(place.lock().unwrap_err().contains("try again"));
        drop(lock);
        place.lock().unwrap();
        assert!(place.process().is_none());
        place.write_process(&Process::own().unwrap()).unwrap();
        assert!(place.process().is_some());
        fs::write(place.file(PROCESS), "{").unwrap();
        assert!(place.process().is_none());
        place.forget_process().unwrap();
        place.forget_process().unwrap();
        assert_eq!(place.last_words(0), "it said nothing");
        fs::write(place.file(OUTPUT), "before\nerror: no\n\n").unwrap();
        assert_eq!(place.last_words(7), "error: no");
        assert_eq!(place.last_words(700), "it said nothing");
    }
}
