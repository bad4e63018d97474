//! Faults of links: which nodes do not hear which, and who is thereby parted from the cluster.

use std::{collections::BTreeSet, fmt};

use rand::Rng;
use sraft_agent::protocol::Effect;
use sraft_events::{FaultAction, NodeId};

use super::{Kind, Standing, list, successors, victims};
use crate::plan::Fault;

/// What a fault does to which links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Links {
    /// The groups between which links are meant; without any, all links of the fault's target.
    pub(crate) groups: Vec<Vec<Role>>,
    pub(crate) direction: Direction,
    pub(crate) effect: Effect,
}

/// Whom a group names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Primary,
    Secondary,
    SubLeaders,
    /// Everybody whom no group names otherwise.
    Others,
}

/// Which messages are meant, as seen from the target or the first group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Direction {
    #[default]
    Both,
    /// Those that it sends.
    Out,
    /// Those that are sent to it.
    In,
}

/// What is to be done, to which nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Strike {
    /// Whom records call struck, and what by. Those that are parted from a majority, if any are.
    pub(crate) actions: Vec<(NodeId, FaultAction)>,
    /// Senders and receivers of the messages that are meant.
    pub(crate) paths: Vec<(NodeId, NodeId)>,
}

impl Role {
    const ALL: [Role; 5] =
        [Role::Leader, Role::Primary, Role::Secondary, Role::SubLeaders, Role::Others];

    pub(crate) fn parse(text: &str) -> Result<Role, String> {
        let known = Role::ALL.into_iter().find(|role| role.to_string() == text);
        known.ok_or_else(|| format!("there is no role `{text}`; there are {}", list(&Role::ALL)))
    }

    /// How many sub-leaders at least one variant must have for the role to mean anything.
    pub(crate) fn needs_sub_leaders(self) -> u32 {
        match self {
            Role::Leader | Role::Others => 0,
            Role::Primary | Role::SubLeaders => 1,
            Role::Secondary => 2,
        }
    }
}

impl Direction {
    const ALL: [Direction; 3] = [Direction::Both, Direction::Out, Direction::In];

    pub(crate) fn parse(text: &str) -> Result<Direction, String> {
        let known = Direction::ALL.into_iter().find(|direction| direction.to_string() == text);
        known.ok_or_else(|| {
            format!("there is no direction `{text}`; there are {}", list(&Direction::ALL))
        })
    }
}

impl Links {
    /// Whether packets that only acknowledge are meant as well. If messages are cut in one
    /// direction, those of the other must still be acknowledged.
    pub(crate) fn answers(&self) -> bool {
        self.effect != Effect::Drop || self.direction == Direction::Both
    }
}

/// Whom the fault strikes and how, in the order of striking.
pub(crate) fn strike(fault: &Fault, standing: &Standing<'_>, rng: &mut impl Rng) -> Strike {
    let targets = victims(fault.target, standing, rng);
    let Some(links) = &fault.links else {
        let action = fault.kind.action().unwrap_or(FaultAction::Kill);
        let actions = targets.into_iter().map(|node| (node, action)).collect();
        return Strike { actions, paths: Vec::new() };
    };
    let groups = match links.groups.is_empty() {
        false => named(&links.groups, standing, rng),
        true => {
            let all = 1..=u64::from(standing.size);
            let rest = all.filter(|node| !targets.contains(node)).collect();
            // Targets do not hear one another either.
            targets.iter().map(|node| vec![*node]).chain([rest]).collect()
        }
    };
    let firsts = if links.groups.is_empty() { targets.clone() } else { groups[0].clone() };
    let mut paths = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        for (_, other) in groups.iter().enumerate().filter(|(at, _)| *at != index) {
            for (&from, &to) in group.iter().flat_map(|from| other.iter().map(move |to| (from, to)))
            {
                let meant = match links.direction {
                    Direction::Both => true,
                    Direction::Out => firsts.contains(&from),
                    Direction::In => firsts.contains(&to),
                };
                if meant {
                    paths.push((from, to));
                }
            }
        }
    }
    let named: Vec<NodeId> = groups.iter().flatten().copied().collect();
    let parted = if links.effect == Effect::Drop { parted(standing.size, &paths) } else { vec![] };
    let (struck, action) = if !parted.is_empty() {
        let isolated = fault.kind == Kind::Isolate;
        (parted, if isolated { FaultAction::Isolate } else { FaultAction::Partition })
    } else {
        let action = match links.effect {
            Effect::Drop => FaultAction::Link,
            Effect::Loss { .. } => FaultAction::Loss,
            Effect::Delay { .. } => FaultAction::Delay,
        };
        // A leader that can go on is not called struck, unless it alone is meant.
        let named = named.into_iter().filter(|node| *node != standing.leader).collect();
        (if targets.is_empty() { named } else { targets }, action)
    };
    let mut actions: Vec<_> = struck.into_iter().map(|node| (node, action)).collect();
    // The leader first, as with other faults.
    actions.sort_by_key(|(node, _)| *node != standing.leader);
    Strike { actions, paths }
}

/// The nodes of each group.
fn named(groups: &[Vec<Role>], standing: &Standing<'_>, rng: &mut impl Rng) -> Vec<Vec<NodeId>> {
    let (successors, _) = successors(standing, rng);
    let of = |role: &Role| -> Vec<NodeId> {
        match role {
            Role::Leader => vec![standing.leader],
            Role::Primary => successors.first().copied().into_iter().collect(),
            Role::Secondary => successors.get(1).copied().into_iter().collect(),
            Role::SubLeaders => {
                successors.iter().copied().take(standing.sub_leaders as usize).collect()
            }
            Role::Others => Vec::new(),
        }
    };
    let mut taken = BTreeSet::new();
    let mut nodes: Vec<Vec<NodeId>> = Vec::new();
    for group in groups {
        // Who is named twice (the Primary is a sub-leader) belongs where he is named first.
        nodes.push(group.iter().flat_map(of).filter(|node| taken.insert(*node)).collect());
    }
    for (group, nodes) in groups.iter().zip(&mut nodes) {
        if group.contains(&Role::Others) {
            nodes.extend((1..=u64::from(standing.size)).filter(|node| taken.insert(*node)));
        }
    }
    nodes
}

/// The nodes that cannot talk with a majority any more, themselves included: who does not hear or
/// is not heard cannot win votes or commit.
fn parted(size: u32, lost: &[(NodeId, NodeId)]) -> Vec<NodeId> {
    let all = 1..=u64::from(size);
    let talks = |a: NodeId, b: NodeId| !lost.contains(&(a, b)) && !lost.contains(&(b, a));
    all.clone()
        .filter(|node| {
            all.clone().filter(|other| talks(*node, *other)).count() <= size as usize / 2
        })
        .collect()
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Leader => "leader",
            Role::Primary => "primary",
            Role::Secondary => "secondary",
            Role::SubLeaders => "sub-leaders",
            Role::Others => "others",
        })
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Direction::Both => "both",
            Direction::Out => "out",
            Direction::In => "in",
        })
    }
}

/// `leader | primary+others`, with an arrow where only one direction is meant.
impl fmt::Display for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = match self.direction {
            Direction::Both => " | ",
            Direction::Out => " > ",
            Direction::In => " < ",
        };
        let group =
            |roles: &Vec<Role>| roles.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
        f.write_str(&self.groups.iter().map(group).collect::<Vec<_>>().join(between))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::fault::Target;

    fn struck(kind: Kind, target: Target, links: Links, ranks: &[NodeId]) -> Strike {
        let fault = Fault {
            kind,
            target,
            duration: Duration::from_secs(1),
            count: 1,
            iops: None,
            links: Some(links),
        };
        let standing = Standing { leader: 3, ranks, size: 5, sub_leaders: 2 };
        strike(&fault, &standing, &mut ChaCha8Rng::seed_from_u64(1))
    }

    fn links(groups: &[&[Role]], direction: Direction) -> Links {
        let groups = groups.iter().map(|roles| roles.to_vec()).collect();
        Links { groups, direction, effect: Effect::Drop }
    }

    #[test]
    fn an_isolated_leader_loses_every_link_and_nobody_else_does() {
        let strike = struck(Kind::Isolate, Target::Leader, links(&[], Direction::Both), &[5, 1]);
        assert_eq!(strike.actions, [(3, FaultAction::Isolate)]);
        assert_eq!(strike.paths, [(3, 1), (3, 2), (3, 4), (3, 5), (1, 3), (2, 3), (4, 3), (5, 3)]);
        let out = struck(Kind::Isolate, Target::Leader, links(&[], Direction::Out), &[5, 1]);
        assert_eq!(out.paths, [(3, 1), (3, 2), (3, 4), (3, 5)]);
        assert_eq!(out.actions, strike.actions, "who is not heard does not lead");
        let deaf = struck(Kind::Isolate, Target::Leader, links(&[], Direction::In), &[5, 1]);
        assert_eq!(deaf.paths, [(1, 3), (2, 3), (4, 3), (5, 3)]);
    }

    #[test]
    fn a_partition_strikes_those_without_a_majority() {
        let groups: [&[Role]; 2] = [&[Role::Others], &[Role::Leader, Role::Primary]];
        let split = links(&groups, Direction::Both);
        let strike = struck(Kind::Partition, Target::Groups, split, &[5, 1]);
        let action = FaultAction::Partition;
        assert_eq!(strike.actions, [(3, action), (5, action)]);
        assert_eq!(strike.paths.len(), 12);
        assert!(!strike.paths.contains(&(3, 5)));
    }

    #[test]
    fn a_leader_that_loses_one_link_is_not_called_struck() {
        let groups: [&[Role]; 2] = [&[Role::Leader], &[Role::Primary]];
        let strike = struck(Kind::Link, Target::Groups, links(&groups, Direction::Both), &[5, 1]);
        assert_eq!(strike.actions, [(5, FaultAction::Link)]);
        assert_eq!(strike.paths, [(3, 5), (5, 3)]);
        let one_way = struck(Kind::Link, Target::Groups, links(&groups, Direction::In), &[5, 1]);
        assert_eq!(one_way.paths, [(5, 3)]);
        let baseline = struck(Kind::Link, Target::Groups, links(&groups, Direction::Out), &[]);
        assert_eq!(baseline.paths.len(), 1, "somebody stands in for the Primary");
    }

    #[test]
    fn loss_parts_nobody() {
        let loss = Links { effect: Effect::Loss { per_mille: 200 }, ..links(&[], Direction::Both) };
        let strike = struck(Kind::Loss, Target::Leader, loss, &[5, 1]);
        assert_eq!(strike.actions, [(3, FaultAction::Loss)]);
        assert_eq!(strike.paths.len(), 8);
    }
}
