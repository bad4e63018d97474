//! What is started on the hosts: one file for each system that can be measured, and one line for it
//! in [`SYSTEMS`].

mod etcd;
mod sraft;

use std::{fmt, path::Path};

use sraft_agent::protocol::{Call, Clocks};
use sraft_core::{Protocol, Timing};
use sraft_events::{NodeId, Record};
use sraft_report::results::LogFacts;

use crate::plan::{Launch, every_knob};

/// A replicated system: how its nodes are started, what can be set, and what its logs tell. Anything
/// that a system may or may not offer is a method with a default.
///
/// What every system must offer: etcd's v3 API for clients, and a log from which records of
/// elections and of accepted leaders can be made, because the leader has to be known before the
/// fault.
pub(crate) trait System: fmt::Debug + Sync {
    /// What experiments call it.
    fn name(&self) -> &'static str;

    /// The request that starts a node.
    fn start(&self, launch: &Launch, membership: &Membership, node: NodeId, start: Start) -> Call;

    /// Makes the timing what the system can do of it, and says how many sub-leaders a leader will
    /// name; or refuses.
    fn fit(&self, timing: &mut Timing, protocol: Protocol, size: u32) -> Result<u32, Unfit>;

    /// The knobs that mean something to it; empty is all of them.
    fn knobs(&self) -> &'static [&'static str] {
        &[]
    }

    /// The only protocol it has, if an experiment has no choice.
    fn only(&self) -> Option<Protocol> {
        None
    }

    /// Whether a node dials its peers from the address that it listens on, and sends messages on
    /// connections that it has dialled. Else faults of links can neither tell nodes of one host
    /// apart, nor cut one direction only.
    fn keeps_directions_apart(&self) -> bool {
        false
    }

    /// Whether a node takes room on its disk as it writes, and ends when there is none left.
    fn notices_full_disk(&self) -> bool {
        false
    }

    /// Whether the simulator knows it.
    fn simulated(&self) -> bool {
        false
    }

    /// What `plan.json` says of a node's settings.
    fn settings(&self, launch: &Launch) -> serde_json::Value {
        serde_json::json!({
            "protocol": launch.protocol,
            "timing": every_knob(&launch.timing),
        })
    }

    /// What its nodes' logs tell.
    fn log(&self) -> LogFacts {
        LogFacts::WHOLE
    }

    /// Who makes records of the logs of a new cluster, if its nodes do not write records.
    fn reader(&self, membership: &Membership) -> Option<Box<dyn Reader>> {
        let _ = membership;
        None
    }

    /// Whether this machine has what it needs; else what is missing and how to get it.
    fn installed(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Makes records of other systems' logs.
pub(crate) trait Reader: fmt::Debug {
    /// What lines of the log of a node, now process `pid`, tell. Its host read them when its clocks
    /// showed `clocks`.
    fn read(&mut self, node: NodeId, pid: u32, clocks: Clocks, lines: &[String]) -> Vec<Record>;
}

/// Why a system cannot run with a timing.
#[derive(Debug)]
pub(crate) struct Unfit {
    /// The knob that is to blame; empty if none is.
    pub(crate) knob: &'static str,
    pub(crate) message: String,
}

/// The systems there are.
const SYSTEMS: [&dyn System; 2] = [&sraft::Sraft, &etcd::Etcd];

/// The system of this name.
pub(crate) fn named(name: &str) -> Option<&'static dyn System> {
    SYSTEMS.into_iter().find(|system| system.name() == name)
}

/// Their names.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    SYSTEMS.into_iter().map(System::name)
}

/// A cluster to be: its name and where its nodes listen, node 1 first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Membership {
    pub(crate) cluster: String,
    pub(crate) nodes: Vec<Endpoint>,
}

/// Where a node listens.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// The address at which the others reach it, and at which it listens.
    pub(crate) host: String,
    /// For its peers.
    pub(crate) peer: u16,
    /// For clients.
    pub(crate) client: u16,
    /// For who looks after it.
    pub(crate) admin: u16,
}

/// How a node is started this time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// Of whatever it draws at random; another one at every start.
    pub(crate) seed: u64,
    /// With empty directories.
    pub(crate) fresh: bool,
}

/// Whether a program of this name can be started here.
fn in_path(program: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &Path| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| runs(&folder.join(program)))
}
