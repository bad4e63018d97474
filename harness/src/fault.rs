//! What a fault does to whom. Only decided here; the agents do it.
//!
//! # The same losses for the baseline
//! A target such as `leader+primary` names nodes by their rank, and original Raft has no ranks. So
//! that both lose equally many nodes, a variant with fewer sub-leaders than the target asks for
//! loses followers drawn at random in their place.

mod links;

pub(crate) use links::{Direction, Links, Role, Strike, strike};

use std::fmt;

use rand::{Rng, RngExt, seq::SliceRandom};
use sraft_events::{FaultAction, NodeId};

use crate::plan::Backend;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Kill,
    Stop,
    Pause,
    /// All links of the targets are cut.
    Isolate,
    /// The cluster falls into groups.
    Partition,
    /// The links between two groups are cut.
    Link,
    /// A share of packets is lost.
    Loss,
    /// Packets are held back.
    Delay,
    /// Writes of the targets' processes are few in a second.
    SlowDisk,
    /// No room is left on the targets' disks.
    DiskFull,
    /// Killed and started again, several times in a row.
    RestartStorm,
    /// The targets' hosts are reset, as by a failure of power.
    Reboot,
}

/// Whom it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Leader,
    Primary,
    Secondary,
    Follower,
    LeaderAndPrimary,
    LeaderAndAllSubLeaders,
    Random,
    /// Whom the groups of a fault of links name.
    Groups,
}

impl Kind {
    const ALL: [Kind; 12] = [
        Kind::Kill,
        Kind::Stop,
        Kind::Pause,
        Kind::Isolate,
        Kind::Partition,
        Kind::Link,
        Kind::Loss,
        Kind::Delay,
        Kind::SlowDisk,
        Kind::DiskFull,
        Kind::RestartStorm,
        Kind::Reboot,
    ];

    pub(crate) fn parse(text: &str, backend: Backend) -> Result<Kind, String> {
        let here = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Reboot).collect();
        let (name, offered) = match backend {
            Backend::Local => ("local", here),
            Backend::Ssh => ("ssh", Kind::ALL.to_vec()),
            Backend::Sim => {
                ("sim", vec![Kind::Kill, Kind::Pause, Kind::Isolate, Kind::Partition, Kind::Link])
            }
        };
        let listed = list(&offered);
        if let Some(kind) = offered.into_iter().find(|kind| kind.to_string() == text) {
            return Ok(kind);
        }
        if backend == Backend::Local && text == Kind::Reboot.to_string() {
            return Err(format!(
                "{text} would take down this very machine; run it on hosts, with --inventory, or take \
                 another fault: {listed}"
            ));
        }
        Err(match Kind::ALL.iter().any(|kind| kind.to_string() == text) {
            true => format!("the {name} backend cannot do {text}; it can do {listed}"),
            false => format!("there is no fault `{text}`; there are {listed}"),
        })
    }

    /// What the agent does to each victim; if the fault is one of links, they say it.
    pub(crate) fn action(self) -> Option<FaultAction> {
        match self {
            Kind::Kill | Kind::RestartStorm => Some(FaultAction::Kill),
            Kind::Stop => Some(FaultAction::Stop),
            Kind::Pause => Some(FaultAction::Pause),
            Kind::SlowDisk => Some(FaultAction::SlowDisk),
            Kind::DiskFull => Some(FaultAction::DiskFull),
            Kind::Reboot => Some(FaultAction::Reboot),
            Kind::Isolate | Kind::Partition | Kind::Link | Kind::Loss | Kind::Delay => None,
        }
    }

    /// Whether the victims' processes end.
    pub(crate) fn ends_processes(self) -> bool {
        matches!(self, Kind::Kill | Kind::Stop | Kind::DiskFull | Kind::RestartStorm | Kind::Reboot)
    }

    /// Whether it troubles links or disks without cutting anybody off.
    pub(crate) fn is_gray(self) -> bool {
        matches!(self, Kind::Loss | Kind::Delay | Kind::SlowDisk)
    }

    /// Whether nodes have to have disks of their own, which can be filled.
    pub(crate) fn fills_disk(self) -> bool {
        self == Kind::DiskFull
    }
}

impl Target {
    const ALL: [Target; 7] = [
        Target::Leader,
        Target::Primary,
        Target::Secondary,
        Target::Follower,
        Target::LeaderAndPrimary,
        Target::LeaderAndAllSubLeaders,
        Target::Random,
    ];

    pub(crate) fn parse(text: &str) -> Result<Target, String> {
        Target::ALL
            .into_iter()
            .find(|target| target.to_string() == text)
            .ok_or_else(|| format!("there is no target `{text}`; there are {}", list(&Target::ALL)))
    }

    /// How many nodes it strikes if the cell's variants have at most so many sub-leaders.
    pub(crate) fn strikes(self, sub_leaders: u32) -> u32 {
        match self {
            Target::LeaderAndPrimary => 2,
            Target::LeaderAndAllSubLeaders => 1 + sub_leaders,
            Target::Groups => 0,
            _ => 1,
        }
    }

    /// How many sub-leaders at least one variant must have for the target to mean anything.
    pub(crate) fn needs_sub_leaders(self) -> u32 {
        match self {
            Target::Primary | Target::LeaderAndPrimary | Target::LeaderAndAllSubLeaders => 1,
            Target::Secondary => 2,
            Target::Leader | Target::Follower | Target::Random | Target::Groups => 0,
        }
    }
}

/// Who leads and follows when the fault is about to strike.
#[derive(Clone, Debug)]
pub(crate) struct Standing<'a> {
    pub(crate) leader: NodeId,
    /// The sub-leaders, Primary first.
    pub(crate) ranks: &'a [NodeId],
    pub(crate) size: u32,
    /// The most sub-leaders that any variant of the cell has.
    pub(crate) sub_leaders: u32,
}

/// The nodes of a target, in the order of striking. Groups say themselves whom they strike.
pub(crate) fn victims(target: Target, standing: &Standing<'_>, rng: &mut impl Rng) -> Vec<NodeId> {
    let Standing { leader, size, sub_leaders, .. } = *standing;
    let (successors, others) = successors(standing, rng);
    let with_leader =
        |n: u32| [leader].into_iter().chain(successors.iter().copied().take(n as usize)).collect();
    match target {
        Target::Leader => vec![leader],
        Target::Primary => successors.first().copied().into_iter().collect(),
        Target::Secondary => successors.get(1).copied().into_iter().collect(),
        // A follower without a rank if there is one.
        Target::Follower => others.first().or(successors.last()).copied().into_iter().collect(),
        Target::LeaderAndPrimary => with_leader(1),
        Target::LeaderAndAllSubLeaders => with_leader(sub_leaders),
        Target::Random => vec![rng.random_range(1..=u64::from(size))],
        Target::Groups => Vec::new(),
    }
}

/// Everybody but the leader: successors by rank, then the others in random order, the stand-ins.
/// And these others alone.
fn successors(standing: &Standing<'_>, rng: &mut impl Rng) -> (Vec<NodeId>, Vec<NodeId>) {
    let Standing { leader, ranks, size, .. } = *standing;
    let mut others: Vec<NodeId> =
        (1..=u64::from(size)).filter(|node| *node != leader && !ranks.contains(node)).collect();
    others.shuffle(rng);
    (ranks.iter().copied().chain(others.iter().copied()).collect(), others)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Kill => "kill",
            Kind::Stop => "stop",
            Kind::Pause => "pause",
            Kind::Isolate => "isolate",
            Kind::Partition => "partition",
            Kind::Link => "link",
            Kind::Loss => "loss",
            Kind::Delay => "delay",
            Kind::SlowDisk => "slow-disk",
            Kind::DiskFull => "disk-full",
            Kind::RestartStorm => "restart-storm",
            Kind::Reboot => "reboot",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Target::Leader => "leader",
            Target::Primary => "primary",
            Target::Secondary => "secondary",
            Target::Follower => "follower",
            Target::LeaderAndPrimary => "leader+primary",
            Target::LeaderAndAllSubLeaders => "leader+all-sub-leaders",
            Target::Random => "random",
            Target::Groups => "groups",
        })
    }
}

/// `a, b and c`.
pub(crate) fn list(items: &[impl fmt::Display]) -> String {
    let words: Vec<String> = items.iter().map(ToString::to_string).collect();
    match words.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn struck(target: Target, ranks: &[NodeId], seed: u64) -> Vec<NodeId> {
        let standing = Standing { leader: 3, ranks, size: 7, sub_leaders: 2 };
        victims(target, &standing, &mut ChaCha8Rng::seed_from_u64(seed))
    }

    #[test]
    fn ranks_decide_where_there_are_any() {
        let ranks = [5, 1];
        assert_eq!(struck(Target::Leader, &ranks, 0), [3]);
        assert_eq!(struck(Target::Primary, &ranks, 0), [5]);
        assert_eq!(struck(Target::Secondary, &ranks, 0), [1]);
        assert_eq!(struck(Target::LeaderAndPrimary, &ranks, 0), [3, 5]);
        assert_eq!(struck(Target::LeaderAndAllSubLeaders, &ranks, 0), [3, 5, 1]);
        for seed in 0..50 {
            assert!([2, 4, 6, 7].contains(&struck(Target::Follower, &ranks, seed)[0]));
        }
    }

    #[test]
    fn original_raft_loses_as_many_nodes_and_the_seed_says_which() {
        let mut second = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let three = struck(Target::LeaderAndAllSubLeaders, &[], seed);
            assert_eq!((three.len(), three[0]), (3, 3), "{three:?}");
            assert!(three[1] != 3 && three[2] != 3 && three[1] != three[2], "{three:?}");
            assert_eq!(three, struck(Target::LeaderAndAllSubLeaders, &[], seed));
            second.insert(three[1]);
        }
        assert_eq!(second.len(), 6, "every follower is drawn at times");
    }

    #[test]
    fn random_strikes_everybody_sooner_or_later() {
        let drawn: std::collections::BTreeSet<_> =
            (0..200).flat_map(|seed| struck(Target::Random, &[5, 1], seed)).collect();
        assert!(drawn.into_iter().eq(1..=7));
    }

    #[test]
    fn what_cannot_be_done_is_said_with_what_can() {
        insta::assert_snapshot!(Kind::parse("loss", Backend::Sim).unwrap_err(), @"the sim backend cannot do loss; it can do kill, pause, isolate, partition and link");
        insta::assert_snapshot!(Kind::parse("explode", Backend::Local).unwrap_err(), @"there is no fault `explode`; there are kill, stop, pause, isolate, partition, link, loss, delay, slow-disk, disk-full and restart-storm");
        insta::assert_snapshot!(Kind::parse("disk-full", Backend::Sim).unwrap_err(), @"the sim backend cannot do disk-full; it can do kill, pause, isolate, partition and link");
        insta::assert_snapshot!(Target::parse("king").unwrap_err(), @"there is no target `king`; there are leader, primary, secondary, follower, leader+primary, leader+all-sub-leaders and random");
    }
}
