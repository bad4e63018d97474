//! What is started on the hosts: one file for each system that can be measured.

mod sraft;

use std::fmt;

use sraft_agent::protocol::Call;
use sraft_events::NodeId;

use crate::plan::Launch;

/// A replicated system: how its nodes are started. Anything that a system may or may not offer is
/// a method with a default.
pub(crate) trait System: fmt::Debug + Sync {
    /// What experiments call it.
    fn name(&self) -> &'static str;

    /// The request that starts a node.
    fn start(&self, launch: &Launch, membership: &Membership, node: NodeId, start: Start) -> Call;
}

/// The systems there are.
const SYSTEMS: [&dyn System; 1] = [&sraft::Sraft];

/// The system of this name.
pub(crate) fn named(name: &str) -> Option<&'static dyn System> {
    SYSTEMS.into_iter().find(|system| system.name() == name)
}

/// This project's own node.
pub(crate) fn own() -> &'static dyn System {
    SYSTEMS[0]
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
