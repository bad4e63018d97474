//! What is done to a cluster, one thing at a time.

use std::time::Duration;

use rand::RngExt;
use sraft_core::{Node, NodeId, Role};

use super::Swarm;
use crate::{Cut, Fault, Violation, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    CrashLeader,
    CrashAny,
    CrashMany,
    /// The next leader dies or is cut off right after it has been elected.
    StrikeWinner,
    /// The leader is cut off the moment it commits.
    StrikeCommit,
    /// A follower that does not hear the leader stands, and at that moment the others lose their
    /// connections to the leader, which is asked for reads.
    Usurp,
    Restart,
    Pause,
    Resume,
    Isolate,
    OneWay,
    OneLink,
    Split,
    Disconnect,
    SlowDisk,
    StallDisk,
    MendDisk,
    Transfer,
    Noise,
    Propose,
}

pub(super) const TROUBLES: [Trouble; 20] = [
    Trouble::CrashLeader,
    Trouble::CrashAny,
    Trouble::CrashMany,
    Trouble::StrikeWinner,
    Trouble::StrikeCommit,
    Trouble::Usurp,
    Trouble::Restart,
    Trouble::Pause,
    Trouble::Resume,
    Trouble::Isolate,
    Trouble::OneWay,
    Trouble::OneLink,
    Trouble::Split,
    Trouble::Disconnect,
    Trouble::SlowDisk,
    Trouble::StallDisk,
    Trouble::MendDisk,
    Trouble::Transfer,
    Trouble::Noise,
    Trouble::Propose,
];

impl Swarm {
    pub(super) fn next(&mut self) -> Trouble {
        let all: u32 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.rng.random_range(0..all);
        for (trouble, weight) in &self.weights {
            if drawn < *weight {
                return *trouble;
            }
            drawn -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }

    pub(super) fn anybody(&mut self) -> NodeId {
        self.rng.random_range(1..=NodeId::from(self.model.nodes))
    }

    pub(super) fn strike(
        &mut self,
        world: &mut World,
        trouble: Trouble,
    ) -> Result<(), Box<Violation>> {
        let any = self.anybody();
        let leader = world.leader().unwrap_or(any);
        let all = 1..=NodeId::from(self.model.nodes);
        let others = |out: &[NodeId]| all.clone().filter(|id| !out.contains(id)).collect();
        let cut = match trouble {
            Trouble::CrashLeader => return world.strike(Fault::Crash(leader)),
            Trouble::CrashAny => return world.strike(Fault::Crash(any)),
            Trouble::CrashMany => {
                for node in all.clone() {
                    if self.rng.random_bool(0.6) {
                        world.strike(Fault::Crash(node))?;
                    }
                }
                return Ok(());
            }
            Trouble::StrikeWinner => {
                let limit = Duration::from_micros(self.pause_us * 10);
                let term = world.elected().map_or(0, |elected| elected.term);
                let news = |world: &World| world.elected().is_some_and(|e| e.term > term);
                if !world.run_while(world.now() + limit, |world| !news(world))? {
                    return Ok(());
                }
                let winner = world.elected().map_or(any, |elected| elected.leader);
                for _ in 0..self.rng.random_range(0..=self.burst) {
                    world.strike(Fault::Propose(winner))?;
                }
                // From before its first messages arrive until about when they are answered.
                world.run_for(Duration::from_micros(self.rng.random_range(0..=self.strike_us)))?;
                if self.rng.random_bool(0.6) {
                    return world.strike(Fault::Crash(winner));
                }
                Cut { from: vec![winner], to: others(&[winner]), both_ways: true }
            }
            Trouble::StrikeCommit => {
                let limit = Duration::from_micros(self.pause_us * 10);
                let committed = world.tally().committed;
                world.run_while(world.now() + limit, |w| w.tally().committed == committed)?;
                let leader = world.leader().unwrap_or(any);
                Cut { from: vec![leader], to: others(&[leader]), both_ways: true }
            }
            Trouble::Usurp => return self.usurp(world, leader, any),
            Trouble::Restart => return world.strike(Fault::Restart(any)),
            Trouble::Pause => {
                let node = if self.rng.random_bool(0.5) { leader } else { any };
                return world.strike(Fault::Pause(node));
            }
            Trouble::Resume => {
                for node in all.clone() {
                    world.strike(Fault::Resume(node))?;
                }
                return Ok(());
            }
            Trouble::SlowDisk => {
                return world.strike(Fault::SlowDisk(any, self.rng.random_range(2..=50)));
            }
            Trouble::StallDisk => return world.strike(Fault::StallDisk(any)),
            Trouble::MendDisk => return world.strike(Fault::MendDisk(any)),
            Trouble::Transfer => return world.strike(Fault::Transfer(leader)),
            Trouble::Propose => return world.strike(Fault::Propose(any)),
            Trouble::Disconnect => {
                return if any == leader {
                    Ok(())
                } else {
                    world.strike(Fault::Disconnect(leader, any))
                };
            }
            Trouble::Noise => {
                world.set_noise(self.rng.random_range(0.0..0.4), self.rng.random_range(0.0..0.3));
                return Ok(());
            }
            Trouble::Isolate => Cut { from: vec![leader], to: others(&[leader]), both_ways: true },
            Trouble::OneWay => {
                let (from, to) = (vec![any], others(&[any]));
                if self.rng.random_bool(0.5) {
                    Cut { from, to, both_ways: false }
                } else {
                    Cut { from: to, to: from, both_ways: false }
                }
            }
            Trouble::OneLink => {
                if any == leader {
                    return Ok(());
                }
                Cut { from: vec![leader], to: vec![any], both_ways: self.rng.random_bool(0.7) }
            }
            Trouble::Split => {
                let side: Vec<_> = all.clone().filter(|_| self.rng.random_bool(0.5)).collect();
                if side.is_empty() || side.len() == self.model.nodes as usize {
                    return Ok(());
                }
                let rest = others(&side);
                Cut { from: side, to: rest, both_ways: true }
            }
        };
        world.strike(Fault::Cut(cut.clone()))?;
        let lasts = Duration::from_micros(self.rng.random_range(0..=self.pause_us * 4));
        world.strike_later(lasts, Fault::Mend(cut));
        Ok(())
    }

    fn usurp(
        &mut self,
        world: &mut World,
        leader: NodeId,
        usurper: NodeId,
    ) -> Result<(), Box<Violation>> {
        let Some(node) = world.node(usurper).filter(|_| usurper != leader) else { return Ok(()) };
        let limit = world.now() + node.config().timeout.max * 2;
        let cut = Cut { from: vec![leader], to: vec![usurper], both_ways: true };
        world.strike(Fault::Cut(cut.clone()))?;
        let stands =
            |node: &Node| matches!(node.status().role, Role::PreCandidate | Role::Candidate);
        world.run_while(limit, |world| !world.node(usurper).is_some_and(stands))?;
        for other in 1..=NodeId::from(self.model.nodes) {
            if other != leader && other != usurper {
                world.strike(Fault::Disconnect(leader, other))?;
            }
        }
        for _ in 0..8 {
            let step = self.rng.random_range(0..=self.strike_us / 2);
            world.run_for(Duration::from_micros(step))?;
            world.strike(Fault::Read(leader))?;
        }
        world.strike(Fault::Mend(cut))
    }
}
