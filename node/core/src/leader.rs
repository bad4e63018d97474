//! The leader: how it begins, keeps its quorum, loses it, and hands over.

mod install;
mod progress;
mod replication;

use std::{collections::BTreeMap, time::Duration};

use sraft_events::{Event, Index, NodeId, StepDownReason, Term};

use crate::{Designation, Message, Node, Time, campaign::Campaign, node::State};

pub(crate) use progress::Follower;

/// A follower that leaves this many heartbeats in a row unanswered is not to be counted on.
const MISSED_HEARTBEATS: u32 = 3;

/// What a leader knows.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Leadership {
    pub term: Term,
    /// Index of the no-op with which the term began.
    noop: Index,
    /// Whether the no-op has committed.
    pub ready: bool,
    elected_at: Time,
    pub next_heartbeat: Time,
    pub followers: BTreeMap<NodeId, Follower>,
    pub designation: Option<Designation>,
    /// For how many heartbeats in a row each follower has been clearly nearer than a sub-leader.
    pub challenges: BTreeMap<NodeId, u32>,
    transfer: Option<Transfer>,
    /// Whether it has ever told a follower to take over. That message may arrive at any time, so
    /// from then on nobody has promised this leader anything.
    pub has_asked_successor: bool,
    /// Whether a follower waits to hear that something has committed.
    notices: bool,
}

/// A handover under way.
#[derive(Clone, Debug, Hash)]
struct Transfer {
    to: NodeId,
    asked: bool,
    give_up: Time,
}

impl Node {
    /// The campaign is won.
    pub(crate) fn lead(&mut self, campaign: &Campaign, votes: u32) {
        let term = self.hard_state.term;
        self.emit(Event::Elected { term, campaign: campaign.kind, rank: campaign.rank, votes });
        let next_index = self.log.last_index() + 1;
        let followers = self.peers().into_iter().map(|peer| (peer, Follower::new(next_index)));
        let followers = followers.collect();
        let noop = self.append(Vec::new());
        self.leader = Some(self.config.id);
        self.led_term = term;
        self.designation = None;
        self.doubts.clear();
        self.state = State::Leader(Box::new(Leadership {
            term,
            noop,
            ready: false,
            elected_at: self.now,
            next_heartbeat: self.now + self.config.heartbeat,
            followers,
            designation: None,
            challenges: BTreeMap::new(),
            transfer: None,
            has_asked_successor: false,
            notices: false,
        }));
        // The no-op goes out as every follower's first probe and announces the new leader.
        for peer in self.peers() {
            self.send_entries(peer);
        }
    }

    /// Appends a command on a leader and returns its index; else forwards it.
    pub(crate) fn propose(&mut self, command: Vec<u8>) -> Option<Index> {
        if command.is_empty() || command.len() > self.config.max_append_bytes {
            return None;
        }
        match (&self.state, self.leader) {
            (State::Leader(leadership), _) if leadership.transfer.is_none() => {
                return Some(self.append(command));
            }
            (State::Leader(_), _) | (_, None) => {}
            (_, Some(leader)) => self.send(leader, Message::Forward { command }),
        }
        None
    }

    /// Sends everybody a heartbeat now.
    pub(crate) fn broadcast(&mut self) {
        for peer in self.peers() {
            self.send_append(peer, true);
        }
    }

    /// A heartbeat is due: look at the quorum, then send one to everybody.
    pub(crate) fn heartbeat_due(&mut self) {
        let (now, heartbeat) = (self.now, self.config.heartbeat);
        let State::Leader(leadership) = &mut self.state else { return };
        if leadership.next_heartbeat > now {
            return;
        }
        // Heartbeats keep their rhythm; only one that comes a whole interval late starts anew.
        leadership.next_heartbeat = leadership.next_heartbeat + heartbeat;
        if leadership.next_heartbeat <= now {
            leadership.next_heartbeat = now + heartbeat;
        }
        if leadership.transfer.as_ref().is_some_and(|transfer| transfer.give_up <= now) {
            leadership.transfer = None;
        }
        if self.quorum_silence() >= self.config.lease {
            return self.lost_quorum();
        }
        self.expire_reads();
        self.watch_ranking();
        for peer in self.peers() {
            let State::Leader(leadership) = &mut self.state else { return };
            let follower = leadership.followers.get_mut(&peer).expect("every peer is a follower");
            follower.unanswered = follower.unanswered.saturating_add(1);
            if follower.unanswered == MISSED_HEARTBEATS + 1 {
                self.follower_lost(peer, false);
            }
            self.send_append(peer, true);
            self.send_again_if_stalled(peer);
        }
        self.designate();
    }

    /// How long ago the leader last had the acknowledgement of a majority, itself included.
    pub(crate) fn quorum_silence(&self) -> Duration {
        let State::Leader(leadership) = &self.state else { return Duration::MAX };
        let mut replies: Vec<_> =
            leadership.followers.values().map(|follower| follower.last_reply).collect();
        replies.push(Some(self.now));
        replies.sort_unstable_by(|a, b| b.cmp(a));
        let elected = leadership.elected_at;
        self.now.since(replies[self.config.majority() - 1].unwrap_or(elected))
    }

    /// Check-quorum (dissertation, 6.2): a leader that speaks to no majority is none.
    fn lost_quorum(&mut self) {
        self.emit(Event::SteppedDown {
            term: self.hard_state.term,
            reason: StepDownReason::NoQuorum,
        });
        self.state = State::Follower;
        self.leader = None;
        self.heard = None;
        self.arm(self.config.timeout);
    }

    pub(crate) fn follower_lost(&mut self, peer: NodeId, disconnected: bool) {
        let State::Leader(leadership) = &mut self.state else { return };
        let follower = leadership.followers.get_mut(&peer).expect("every peer is a follower");
        let known = follower.match_index >= self.log.base_index();
        follower.probe_from(if known { follower.match_index } else { self.log.last_index() } + 1);
        if std::mem::take(&mut follower.synced) {
            let term = leadership.term;
            self.emit(Event::FollowerLost { peer, term, disconnected });
        }
        self.designate();
    }

    pub(crate) fn follower_back(&mut self, peer: NodeId) {
        let State::Leader(leadership) = &mut self.state else { return };
        let follower = leadership.followers.get_mut(&peer).expect("every peer is a follower");
        follower.probe_from(follower.next_index);
        follower.heartbeats.clear();
        self.send_append(peer, true);
        self.resume_install(peer);
    }

    /// Hands over to the Primary, or to whoever has the longest log.
    pub(crate) fn transfer(&mut self) {
        if !self.config.handover {
            return;
        }
        let give_up = self.now + self.config.timeout.min;
        let State::Leader(leadership) = &mut self.state else { return };
        let synced = |node: &NodeId| leadership.followers[node].synced;
        let primary = leadership
            .designation
            .as_ref()
            .and_then(|designation| designation.ranks.iter().copied().find(synced));
        let longest = || {
            let synced = leadership.followers.iter().filter(|(_, follower)| follower.synced);
            synced.max_by_key(|(_, follower)| follower.match_index).map(|(&node, _)| node)
        };
        let Some(to) = primary.or_else(longest) else { return };
        leadership.transfer = Some(Transfer { to, asked: false, give_up });
        let term = leadership.term;
        self.emit(Event::HandoverStarted { to, term });
        self.ask_successor();
    }

    /// Tells the successor to stand, once it has the whole log.
    fn ask_successor(&mut self) {
        let last = self.log.last_index();
        let State::Leader(leadership) = &mut self.state else { return };
        let Some(transfer) = &mut leadership.transfer else { return };
        if !transfer.asked && leadership.followers[&transfer.to].match_index == last {
            transfer.asked = true;
            leadership.has_asked_successor = true;
            let (to, term) = (transfer.to, leadership.term);
            self.send(to, Message::TimeoutNow { term });
        }
    }
}
