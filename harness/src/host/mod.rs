//! How to reach agents, and what comes back.
//!
//! Everything that can happen to a run arrives in one channel: what agents say, and that somebody
//! wants it to end. So the trial reads top to bottom and never waits for two things at once.

mod local;
pub(crate) mod ssh;

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    sync::{Arc, mpsc::Sender},
};

use sraft_agent::protocol::{Call, MAX_LINE, Request, Said};

use crate::inventory;

/// Name of this machine in records.
pub(crate) const LOCAL: &str = "local";

/// A host to be: where an agent is to run and nodes are to work.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Its name in records (`agent:NAME`).
    pub(crate) name: String,
    /// How nodes and clients reach what listens there.
    pub(crate) address: String,
    /// Directory for everything that its processes write.
    pub(crate) dir: String,
    /// Where things listen there; whatever is free if it is not said.
    pub(crate) ports: Option<Ports>,
    /// How the harness reaches it.
    pub(crate) reach: Reach,
}

/// Where things listen on a host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// TCP, for the node's peers.
    pub(crate) peer: u16,
    /// TCP, for clients.
    pub(crate) client: u16,
    /// TCP, for who looks after the node.
    pub(crate) admin: u16,
    /// UDP, for other agents that compare clocks.
    pub(crate) clock: u16,
}

/// How the harness reaches a host.
#[derive(Clone, Debug)]
pub(crate) enum Reach {
    /// It is this machine.
    Local,
    /// Over SSH.
    Ssh(Arc<ssh::Target>),
}

impl Host {
    /// This machine.
    pub(crate) fn local(dir: String) -> Host {
        let (name, address) = (LOCAL.to_owned(), "127.0.0.1".to_owned());
        Host { name, address, dir, ports: None, reach: Reach::Local }
    }

    /// A host of an inventory that is ready for an agent; `folder` is made below its own.
    pub(crate) fn remote(host: &inventory::Host, target: ssh::Target, folder: &str) -> Host {
        Host {
            name: host.name.clone(),
            address: host.addr.clone(),
            dir: format!("{}/{folder}", target.survey.dir),
            ports: Some(Ports {
                peer: host.port,
                client: host.client_port,
                admin: host.admin_port(),
                clock: host.clock_port,
            }),
            reach: Reach::Ssh(Arc::new(target)),
        }
    }

    /// Its directory, for a human.
    pub(crate) fn place(&self) -> String {
        match self.reach {
            Reach::Local => self.dir.clone(),
            Reach::Ssh(_) => format!("{}:{}", self.name, self.dir),
        }
    }

    /// Whether it may be lost without this machine being so.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.reach, Reach::Ssh(_))
    }

    /// Where its agent answers when clocks are compared.
    pub(crate) fn clock_address(&self) -> Option<String> {
        let port = self.ports?.clock;
        Some(match self.address.contains(':') {
            true => format!("[{}]:{port}", self.address),
            false => format!("{}:{port}", self.address),
        })
    }

    /// Starts an agent there. What it says arrives as that of agent number `agent`.
    pub(crate) fn start_agent(&self, agent: usize, inbox: Sender<Input>) -> io::Result<Agent> {
        match &self.reach {
            Reach::Local => local::start(agent, inbox),
            Reach::Ssh(target) => target.start_agent(agent, inbox).map_err(io::Error::other),
        }
    }
}

/// What arrives in a run's channel.
#[derive(Debug)]
pub(crate) enum Input {
    /// An agent has said something.
    Said {
        /// Which.
        agent: usize,
        /// What.
        said: Said,
    },
    /// An agent is gone, or says what makes no sense.
    Lost {
        /// Which.
        agent: usize,
        /// Why, for a human.
        why: String,
    },
    /// A signal asks the run to end.
    Interrupted,
}

/// What carries a conversation with an agent.
pub(crate) trait Link: fmt::Debug + Send {
    /// Ends what is left of it. The agent's input has been closed, upon which the agent stops
    /// everything.
    fn close(&mut self);
}

/// A conversation with an agent.
pub(crate) struct Agent {
    requests: Option<Box<dyn Write + Send>>,
    link: Box<dyn Link>,
    next_id: u64,
}

impl Agent {
    pub(crate) fn new(requests: Box<dyn Write + Send>, link: Box<dyn Link>) -> Agent {
        Agent { requests: Some(requests), link, next_id: 1 }
    }

    /// Sends a request and returns the id that its answer will carry.
    pub(crate) fn send(&mut self, call: Call) -> io::Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = serde_json::to_vec(&Request { id, call })?;
        line.push(b'\n');
        let requests = self.requests.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        requests.write_all(&line)?;
        requests.flush()?;
        Ok(id)
    }

    /// Closes the agent's input, upon which it stops everything, and waits for its end.
    pub(crate) fn close(&mut self) {
        if self.requests.take().is_some() {
            self.link.close();
        }
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("link", &self.link).finish_non_exhaustive()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.close();
    }
}

/// Passes on what an agent says until it says no more. `end` may know why that is.
fn read(
    agent: usize,
    from: impl Read,
    inbox: &Sender<Input>,
    end: impl FnOnce() -> Option<String>,
) {
    let mut from = BufReader::new(from);
    let why = loop {
        let mut line = Vec::new();
        let mut bounded = from.by_ref().take(MAX_LINE as u64 + 1);
        match bounded.read_until(b'\n', &mut line) {
            Ok(0) => break end().unwrap_or_else(|| "it has ended".to_owned()),
            Ok(_) if !line.ends_with(b"\n") && line.len() > MAX_LINE => {
                break format!("it said more than {MAX_LINE} bytes in one line");
            }
            // It was ended in the middle of a word; why, tells more than the half of it.
            Ok(_) if !line.ends_with(b"\n") => {
                break end().unwrap_or_else(|| "it has ended".to_owned());
            }
            Ok(_) => match serde_json::from_slice(&line) {
                Ok(said) => {
                    if inbox.send(Input::Said { agent, said }).is_err() {
                        return; // nobody listens any more
                    }
                }
                Err(error) => break format!("it said what is not in the protocol: {error}"),
            },
            Err(error) => break error.to_string(),
        }
    };
    let _ = inbox.send(Input::Lost { agent, why });
}
