//! Processes of hosts: found by the namespace that they are in, and ended by handles that cannot
//! pass to another process.

use std::{
    fs,
    os::fd::OwnedFd,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

use super::state::HostState;

/// Longest wait for killed processes to end.
const ENDED_WITHIN: Duration = Duration::from_secs(10);

/// A process: its number may pass to another one, number and start time may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Ticks since the machine started.
    start: u64,
}

impl Process {
    pub(super) fn of(pid: u32) -> Option<Process> {
        Some(Process { pid, start: sraft_agent::start_time(pid)? })
    }

    pub(super) fn lives(&self) -> bool {
        sraft_agent::start_time(self.pid) == Some(self.start)
    }
}

/// The network namespace with this name, if it is the one that was made.
pub(super) fn namespace(host: &HostState) -> Option<PathBuf> {
    let path = PathBuf::from("/run/netns").join(&host.namespace);
    let inode = fs::metadata(&path).ok()?.ino();
    (host.inode.is_none() || host.inode == Some(inode)).then_some(path)
}

/// Every process in the host's network namespace. Nothing gets in there but what the testbed, or
/// somebody by way of it, has started.
pub(super) fn inside(host: &HostState) -> Vec<u32> {
    let Some(inode) = host.inode else { return Vec::new() };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| is_inside(*pid, inode))
        .collect()
}

fn is_inside(pid: u32, inode: u64) -> bool {
    fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| meta.ino() == inode)
}

/// Kills everything that runs on these hosts, and waits for the ends.
pub(super) fn end_all(hosts: &[HostState]) -> anyhow::Result<()> {
    let deadline = Instant::now() + ENDED_WITHIN;
    loop {
        let mut ended: Vec<OwnedFd> = Vec::new();
        for host in hosts {
            let Some(inode) = host.inode else { continue };
            // A server that has not got as far as its namespace is known by its number.
            let server = host.server.filter(Process::lives).map(|server| server.pid);
            let server = server.filter(|pid| !is_inside(*pid, inode));
            for pid in inside(host).into_iter().chain(server) {
                let Some(handle) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
                    continue;
                };
                let Ok(handle) = pidfd_open(handle, PidfdFlags::empty()) else { continue };
                // Looked at again now that the number cannot pass on.
                let ours = is_inside(pid, inode)
                    || host.server.is_some_and(|server| server.pid == pid && server.lives());
                if ours && pidfd_send_signal(&handle, Signal::KILL).is_ok() {
                    ended.push(handle);
                }
            }
        }
        // What a process started just before it was killed is found in the next round.
        if ended.is_empty() {
            return Ok(());
        }
        for handle in &ended {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).context("cannot wait for processes")?;
            let mut handle = [PollFd::new(handle, PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut handle, Some(&left)))
                .context("cannot wait for processes")?;
        }
        ensure!(
            Instant::now() < deadline,
            "processes of the testbed have not ended {} s after they were killed; look at their disk",
            ENDED_WITHIN.as_secs()
        );
    }
}
