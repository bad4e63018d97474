//! What a node runs with: environment over options over configuration file over defaults.
//!
//! A configuration file with everything in it; any part may be left out:
//! ```toml
//! cluster       = "sraft"
//! protocol      = "s-raft"            # or "raft"
//! peers         = ["10.0.1.10:5000", "10.0.1.11:5000", "10.0.1.12:5000"]
//! node_id       = 1                   # or found by address and port
//! host          = "10.0.1.10"
//! port          = 5000
//! data_dir      = "/var/lib/sraft"
//! log_file      = "/var/log/sraft/events.jsonl"
//! metrics_file  = "/run/sraft/metrics.json"
//! pid_file      = "/run/sraft/pid"
//! debug         = false
//! seed          = 1
//! workload_rate = 0
//!
//! [timing]                            # see sraft_core::TimingKnobs
//! preset        = "lan"
//! heartbeat     = "12ms"
//! ```

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sraft_core::{Config, ConfigError, NodeId, Protocol, TimingKnobs};

use crate::{
    cli::NodeArgs,
    peers::{self, Address, PeerList, PeersError},
};

/// Longest name of a cluster, in bytes; it travels in every handshake.
pub const MAX_CLUSTER_NAME: usize = 200;

/// Most increments per second that a node proposes itself.
pub const MAX_WORKLOAD_RATE: u32 = 100_000;

/// The configuration file. Everything may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: Option<String>,
    protocol: Option<Protocol>,
    node_id: Option<NodeId>,
    host: Option<String>,
    port: Option<u16>,
    peers: Option<Vec<String>>,
    data_dir: Option<PathBuf>,
    log_file: Option<PathBuf>,
    metrics_file: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    debug: Option<bool>,
    seed: Option<u64>,
    workload_rate: Option<u32>,
    timing: Option<TimingKnobs>,
}

/// The four environment variables of the prototype.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `RAFT_NODE_ID`.
    pub node_id: Option<String>,
    /// `RAFT_PORT`.
    pub port: Option<String>,
    /// `RAFT_PEERS`.
    pub peers: Option<String>,
    /// `ENABLE_SUBLEADER`.
    pub enable_subleader: Option<String>,
}

impl Environment {
    /// This process's.
    ///
    /// # Errors
    /// A variable is not text.
    pub fn read() -> Result<Environment, SettingsError> {
        let variable = |name: &'static str| match std::env::var(name) {
            Ok(value) => Ok(Some(value).filter(|value| !value.trim().is_empty())),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(SettingsError::Variable {
                name,
                value: "(not UTF-8)".to_owned(),
                expected: "text",
            }),
        };
        Ok(Environment {
            node_id: variable("RAFT_NODE_ID")?,
            port: variable("RAFT_PORT")?,
            peers: variable("RAFT_PEERS")?,
            enable_subleader: variable("ENABLE_SUBLEADER")?,
        })
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration file has a mistake.
    #[error("{path}:{line}: {what}")]
    Mistake {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// An environment variable has a value that it cannot have.
    #[error("environment variable {name}=`{value}`: it must be {expected}; correct or unset it")]
    Variable {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The list of peers.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// Timing and membership.
    #[error("the timing cannot work: {0}")]
    Timing(#[from] ConfigError),
    /// Another option.
    #[error("{name}: {what}")]
    Option {
        /// Its name.
        name: &'static str,
        /// What is wrong and what would be right.
        what: String,
    },
}

/// What a node runs with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the core runs with.
    pub core: Config,
    /// Name of the cluster.
    pub cluster: String,
    /// Where it listens.
    pub listen: Address,
    /// The other members.
    pub peers: BTreeMap<NodeId, Address>,
    /// Directory for term, vote and log.
    pub data_dir: PathBuf,
    /// Event log.
    pub log_file: Option<PathBuf>,
    /// Counters.
    pub metrics_file: Option<PathBuf>,
    /// File for the process id.
    pub pid_file: Option<PathBuf>,
    /// Whether to print what happens.
    pub debug: bool,
    /// Seed of the randomised timeouts.
    pub seed: Option<u64>,
    /// Increments per second that it proposes while it leads.
    pub workload_rate: u32,
}

impl Settings {
    /// Puts together what the user has said in all places.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn resolve(args: NodeArgs, env: &Environment) -> Result<Settings, SettingsError> {
        let file = args.config.as_deref().map(read_file).transpose()?.unwrap_or_default();

        let env_id = number(&env.node_id, "RAFT_NODE_ID", "a node id such as 1")?;
        let env_port = number(&env.port, "RAFT_PORT", "a port from 1 to 65535")?;
        let sub_leaders = match env.enable_subleader.as_deref().map(str::trim) {
            None => None,
            Some(text) => Some(truth(text).ok_or_else(|| SettingsError::Variable {
                name: "ENABLE_SUBLEADER",
                value: text.to_owned(),
                expected: "true or false",
            })?),
        };

        let list = match (&env.peers, &args.peers, &file.peers) {
            (Some(text), _, _) | (None, Some(text), _) => PeerList::parse(text.split(','))?,
            (None, None, Some(peers)) => PeerList::parse(peers.iter().map(String::as_str))?,
            (None, None, None) => return Err(PeersError::Missing.into()),
        };
        let port: Option<u16> = env_port.or(args.port).or(file.port);
        if port == Some(0) {
            let what = "0 is not a port; give one from 1 to 65535".to_owned();
            return Err(SettingsError::Option { name: "--port", what });
        }
        let host = args.host.or(file.host);
        // The address to listen on also says which entry is meant, if names hide it.
        let mine = |listed: &str| host.as_deref() == Some(listed) || peers::is_local(listed);
        let node_id = env_id.or(args.node_id).or(file.node_id);
        let me = list.membership(node_id, port, mine)?;
        let host = match (host, &me.own) {
            (Some(host), _) => host,
            (None, Some(own)) => listen_host(&own.host),
            (None, None) => "0.0.0.0".to_owned(),
        };

        let protocol = match sub_leaders {
            Some(true) => Protocol::SRaft,
            Some(false) => Protocol::Raft,
            None if args.original_raft => Protocol::Raft,
            None => file.protocol.unwrap_or_default(),
        };
        let preset = TimingKnobs { preset: args.preset, ..TimingKnobs::default() };
        let knobs = file.timing.unwrap_or_default().overridden_by(&preset);
        let mut members: Vec<NodeId> = me.others.keys().copied().collect();
        members.push(me.id);
        members.sort_unstable();

        let cluster = args.cluster.or(file.cluster).unwrap_or_else(|| "sraft".to_owned());
        if cluster.is_empty() || cluster.len() > MAX_CLUSTER_NAME {
            let what = format!("a name has 1 to {MAX_CLUSTER_NAME} bytes");
            return Err(SettingsError::Option { name: "--cluster", what });
        }
        let workload_rate = args.workload_rate.or(file.workload_rate).unwrap_or(0);
        if workload_rate > MAX_WORKLOAD_RATE {
            let what = format!("{workload_rate} a second are more than {MAX_WORKLOAD_RATE}");
            return Err(SettingsError::Option { name: "--workload-rate", what });
        }
        let data_dir = args.data_dir.or(file.data_dir);
        Ok(Settings {
            core: knobs.resolve().lower(protocol, me.id, &members)?,
            cluster,
            listen: Address { host, port: me.port },
            peers: me.others,
            data_dir: data_dir
                .unwrap_or_else(|| PathBuf::from(format!("raft-data/node-{}", me.id))),
            log_file: args.log_file.or(file.log_file),
            metrics_file: args.metrics_file.or(file.metrics_file),
            pid_file: args.pid_file.or(file.pid_file),
            debug: args.debug || file.debug.unwrap_or(false),
            seed: args.seed.or(file.seed),
            workload_rate,
        })
    }
}

/// Where a node listens that is listed as `host`: there, if that is an address of this machine.
/// Else everywhere, because it is a public address that a router translates, or a name, which many
/// distributions resolve to 127.0.1.1 on the machine itself.
fn listen_host(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(_) if peers::is_local(host) => host.to_owned(),
        Err(_) if host == "localhost" => host.to_owned(),
        Ok(IpAddr::V6(_)) => "::".to_owned(),
        Ok(IpAddr::V4(_)) | Err(_) => "0.0.0.0".to_owned(),
    }
}

fn read_file(path: &Path) -> Result<File, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        SettingsError::Mistake {
            path: path.to_owned(),
            line: 1 + text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count(),
            what: error.message().replace('\n', " "),
        }
    })
}

fn number<T: std::str::FromStr>(
    text: &Option<String>,
    name: &'static str,
    expected: &'static str,
) -> Result<Option<T>, SettingsError> {
    let Some(text) = text else { return Ok(None) };
    let wrong = |_| SettingsError::Variable { name, value: text.clone(), expected };
    text.trim().parse().map(Some).map_err(wrong)
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
