//! The follower: accepting a leader, its entries, and the rank it grants.

use sraft_events::{Event, Index, NodeId, Term};

use crate::{
    AppendEntries, AppendReply, Appended, Designation, Message, Node,
    message::Conflict,
    node::{Role, State},
};

impl Node {
    pub(crate) fn append_requested(&mut self, from: NodeId, mut append: AppendEntries) {
        if append.term < self.hard_state.term {
            let prev_index = append.prev_index;
            let stale = Conflict { prev_index, term: None, first_index: prev_index };
            return self.reply_append(from, &append, Err(stale));
        }
        if !well_formed(&append) {
            return;
        }
        self.accept_leader(from, append.term);
        self.take_designation(from, append.designation.take());
        let end = append.prev_index + append.entries.len() as Index;
        match self.splice(append.prev_index, append.prev_term, &append.entries) {
            Err(conflict) => self.reply_append(from, &append, Err(conflict)),
            Ok(()) => {
                // What the leader sends fits the log, so it needs no snapshot.
                self.incoming = None;
                self.commit_to(append.commit.min(end));
                let match_index = end.min(self.durable_index());
                if match_index < end && !append.entries.is_empty() {
                    let reply = self.append_reply(&append, Ok(Appended { match_index: end }));
                    self.send_when_durable(from, reply);
                } else {
                    // A heartbeat is answered at once, for what is durable by now: its round trip
                    // is a measure of the network, not of the disk.
                    self.reply_append(from, &append, Ok(Appended { match_index }));
                }
            }
        }
    }

    /// There is a leader in `term`, and it lives.
    pub(crate) fn accept_leader(&mut self, from: NodeId, term: Term) {
        if term > self.hard_state.term || !matches!(self.state, State::Follower) {
            assert!(
                self.status().role != Role::Leader || term > self.hard_state.term,
                "Election Safety is broken: node {from} leads in term {term}, as this node does"
            );
            self.follow_term(term);
        }
        if self.leader != Some(from) {
            assert!(
                self.leader.is_none(),
                "Election Safety is broken: nodes {:?} and {from} both lead in term {term}",
                self.leader
            );
            self.leader = Some(from);
            self.led_term = term;
            self.emit(Event::LeaderAccepted { leader: from, term });
        }
        self.heard = Some(self.now);
        self.promise_lease(Some(from));
        self.dispel_doubts();
    }

    /// Learns its rank, and sets its alarm accordingly.
    pub(crate) fn take_designation(&mut self, from: NodeId, new: Option<Designation>) {
        let old_rank = self.rank();
        let age = |designation: &Designation| (designation.term, designation.epoch);
        match (new, &self.designation) {
            (Some(new), Some(old)) if age(&new) < age(old) => {} // overtaken on the way
            (Some(new), _) => self.designation = Some(new),
            (None, Some(old)) if old.term < self.hard_state.term => self.designation = None,
            (None, _) => {}
        }
        self.may_promote = self.designation.as_ref().map(age) != self.stood_under;
        let rank = self.rank();
        if rank != old_rank {
            let (term, epoch) = self.designation.as_ref().map_or((self.led_term, 0), age);
            self.emit(Event::RankChanged { leader: from, term, epoch, rank });
        }
        self.arm(self.silence_timeout());
    }

    fn reply_append(
        &mut self,
        to: NodeId,
        append: &AppendEntries,
        result: Result<Appended, Conflict>,
    ) {
        let reply = self.append_reply(append, result);
        self.send_when_term_durable(to, reply);
    }

    fn append_reply(&self, append: &AppendEntries, result: Result<Appended, Conflict>) -> Message {
        let (term, for_term, seq) = (self.hard_state.term, append.term, append.seq);
        Message::AppendReply(AppendReply { term, for_term, seq, result })
    }
}

/// Whether the entries follow one another and the leader's term: anything else is no leader's.
fn well_formed(append: &AppendEntries) -> bool {
    let mut index = append.prev_index;
    let mut term = append.prev_term;
    append.entries.iter().all(|entry| {
        let fits =
            index.checked_add(1) == Some(entry.index) && (term..=append.term).contains(&entry.term);
        (index, term) = (entry.index, entry.term);
        fits
    }) && append.designation.as_ref().is_none_or(|d| d.term == append.term)
}
