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
//!
//! client_port       = 2379            # no clients without it
//! admin_port        = 2380            # or the one after client_port
//! max_clients       = 4096            # connections
//! max_request_bytes = 1_572_864       # the same on every node
//! snapshot_bytes    = 67_108_864      # log that a snapshot replaces
//!
//! [timing]                            # see sraft_core::TimingKnobs
//! preset        = "lan"
//! heartbeat     = "12ms"
//! ```

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    ops::RangeInclusive,
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

/// Largest request of a client, in bytes, unless it is set; etcd's default is the same.
pub const MAX_REQUEST_BYTES: u32 = 3 << 19;

/// Log after which a snapshot replaces it, in bytes, unless it is set.
pub const SNAPSHOT_BYTES: u64 = 64 << 20;

/// What the limits may be set to: a request has to be of some use and to fit, with what the log
/// adds to it, into one frame between peers; a snapshot for every few entries would be all that a
/// node does.
const REQUEST_BYTES: RangeInclusive<u64> = 1024..=4 << 20;
const SNAPSHOTS: RangeInclusive<u64> = 64 << 10..=1 << 40;
const CLIENTS: RangeInclusive<u64> = 1..=1_000_000;

/// Most AppendEntries with entries on their way to one follower.
const MAX_INFLIGHT: usize = 16;

/// What an entry of the log may hold beyond the largest request.
pub(crate) const ENTRY_OVERHEAD: usize = 4096;

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
    client_port: Option<u16>,
    admin_port: Option<u16>,
    max_clients: Option<u32>,
    max_request_bytes: Option<u32>,
    snapshot_bytes: Option<u64>,
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
    /// The host by which others find it.
    pub host: String,
    /// The other members.
    pub peers: BTreeMap<NodeId, Address>,
    /// Directory for term, vote, log and snapshot.
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
    /// How it serves clients, if it does.
    pub clients: Option<Clients>,
    /// Largest request of a client, in bytes.
    pub max_request_bytes: usize,
    /// Bytes of log after which a snapshot replaces it.
    pub snapshot_bytes: u64,
}

/// How a node serves clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// Where it serves the client API.
    pub client: Address,
    /// Where it serves status and metrics.
    pub admin: Address,
    /// Most connections of clients at a time, if it was set.
    pub most: Option<u32>,
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
        let known_as = me.own.as_ref().map(|own| own.host.clone()).or_else(|| host.clone());
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
        let client_port = args.client_port.or(file.client_port);
        let admin_port = args.admin_port.or(file.admin_port);
        let most = args.max_clients.or(file.max_clients);
        within("--max-clients", most.map(u64::from), &CLIENTS)?;
        let clients = clients(client_port, admin_port, &host, me.port)?;
        let clients = clients.map(|(client, admin)| Clients { client, admin, most });
        let request_bytes = args.max_request_bytes.or(file.max_request_bytes);
        within("--max-request-bytes", request_bytes.map(u64::from), &REQUEST_BYTES)?;
        let max_request_bytes = request_bytes.unwrap_or(MAX_REQUEST_BYTES) as usize;
        let snapshot_bytes = args.snapshot_bytes.or(file.snapshot_bytes);
        within("--snapshot-bytes", snapshot_bytes, &SNAPSHOTS)?;
        let mut core = knobs.resolve().lower(protocol, me.id, &members)?;
        // A heartbeat waits behind what is on its way to a follower already: with the largest
        // entries that must take less than the smallest timeouts.
        core.max_inflight = core.max_inflight.min(MAX_INFLIGHT);
        // The core drops what is larger.
        core.max_append_bytes = core.max_append_bytes.max(max_request_bytes + ENTRY_OVERHEAD);
        let data_dir = args.data_dir.or(file.data_dir);
        Ok(Settings {
            core,
            cluster,
            host: known_as.unwrap_or_else(|| host.clone()),
            listen: Address { host, port: me.port },
            peers: me.others,
            data_dir: data_dir
                .unwrap_or_else(|| PathBuf::from(format!("raft-data/node-{}", me.id))),
            log_file: args.log_file.or(file.log_file),
            metrics_file: args.metrics_file.or(file.metrics_file),
            pid_file: args.pid_file.or(file.pid_file),
            debug: args.debug || file.debug.unwrap_or(false),
            seed: args.seed.or(file.seed),
            clients,
            max_request_bytes,
            snapshot_bytes: snapshot_bytes.unwrap_or(SNAPSHOT_BYTES),
        })
    }
}

/// Where clients are served, if they are: all three ports of a node are different.
fn clients(
    client: Option<u16>,
    admin: Option<u16>,
    host: &str,
    peers: u16,
) -> Result<Option<(Address, Address)>, SettingsError> {
    let wrong = |name, what| Err(SettingsError::Option { name, what });
    let client = match (client, admin) {
        (Some(client), _) => client,
        (None, Some(_)) => {
            let what = "it goes with a port for clients; give --client-port too".to_owned();
            return wrong("--admin-port", what);
        }
        (None, None) => return Ok(None),
    };
    if client == 0 {
        return wrong("--client-port", "0 is not a port; give one from 1 to 65535".to_owned());
    }
    if client == peers {
        let what = format!("{client} is the port for peers (--port); choose another");
        return wrong("--client-port", what);
    }
    let admin = match admin.or(client.checked_add(1)) {
        None | Some(0) => {
            let what = "give one from 1 to 65535".to_owned();
            return wrong("--admin-port", what);
        }
        Some(admin) => admin,
    };
    for (taken, by) in [(client, "clients (--client-port)"), (peers, "peers (--port)")] {
        if admin == taken {
            let what = format!("{admin} is the port for {by}; choose another");
            return wrong("--admin-port", what);
        }
    }
    let address = |port| Address { host: host.to_owned(), port };
    Ok(Some((address(client), address(admin))))
}

fn within(
    name: &'static str,
    value: Option<u64>,
    range: &RangeInclusive<u64>,
) -> Result<(), SettingsError> {
    match value {
        Some(value) if !range.contains(&value) => {
            let (least, most) = (range.start(), range.end());
            let what = format!("{value} is out of range; give a number from {least} to {most}");
            Err(SettingsError::Option { name, what })
        }
        _ => Ok(()),
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
