//! Faults of links and disks, dealt out to the agents.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use sraft_agent::protocol::{Call, Effect, Flow, Hook, Needs};
use sraft_events::NodeId;

use super::{Cluster, Halt};
use crate::fault::{Links, Strike};

impl Cluster {
    /// Whether every host can do what the run's faults need of it.
    pub(crate) fn check_faults(&mut self, needs: Needs) -> Result<(), Halt> {
        if needs == Needs::default() {
            return Ok(());
        }
        if needs.reboot {
            self.check_machines()?;
        }
        let agents = 0..self.agents.len();
        self.ask_all(agents.map(|agent| (agent, Call::CheckFaults { needs })).collect()).map(drop)
    }

    /// Has the agents make everything ready for a fault of links, which they forget after `lease`.
    pub(crate) fn arm(
        &mut self,
        strike: &Strike,
        links: &Links,
        lease: Duration,
    ) -> Result<(), Halt> {
        let calls = self.flows(strike, links).map_err(Halt::Stuck)?;
        let calls = calls.into_iter().map(|(agent, flows)| {
            let (effect, lease_ms) = (links.effect, lease.as_millis() as u64);
            (agent, Call::Arm { flows, effect, lease_ms })
        });
        self.ask_all(calls.collect()).map(drop)
    }

    /// Puts in force what was armed.
    pub(crate) fn strike(&mut self, strike: &Strike, links: &Links) -> Result<(), Halt> {
        let calls = self.flows(strike, links).map_err(Halt::Stuck)?.into_keys().map(|agent| {
            let mut strikes = strike.actions.clone();
            strikes.retain(|(node, _)| self.host_of(*node) == agent);
            (agent, Call::Strike { strikes })
        });
        let calls = calls.collect();
        self.ask_all(calls).map(drop)
    }

    /// Has the agents make everything ready to slow down the disks of nodes.
    pub(crate) fn arm_disks(&mut self, nodes: &[NodeId], iops: u32) -> Result<(), Halt> {
        let mut calls: BTreeMap<usize, Vec<NodeId>> = BTreeMap::new();
        for node in nodes {
            calls.entry(self.host_of(*node)).or_default().push(*node);
        }
        let calls = calls.into_iter().map(|(agent, nodes)| (agent, Call::ArmDisks { nodes, iops }));
        self.ask_all(calls.collect()).map(drop)
    }

    /// Slows down the disks for which that was armed.
    pub(crate) fn strike_disks(&mut self, strike: &Strike) -> Result<(), Halt> {
        let mut calls: BTreeMap<usize, Vec<_>> = BTreeMap::new();
        for action in &strike.actions {
            calls.entry(self.host_of(action.0)).or_default().push(*action);
        }
        let calls = calls.into_iter().map(|(agent, strikes)| (agent, Call::Strike { strikes }));
        self.ask_all(calls.collect()).map(drop)
    }

    /// Undoes what was done to the links or the disks of these nodes, and what was armed.
    pub(crate) fn heal(&mut self, nodes: &[NodeId]) -> Result<(), Halt> {
        let calls = (0..self.agents.len()).map(|agent| {
            let mut nodes = nodes.to_vec();
            nodes.retain(|node| self.host_of(*node) == agent);
            (agent, Call::Heal { nodes })
        });
        let calls = calls.collect();
        self.ask_all(calls).map(drop)
    }

    /// The packets that a strike is about, by the agent that is to see to them.
    ///
    /// It is the agent on the host of a node that is struck, so that everything that happens to one
    /// node happens at once and on one clock. Packets are dropped where they arrive if that host
    /// is the one, because a sender is told when its own host drops them; they are held back where
    /// they leave.
    fn flows(&self, strike: &Strike, links: &Links) -> Result<BTreeMap<usize, Vec<Flow>>, String> {
        let struck = |node: NodeId| strike.actions.iter().any(|(other, _)| *other == node);
        let mut flows: BTreeMap<usize, Vec<Flow>> = BTreeMap::new();
        for &(from, to) in &strike.paths {
            let held_back = matches!(links.effect, Effect::Delay { .. });
            let receiver = !held_back && (struck(to) || !struck(from));
            let here = self.host_of(from) == self.host_of(to);
            let (node, hook) = match receiver || (here && !held_back) {
                true => (to, Hook::In),
                false => (from, Hook::Out),
            };
            let flow = Flow {
                from: self.peer_address(from)?,
                to: self.peer_address(to)?,
                hook,
                answers: links.answers(),
            };
            flows.entry(self.host_of(node)).or_default().push(flow);
        }
        Ok(flows)
    }

    fn peer_address(&self, node: NodeId) -> Result<SocketAddr, String> {
        let at = &self.membership.nodes[node as usize - 1];
        let ip = at.host.parse().map_err(|_| {
            format!(
                "node {node} is at `{}`, and packets carry addresses, not names; give the host an                  address as addr in the inventory",
                at.host
            )
        })?;
        Ok(SocketAddr::new(ip, at.peer))
    }
}
