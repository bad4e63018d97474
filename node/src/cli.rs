//! The node's options.

use std::path::PathBuf;

use clap::Args;
use sraft_core::Preset;

/// Options of `sraft node` and of `sraft-node`.
///
/// Four environment variables stand above them: `RAFT_NODE_ID`, `RAFT_PORT`, `RAFT_PEERS` and
/// `ENABLE_SUBLEADER` (`false` or `0` is `--original-raft`). The file of `--config` stands below.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Environment: RAFT_NODE_ID, RAFT_PORT, RAFT_PEERS and ENABLE_SUBLEADER \
                        (false or 0: original Raft) override the options.")]
pub struct NodeArgs {
    /// Every node of the cluster, this one included, in the same order on every node. A node's id
    /// is its place in the list, counted from 1; or number the entries: 1=HOST:PORT,2=HOST:PORT
    #[arg(long, value_name = "HOST:PORT,...")]
    pub peers: Option<String>,
    /// This node's id; without it, the entry of --peers whose address and port are its own
    #[arg(long, value_name = "N")]
    pub node_id: Option<u64>,
    /// Address to listen on for peers [default: the host of the node's entry, if it is an address
    /// of this machine, else every address]
    #[arg(long, value_name = "ADDRESS")]
    pub host: Option<String>,
    /// Port to listen on for peers [default: that of the node's entry]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Directory for term, vote, log and snapshot [default: raft-data/node-ID]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// TOML file with these options (data_dir, log_file, ...) and a table `timing`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of the cluster; nodes of another cluster are refused [default: sraft]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Original Raft: no sub-leaders
    #[arg(long)]
    pub original_raft: bool,
    /// Timings to start from: reference, raft-paper or lan [default: reference]
    #[arg(long, value_name = "PRESET", value_parser = preset)]
    pub preset: Option<Preset>,
    /// Print what happens, one line each, to standard output
    #[arg(long)]
    pub debug: bool,
    /// Event log: one JSON object per line, appended
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// Counters as a JSON object, written anew every second and at the end
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// File for the process id; removed at a clean end
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Port to serve clients on, with the API of etcd v3 (gRPC), at the same address as peers;
    /// without it, no clients are served
    #[arg(long, value_name = "PORT")]
    pub client_port: Option<u16>,
    /// Port for /status, /metrics, /healthz and /leader over HTTP [default: the one after
    /// --client-port]
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Most connections of clients at a time, as far as the limit of open files allows; for one
    /// more, the one that has been idle for longest is closed [default: 4096]
    #[arg(long, value_name = "N")]
    pub max_clients: Option<u32>,
    /// Largest request of a client, in bytes; the same on every node [default: 1572864]
    #[arg(long, value_name = "BYTES")]
    pub max_request_bytes: Option<u32>,
    /// Bytes of log after which a snapshot replaces it [default: 67108864]
    #[arg(long, value_name = "BYTES")]
    pub snapshot_bytes: Option<u64>,
    /// Seed of the randomised timeouts [default: drawn from the operating system]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Be killed when the process with this id, which must be the parent, dies
    #[arg(long, value_name = "PID", hide = true)]
    pub die_with_parent: Option<u32>,
}

fn preset(text: &str) -> Result<Preset, String> {
    match text {
        "reference" => Ok(Preset::Reference),
        "raft-paper" => Ok(Preset::RaftPaper),
        "lan" => Ok(Preset::Lan),
        _ => Err("write reference, raft-paper or lan".to_owned()),
    }
}
