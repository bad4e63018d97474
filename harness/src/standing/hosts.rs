//! The hosts that a command is for, and asking their keepers.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;

use crate::{
    cli::HostKeys,
    host::ssh::{self, Connection, Options, Program, Target},
    inventory::{Host, Inventory},
    keeper::{Answer, Request},
};

#[derive(Args, Clone, Debug)]
pub(crate) struct HostsArgs {
    /// The hosts, a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) inventory: PathBuf,
    /// Only this node; may be given several times
    #[arg(long = "node", value_name = "N")]
    pub(crate) nodes: Vec<u64>,
    /// What to do with hosts that are met for the first time
    #[arg(long, value_name = "HOW", default_value = "known")]
    pub(crate) host_keys: HostKeys,
    /// The program to put on the hosts, instead of this very one
    #[arg(long, value_name = "FILE")]
    pub(crate) program: Option<PathBuf>,
}

impl HostsArgs {
    /// Reads the inventory and the program.
    pub(crate) fn read(&self) -> anyhow::Result<Hosts> {
        let inventory = Inventory::read(&self.inventory)?;
        for node in &self.nodes {
            ensure!(
                inventory.hosts.iter().any(|host| host.node == *node),
                "--node {node}: {} has the nodes 1 to {}",
                self.inventory.display(),
                inventory.hosts.len()
            );
        }
        let program = self.program.clone().unwrap_or_else(sraft_agent::own_executable);
        Ok(Hosts {
            program: Program::read(&program)?,
            options: Options { accept_new: self.host_keys == HostKeys::AcceptNew },
            nodes: self.nodes.clone(),
            inventory,
        })
    }
}

/// Where something is to be done.
#[derive(Debug)]
pub(crate) struct Hosts {
    pub(crate) inventory: Inventory,
    program: Program,
    options: Options,
    nodes: Vec<u64>,
}

/// What came of each host.
pub(crate) type Outcomes<T> = Vec<(Host, Result<T, String>)>;

impl Hosts {
    /// The hosts that are meant.
    pub(crate) fn meant(&self) -> Vec<&Host> {
        let meant = |host: &&Host| self.nodes.is_empty() || self.nodes.contains(&host.node);
        self.inventory.hosts.iter().filter(meant).collect()
    }

    /// Logs in at a host and puts the program there if it is not. `check` is whether the host is
    /// examined even if it is.
    pub(crate) fn reach(&self, host: &Host, check: bool) -> Result<Target, ssh::SshError> {
        Target::reach(host, &self.program, self.options, check)
    }

    /// Logs in at every host.
    pub(crate) fn reach_all(&self) -> Outcomes<Target> {
        let hosts = self.meant();
        let reached = ssh::for_all(&hosts, |host| {
            self.reach(host, false).map_err(|error| error.kind.to_string())
        });
        hosts.into_iter().cloned().zip(reached).collect()
    }

    /// Does something on every host, all at once.
    pub(crate) fn each<T: Send>(
        &self,
        check: bool,
        work: impl Fn(&At<'_>) -> Result<T, String> + Sync,
    ) -> anyhow::Result<Outcomes<T>> {
        let hosts = self.meant();
        let results = ssh::for_all(&hosts, |host| {
            let target = self.reach(host, check).map_err(|error| error.kind.to_string())?;
            work(&At { host, target: &target })
        });
        Ok(hosts.into_iter().cloned().zip(results).collect())
    }
}

/// A host that one is logged in at.
#[derive(Debug)]
pub(crate) struct At<'a> {
    pub(crate) host: &'a Host,
    pub(crate) target: &'a Target,
}

impl At<'_> {
    /// The host's folder.
    pub(crate) fn dir(&self) -> PathBuf {
        PathBuf::from(&self.target.survey.dir)
    }

    /// Asks the keeper there. `doing` says what for.
    pub(crate) fn ask(
        &self,
        doing: &str,
        request: &Request,
        within: std::time::Duration,
    ) -> Result<Answer, String> {
        ask(self.target, doing, request, within)
    }
}

/// Asks the keeper of a host. `doing` says what for.
pub(crate) fn ask(
    target: &Target,
    doing: &str,
    request: &Request,
    within: std::time::Duration,
) -> Result<Answer, String> {
    let connection: Connection = target.connect().map_err(|error| error.kind.to_string())?;
    let text = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    let script = r#"exec "$1" keeper ask"#;
    let said = connection
        .run(doing, script, &[&target.program], &mut text.as_slice(), within)
        .map_err(|error| error.kind.to_string())?;
    target.give_back(connection);
    match serde_json::from_str(&said) {
        Ok(Answer::Failed { error }) => Err(error),
        Ok(answer) => Ok(answer),
        Err(error) => Err(format!("{doing}: the host's answer makes no sense: {error}")),
    }
}
