//! How to reach an agent, and what comes back.
//!
//! Everything that can happen to a run arrives in one channel: what agents say, and that somebody
//! wants it to end. So the trial reads top to bottom and never waits for two things at once.

mod local;

pub(crate) use local::start as start_local;

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin},
    sync::mpsc::Sender,
    thread::JoinHandle,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use sraft_agent::protocol::{Call, MAX_LINE, Request, Said};

/// What arrives in a run's channel.
#[derive(Debug)]
pub(crate) enum Input {
    /// The agent has said something.
    Said(Said),
    /// The agent is gone, or says what makes no sense.
    Lost(String),
    /// A signal asks the run to end.
    Interrupted,
}

/// A connection to an agent, and the process behind it.
#[derive(Debug)]
pub(crate) struct Agent {
    requests: Option<ChildStdin>,
    process: Child,
    reader: Option<JoinHandle<()>>,
    next_id: u64,
}

impl Agent {
    /// Sends a request and returns the id that its answer will carry.
    pub(crate) fn send(&mut self, call: Call) -> io::Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = serde_json::to_vec(&Request { id, call })?;
        line.push(b'\n');
        let requests = self.requests.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        requests.write_all(&line)?;
        Ok(id)
    }

    /// Closes the agent's input, upon which it stops everything, and waits for its end.
    pub(crate) fn close(&mut self) {
        self.requests = None;
        let ended = pidfd_open(Pid::from_child(&self.process), PidfdFlags::empty());
        if let Ok(ended) = ended {
            let mut ended = [PollFd::new(&ended, PollFlags::IN)];
            let _ = poll(&mut ended, Timespec::try_from(CLOSED_WITHIN).ok().as_ref());
        }
        // An agent that hangs takes its nodes along: the kernel kills them with their parent.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.close();
    }
}

/// The agent itself waits five seconds for the end of nodes that it has killed.
const CLOSED_WITHIN: Duration = Duration::from_secs(7);

/// Passes on what an agent says until it says no more.
fn read(from: impl Read, inbox: &Sender<Input>) {
    let mut from = BufReader::new(from);
    let lost = loop {
        let mut line = Vec::new();
        let mut bounded = from.by_ref().take(MAX_LINE as u64 + 1);
        match bounded.read_until(b'\n', &mut line) {
            Ok(0) => break "it has ended".to_owned(),
            Ok(_) if !line.ends_with(b"\n") && line.len() > MAX_LINE => {
                break format!("it said more than {MAX_LINE} bytes in one line");
            }
            Ok(_) => match serde_json::from_slice(&line) {
                Ok(said) => {
                    if inbox.send(Input::Said(said)).is_err() {
                        return; // nobody listens any more
                    }
                }
                Err(error) => break format!("it said what is not in the protocol: {error}"),
            },
            Err(error) => break error.to_string(),
        }
    };
    let _ = inbox.send(Input::Lost(lost));
}
