//! What looks after a node on its own host, for the commands that have to do with a cluster that
//! stays up.
//!
//! ```text
//! harness ── SSH ──> sraft keeper ask    one request on standard input, one answer on standard output
//!            SSH ──> sraft keeper log    lines of the event log, as they are written if asked for
//!                    sraft keeper node   the node itself, in a session of its own
//! ```
//!
//! It is the very program that runs there anyway, so a host needs nothing else.
//!
//! A node lives in `DIR/cluster`:
//! ```text
//! node.toml      its configuration
//! start.json     how it was started last
//! process.json   the process, written by itself; its number alone could pass to another one
//! events.jsonl   its event log
//! output.log     what else it says: why it could not start, for example
//! data/          term, vote, log and snapshot
//! ```

pub(crate) mod health;
mod log;
mod place;
mod service;
mod start;
mod status;
mod stop;

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use sraft_events::NodeId;

pub(crate) use log::LogArgs;
pub(crate) use place::{EVENT_LOG, PROCESS, Process};

/// Longest request, in bytes.
const LONGEST: u64 = 1 << 20;

#[derive(Debug, Subcommand)]
pub(crate) enum KeeperCommand {
    /// Do what standard input says, and answer
    Ask,
    /// Be the node of this folder
    Node(NodeArgs),
    /// Start the node again as it was started last
    Revive(ReviveArgs),
    /// Write out the node's event log
    Log(LogArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ReviveArgs {
    /// The host's folder
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// How long it may take, milliseconds
    #[arg(long, value_name = "MS")]
    within_ms: u64,
}

#[derive(Args, Debug)]
pub(crate) struct NodeArgs {
    /// The node's folder
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Start the node.
    Start(Start),
    /// How is it?
    Status {
        /// The host's folder.
        dir: PathBuf,
    },
    /// Stop it.
    Stop {
        /// The host's folder.
        dir: PathBuf,
        /// How long it may take to stop of itself, milliseconds; then it is killed.
        patience_ms: u64,
    },
    /// Is the host fit for nodes?
    Health(health::Questions),
}

/// How a node is to be started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The host's folder.
    pub(crate) dir: PathBuf,
    /// The node's id.
    pub(crate) node: NodeId,
    /// Its configuration file.
    pub(crate) config: String,
    /// Whether somebody starts it again when it dies.
    pub(crate) restart: Restart,
    /// Whether systemd is left alone, even if there is one.
    pub(crate) detach: bool,
    /// With nothing of what it knew.
    pub(crate) fresh: bool,
    /// How long it may take, milliseconds.
    pub(crate) within_ms: u64,
}

/// Whether a node is started again when it has died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Restart {
    /// It stays down
    #[default]
    No,
    /// By systemd, a second later
    Always,
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// To [`Request::Start`].
    Started {
        /// The process.
        pid: u32,
        /// Whether it ran already, with the same configuration.
        already: bool,
        /// The unit of systemd that it runs as, if it does.
        unit: Option<String>,
    },
    /// To [`Request::Status`].
    Status(Box<NodeState>),
    /// To [`Request::Stop`].
    Stopped {
        /// The process that was ended, if there was one.
        process: Option<Stopped>,
    },
    /// To [`Request::Health`].
    Health(Box<health::Health>),
    /// What was asked could not be done.
    Failed {
        /// One sentence that names the place and the remedy.
        error: String,
    },
}

/// How a node was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stopped {
    /// Its process.
    pub(crate) pid: u32,
    /// Whether it had to be killed.
    pub(crate) killed: bool,
    /// How long it took, milliseconds.
    pub(crate) took_ms: u64,
}

/// How a node is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct NodeState {
    /// Its process, if it runs.
    pub(crate) process: Option<Process>,
    /// The unit of systemd that it was started as, if it was.
    pub(crate) unit: Option<String>,
    /// Whether it is started again when it dies, if it was ever started.
    pub(crate) restart: Option<Restart>,
    /// Its configuration file, if it was ever started.
    pub(crate) config: Option<String>,
    /// What it says of itself.
    pub(crate) said: Option<status::Said>,
    /// Why it says nothing although it runs.
    pub(crate) silent: Option<String>,
}

/// `sraft keeper`.
pub(crate) fn run(command: &KeeperCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeeperCommand::Ask => ask()?,
        KeeperCommand::Node(args) => start::become_node(&args.dir)?,
        KeeperCommand::Revive(args) => {
            start::revive(&args.dir, args.within_ms).map_err(anyhow::Error::msg)?;
        }
        KeeperCommand::Log(args) => log::write_out(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn ask() -> anyhow::Result<()> {
    let mut text = String::new();
    io::stdin().lock().take(LONGEST).read_to_string(&mut text).context("cannot read a request")?;
    let request = serde_json::from_str(&text).context("the request makes no sense")?;
    let answer = answer(request).unwrap_or_else(|error| Answer::Failed { error });
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &answer).context("cannot answer")?;
    out.write_all(b"\n").and_then(|()| out.flush()).context("cannot answer")
}

fn answer(request: Request) -> Result<Answer, String> {
    match request {
        Request::Start(start) => start::start(&start),
        Request::Status { dir } => Ok(Answer::Status(Box::new(status::of(&dir)))),
        Request::Stop { dir, patience_ms } => {
            let patience = std::time::Duration::from_millis(patience_ms);
            stop::stop(&dir, patience).map(|process| Answer::Stopped { process })
        }
        Request::Health(questions) => Ok(Answer::Health(Box::new(health::examine(&questions)))),
    }
}
