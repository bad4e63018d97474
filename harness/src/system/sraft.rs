//! This project's own node, started from the agent's own executable.

use sraft_agent::protocol::Call;
use sraft_core::{Protocol, TimingKnobs};
use sraft_events::NodeId;

use crate::plan::{Launch, every_knob};

const CONFIG: &str = "node.toml";
const EVENT_LOG: &str = "events.jsonl";

/// A cluster to be: its name and where its nodes listen, node 1 first.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    pub(crate) cluster: String,
    pub(crate) ports: Vec<u16>,
}

/// The node's configuration file.
#[derive(serde::Serialize)]
struct Config<'a> {
    cluster: &'a str,
    protocol: Protocol,
    node_id: NodeId,
    host: &'static str,
    peers: Vec<String>,
    data_dir: &'static str,
    seed: u64,
    workload_rate: u32,
    timing: TimingKnobs,
}

/// The request that starts a node, with empty directories if `fresh`. The seed is that of its
/// randomised timeouts and has to be another one at every start.
pub(crate) fn start(
    launch: &Launch,
    membership: &Membership,
    node: NodeId,
    seed: u64,
    fresh: bool,
) -> Call {
    let peers = membership.ports.iter().zip(1..);
    let config = Config {
        cluster: &membership.cluster,
        protocol: launch.protocol,
        node_id: node,
        host: "127.0.0.1",
        peers: peers.map(|(port, node)| format!("{node}=127.0.0.1:{port}")).collect(),
        data_dir: "data",
        // TOML has no number beyond this.
        seed: seed & i64::MAX as u64,
        workload_rate: launch.rate,
        timing: every_knob(&launch.timing),
    };
    let config = toml::to_string(&config).expect("plain data can be written as TOML");
    let args =
        ["node", "--config", CONFIG, "--log-file", EVENT_LOG, "--die-with-parent", "{agent_pid}"];
    Call::Start {
        node,
        program: None,
        args: args.map(str::to_owned).to_vec(),
        files: vec![(CONFIG.to_owned(), config)],
        fresh,
        log_file: EVENT_LOG.to_owned(),
    }
}
