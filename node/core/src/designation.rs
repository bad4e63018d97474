//! Who is to replace the leader: ranking by round-trip time, with hysteresis.

use serde::{Deserialize, Serialize};
use sraft_events::{DesignationReason, Event, NodeId, Term};

use crate::{Node, node::State};

/// A leader's list of those who are to replace it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Designation {
    /// The term of the leader that made it.
    pub term: Term,
    /// Counts the designations of one term from 1.
    pub epoch: u64,
    /// The sub-leaders, Primary first.
    pub ranks: Vec<NodeId>,
    /// The largest round trip that the leader knows, in microseconds: a promotion that waits for
    /// the farthest voter needs to know how far that is.
    pub largest_rtt_us: u64,
}

/// A challenger is clearly nearer if its round trip is below this share of a sub-leader's.
const CLEARLY_NEARER: f64 = 0.8;

/// For so many heartbeats in a row it must be: round trips on one network are mostly noise.
const CHALLENGE_HEARTBEATS: u32 = 20;

impl Node {
    /// Names sub-leaders if there are none yet, or if those named are not all to be counted on,
    /// or if a rank is free and somebody can take it. Who holds a rank keeps it.
    pub(crate) fn designate(&mut self) {
        let wanted = self.config.sub_leaders();
        let State::Leader(leadership) = &self.state else { return };
        if wanted == 0 {
            return;
        }
        let nearest = self.nearest();
        let (ranks, reason) = match &leadership.designation {
            None => {
                // The first ranking waits for everybody it can expect to hear from.
                let waiting = leadership.followers.iter().any(|(peer, follower)| {
                    self.connected[peer] && follower.responsive() && follower.rtt.is_none()
                });
                if waiting || nearest.is_empty() {
                    return;
                }
                (nearest.into_iter().take(wanted).collect(), DesignationReason::First)
            }
            Some(designation) => {
                let mut ranks = designation.ranks.clone();
                ranks.retain(|node| nearest.contains(node));
                let lost = ranks.len() < designation.ranks.len();
                let free = nearest.into_iter().filter(|node| !designation.ranks.contains(node));
                ranks.extend(free.take(wanted - ranks.len()));
                if ranks == designation.ranks {
                    return;
                }
                (ranks, if lost { DesignationReason::Lost } else { DesignationReason::Free })
            }
        };
        self.announce(ranks, reason);
    }

    /// Counts, once per heartbeat, for how long a follower has been clearly nearer than a
    /// sub-leader ranked before it, and ranks anew when that has gone on for long enough.
    pub(crate) fn watch_ranking(&mut self) {
        let nearest = self.nearest();
        let State::Leader(leadership) = &mut self.state else { return };
        let Some(designation) = &leadership.designation else { return };
        let followers = &leadership.followers;
        let rtt = |node: &NodeId| followers.get(node).and_then(|follower| follower.rtt);
        let challenges = &mut leadership.challenges;
        challenges.retain(|node, _| nearest.contains(node));
        for challenger in &nearest {
            let ahead = designation.ranks.iter().take_while(|holder| *holder != challenger);
            let nearer = ahead.into_iter().any(|holder| {
                rtt(challenger).zip(rtt(holder)).is_some_and(|(c, h)| c < CLEARLY_NEARER * h)
            });
            let count = challenges.entry(*challenger).or_default();
            *count = if nearer { *count + 1 } else { 0 };
        }
        if challenges.values().any(|&count| count >= CHALLENGE_HEARTBEATS) {
            challenges.clear();
            let ranks: Vec<_> = nearest.into_iter().take(self.config.sub_leaders()).collect();
            if ranks != designation.ranks {
                self.announce(ranks, DesignationReason::Nearer);
            }
        }
    }

    /// The followers that can be counted on, nearest first.
    fn nearest(&self) -> Vec<NodeId> {
        let State::Leader(leadership) = &self.state else { return Vec::new() };
        let mut nearest: Vec<_> = leadership
            .followers
            .iter()
            .filter(|(_, follower)| follower.synced && follower.responsive())
            .filter_map(|(&node, follower)| Some((follower.rtt?, node)))
            .collect();
        nearest.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        nearest.into_iter().map(|(_, node)| node).collect()
    }

    fn announce(&mut self, ranks: Vec<NodeId>, reason: DesignationReason) {
        let State::Leader(leadership) = &mut self.state else { return };
        let term = leadership.term;
        let epoch = leadership.designation.as_ref().map_or(0, |old| old.epoch) + 1;
        let there = leadership.followers.values().filter(|f| f.synced && f.responsive());
        let rtts = there.filter_map(|follower| follower.rtt);
        let largest_rtt_us = (rtts.fold(0.0, f64::max) / 1e3).ceil() as u64;
        leadership.designation =
            Some(Designation { term, epoch, ranks: ranks.clone(), largest_rtt_us });
        self.emit(Event::Designated { term, epoch, ranks, reason });
        self.broadcast();
    }
}
