//! Programs of the host that the agent has something done by, with root's rights if need be.

use std::{
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{read, retry_on_intr},
    process::{Pid, PidfdFlags, geteuid, pidfd_open},
};

/// Longest wait for a program: each takes some milliseconds.
pub(crate) const DONE_WITHIN: Duration = Duration::from_secs(5);

/// Longest wait for the end of one that was killed.
const KILLED_WITHIN: Duration = Duration::from_secs(1);

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
    let deadline = Instant::now() + DONE_WITHIN;
    let said = read_all(&mut child, deadline).map_err(failed)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let [stdout, stderr] = said;
    let status = ended(&mut child, left)?;
    Ok(Output { status, stdout, stderr })
}

/// What a program writes to its standard output and its standard error, until it has closed both.
fn read_all(child: &mut Child, deadline: Instant) -> io::Result<[Vec<u8>; 2]> {
    let mut pipes =
        [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
    let mut said = [Vec::new(), Vec::new()];
    let mut buffer = vec![0; 16 << 10];
    while pipes.iter().any(Option::is_some) {
        let open: Vec<usize> = (0..pipes.len()).filter(|nth| pipes[*nth].is_some()).collect();
        let mut ready: Vec<PollFd<'_>> =
            pipes.iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::IN)).collect();
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
        if retry_on_intr(|| poll(&mut ready, left.as_ref()))? == 0 {
            break; // the rest is for who waits for its end
        }
        let ready: Vec<bool> = ready.iter().map(|pipe| !pipe.revents().is_empty()).collect();
        for (nth, _) in open.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            let Some(pipe) = &pipes[nth] else { continue };
            match retry_on_intr(|| read(pipe, &mut buffer))? {
                0 => pipes[nth] = None,
                n => said[nth].extend_from_slice(&buffer[..n]),
            }
        }
    }
    Ok(said)
}

/// Waits for the end of a program, but not for ever. Returns whether it succeeded.
pub(crate) fn within(child: &mut Child, time: Duration) -> Result<bool, String> {
    ended(child, time).map(|status| status.success())
}

fn ended(child: &mut Child, time: Duration) -> Result<ExitStatus, String> {
    let failed = |error: io::Error| format!("cannot wait for a program: {error}");
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())
        .map_err(|errno| failed(errno.into()))?;
    let has_ended = |time| {
        let timeout = Timespec::try_from(time).ok();
        let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
        let ready = retry_on_intr(|| poll(&mut ended, timeout.as_ref()));
        ready.map(|ready| ready > 0).map_err(|errno| failed(errno.into()))
    };
    if has_ended(time)? {
        return child.wait().map_err(failed);
    }
    let name = || format!("a program has not ended after {} s", time.as_secs());
    match child.kill() {
        Ok(()) if has_ended(KILLED_WITHIN)? => {
            let _ = child.wait();
            Err(format!("{} and was killed", name()))
        }
        Ok(()) => Err(format!("{}, not even when it was killed", name())),
        // sudo's processes are root's.
        Err(error) => Err(format!("{} and cannot be killed: {error}", name())),
    }
}

/// Why something failed, and why it could not be undone, if so.
pub(crate) fn both(why: String, undone: Result<(), String>) -> String {
    match undone {
        Ok(()) => why,
        Err(and) => format!("{why}; {and}"),
    }
}

/// Errors of `nft` run over several lines, with the rule and carets below it.
pub(crate) fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("no reason given")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut sh = Command::new("sh");
        sh.args(["-c", script]);
        sh
    }

    #[test]
    fn a_program_may_say_more_than_a_pipe_holds() {
        let script = "head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2; cat; exit 3";
        let output = run(&mut sh(script), Some("and this")).unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (300_008, 200_000));
        assert_eq!(output.status.code(), Some(3));
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let mut child = sh("exec sleep 60").spawn().unwrap();
        let error = within(&mut child, Duration::ZERO).unwrap_err();
        assert_eq!(error, "a program has not ended after 0 s and was killed");
        assert!(child.try_wait().unwrap().is_some_and(|status| !status.success()));
    }
}
