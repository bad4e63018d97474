//! Failure-injection benchmark for leader failover in Raft.
//!
//! ```text
//! experiment   the TOML file as its author wrote it
//! plan         checked, expanded, lowered, put in order
//! run          the life of a run: folder, agent, blocks of trials, report
//! trial        the life of one trial
//! cluster      the processes of the moment, and what is known of them
//! view         records -> who leads, who follows, who is up
//! fault        what is done to whom
//! inventory    the hosts of a cluster, as their owner wrote them down
//! standing     a cluster that stays up: sraft cluster
//! doctor       what could keep an experiment from working
//! keeper       what looks after a node on its own host, for both
//! host         how an agent is reached, here or over SSH
//! system       what agents start
//! simulate     the same plan, with a simulator in the place of agent and cluster
//! ec2          instances of Amazon's cloud to run it on
//! testbed      hosts on this machine to rehearse on
//! check        the safety verdicts of a run, and of histories of others
//! progress     what the user sees meanwhile
//! load         the load generator's options
//! ```
//!
//! Figures are none of the run side's business: it appends raw records, and `sraft-report` derives
//! everything from them.

mod check;
mod cli;
mod cluster;
mod doctor;
mod ec2;
mod experiment;
mod fault;
mod host;
mod inventory;
mod keeper;
mod load;
mod manifest;
mod plan;
mod progress;
mod run;
mod simulate;
mod standing;
mod system;
mod testbed;
mod trial;
mod view;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use sraft_client::probe::Options;
use sraft_report::results::RunDir;

use crate::{
    cli::{Cli, Command, PlanArgs, ProbeArgs, ReportArgs},
    experiment::File,
    inventory::Inventory,
    plan::{Overrides, RunPlan},
};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Plan(args) => plan(&args),
        Command::Report(args) => report(&args),
        Command::Check(args) => check::run(&args),
        Command::CheckHistory(args) => check::histories(&args),
        Command::Sim(command) => simulate::swarm(&command),
        Command::Load(args) => load::run(&args),
        Command::Ec2(command) => ec2::run(&command),
        Command::Testbed(command) => testbed::run(&command),
        Command::Cluster(command) => standing::run(&command),
        Command::Doctor(args) => doctor::run(&args),
        Command::Keeper(command) => keeper::run(&command),
        Command::Node(args) => return sraft_node::exit_code(sraft_node::run(*args)),
        Command::Exec { die_with_parent, command } => {
            sraft_agent::exec::exec(die_with_parent, &command).map_err(Into::into)
        }
        Command::Agent => sraft_agent::run().map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Command::Probe(args) => probe(args),
    };
    result.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "error: {}", sraft_node::one_line(&error));
        ExitCode::FAILURE
    })
}

fn probe(args: ProbeArgs) -> anyhow::Result<ExitCode> {
    let ProbeArgs { config, ops, die_with_parent } = args;
    sraft_client::probe::run(&Options { config, ops, die_with_parent })?;
    Ok(ExitCode::SUCCESS)
}

fn plan(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let file = File::read(&args.experiment)?;
    let overrides = Overrides { trials: args.trials, seed: args.seed };
    let inventory = args.inventory.as_deref().map(Inventory::read).transpose()?;
    let run = RunPlan::on(&file, overrides, inventory.as_ref())?;
    match args.json {
        true => say(&(serde_json::to_string_pretty(&run.plan)? + "\n"))?,
        false => say(&plan::describe(&run))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn report(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let dir = RunDir::open(&args.run)?;
    // A harness at work appends to the same files.
    let _lock = dir.lock()?;
    conclude(&dir, args.json)?;
    Ok(ExitCode::SUCCESS)
}

/// Derives everything and shows the closing table.
fn conclude(dir: &RunDir, json: bool) -> anyhow::Result<()> {
    let summary = sraft_report::report::build(dir).with_context(|| {
        format!("cannot make the report (`sraft report {}` tries again)", dir.results().display())
    })?;
    match json {
        true => say(&(serde_json::to_string_pretty(&summary)? + "\n")),
        false => say(&format!("{summary}\n")),
    }
}

/// Writes to standard output. A reader that has gone (`| head`) is no error.
fn say(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}
