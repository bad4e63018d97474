//! Hosts that are reset, and come back.

use std::time::{Duration, Instant};

use sraft_agent::protocol::{Call, REBOOT_TOLD_BEFORE};
use sraft_events::{Boot, Event, NodeId};

use super::{Cluster, ENGAGED_AGAIN_EVERY, Halt, boot};

/// How long a host may take to boot. An instance in a cloud takes up to two minutes.
const BOOTED_WITHIN: Duration = Duration::from_secs(180);

impl Cluster {
    /// Whether every host is a machine of its own, and none is this one: resetting one of them must
    /// not take down another.
    pub(super) fn check_machines(&self) -> Result<(), Halt> {
        let here = sraft_agent::boot_id().ok();
        for (host, boot) in self.boots.iter().enumerate() {
            let Some(boot) = boot else {
                return Err(self.lost(host, "it does not say which boot it is up by".to_owned()));
            };
            let same = |other: &Option<Boot>| other.as_ref().is_some_and(|b| b.id == boot.id);
            let with = match self.boots[..host].iter().position(same) {
                Some(other) => format!("host {}", self.hosts[other].name),
                None if here.as_ref() == Some(&boot.id) => "this program".to_owned(),
                None => continue,
            };
            return Err(Halt::Stuck(format!(
                "host {} is on the same machine as {with}, which a reboot would take down as well; \
                 give hosts that are machines of their own",
                self.hosts[host].name
            )));
        }
        Ok(())
    }

    /// Has agents make everything ready to reset the hosts of these nodes.
    pub(crate) fn arm_reboot(&mut self, nodes: &[NodeId]) -> Result<(), Halt> {
        let struck = self.hosts_of(nodes);
        let here = sraft_agent::boot_id().ok();
        let others = (0..self.hosts.len()).filter(|host| !struck.contains(host));
        let spared = others.filter_map(|host| Some(self.boots[host].clone()?.id)).chain(here);
        let call = Call::ArmReboot { spared: spared.collect() };
        self.ask_all(struck.into_iter().map(|host| (host, call.clone())).collect())?;
        // The clocks that are about to end are not compared again afterwards.
        self.compare_clocks()
    }

    /// Resets the hosts of these nodes. Returns when it happens.
    pub(crate) fn reboot(&mut self, nodes: &[NodeId]) -> Result<(), Halt> {
        let struck = self.hosts_of(nodes);
        let calls = struck.iter().map(|host| {
            let mut nodes = nodes.to_vec();
            nodes.retain(|node| self.host_of(*node) == *host);
            (*host, Call::Reboot { nodes })
        });
        let asked = self.ask_all(calls.collect());
        self.rebooting.extend(struck);
        asked?;
        self.pass(REBOOT_TOLD_BEFORE)
    }

    /// Waits until the hosts that were reset are up again, and puts a new agent on each.
    pub(crate) fn come_back(&mut self, nodes: &[NodeId]) -> Result<(), Halt> {
        let deadline = Instant::now() + BOOTED_WITHIN;
        for host in self.hosts_of(nodes) {
            while let Err(why) = self.welcome_back(host)? {
                if Instant::now() > deadline {
                    let after = BOOTED_WITHIN.as_secs();
                    let why = format!("it was reset and is not back after {after} s: {why}");
                    return Err(self.lost(host, why));
                }
                // A host that boots cannot be awaited otherwise.
                self.pass(ENGAGED_AGAIN_EVERY)?;
            }
        }
        // Before anything happens there that has to be placed in time.
        self.compare_clocks()
    }

    /// Puts an agent on a host that was reset; else the reason why that cannot be done yet.
    fn welcome_back(&mut self, host: usize) -> Result<Result<(), String>, Halt> {
        self.agents[host].close(); // all that it has said is in the inbox then
        while self.next(Instant::now())?.is_some() {}
        match self.hosts[host].start_agent(host, self.sender.clone()) {
            Ok(agent) => self.agents[host] = agent,
            Err(error) => return Ok(Err(error.to_string())),
        }
        let facts = match self.greet(&[host]) {
            Ok(facts) => facts,
            // It may have been on its way down still.
            Err(Halt::Agent { why, .. } | Halt::Stuck(why)) => return Ok(Err(why)),
            Err(halt) => return Err(halt),
        };
        let found = facts.iter().find_map(boot);
        if found.as_ref().map(|boot| &boot.id) == self.boots[host].as_ref().map(|boot| &boot.id) {
            return Ok(Err("it has not gone down".to_owned()));
        }
        self.boots[host].clone_from(&found);
        self.rebooting.remove(&host);
        self.gone.remove(&host);
        let Some(boot) = found else {
            return Err(self.lost(host, "it does not say which boot it is up by".to_owned()));
        };
        let nodes = (1..=self.membership.nodes.len() as u64).filter(|n| self.host_of(*n) == host);
        let event = Event::HostRebooted {
            host: self.hosts[host].name.clone(),
            nodes: nodes.collect(),
            boot,
        };
        self.record(event);
        if let Some(record) = self.records.last() {
            self.view.fold(&self.placed(record));
        }
        Ok(Ok(()))
    }

    fn hosts_of(&self, nodes: &[NodeId]) -> Vec<usize> {
        let mut hosts: Vec<usize> = nodes.iter().map(|node| self.host_of(*node)).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }
}
