//! The leader: its view of every follower, replication, the commit rule, handing over.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use sraft_events::{Event, Index, NodeId, StepDownReason, Term};

use crate::{
    AppendEntries, AppendReply, Appended, Designation, Message, Node, Time, campaign::Campaign,
    message::Conflict, mutation::Mutation, node::State,
};

/// A follower that leaves this many heartbeats in a row unanswered is not to be counted on.
const MISSED_HEARTBEATS: u32 = 3;

/// Heartbeats on their way that are remembered for measuring round trips.
const REMEMBERED_HEARTBEATS: usize = 64;

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
}

/// A handover under way.
#[derive(Clone, Debug, Hash)]
struct Transfer {
    to: NodeId,
    asked: bool,
    give_up: Time,
}

/// A leader's view of one follower.
#[derive(Clone, Debug)]
pub(crate) struct Follower {
    /// Highest index known to be durable there and to agree.
    pub match_index: Index,
    pub next_index: Index,
    /// Whether the leader is still looking for the point where the logs agree: then one message
    /// at a time, else as many as the window holds.
    pub probing: bool,
    pub probe_sent: bool,
    /// Messages with entries that have not been answered, and the last index of each.
    pub inflight: BTreeMap<u64, Index>,
    pub next_seq: u64,
    pub heartbeats: VecDeque<(u64, Time)>,
    pub unanswered: u32,
    pub last_reply: Option<Time>,
    /// Moving average of the round trip, in nanoseconds.
    pub rtt: Option<f64>,
    /// Connected, answering, and once caught up with the commit index.
    pub synced: bool,
}

impl Follower {
    fn new(next_index: Index) -> Follower {
        Follower {
            match_index: 0,
            next_index,
            probing: true,
            probe_sent: false,
            inflight: BTreeMap::new(),
            next_seq: 1,
            heartbeats: VecDeque::new(),
            unanswered: 0,
            last_reply: None,
            rtt: None,
            synced: false,
        }
    }

    /// Starts to look for the point of agreement again.
    fn probe_from(&mut self, next_index: Index) {
        self.next_index = next_index.max(self.match_index + 1);
        self.probing = true;
        self.probe_sent = false;
        self.inflight.clear();
    }

    /// Whether it answers.
    pub(crate) fn responsive(&self) -> bool {
        self.unanswered <= MISSED_HEARTBEATS
    }

    /// Takes the answer to a heartbeat as a sample of the round trip. Only heartbeats count: the
    /// answer to an append waits for the follower's disk.
    fn sample(&mut self, seq: u64, now: Time, alpha: f64) -> bool {
        let Some(position) = self.heartbeats.iter().position(|&(sent, _)| sent == seq) else {
            return false;
        };
        let (_, sent_at) = self.heartbeats[position];
        self.heartbeats.drain(..=position);
        let sample = now.since(sent_at).as_nanos() as f64;
        self.rtt = Some(self.rtt.map_or(sample, |rtt| rtt + alpha * (sample - rtt)));
        true
    }
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
        }));
        // The no-op goes out as every follower's first probe and announces the new leader.
        for peer in self.peers() {
            self.send_entries(peer);
        }
    }

    pub(crate) fn propose(&mut self, command: Vec<u8>) {
        if command.is_empty() || command.len() > self.config.max_append_bytes {
            return;
        }
        match (&self.state, self.leader) {
            (State::Leader(leadership), _) if leadership.transfer.is_none() => {
                self.append(command);
            }
            (State::Leader(_), _) | (_, None) => {}
            (_, Some(leader)) => self.send(leader, Message::Forward { command }),
        }
    }

    /// Sends what is new to every follower that has room for it.
    pub(crate) fn replicate(&mut self) {
        let State::Leader(leadership) = &self.state else { return };
        let last = self.log.last_index();
        let behind = leadership.followers.iter().filter(|(_, f)| f.next_index <= last);
        for peer in behind.map(|(&peer, _)| peer).collect::<Vec<_>>() {
            self.send_entries(peer);
        }
    }

    /// Sends a follower as many messages as its window allows.
    fn send_entries(&mut self, peer: NodeId) {
        while self.send_append(peer, false) {}
    }

    /// Sends one AppendEntries: as a heartbeat if need be without entries, else only with. Returns
    /// whether there may be more to send.
    fn send_append(&mut self, peer: NodeId, heartbeat: bool) -> bool {
        let connected = self.connected[&peer];
        let State::Leader(leadership) = &mut self.state else { return false };
        let follower = leadership.followers.get_mut(&peer).expect("every peer is a follower");
        // With a probe on its way a heartbeat goes without entries: it asks the same question, and
        // a follower that does not answer is not sent the log again and again.
        let window = if follower.probing {
            !follower.probe_sent
        } else {
            follower.inflight.len() < self.config.max_inflight
        };
        let mut entries = Vec::new();
        if connected && window {
            let mut bytes = 0;
            let available = self.log.range(follower.next_index, self.log.last_index());
            for entry in available.iter().take(self.config.max_append_entries) {
                bytes += entry.command.len();
                if bytes > self.config.max_append_bytes && !entries.is_empty() {
                    break;
                }
                entries.push(entry.clone());
            }
        }
        if entries.is_empty() && !heartbeat {
            return false;
        }
        let seq = follower.next_seq;
        follower.next_seq += 1;
        if let Some(last) = entries.last() {
            follower.inflight.insert(seq, last.index);
        } else {
            follower.heartbeats.push_back((seq, self.now));
            if follower.heartbeats.len() > REMEMBERED_HEARTBEATS {
                follower.heartbeats.pop_front();
            }
        }
        let prev_index = follower.next_index - 1;
        if follower.probing {
            follower.probe_sent = true;
        } else {
            follower.next_index += entries.len() as Index;
        }
        let more = !follower.probing && !entries.is_empty();
        let message = Message::AppendEntries(AppendEntries {
            term: leadership.term,
            seq,
            prev_index,
            prev_term: self.log.term_at(prev_index).expect("the log reaches to prev_index"),
            entries,
            commit: self.commit,
            designation: leadership.designation.clone(),
        });
        self.send(peer, message);
        more
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
        self.watch_ranking();
        for peer in self.peers() {
            let State::Leader(leadership) = &mut self.state else { return };
            let follower = leadership.followers.get_mut(&peer).expect("every peer is a follower");
            follower.unanswered = follower.unanswered.saturating_add(1);
            if follower.unanswered == MISSED_HEARTBEATS + 1 {
                self.follower_lost(peer, false);
            }
            self.send_append(peer, true);
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

    pub(crate) fn append_replied(&mut self, from: NodeId, reply: &AppendReply) {
        self.learn_term(reply.term);
        let (now, alpha, commit) = (self.now, self.config.rtt_alpha, self.commit);
        let State::Leader(leadership) = &mut self.state else { return };
        if reply.term != leadership.term {
            return;
        }
        let follower = leadership.followers.get_mut(&from).expect("every peer is a follower");
        follower.last_reply = Some(now);
        follower.unanswered = 0;
        let sampled = follower.sample(reply.seq, now, alpha);
        follower.inflight.remove(&reply.seq);
        match reply.result {
            Ok(Appended { match_index }) => {
                if match_index > self.log.last_index() {
                    return;
                }
                follower.match_index = follower.match_index.max(match_index);
                // The answers to what is covered by this one may be lost.
                follower.inflight.retain(|_, &mut last| last > match_index);
                if follower.probing && match_index + 1 >= follower.next_index {
                    follower.probing = false;
                    follower.probe_sent = false;
                    // Repeated probes: nobody may ever answer those that were lost.
                    follower.inflight.clear();
                }
                follower.next_index = follower.next_index.max(follower.match_index + 1);
                let caught_up = follower.match_index >= commit && !follower.probing;
                if caught_up && !follower.synced && self.connected[&from] {
                    follower.synced = true;
                    let (term, match_index) = (leadership.term, follower.match_index);
                    let measured = follower.rtt.is_some();
                    self.emit(Event::FollowerSynced { peer: from, term, match_index });
                    if !measured {
                        // Measure it now: until it is, the cluster has no sub-leaders.
                        self.send_append(from, true);
                    }
                    self.designate();
                }
            }
            Err(conflict) => self.step_back(from, conflict),
        }
        if sampled {
            self.designate();
        }
        self.advance_commit();
        self.ask_successor();
    }

    /// Goes back to where the logs may agree, a term at a time (paper, end of 5.3).
    fn step_back(&mut self, from: NodeId, conflict: Conflict) {
        let State::Leader(leadership) = &mut self.state else { return };
        let follower = leadership.followers.get_mut(&from).expect("every peer is a follower");
        // Old answers arrive late, even those to an append of an earlier reign: a follower that had
        // voted by then gives them the present term, and the log may have been longer at that time.
        let possible = follower.match_index + 1..=self.log.last_index();
        let expected = !follower.probing || conflict.prev_index == follower.next_index - 1;
        if !expected || !possible.contains(&conflict.prev_index) {
            return;
        }
        let shared = conflict.term.and_then(|term| self.log.last_index_of_term(term));
        let next = shared.map_or(conflict.first_index, |index| index + 1);
        follower.probe_from(next.min(conflict.prev_index).max(1));
        self.send_entries(from);
    }

    /// The commit rule (paper, 5.4.2): the highest index that is durable on a majority, if its
    /// entry is of this leader's own term. The leader's own disk counts like any other.
    pub(crate) fn advance_commit(&mut self) {
        let durable = self.durable_index();
        let State::Leader(leadership) = &self.state else { return };
        let mut matched: Vec<_> =
            leadership.followers.values().map(|follower| follower.match_index).collect();
        matched.push(durable);
        matched.sort_unstable_by(|a, b| b.cmp(a));
        let mut index = matched[self.config.majority() - 1];
        if self.config.flawed(Mutation::CommitLogLength) {
            index = self.log.last_index();
        }
        let own_term = self.log.term_at(index) == Some(leadership.term)
            || self.config.flawed(Mutation::CommitOlderTerms);
        if index <= self.commit || !own_term {
            return;
        }
        self.commit_to(index);
        let State::Leader(leadership) = &mut self.state else { return };
        if !leadership.ready && self.commit >= leadership.noop {
            leadership.ready = true;
            let (term, index) = (leadership.term, leadership.noop);
            self.emit(Event::Ready { term, index });
        }
    }

    pub(crate) fn follower_lost(&mut self, peer: NodeId, disconnected: bool) {
        let State::Leader(leadership) = &mut self.state else { return };
        let follower = leadership.followers.get_mut(&peer).expect("every peer is a follower");
        follower.probe_from(follower.match_index + 1);
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
            let (to, term) = (transfer.to, leadership.term);
            self.send(to, Message::TimeoutNow { term });
        }
    }
}
