//! `sraft cluster`: a cluster that stays up, on the hosts of an inventory.
//!
//! Everything is done on all hosts at once and may be done again: what is so already is said, not
//! done. What happens on a host is the [`keeper`](crate::keeper)'s work.

mod config;
mod hosts;
mod logs;
mod table;

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde::Serialize;
use sraft_core::{Preset, Protocol};

pub(crate) use hosts::{Hosts, HostsArgs, ask};
pub(crate) use table::Table;

use crate::{
    inventory::Host,
    keeper::{Answer, NodeState, Request, Restart, Start},
};

/// How long a node may take until it answers. One with a long log reads it first.
const STARTED_WITHIN: Duration = Duration::from_secs(30);

/// What the way there and back may add to the time that something takes on a host.
const ON_THE_WAY: Duration = Duration::from_secs(20);

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Log in everywhere, check the hosts, and put the program there
    Deploy(HostsArgs),
    /// Start the nodes; they go on when you log out
    Start(StartArgs),
    /// Say how each node is; exit code 0 if all are up
    Status(StatusArgs),
    /// Show what the nodes have recorded
    Logs(logs::LogsArgs),
    /// Stop the nodes; what they know stays on their hosts
    Stop(StopArgs),
}

#[derive(Args, Debug)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    hosts: HostsArgs,
    /// Which protocol
    #[arg(long, value_name = "PROTOCOL", default_value = "s-raft", value_parser = protocol)]
    protocol: Protocol,
    /// Timings: reference, raft-paper or lan
    #[arg(long, value_name = "PRESET", default_value = "reference", value_parser = preset)]
    preset: Preset,
    /// Name of the cluster; nodes of another cluster are refused
    #[arg(long, value_name = "NAME", default_value = "sraft")]
    name: String,
    /// Whether systemd starts a node again that has died
    #[arg(long, value_name = "WHEN", default_value = "no")]
    restart: Restart,
    /// Leave systemd alone: the node is a process of its own
    #[arg(long, conflicts_with = "restart")]
    detach: bool,
    /// Begin with nothing: remove what the nodes know, and their event logs
    #[arg(long)]
    fresh: bool,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    hosts: HostsArgs,
    /// Write it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    hosts: HostsArgs,
    /// Seconds after which a node that has not stopped is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=3600))]
    patience: u64,
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "s-raft" => Ok(Protocol::SRaft),
        "raft" => Ok(Protocol::Raft),
        _ => Err("write s-raft or raft".to_owned()),
    }
}

fn preset(text: &str) -> Result<Preset, String> {
    match text {
        "reference" => Ok(Preset::Reference),
        "raft-paper" => Ok(Preset::RaftPaper),
        "lan" => Ok(Preset::Lan),
        _ => Err("write reference, raft-paper or lan".to_owned()),
    }
}

/// `sraft cluster`.
pub(crate) fn run(command: &ClusterCommand) -> anyhow::Result<ExitCode> {
    match command {
        ClusterCommand::Deploy(args) => deploy(args),
        ClusterCommand::Start(args) => start(args),
        ClusterCommand::Status(args) => status(args),
        ClusterCommand::Logs(args) => logs::run(args),
        ClusterCommand::Stop(args) => stop(args),
    }
}

fn deploy(args: &HostsArgs) -> anyhow::Result<ExitCode> {
    let hosts = args.read()?;
    let outcomes = hosts.each(true, |at| {
        Ok(match at.target.sent {
            true => format!("the program was sent ({})", at.target.survey.arch),
            false => format!("the program was there ({})", at.target.survey.arch),
        })
    })?;
    conclude(outcomes)
}

fn start(args: &StartArgs) -> anyhow::Result<ExitCode> {
    let hosts = args.hosts.read()?;
    let config = config::Cluster {
        name: &args.name,
        protocol: args.protocol,
        preset: args.preset,
        hosts: &hosts.inventory.hosts,
    };
    let outcomes = hosts.each(true, |at| {
        let start = Start {
            dir: at.dir(),
            node: at.host.node,
            config: config.of(at.host),
            restart: args.restart,
            detach: args.detach,
            fresh: args.fresh,
            within_ms: STARTED_WITHIN.as_millis() as u64,
        };
        match at.ask("starting the node", &Request::Start(start), STARTED_WITHIN + ON_THE_WAY)? {
            Answer::Started { pid, already, unit } => {
                let what = if already { "runs already" } else { "started" };
                let unit = unit.map(|unit| format!(", {unit}")).unwrap_or_default();
                Ok(format!("{what}: process {pid}{unit}"))
            }
            other => Err(unexpected(&other)),
        }
    })?;
    conclude(outcomes)
}

fn stop(args: &StopArgs) -> anyhow::Result<ExitCode> {
    let patience = Duration::from_secs(args.patience);
    let outcomes = args.hosts.read()?.each(false, |at| {
        let stop = Request::Stop { dir: at.dir(), patience_ms: patience.as_millis() as u64 };
        match at.ask("stopping the node", &stop, patience + ON_THE_WAY)? {
            Answer::Stopped { process: None } => Ok("was not running".to_owned()),
            Answer::Stopped { process: Some(stopped) } => Ok(match stopped.killed {
                true => format!(
                    "killed: process {} had not stopped within {} s",
                    stopped.pid, args.patience
                ),
                false => format!("stopped: process {} in {} ms", stopped.pid, stopped.took_ms),
            }),
            other => Err(unexpected(&other)),
        }
    })?;
    conclude(outcomes)
}

/// How a node is, for programs.
#[derive(Serialize)]
struct NodeReport<'a> {
    node: u64,
    host: &'a str,
    up: bool,
    #[serde(flatten)]
    state: Option<&'a NodeState>,
    /// Why the host cannot be asked.
    error: Option<&'a str>,
}

fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let outcomes = args.hosts.read()?.each(false, |at| {
        let request = Request::Status { dir: at.dir() };
        match at.ask("asking for the node's status", &request, ON_THE_WAY)? {
            Answer::Status(state) => Ok(*state),
            other => Err(unexpected(&other)),
        }
    })?;
    let up = |state: &Result<NodeState, String>| {
        state.as_ref().is_ok_and(|state| state.process.is_some() && state.said.is_some())
    };
    if args.json {
        let reports: Vec<NodeReport<'_>> = outcomes
            .iter()
            .map(|(host, state)| NodeReport {
                node: host.node,
                host: &host.name,
                up: up(state),
                state: state.as_ref().ok(),
                error: state.as_ref().err().map(String::as_str),
            })
            .collect();
        crate::say(&(serde_json::to_string_pretty(&reports)? + "\n"))?;
    } else {
        let mut table = Table::new(&[
            "node", "host", "state", "pid", "role", "rank", "term", "commit", "leader", "sees",
            "uptime",
        ]);
        for (host, state) in &outcomes {
            table.row(row(host, state));
        }
        crate::say(&table.to_string())?;
    }
    Ok(match outcomes.iter().all(|(_, state)| up(state)) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn row(host: &Host, state: &Result<NodeState, String>) -> Vec<String> {
    let mut row = vec![host.node.to_string(), host.name.clone()];
    let state = match state {
        Ok(state) => state,
        Err(why) => {
            row.push(why.clone());
            return row;
        }
    };
    let Some(process) = &state.process else {
        row.push(if state.restart.is_some() { "down" } else { "never started" }.to_owned());
        return row;
    };
    let Some(said) = &state.said else {
        let why = state.silent.as_deref().unwrap_or("it does not answer");
        row.extend([format!("up, but {why}"), process.pid.to_string()]);
        return row;
    };
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let seen: Vec<String> =
        said.peers.iter().filter(|peer| peer.connected).map(|peer| peer.id.to_string()).collect();
    row.extend([
        if said.stopping { "stopping" } else { "up" }.to_owned(),
        process.pid.to_string(),
        said.role.clone(),
        number(said.rank.map(u64::from)),
        said.term.to_string(),
        said.commit_index.to_string(),
        number(said.leader),
        if seen.is_empty() { "nobody".to_owned() } else { seen.join(",") },
        humantime::format_duration(Duration::from_secs(said.uptime_seconds as u64)).to_string(),
    ]);
    row
}

fn unexpected(answer: &Answer) -> String {
    match answer {
        Answer::Failed { error } => error.clone(),
        other => format!("the host answered something else: {other:?}"),
    }
}

/// What came of each host, as a table; exit code 0 if all is well.
fn conclude(outcomes: Vec<(Host, Result<String, String>)>) -> anyhow::Result<ExitCode> {
    let mut table = Table::new(&["node", "host", "outcome"]);
    let mut failed = 0;
    for (host, outcome) in &outcomes {
        let outcome = match outcome {
            Ok(done) => done.clone(),
            Err(why) => {
                failed += 1;
                format!("FAILED: {why}")
            }
        };
        table.row(vec![host.node.to_string(), host.name.clone(), outcome]);
    }
    crate::say(&table.to_string())?;
    match failed {
        0 => Ok(ExitCode::SUCCESS),
        n => Err(anyhow::anyhow!("{n} of {} hosts failed", outcomes.len())),
    }
}
