//! Wakes a paused process that is to outlive the agent, should the agent be killed: then nobody else
//! is left to do it.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

/// A process that waits for the agent's end. While it is there, so is the agent; it goes with this
/// value, and wakes nobody then.
#[derive(Debug)]
pub(crate) struct Waker(Child);

/// Its input is a pipe of the agent's, to which nothing is ever written.
const WAIT_AND_WAKE: &str = "read -r nothing; kill -CONT \"$1\"";

impl Waker {
    /// Waits on behalf of a process.
    pub(crate) fn of(pid: u32) -> io::Result<Waker> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WAIT_AND_WAKE, "sh", &pid.to_string()]);
        // What ends the agent's group must not end it too.
        command.process_group(0).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Waker)
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        // Fails only if somebody else has ended it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
