//! This project's own node, started from the agent's own executable.

use sraft_agent::protocol::{Call, LogFormat, OWN_DISK};
use sraft_core::{ConfigError, Protocol, Timing, TimingKnobs};
use sraft_events::NodeId;

use super::{Membership, Start, System, Unfit};
use crate::plan::{Launch, every_knob};

const CONFIG: &str = "node.toml";
const EVENT_LOG: &str = "events.jsonl";
const DATA: &str = "data";

/// The node's configuration file.
#[derive(serde::Serialize)]
struct Config<'a> {
    cluster: &'a str,
    protocol: Protocol,
    node_id: NodeId,
    host: &'a str,
    peers: Vec<String>,
    data_dir: String,
    client_port: u16,
    admin_port: u16,
    seed: u64,
    timing: TimingKnobs,
}

/// The system itself.
#[derive(Debug)]
pub(super) struct Sraft;

impl System for Sraft {
    fn name(&self) -> &'static str {
        "sraft"
    }

    fn start(&self, launch: &Launch, membership: &Membership, node: NodeId, start: Start) -> Call {
        let own = &membership.nodes[node as usize - 1];
        let peers = membership.nodes.iter().zip(1..);
        let config = Config {
            cluster: &membership.cluster,
            protocol: launch.protocol,
            node_id: node,
            host: &own.host,
            peers: peers.map(|(at, node)| format!("{node}={}:{}", at.host, at.peer)).collect(),
            // What else is written, the event log above all, stays where there is room.
            data_dir: match launch.fault.kind.fills_disk() {
                true => format!("{OWN_DISK}/{DATA}"),
                false => DATA.to_owned(),
            },
            client_port: own.client,
            admin_port: own.admin,
            // TOML has no number beyond this.
            seed: start.seed & i64::MAX as u64,
            timing: every_knob(&launch.timing),
        };
        let config = toml::to_string(&config).expect("plain data can be written as TOML");
        let args = [
            "node",
            "--config",
            CONFIG,
            "--log-file",
            EVENT_LOG,
            "--die-with-parent",
            "{agent_pid}",
        ];
        Call::Start {
            node,
            program: None,
            args: args.map(str::to_owned).to_vec(),
            files: vec![(CONFIG.to_owned(), config)],
            fresh: start.fresh,
            log_file: EVENT_LOG.to_owned(),
            log_format: LogFormat::Records,
            disk: launch.fault.disk(),
        }
    }

    fn keeps_directions_apart(&self) -> bool {
        true
    }

    fn notices_full_disk(&self) -> bool {
        true
    }

    fn simulated(&self) -> bool {
        true
    }

    fn fit(&self, timing: &mut Timing, protocol: Protocol, size: u32) -> Result<u32, Unfit> {
        let members: Vec<NodeId> = (1..=u64::from(size)).collect();
        match timing.lower(protocol, 1, &members) {
            Ok(config) => Ok(config.sub_leaders() as u32),
            Err(why) => Err(Unfit { knob: knob(&why), message: why.to_string() }),
        }
    }
}

/// The knob that an error is about.
fn knob(error: &ConfigError) -> &'static str {
    match error {
        ConfigError::TimeoutBelowHeartbeats { knob, .. } | ConfigError::OutOfRange { knob, .. } => {
            knob
        }
        ConfigError::Zero(knob) => knob,
        _ => "",
    }
}
