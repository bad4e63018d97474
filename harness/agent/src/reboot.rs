//! Resetting the host: no process is told, no file is synced, as when the power fails.
//!
//! The kernel does it when a `b` is written to `/proc/sysrq-trigger` (Linux,
//! `Documentation/admin-guide/sysrq.rst`), whatever `kernel.sysrq` allows at the keyboard. Who writes
//! it is started beforehand, with root's rights, so that nothing is left to do at the stamped
//! instant but to hand over that letter.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    process::{Child, ChildStdin, Stdio},
    time::Duration,
};

use crate::{
    facts, own_executable,
    program::{one_line, privileged, refusal, run, within},
};

const TRIGGER: &str = "/proc/sysrq-trigger";

/// How long a reset may take. Beyond it, it is not going to happen.
const RESET_WITHIN: Duration = Duration::from_secs(10);

/// The number that the kernel gives to the namespace of all processes (linux/proc_ns.h,
/// PROC_PID_INIT_INO).
const ALL_PROCESSES: &str = "pid:[4026531836]";

/// Whether this host could be reset and come back with what nodes below `dir` have made durable.
///
/// # Errors
/// One sentence that names what is missing, and the remedy.
pub(crate) fn able(dir: &Path) -> Result<(), String> {
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    if namespace.is_ok_and(|found| found.as_os_str() != ALL_PROCESSES) {
        return Err(
            "this is a container, and the machine below it would be reset; give hosts that are \
             machines of their own"
                .to_owned(),
        );
    }
    facts::boot_id().map_err(|error| {
        format!("nobody could tell whether the host has booted: {error}; mount /proc")
    })?;
    let filesystem = facts::filesystem(dir);
    if filesystem.as_deref() == Some("tmpfs") {
        return Err(format!(
            "{} is in memory and would not outlive a reboot; name a folder on a disk (dir) in the \
             inventory",
            dir.display()
        ));
    }
    if !Path::new(TRIGGER).exists() {
        return Err(format!(
            "there is no {TRIGGER}: the kernel was built without CONFIG_MAGIC_SYSRQ; boot another one"
        ));
    }
    // Whether tee may be run as root; without a file it only copies nothing to nowhere.
    let mut command = privileged("tee")?;
    command.arg("--version");
    let output = run(&mut command, None)?;
    if output.status.success() { Ok(()) } else { Err(refusal("tee", &output)) }
}

/// A reset that only waits for its letter. If this is dropped, or the agent dies, nothing happens.
#[derive(Debug)]
pub(crate) struct Reset {
    tee: Child,
    /// None once it has been closed.
    letter: Option<ChildStdin>,
}

impl Reset {
    /// Makes everything ready. `spared` are the boots of machines that must not go down: this one is
    /// reset only if it is none of them.
    pub(crate) fn arm(spared: &[String], dir: &Path) -> Result<Reset, String> {
        able(dir)?;
        let own = facts::boot_id().unwrap_or_default();
        if own.is_empty() || spared.contains(&own) {
            return Err(
                "this host is on the machine that the harness or another host is on, which would \
                 go down as well; give hosts that are machines of their own"
                    .to_owned(),
            );
        }
        outlive(dir).map_err(|error| format!("cannot make the program durable: {error}"))?;
        let mut command = privileged("tee")?;
        command.arg(TRIGGER);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut tee = command.spawn().map_err(|error| format!("cannot run tee: {error}"))?;
        let letter = tee.stdin.take();
        Ok(Reset { tee, letter })
    }

    /// Resets the host. Returns only if that fails, with the reason.
    pub(crate) fn strike(mut self) -> String {
        let handed_over = match self.letter.take() {
            Some(mut letter) => letter.write_all(b"b"),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        if let Err(error) = handed_over {
            return format!("the host was not reset: tee does not listen: {error}");
        }
        match within(&mut self.tee, RESET_WITHIN) {
            Ok(true) => {
                // The kernel has taken the letter, and is about to do as it says.
                std::thread::sleep(RESET_WITHIN);
                format!("the kernel has not reset the host for {} s", RESET_WITHIN.as_secs())
            }
            Ok(false) => {
                let mut said = String::new();
                if let Some(mut errors) = self.tee.stderr.take() {
                    let _ = errors.read_to_string(&mut said);
                }
                format!("the host was not reset: {}", one_line(&said))
            }
            Err(why) => format!("the host was not reset: {why}"),
        }
    }
}

impl Drop for Reset {
    fn drop(&mut self) {
        if self.letter.take().is_some() {
            // Its input has closed, upon which tee ends, having written nothing.
            let _ = within(&mut self.tee, RESET_WITHIN);
        }
    }
}

/// Has what the next agent needs outlive the reset: this program, which may have been sent a moment
/// ago, and the lock that tells whose the folder is. What nodes write is for them to make durable.
fn outlive(dir: &Path) -> io::Result<()> {
    let program = own_executable().canonicalize()?;
    File::open(&program)?.sync_all()?;
    for folder in program.parent().into_iter().chain([dir]) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_to_be_spared_is_not_even_prepared() {
        let own = facts::boot_id().expect("/proc is mounted where tests run");
        let dir = std::env::temp_dir();
        // Whatever this machine can or cannot do: no reset is made ready.
        let refused = Reset::arm(&[own], &dir).expect_err("a machine resets itself under test");
        assert!(!refused.is_empty());
    }

    #[test]
    fn a_folder_in_memory_does_not_outlive_a_reboot() {
        let refused = able(Path::new("/dev/shm"));
        if facts::filesystem(Path::new("/dev/shm")).as_deref() != Some("tmpfs") {
            eprintln!("skipped: /dev/shm is not in memory here");
            return;
        }
        let why = refused.expect_err("what is in memory is lost");
        assert!(why.contains("in memory") || why.contains("container"), "{why}");
    }
}
