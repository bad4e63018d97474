use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::mpsc::Sender,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{Agent, Input, Link, read};

/// The agent itself waits five seconds for the end of nodes that it has killed.
const CLOSED_WITHIN: Duration = Duration::from_secs(7);

/// An agent that is a child of this process.
#[derive(Debug)]
struct Local {
    process: Child,
    reader: Option<JoinHandle<()>>,
}

/// Starts an agent on this machine, as a child, from this very program. What it says arrives as
/// that of agent number `agent`.
pub(crate) fn start(agent: usize, inbox: Sender<Input>) -> io::Result<Agent> {
    let mut process = Command::new(sraft_agent::own_executable())
        .arg0("sraft")
        .arg("agent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A group of its own: Ctrl-C is for the harness, which then ends the agent in good order.
        .process_group(0)
        .spawn()?;
    let requests = process.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let said = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let reader = std::thread::Builder::new()
        .name("agent".to_owned())
        .spawn(move || read(agent, said, &inbox, || None))
        .inspect_err(|_| drop(process.kill()))?;
    Ok(Agent::new(Box::new(requests), Box::new(Local { process, reader: Some(reader) })))
}

impl Link for Local {
    fn close(&mut self) {
        let deadline = Instant::now() + CLOSED_WITHIN;
        if let Ok(ended) = pidfd_open(Pid::from_child(&self.process), PidfdFlags::empty()) {
            let mut ended = [PollFd::new(&ended, PollFlags::IN)];
            // A signal, such as the one that ends the run, must not cut the agent's clean-up short.
            while let Err(Errno::INTR) = {
                let left = deadline.saturating_duration_since(Instant::now());
                poll(&mut ended, Timespec::try_from(left).ok().as_ref())
            } {}
        }
        // An agent that hangs takes its nodes along: the kernel kills them with their parent.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
