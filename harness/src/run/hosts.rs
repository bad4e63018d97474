//! The hosts of a run that are others than this machine.

use anyhow::bail;
use sraft_report::results::{Manifest, RunDir};

use crate::{
    cli::RunArgs,
    host::{Host, ssh},
    inventory::{self, Inventory},
};

/// Logs in at every host, checks it, and puts the program there, before anything is begun. What is
/// wrong with any of them is said for all of them.
pub(super) fn reach(inventory: Inventory, args: &RunArgs) -> anyhow::Result<Vec<Reached>> {
    let options = args.hosts.options();
    let program = args.hosts.program.clone().unwrap_or_else(sraft_agent::own_executable);
    let program = ssh::Program::read(&program)?;
    let targets =
        ssh::for_all(&inventory.hosts, |host| ssh::Target::prepare(host, &program, options));
    let mut reached = Vec::new();
    let mut refusals = Vec::new();
    for (host, target) in inventory.hosts.into_iter().zip(targets) {
        match target {
            Ok(target) => reached.push((host, target)),
            Err(error) => refusals.push(error.to_string()),
        }
    }
    match refusals.len() {
        0 => Ok(reached),
        1 => bail!("host {}", refusals[0]),
        n => bail!("{n} hosts cannot be used:\n  {}", refusals.join("\n  ")),
    }
}

/// A host that is ready for an agent.
pub(super) type Reached = (inventory::Host, ssh::Target);

/// Figures of other hosts are no part of a run.
pub(super) fn same_hosts(manifest: &Manifest, hosts: &[Host], dir: &RunDir) -> anyhow::Result<()> {
    let before: Vec<&str> = manifest.hosts.iter().map(|host| host.name.as_str()).collect();
    let now: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
    if before != now {
        bail!(
            "{} was begun on {}, but would go on on {}; give the same --inventory as then",
            dir.results().display(),
            before.join(", "),
            now.join(", ")
        );
    }
    Ok(())
}
