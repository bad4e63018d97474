//! Replication: what each follower is sent, what its answers say, and what has committed.

use sraft_events::{Event, Index, NodeId};

use crate::{
    AppendEntries, AppendReply, Appended, Message, Node, message::Conflict, mutation::Mutation,
    node::State,
};

/// Heartbeats on their way that are remembered for measuring round trips.
const REMEMBERED_HEARTBEATS: usize = 64;

impl Node {
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
    pub(crate) fn send_entries(&mut self, peer: NodeId) {
        while self.send_append(peer, false) {}
    }

    /// Sends one AppendEntries: as a heartbeat if need be without entries, else only with. Returns
    /// whether there may be more to send.
    pub(crate) fn send_append(&mut self, peer: NodeId, heartbeat: bool) -> bool {
        let connected = self.connected[&peer];
        let State::Leader(leadership) = &mut self.state else { return false };
        let follower = leadership.followers.get_mut(&peer).expect("every peer is a follower");
        // With a probe on its way a heartbeat goes without entries: it asks the same question, and
        // a follower that does not answer is not sent the log again and again.
        let window = if follower.sending.is_some() {
            false
        } else if follower.probing {
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
        // Once the follower has the snapshot, it agrees with it to the end of that.
        let sending = follower.sending.as_ref().map(|sending| sending.snapshot.last_term);
        let prev_term = sending.or_else(|| self.log.term_at(prev_index));
        let end = prev_index + entries.len() as Index;
        follower.told = follower.told.max(self.commit.min(end));
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
            prev_term: prev_term.expect("the log reaches to prev_index"),
            entries,
            commit: self.commit,
            designation: leadership.designation.clone(),
        });
        self.send(peer, message);
        more
    }

    pub(crate) fn append_replied(&mut self, from: NodeId, reply: &AppendReply) {
        self.learn_term(reply.term);
        let (now, alpha, commit) = (self.now, self.config.rtt_alpha, self.commit);
        let State::Leader(leadership) = &self.state else { return };
        if (reply.term, reply.for_term) != (leadership.term, leadership.term) {
            return;
        }
        self.confirm_lead(from, reply.seq);
        let State::Leader(leadership) = &mut self.state else { return };
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
                follower.sending.take_if(|sending| sending.snapshot.last_index <= match_index);
                // The answers to what is covered by this one may be lost.
                follower.inflight.retain(|_, &mut last| last > match_index);
                if follower.probing && match_index + 1 >= follower.next_index {
                    follower.probing = false;
                    follower.probe_sent = false;
                    // Repeated probes: nobody may ever answer those that were lost.
                    follower.inflight.clear();
                }
                follower.next_index = follower.next_index.max(follower.match_index + 1);
                if follower.next_index < self.log.first_index() && follower.sending.is_none() {
                    // The log has been cut again while the snapshot was on its way.
                    self.begin_install(from);
                    return self.advance_commit();
                }
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
        // Old answers arrive late, when the point of agreement has been found already.
        let possible = follower.match_index + 1..=self.log.last_index();
        let expected = !follower.probing || conflict.prev_index == follower.next_index - 1;
        if !expected || !possible.contains(&conflict.prev_index) || follower.sending.is_some() {
            return;
        }
        let shared = conflict.term.and_then(|term| self.log.last_index_of_term(term));
        let next = shared.map_or(conflict.first_index, |index| index + 1);
        let next = next.min(conflict.prev_index).max(follower.match_index + 1);
        if next < self.log.first_index() {
            return self.begin_install(from);
        }
        follower.probe_from(next);
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

    /// A follower waits for an entry to commit: its clients should not have to wait for the next
    /// heartbeat as well.
    pub(crate) fn tell_when_committed(&mut self, peer: NodeId, index: Index) {
        let State::Leader(leadership) = &mut self.state else { return };
        let follower = leadership.followers.get_mut(&peer).expect("every peer is a follower");
        follower.awaits = follower.awaits.max(index);
        leadership.notices = true;
    }

    /// Tells the followers that wait for it what has committed, unless that has just gone out with
    /// something else. Once only: if the message is lost, the next heartbeat says the same.
    pub(crate) fn tell_commits(&mut self) {
        let State::Leader(leadership) = &mut self.state else { return };
        if !leadership.notices {
            return;
        }
        let mut untold = Vec::new();
        leadership.notices = false;
        for (&peer, follower) in &mut leadership.followers {
            if follower.awaits > self.commit {
                leadership.notices = true;
            } else if std::mem::take(&mut follower.awaits) > follower.told && self.connected[&peer]
            {
                untold.push(peer);
            }
        }
        for peer in untold {
            self.send_append(peer, true);
        }
    }
}
