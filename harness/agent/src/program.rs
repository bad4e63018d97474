//! Programs of the host that the agent has something done by, with root's rights if need be.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, geteuid, pidfd_open},
};

/// Longest wait for a program: each takes some milliseconds.
pub(crate) const DONE_WITHIN: Duration = Duration::from_secs(5);

/// Why a program failed, and what to do if that is for want of rights.
pub(crate) fn refusal(program: &str, output: &Output) -> String {
    let said = one_line(&String::from_utf8_lossy(&output.stderr));
    if geteuid().is_root() {
        return format!("{program} failed: {said}");
    }
    format!(
        "faults of links, disks and hosts need root, or sudo without a password for {program} ({said}); start sraft \
         as root, or allow it in sudoers"
    )
}

/// A program to be run with root's rights: as it is, or by `sudo`, which must not ask anything.
pub(crate) fn privileged(program: &str) -> Result<Command, String> {
    let path = find(program).ok_or_else(|| missing(program))?;
    if geteuid().is_root() {
        return Ok(Command::new(path));
    }
    let sudo = find("sudo").ok_or_else(|| {
        "faults of links, disks and hosts need root, and there is no sudo; start sraft as root"
            .to_owned()
    })?;
    let mut command = Command::new(sudo);
    command.arg("-n").arg(path);
    Ok(command)
}

pub(crate) fn missing(program: &str) -> String {
    let package = match program {
        "nft" => "nftables",
        "mkfs.ext4" => "e2fsprogs",
        "mount" => "mount (util-linux on Fedora and Amazon Linux)",
        "unshare" => "util-linux",
        "dd" | "mkdir" | "rmdir" | "tee" => "coreutils",
        _ => "iproute2 (iproute on Fedora and Amazon Linux)",
    };
    format!(
        "{program} is not installed on this host; install the package {package}, with apt-get or \
         dnf"
    )
}

/// Where a program is. Shells of other users than root do not always look where root's tools are.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(usual)
        .map(|dir| dir.join(program))
        .find(|path: &PathBuf| Path::is_file(path))
}

/// How another program, which is to start this one for a node, has to name it. `{agent_pid}` stands for
/// the process id of the agent.
pub(crate) fn seen_by_another(program: &Path) -> String {
    // What this stands for would be that other program by then.
    match program == Path::new("/proc/self/exe") {
        true => "/proc/{agent_pid}/exe".to_owned(),
        false => program.to_string_lossy().into_owned(),
    }
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command, input: Option<&str>) -> Result<Output, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |error: io::Error| format!("cannot run {name}: {error}");
    let mut child = command.spawn().map_err(failed)?;
    if let (Some(mut stdin), Some(text)) = (child.stdin.take(), input) {
        // It may have ended without reading; then its exit code tells.
        let _ = stdin.write_all(text.as_bytes());
    }
    within(&mut child, DONE_WITHIN)?;
    // What these programs print fits into their pipes, so they could end.
    child.wait_with_output().map_err(failed)
}

/// Waits for the end of a program, but not for ever. Returns whether it succeeded.
pub(crate) fn within(child: &mut Child, time: Duration) -> Result<bool, String> {
    let failed = |error: io::Error| format!("cannot wait for a program: {error}");
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())
        .map_err(|errno| failed(errno.into()))?;
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    let timeout = Timespec::try_from(time).ok();
    let ready = rustix::io::retry_on_intr(|| poll(&mut ended, timeout.as_ref()));
    if ready.map_err(|errno| failed(errno.into()))? == 0 {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("a program has not ended after {} s and was killed", time.as_secs()));
    }
    child.wait().map(|status| status.success()).map_err(failed)
}

/// Errors of `nft` run over several lines, with the rule and carets below it.
pub(crate) fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("no reason given")
        .to_owned()
}
