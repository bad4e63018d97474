//! The state of the cluster as its records tell it: a pure fold, in the order of arrival.
//!
//! Records of one node arrive in order, those of different nodes do not. So nothing here depends on
//! the order between nodes: terms decide what is newer.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use sraft_events::{Event, FaultAction, NodeId, Record, Source, Term};
use sraft_report::results::LogFacts;

use crate::fault::list;

/// What is known of the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    nodes: BTreeMap<NodeId, Node>,
    elected: Option<Leadership>,
    /// The last term in which each has stepped down.
    stepped_down: BTreeMap<NodeId, Term>,
    last_change: u64,
    /// Its leaders tell neither when they serve nor who has caught up, so nobody waits for that.
    silent: bool,
}

/// What is known of one node.
#[derive(Clone, Debug, Default)]
struct Node {
    /// Its process runs and has restored its state.
    up: bool,
    paused: bool,
    peers: BTreeSet<NodeId>,
    accepted: Option<(Term, NodeId)>,
    rank: Option<u32>,
}

/// The newest leadership that is known of.
#[derive(Clone, Debug)]
struct Leadership {
    leader: NodeId,
    term: Term,
    ready: bool,
    /// It has stepped down, or its process has ended.
    over: bool,
    synced: BTreeSet<NodeId>,
    epoch: u64,
    ranks: Vec<NodeId>,
}

/// A leader in its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) node: NodeId,
    pub(crate) term: Term,
}

impl View {
    /// Of a cluster that has not begun yet and whose logs tell this.
    pub(crate) fn of(log: LogFacts) -> View {
        View { silent: !log.ready, ..View::default() }
    }

    /// Takes a record up.
    pub(crate) fn fold(&mut self, record: &Record) {
        if self.apply(record) {
            self.last_change = self.last_change.max(record.mono_ns);
        }
    }

    /// Whether the record says anything about the state of the cluster.
    fn apply(&mut self, record: &Record) -> bool {
        match (&record.source, &record.event) {
            (Source::Node(node), event) => self.apply_nodes_own(*node, event),
            (Source::Agent(_), Event::ProcessStarted { node, .. }) => {
                self.nodes.insert(*node, Node::default());
                true
            }
            // Nobody is there any more who could tell of its end.
            (Source::Agent(_), Event::FaultApplied { node, action: FaultAction::Reboot, .. })
            | (Source::Agent(_), Event::ProcessExited { node, .. }) => {
                self.end(*node);
                true
            }
            (Source::Agent(_), Event::FaultApplied { node, action, .. }) => {
                let node = self.nodes.entry(*node).or_default();
                match action {
                    FaultAction::Pause => node.paused = true,
                    FaultAction::Resume => node.paused = false,
                    // Nodes tell themselves what becomes of their connections.
                    _ => {}
                }
                true
            }
            // What was still said in the last moments of its host is void.
            (Source::Harness, Event::HostRebooted { nodes, .. }) => {
                nodes.iter().for_each(|node| self.end(*node));
                true
            }
            _ => false,
        }
    }

    /// Its process has ended.
    fn end(&mut self, node: NodeId) {
        self.nodes.insert(node, Node::default());
        if let Some(leadership) = self.elected.as_mut().filter(|l| l.leader == node) {
            leadership.over = true;
        }
    }

    fn apply_nodes_own(&mut self, id: NodeId, event: &Event) -> bool {
        if let Event::SteppedDown { term, .. } = event {
            self.stepped_down.insert(id, *term);
        }
        let node = self.nodes.entry(id).or_default();
        match event {
            Event::NodeStarted { .. } => node.up = true,
            Event::PeerConnected { peer, .. } | Event::FalseAlarm { peer } => {
                node.peers.insert(*peer);
            }
            Event::PeerLost { peer, .. } => {
                node.peers.remove(peer);
            }
            Event::LeaderAccepted { leader, term } => node.accepted = Some((*term, *leader)),
            Event::RankChanged { rank, .. } => node.rank = *rank,
            Event::Elected { term, .. } => {
                node.rank = None;
                let newer = self.elected.as_ref().is_none_or(|known| known.term < *term);
                if newer {
                    self.elected = Some(Leadership {
                        leader: id,
                        term: *term,
                        ready: false,
                        over: false,
                        synced: BTreeSet::new(),
                        epoch: 0,
                        ranks: Vec::new(),
                    });
                }
                return newer;
            }
            Event::Ready { term, .. }
            | Event::SteppedDown { term, .. }
            | Event::FollowerSynced { term, .. }
            | Event::FollowerLost { term, .. }
            | Event::Designated { term, .. } => {
                let current = self.elected.as_mut().filter(|l| (l.leader, l.term) == (id, *term));
                let Some(leadership) = current else { return false };
                leadership.apply(event);
            }
            _ => return false,
        }
        true
    }

    /// The leader, if the newest one known still leads as far as its own records tell. A paused
    /// one does: it does not know better.
    pub(crate) fn leader(&self) -> Option<Leader> {
        let leadership = self.elected.as_ref().filter(|leadership| !leadership.over)?;
        Some(Leader { node: leadership.leader, term: leadership.term })
    }

    /// Whether this leader has said that it leads no more.
    pub(crate) fn has_stepped_down(&self, leader: Leader) -> bool {
        self.stepped_down.get(&leader.node).is_some_and(|term| *term >= leader.term)
    }

    /// The designated sub-leaders, Primary first.
    pub(crate) fn ranks(&self) -> &[NodeId] {
        self.elected.as_ref().map_or(&[], |leadership| &leadership.ranks)
    }

    /// Whether the leader holds the follower for connected and caught up.
    pub(crate) fn is_synced(&self, follower: NodeId) -> bool {
        self.elected.as_ref().is_some_and(|leadership| leadership.synced.contains(&follower))
    }

    /// Whether the node's process runs and has begun its work.
    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.up)
    }

    /// A leader of a later term that is ready and that every node has accepted except `struck`.
    pub(crate) fn successor(&self, old: Leader, size: u32, struck: &[NodeId]) -> Option<Leader> {
        let leader = self.leader()?;
        let ready = self.elected.as_ref().is_some_and(|l| l.ready) || self.silent;
        let known = (1..=u64::from(size))
            .filter(|node| *node != leader.node && !struck.contains(node))
            .all(|node| self.has_accepted(node, leader));
        (leader.term > old.term && !struck.contains(&leader.node) && ready && known)
            .then_some(leader)
    }

    fn has_accepted(&self, node: NodeId, leader: Leader) -> bool {
        let accepted = self.nodes.get(&node).and_then(|node| node.accepted);
        accepted == Some((leader.term, leader.node))
    }

    /// Nothing if a trial may begin: one ready leader, everybody up, connected, caught up and
    /// informed, and as many sub-leaders as there should be. Else what is missing.
    pub(crate) fn missing(&self, size: u32, sub_leaders: u32) -> Option<String> {
        let all = 1..=u64::from(size);
        let lacking = |lacks: &dyn Fn(NodeId) -> bool| -> Option<String> {
            let nodes: Vec<NodeId> = all.clone().filter(|node| lacks(*node)).collect();
            (!nodes.is_empty()).then(|| format!("node {}", list(&nodes)))
        };
        if let Some(nodes) = lacking(&|node| !self.is_up(node)) {
            return Some(format!("{nodes} to start"));
        }
        if let Some(nodes) = lacking(&|node| self.nodes[&node].paused) {
            return Some(format!("{nodes} to be resumed"));
        }
        let Some(leader) = self.leader() else { return Some("a leader".to_owned()) };
        let leadership = self.elected.as_ref()?;
        if !leadership.ready && !self.silent {
            return Some(format!("leader {} to be ready", leader.node));
        }
        if let Some(nodes) = lacking(&|node| {
            node != leader.node
                && !((leadership.synced.contains(&node) || self.silent)
                    && self.has_accepted(node, leader))
        }) {
            return Some(format!("{nodes} to catch up with leader {}", leader.node));
        }
        // Votes travel between followers, so they have to be connected as well.
        if let Some(nodes) = lacking(&|node| {
            all.clone().any(|peer| peer != node && !self.nodes[&node].peers.contains(&peer))
        }) {
            return Some(format!("{nodes} to connect to every other"));
        }
        let informed =
            leadership.ranks.iter().zip(0..).all(|(node, rank)| {
                self.nodes.get(node).is_some_and(|node| node.rank == Some(rank))
            });
        if leadership.ranks.len() != sub_leaders as usize || !informed {
            return Some(format!("{sub_leaders} sub-leaders"));
        }
        None
    }

    /// From now on, the hosts' time is that of another clock.
    pub(crate) fn forget_times(&mut self) {
        self.last_change = 0;
    }

    /// When the last thing happened that changed this view, on the hosts' monotonic clock.
    pub(crate) fn last_change(&self) -> u64 {
        self.last_change
    }
}

impl Leadership {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Ready { .. } => self.ready = true,
            Event::SteppedDown { .. } => self.over = true,
            Event::FollowerSynced { peer, .. } => {
                self.synced.insert(*peer);
            }
            Event::FollowerLost { peer, .. } => {
                self.synced.remove(peer);
            }
            Event::Designated { epoch, ranks, .. } if *epoch > self.epoch => {
                self.epoch = *epoch;
                self.ranks.clone_from(ranks);
            }
            _ => {}
        }
    }
}
