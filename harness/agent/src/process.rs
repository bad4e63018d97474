use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use sraft_events::FaultAction;

use crate::{
    protocol::Clocks,
    tail::{ErrorTail, EventLog},
    waker::Waker,
};

/// Variables that a node inherits. No others: an experiment must not depend on the shell that it
/// was started from, and nodes read some variables as options.
pub(crate) const INHERITED: &[&str] =
    &["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "RUST_BACKTRACE", "LLVM_PROFILE_FILE"];

/// A node's process, from its start until it has been reaped.
#[derive(Debug)]
pub(crate) struct Process {
    /// None if somebody else has started it: it is only looked after for a while then.
    child: Option<Child>,
    pid: u32,
    pidfd: OwnedFd,
    pub(crate) log: EventLog,
    pub(crate) errors: ErrorTail,
    /// Whether it was told to end: its end is no news then.
    pub(crate) told: bool,
    /// Whether it has been paused and not been resumed since.
    pub(crate) paused: bool,
    /// While it is paused, if it is to outlive the agent.
    pub(crate) waker: Option<Waker>,
    /// When its end was seen, and the number that its record has got.
    pub(crate) ended: Option<(Clocks, u64)>,
}

impl Process {
    /// Starts a program in a process group of its own, with its directory as the current one.
    pub(crate) fn start(
        program: &Path,
        args: &[String],
        dir: &Path,
        log: EventLog,
    ) -> io::Result<Process> {
        let mut command = Command::new(program);
        command.args(args).current_dir(dir).process_group(0).env_clear();
        command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let errors = ErrorTail::new(child.stderr.take().map(OwnedFd::from));
        // The child is not reaped yet, so the number is still its own.
        let opened = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        match (opened, errors) {
            (Ok(pidfd), Ok(errors)) => {
                let (pid, child) = (child.id(), Some(child));
                let (told, paused, waker, ended) = (false, false, None, None);
                Ok(Process { child, pid, pidfd, log, errors, told, paused, waker, ended })
            }
            (opened, errors) => {
                let error = opened.err().map(io::Error::from).or(errors.err());
                child.kill()?;
                child.wait()?;
                Err(error.unwrap_or_else(|| io::ErrorKind::Other.into()))
            }
        }
    }

    /// Looks after a process that somebody else has started, if it still is the one that started
    /// at that time.
    pub(crate) fn adopt(pid: u32, start: u64, log: EventLog) -> io::Result<Process> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty())?;
        // Looked at only now that the number cannot pass on any more.
        if start_time(pid) != Some(start) {
            return Err(gone());
        }
        let errors = ErrorTail::new(None)?;
        let (told, paused, waker, ended) = (false, false, None, None);
        Ok(Process { child: None, pid, pidfd, log, errors, told, paused, waker, ended })
    }

    /// Whether somebody else has started it.
    pub(crate) fn is_adopted(&self) -> bool {
        self.child.is_none()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Readable once the process has ended.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(crate) fn act(&self, action: FaultAction) -> io::Result<()> {
        let signal = signal(action).ok_or(io::ErrorKind::Unsupported)?;
        Ok(pidfd_send_signal(&self.pidfd, signal)?)
    }

    /// Kills the process and whatever it may have started. Stopped ones die of it too. One that
    /// somebody else has started is let live.
    pub(crate) fn kill(&mut self) {
        self.told = true;
        let Some(child) = &self.child else { return };
        // Fails only if all of them are gone already. The child is not reaped, so the group's
        // number cannot have passed to anybody else.
        let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    }

    /// Reaps the process. It has ended (its pidfd was readable), so this does not block.
    /// How one ended that somebody else has started is for that one to know.
    pub(crate) fn reap(&mut self) -> io::Result<ExitStatus> {
        match &mut self.child {
            Some(child) => child.wait(),
            None => Err(io::Error::other("has ended; how, its own log may tell")),
        }
    }
}

/// When a process started, in ticks since the machine did: process ids are used again, pairs of
/// both are not (proc(5), /proc/pid/stat, fields 3 and 22). Empty if there is no such process, or
/// if it has ended and only waits for its parent to notice.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| !ended)
}

/// The signal that does it, if one can.
fn signal(action: FaultAction) -> Option<Signal> {
    match action {
        FaultAction::Kill => Some(Signal::KILL),
        FaultAction::Stop => Some(Signal::TERM),
        FaultAction::Pause => Some(Signal::STOP),
        FaultAction::Resume => Some(Signal::CONT),
        FaultAction::Isolate
        | FaultAction::Partition
        | FaultAction::Link
        | FaultAction::Loss
        | FaultAction::Delay
        | FaultAction::SlowDisk
        | FaultAction::DiskFull
        | FaultAction::Reboot
        | FaultAction::Heal => None,
    }
}

/// How a process ended, for a human.
pub(crate) fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
