//! Faults of links and slow disks: rules and limits are prepared, put in force at a stamped instant,
//! and taken away.

use std::{os::fd::AsFd, time::Duration};

use sraft_events::{Event, FaultAction, NodeId};

use super::Supervisor;
use crate::{
    clock,
    program::both,
    protocol::{Answer, Effect, Flow},
    rules, throttle,
};

/// What is ready and not yet in force.
#[derive(Debug)]
enum Armed {
    Rules(rules::Armed),
    Limits(throttle::Armed),
}

/// What is in force.
#[derive(Debug)]
enum Installed {
    Rules(rules::Installed),
    Limits(throttle::Installed),
}

impl Armed {
    fn strike(self) -> (Installed, Option<String>) {
        match self {
            Armed::Rules(armed) => match armed.strike() {
                Ok(rules) => (Installed::Rules(rules), None),
                Err((rules, why)) => (Installed::Rules(rules), Some(why)),
            },
            Armed::Limits(armed) => match armed.strike() {
                Ok(limits) => (Installed::Limits(limits), None),
                Err((limits, why)) => (Installed::Limits(limits), Some(why)),
            },
        }
    }

    fn disarm(&mut self) -> Result<(), String> {
        match self {
            Armed::Rules(armed) => armed.disarm(),
            Armed::Limits(armed) => armed.disarm(),
        }
    }
}

impl Installed {
    fn remove(&mut self) -> Result<(), String> {
        match self {
            Installed::Rules(rules) => rules.remove(),
            Installed::Limits(limits) => limits.remove(),
        }
    }
}

/// What of links and disks this agent has laid hands on.
#[derive(Debug, Default)]
pub(super) struct Links {
    armed: Option<Armed>,
    installed: Vec<Installed>,
}

impl Links {
    /// Takes everything away. What could not be is tried again by the next call.
    pub(super) fn mend(&mut self) -> Result<(), String> {
        self.disarm()?;
        while let Some(installed) = self.installed.last_mut() {
            installed.remove()?;
            self.installed.pop();
        }
        Ok(())
    }

    /// Gives up what is not in force.
    fn disarm(&mut self) -> Result<(), String> {
        if let Some(armed) = &mut self.armed {
            armed.disarm()?;
            self.armed = None;
        }
        Ok(())
    }

    fn is_clean(&self) -> bool {
        self.armed.is_none() && self.installed.is_empty()
    }
}

impl<W: AsFd> Supervisor<W> {
    pub(super) fn arm(
        &mut self,
        flows: &[Flow],
        effect: Effect,
        lease_ms: u64,
    ) -> Result<Answer, String> {
        self.host()?;
        self.links.disarm()?;
        let lease = Duration::from_millis(lease_ms);
        self.links.armed = Some(Armed::Rules(rules::Armed::prepare(flows, effect, lease)?));
        Ok(Answer::Ok)
    }

    pub(super) fn arm_disks(&mut self, nodes: &[NodeId], iops: u32) -> Result<Answer, String> {
        let dir = self.host()?.directory.path().to_owned();
        self.links.disarm()?;
        for node in nodes {
            let process = self.processes.get(node).filter(|process| process.ended.is_none());
            let process = process.ok_or_else(|| format!("node {node} does not run"))?;
            if process.is_adopted() {
                return Err(format!(
                    "node {node} outlives the agent, and would stay slow if that were killed; start \
                     the nodes with the run"
                ));
            }
        }
        self.links.armed = Some(Armed::Limits(self.groups.arm(nodes, iops, &dir)?));
        Ok(Answer::Ok)
    }

    pub(super) fn strike(&mut self, strikes: &[(NodeId, FaultAction)]) -> Result<Answer, String> {
        self.host()?;
        let armed = self.links.armed.take().ok_or("nothing was armed, so nothing was done")?;
        let before = clock::read();
        let (installed, failure) = armed.strike();
        let after = clock::read();
        self.links.installed.push(installed);
        if let Some(why) = failure {
            return Err(both(why, self.links.mend()));
        }
        for &(node, action) in strikes {
            let pid = self.pid_of(node);
            self.record(before, Event::FaultApplied { node, pid, action });
        }
        if let Some(&(_, action)) = strikes.first() {
            let nodes = strikes.iter().map(|(node, _)| *node).collect();
            self.record(after, Event::FaultInForce { nodes, action });
        }
        Ok(Answer::Ok)
    }

    pub(super) fn heal(&mut self, nodes: &[NodeId]) -> Result<Answer, String> {
        self.host()?;
        if self.links.is_clean() {
            return Ok(Answer::Ok);
        }
        let in_force = !self.links.installed.is_empty();
        let before = clock::read();
        self.links.mend()?;
        let after = clock::read();
        if !in_force {
            return Ok(Answer::Ok); // what was armed and has not struck is no event
        }
        let action = FaultAction::Heal;
        for &node in nodes {
            let pid = self.pid_of(node);
            self.record(before, Event::FaultApplied { node, pid, action });
        }
        self.record(after, Event::FaultInForce { nodes: nodes.to_vec(), action });
        Ok(Answer::Ok)
    }

    /// The node's process; 0 if it runs on another host, or not at all.
    pub(super) fn pid_of(&self, node: NodeId) -> u32 {
        self.processes.get(&node).map_or(0, |process| process.pid())
    }
}
