//! What earlier runs have left on this host. Agents that end take everything along; those that were
//! killed cannot.
//!
//! An agent holds a lock in its folder for as long as it lives and takes the lock's file away when
//! it ends. So a folder whose lock's file is there and free is one of an agent that was killed;
//! whatever is in it, and whatever works in it, is nobody's any more. Folders without that file are
//! those that somebody has kept on purpose.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, flock},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use sraft_agent::needs;

use super::{Finding, Health, Questions, Verdict};

/// The agents' lock.
const LOCK: &str = "agent.lock";

/// What is no run's folder.
const OURS: [&str; 2] = ["bin", "cluster"];

/// How long a killed process may take to be gone.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn look(questions: &Questions, health: &mut Health) {
    let mut found: Vec<String> = Vec::new();
    let mut failed: Vec<String> = Vec::new();
    for folder in folders(&questions.dir) {
        match take(&folder) {
            Lock::None => {}
            Lock::Held => health.agents += 1,
            Lock::Free(lock) => {
                for process in processes(&questions.dir, &folder) {
                    found.push(format!("process {process}"));
                    if questions.clean
                        && let Err(error) = end(process, &folder)
                    {
                        failed.push(format!("cannot end process {process}: {error}"));
                    }
                }
                found.push(format!("folder {}", folder.display()));
                if questions.clean
                    && let Err(error) = remove(&folder)
                {
                    failed.push(format!("cannot remove {}: {error}", folder.display()));
                }
                drop(lock);
            }
        }
    }
    match needs::leftovers(questions.clean) {
        Ok(left) => found.extend(left),
        // Who may not look has not made any either.
        Err(why) if rustix::process::geteuid().is_root() => failed.push(why),
        Err(_) => {}
    }
    const CHECK: &str = "leftovers";
    health.findings.push(match (found.is_empty(), failed.is_empty(), questions.clean) {
        (true, true, _) => Finding::ok(CHECK, "nothing"),
        (_, false, _) => {
            Finding::bad(CHECK, Verdict::Problem, failed.join(", "), "remove it by hand")
        }
        (false, true, true) => Finding::ok(CHECK, format!("removed: {}", found.join(", "))),
        (false, true, false) => Finding::bad(
            CHECK,
            Verdict::Problem,
            found.join(", "),
            "remove it with `sraft doctor --clean`",
        ),
    });
    if health.agents > 0 {
        health.findings.push(Finding::bad(
            "agents",
            Verdict::Warning,
            format!("{} at work: an experiment is going on", health.agents),
            "wait for its end, or interrupt it where it was started",
        ));
    }
}

/// Folders that runs may have made.
fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| !OURS.iter().any(|name| entry.file_name() == *name))
        .map(|entry| entry.path())
        .collect();
    folders.sort();
    folders
}

enum Lock {
    /// There is none.
    None,
    /// An agent lives.
    Held,
    /// Its agent was killed. Held from now on, so that no other takes it.
    Free(File),
}

fn take(folder: &Path) -> Lock {
    let Ok(lock) = File::open(folder.join(LOCK)) else { return Lock::None };
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Lock::Free(lock),
        Err(_) => Lock::Held,
    }
}

/// Processes that work in a dead agent's folder and that it has started, as far as one can tell: they
/// run our program, or have lost their parent.
fn processes(dir: &Path, folder: &Path) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut all: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    all.retain(|pid| works_in(*pid, folder) && (runs_ours(*pid, dir) || is_orphan(*pid)));
    all.sort_unstable();
    all
}

fn works_in(pid: u32, folder: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
}

fn runs_ours(pid: u32, dir: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.starts_with(dir.join("bin")))
}

/// Whether its parent is the first process, which takes over those that have lost theirs.
fn is_orphan(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name in parentheses, which may hold anything: state, parent, ...
    let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
    parent == Some("1")
}

fn end(pid: u32, folder: &Path) -> io::Result<()> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let number = number.ok_or(io::ErrorKind::InvalidInput)?;
    let Ok(handle) = pidfd_open(number, PidfdFlags::empty()) else { return Ok(()) };
    // Looked at again now that the number cannot pass on.
    if !works_in(pid, folder) {
        return Ok(());
    }
    pidfd_send_signal(&handle, Signal::KILL)?;
    let mut ended = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
    let timeout = Timespec::try_from(KILLED_WITHIN).ok();
    match rustix::io::retry_on_intr(|| poll(&mut ended, timeout.as_ref()))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// Removes what agents make, and the folder if nothing else is in it.
fn remove(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let node = name.strip_prefix("node-").is_some_and(|n| n.parse::<u64>().is_ok());
        if node || name == "probe" {
            fs::remove_dir_all(entry.path())?;
        }
    }
    fs::remove_file(folder.join(LOCK))?;
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn questions(dir: &Path, clean: bool) -> Questions {
        Questions {
            dir: dir.to_owned(),
            addr: "127.0.0.1".to_owned(),
            other: None,
            clean,
            boot: None,
        }
    }

    fn looked(dir: &Path, clean: bool) -> (Finding, usize) {
        let mut health = Health::default();
        look(&questions(dir, clean), &mut health);
        (health.findings[0].clone(), health.agents)
    }

    #[test]
    fn only_what_dead_agents_have_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let make = |name: &str, lock: bool| {
            fs::create_dir_all(dir.join(name).join("node-1/data")).unwrap();
            fs::write(dir.join(name).join("mine.txt"), "x").unwrap();
            lock.then(|| File::create(dir.join(name).join(LOCK)).unwrap())
        };
        make("dead", true);
        make("kept", false);
        let alive = make("alive", true).unwrap();
        flock(&alive, FlockOperation::NonBlockingLockExclusive).unwrap();
        make("cluster", true);
        make("bin", true);

        let (before, agents) = looked(dir, false);
        assert_eq!(agents, 1);
        assert_eq!(before.verdict, Verdict::Problem);
        assert_eq!(before.found, format!("folder {}", dir.join("dead").display()));
        let (cleaned, _) = looked(dir, true);
        assert_eq!(cleaned.verdict, Verdict::Ok, "{cleaned:?}");
        assert_eq!(looked(dir, false).0.found, "nothing");
        for name in ["kept", "alive", "cluster", "bin"] {
            assert!(dir.join(name).join("node-1/data").exists(), "{name}");
        }
        assert!(!dir.join("dead/node-1").exists());
        // What no agent has made is left alone, wherever it is.
        assert!(dir.join("dead/mine.txt").exists());
    }

    #[test]
    fn a_process_that_works_in_a_dead_agents_folder_and_runs_our_program_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().canonicalize().unwrap();
        fs::create_dir_all(dir.join("dead/node-1")).unwrap();
        fs::create_dir(dir.join("bin")).unwrap();
        fs::write(dir.join("dead").join(LOCK), "").unwrap();
        fs::copy("/bin/sleep", dir.join("bin/sleep")).unwrap();
        let start = |program: &Path| {
            let mut command = std::process::Command::new(program);
            command.arg("60").current_dir(dir.join("dead/node-1")).spawn().unwrap()
        };
        let mut ours = start(&dir.join("bin/sleep"));
        let mut other = start(Path::new("/bin/sleep"));
        let (found, _) = looked(&dir, false);
        assert!(found.found.starts_with(&format!("process {}, folder", ours.id())), "{found:?}");
        let (cleaned, _) = looked(&dir, true);
        assert_eq!(cleaned.verdict, Verdict::Ok, "{cleaned:?}");
        assert!(ours.wait().unwrap().code().is_none(), "it was killed");
        assert!(other.try_wait().unwrap().is_none(), "somebody else's process was ended");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
