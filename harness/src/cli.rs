//! The commands and their options.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use sraft_node::cli::NodeArgs;

use crate::{
    doctor::DoctorArgs,
    ec2::Ec2Command,
    host::ssh,
    inventory::{Inventory, InventoryError},
    keeper::KeeperCommand,
    load::LoadArgs,
    plan,
    standing::ClusterCommand,
    testbed::TestbedCommand,
};

/// Kills Raft leaders, again and again, and measures how long the cluster is without one.
#[derive(Debug, Parser)]
#[command(name = "sraft", version = env!("SRAFT_VERSION"), max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an experiment: figures, tables and a report come out
    Run(RunArgs),
    /// Say what an experiment would run, and how long that takes
    Plan(PlanArgs),
    /// Derive everything from the records of a run again
    Report(ReportArgs),
    /// Judge the safety of a run: leaders per term, lost writes, linearizability
    Check(CheckArgs),
    /// Judge whether histories in files are linearizable
    CheckHistory(CheckHistoryArgs),
    /// Look for broken invariants in simulated clusters under random faults
    #[command(subcommand)]
    Sim(SimCommand),
    /// Put load on any system with etcd's API: throughput and latencies
    Load(Box<LoadArgs>),
    /// Make, list and remove EC2 instances to experiment on
    #[command(subcommand)]
    Ec2(Ec2Command),
    /// Make hosts on this machine to rehearse on, with an SSH server each (root)
    #[command(subcommand)]
    Testbed(TestbedCommand),
    /// Run a cluster that stays up, on the hosts of an inventory
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Look for what could keep an experiment from working on the hosts of an inventory
    Doctor(DoctorArgs),
    /// Run one consensus node
    Node(Box<NodeArgs>),
    /// Own the nodes of one host; the harness starts it and talks to it
    #[command(hide = true)]
    Agent,
    /// Become another program, which ends with the agent that has started this one
    #[command(hide = true)]
    Exec {
        /// Process id of the agent
        #[arg(long, value_name = "PID")]
        die_with_parent: u32,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Watch a system as a client, one row per operation; an agent starts it
    #[command(hide = true)]
    Probe(ProbeArgs),
    /// Look after a node on its own host; the harness starts it
    #[command(hide = true, subcommand)]
    Keeper(KeeperCommand),
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The experiment, a TOML file; may be left out with --resume
    #[arg(value_name = "EXPERIMENT.toml", required_unless_present = "resume")]
    pub(crate) experiment: Option<PathBuf>,
    /// Trials per variant and cell, instead of the experiment's own number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) trials: Option<u32>,
    /// Seed of everything random, instead of the experiment's own
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Folder in which results/ and plots/ are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// Name of the run's folder, instead of the time at which it begins
    #[arg(long, value_name = "RUN", value_parser = run_name, conflicts_with = "resume")]
    pub(crate) name: Option<String>,
    /// Go on with a run that was interrupted: its folder, results/EXPERIMENT/RUN
    #[arg(long, value_name = "RUN", conflicts_with = "out")]
    pub(crate) resume: Option<PathBuf>,
    /// Write the summary to standard output as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep the nodes' directories and say where they are
    #[arg(long)]
    pub(crate) keep: bool,
    /// Use the nodes that `sraft cluster start` has started; they stay up, and those killed come back
    #[arg(long, requires = "inventory", conflicts_with = "keep")]
    pub(crate) attach: bool,
    /// Let an experiment with kind = "reboot" reset the hosts, whatever else they do
    #[arg(long, requires = "inventory", conflicts_with = "attach")]
    pub(crate) allow_reboot: bool,
    #[command(flatten)]
    pub(crate) hosts: HostArgs,
}

impl RunArgs {
    /// The command that goes on with this run in the same way, for a human.
    pub(crate) fn again(&self, run: &Path) -> String {
        let mut command = format!("sraft run --resume {}", run.display());
        let mut add = |flag: &str, value: Option<&Path>| {
            command.push(' ');
            command.push_str(flag);
            if let Some(value) = value {
                command.push_str(&format!(" {}", value.display()));
            }
        };
        if let Some(inventory) = &self.hosts.inventory {
            add("--inventory", Some(inventory));
        }
        if let Some(program) = &self.hosts.program {
            add("--program", Some(program));
        }
        for (given, flag) in [
            (self.attach, "--attach"),
            (self.allow_reboot, "--allow-reboot"),
            (self.keep, "--keep"),
        ] {
            if given {
                add(flag, None);
            }
        }
        command
    }
}

/// Hosts other than this machine.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct HostArgs {
    /// Run on these hosts over SSH, also if the experiment says backend = "local"
    #[arg(long, value_name = "FILE")]
    pub(crate) inventory: Option<PathBuf>,
    /// What to do with hosts that are met for the first time
    #[arg(long, value_name = "HOW", default_value = "known", requires = "inventory")]
    pub(crate) host_keys: HostKeys,
    /// The program to put on the hosts, instead of this very one
    #[arg(long, value_name = "FILE", requires = "inventory")]
    pub(crate) program: Option<PathBuf>,
}

/// Which hosts are let in.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HostKeys {
    /// Only those whose key is in known_hosts
    #[default]
    Known,
    /// Also those that are not there yet, which are then added
    AcceptNew,
}

impl HostArgs {
    /// Reads the inventory, if one is given.
    pub(crate) fn inventory(&self) -> Result<Option<Inventory>, InventoryError> {
        self.inventory.as_deref().map(Inventory::read).transpose()
    }

    pub(crate) fn options(&self) -> ssh::Options {
        ssh::Options { accept_new: self.host_keys == HostKeys::AcceptNew }
    }
}

fn run_name(name: &str) -> Result<String, String> {
    match plan::fits_file_name(name) {
        true => Ok(name.to_owned()),
        false => Err(plan::FILE_NAME_RULE.to_owned()),
    }
}

#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// The experiment, a TOML file
    #[arg(value_name = "EXPERIMENT.toml")]
    pub(crate) experiment: PathBuf,
    /// Trials per variant and cell, instead of the experiment's own number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) trials: Option<u32>,
    /// Seed of everything random, instead of the experiment's own
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Write the plan as JSON, as plan.json of a run will hold it
    #[arg(long)]
    pub(crate) json: bool,
    /// The hosts that it would run on
    #[arg(long, value_name = "FILE")]
    pub(crate) inventory: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SimCommand {
    /// Run many seeds; each is a cluster of its own with its own mix of faults, commands, reads and
    /// snapshots
    Swarm {
        /// How many seeds
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
        /// The first of them
        #[arg(long, value_name = "S", default_value_t = 0)]
        first: u64,
    },
    /// Run one seed again and show its last events
    Replay {
        /// The seed
        #[arg(long, value_name = "S")]
        seed: u64,
    },
}

#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// The run's folder, results/EXPERIMENT/RUN
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// Write the summary to standard output as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ProbeArgs {
    /// What to do, a TOML file: trial, endpoints, rate, value_size, deadline, keys, reads, cas, seed
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// File for the operations, one CSV row each; begun anew
    #[arg(long, value_name = "FILE")]
    pub(crate) ops: PathBuf,
    /// Be killed when the process with this id, which must be the parent, dies
    #[arg(long, value_name = "PID")]
    pub(crate) die_with_parent: Option<u32>,
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The run's folder, results/EXPERIMENT/RUN
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// Time for the histories of each cluster; what takes longer is undecided
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(crate) budget: humantime::Duration,
    /// Write the verdicts to standard output as JSON, as check.json will hold them
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CheckHistoryArgs {
    /// What is in the files
    #[arg(long, value_enum)]
    pub(crate) format: HistoryFormat,
    /// Time for each file; one that takes longer is undecided
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(crate) budget: humantime::Duration,
    /// Folder for drawings of what is not linearizable, FILE.svg or FILE.KEY.svg
    #[arg(long, value_name = "DIR")]
    pub(crate) svg: Option<PathBuf>,
    /// The files
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// Formats of histories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HistoryFormat {
    /// A register with read, write and cas, a line per event with tabs between its fields
    JepsenRegister,
    /// A key-value store with get, put, append and cas, an EDN map per line
    JepsenKv,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_gone_on_with_in_the_way_it_was_begun() {
        let again = |args: &str| {
            let args = ["sraft", "run", "x.toml"].into_iter().chain(args.split_whitespace());
            let Command::Run(args) = Cli::parse_from(args).command else { panic!("it is a run") };
            args.again(Path::new("results/x/1"))
        };
        assert_eq!(again(""), "sraft run --resume results/x/1");
        assert_eq!(again("--trials 3 --keep"), "sraft run --resume results/x/1 --keep");
        let hosts = "--inventory hosts.toml --program sraft-static --allow-reboot";
        assert_eq!(again(hosts), format!("sraft run --resume results/x/1 {hosts}"));
        let hosts = "--inventory hosts.toml --attach";
        assert_eq!(again(hosts), format!("sraft run --resume results/x/1 {hosts}"));
    }
}
