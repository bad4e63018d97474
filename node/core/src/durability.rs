//! What becomes durable when, and what may leave the node before what it says is durable.

use std::collections::VecDeque;

use sraft_events::{Event, Index, NodeId, Term};

use crate::{
    Entry, Envelope, HardState, Message, Node, Persist, PersistSnapshot, Snapshot, log::Fit,
    message::Conflict, mutation::Mutation, node::State,
};

/// What of the node's state is durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// The last ticket given out by `take_output`.
    pub issued: u64,
    /// The ticket of the last write that carries term and vote.
    pub hard_state: u64,
    /// The highest durable ticket.
    pub durable: u64,
    /// The last durable index, and where each write under way will move it.
    pub durable_index: Index,
    pub writes: VecDeque<(u64, Index)>,
    /// The node's own snapshots on their way to the disk.
    pub snapshots: VecDeque<(u64, PersistSnapshot)>,
    /// What the next ticket will carry.
    pub next_hard_state: bool,
    pub next_snapshot: Option<PersistSnapshot>,
    pub next_entries: Vec<Entry>,
}

impl Disk {
    /// Whether something waits for the next ticket.
    fn is_behind(&self) -> bool {
        self.next_hard_state || self.next_snapshot.is_some() || !self.next_entries.is_empty()
    }

    /// The ticket that covers all that has changed so far.
    fn ticket(&self) -> u64 {
        if self.is_behind() { self.issued + 1 } else { self.issued }
    }

    /// The log has been cut after `last`.
    fn cut(&mut self, last: Index) {
        self.durable_index = self.durable_index.min(last);
        for (_, written) in &mut self.writes {
            *written = (*written).min(last);
        }
        self.next_entries.retain(|entry| entry.index <= last);
    }

    /// What is to be written now.
    pub(crate) fn take(&mut self, hard_state: HardState, installed: Index) -> Option<Persist> {
        if !self.is_behind() {
            return None;
        }
        self.issued += 1;
        let ticket = self.issued;
        if self.next_hard_state {
            self.hard_state = ticket;
        }
        let snapshot = self.next_snapshot.take();
        let reset = snapshot.as_ref().filter(|new| new.reset).map(|new| new.snapshot.last_index);
        if let Some(last) = self.next_entries.last().map(|entry| entry.index).or(reset) {
            self.writes.push_back((ticket, last));
        }
        if let Some(own) = snapshot.as_ref().filter(|new| new.snapshot.last_index > installed) {
            self.snapshots.push_back((ticket, own.clone()));
        }
        Some(Persist {
            ticket,
            hard_state: std::mem::take(&mut self.next_hard_state).then_some(hard_state),
            snapshot,
            entries: std::mem::take(&mut self.next_entries),
        })
    }
}

impl Node {
    /// Sends at once. For what promises nothing that the disk could forget.
    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.output.messages.push(Envelope { to, message });
    }

    /// Sends once all that has changed so far is durable.
    pub(crate) fn send_when_durable(&mut self, to: NodeId, message: Message) {
        let ticket = self.disk.ticket();
        self.send_after(ticket, to, message);
    }

    /// Sends once the term that the message speaks of is durable.
    pub(crate) fn send_when_term_durable(&mut self, to: NodeId, message: Message) {
        let ticket =
            if self.disk.next_hard_state { self.disk.issued + 1 } else { self.disk.hard_state };
        self.send_after(ticket, to, message);
    }

    fn send_after(&mut self, ticket: u64, to: NodeId, message: Message) {
        if ticket <= self.disk.durable || self.config.flawed(Mutation::ReplyBeforeDurable) {
            self.send(to, message);
        } else {
            self.held.push((ticket, Envelope { to, message }));
        }
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        if hard_state.term > self.hard_state.term {
            // What was promised in an older term must not be said any more: the entries that an
            // acknowledgement speaks of may be gone by the time it would be released.
            if !self.config.flawed(Mutation::KeepHeldReplies) {
                self.held.clear();
            }
            self.doubts.retain(|_, request| request.term > hard_state.term);
            self.incoming = None;
        }
        self.hard_state = hard_state;
        self.disk.next_hard_state = true;
    }

    /// Whether term and vote, as they stand, are durable.
    pub(crate) fn hard_state_durable(&self) -> bool {
        !self.disk.next_hard_state && self.disk.hard_state <= self.disk.durable
    }

    /// Index of the last durable entry.
    pub fn durable_index(&self) -> Index {
        self.disk.durable_index
    }

    /// Appends a leader's own entry.
    pub(crate) fn append(&mut self, command: Vec<u8>) -> Index {
        let index = self.log.append(self.hard_state.term, command);
        self.disk.next_entries.extend(self.log.range(index, index).iter().cloned());
        index
    }

    /// Takes up a leader's entries.
    pub(crate) fn splice(
        &mut self,
        prev_index: Index,
        prev_term: Term,
        entries: &[Entry],
    ) -> Result<(), Conflict> {
        let fit = self.log.splice(prev_index, prev_term, entries, self.commit)?;
        if let Fit::Extended { from, truncated } = fit {
            if truncated {
                self.disk.cut(from - 1);
            }
            self.disk.next_entries.extend_from_slice(self.log.range(from, self.log.last_index()));
        }
        Ok(())
    }

    /// Only a flawed core ever cuts its log without a leader's word.
    pub(crate) fn cut_log(&mut self, last: Index) {
        self.log.truncate(last);
        self.disk.cut(last);
    }

    /// Makes a snapshot of the node's own state durable. The log is cut once it is.
    pub(crate) fn keep_snapshot(&mut self, snapshot: Snapshot, first_index: Index) {
        // A snapshot from the leader, if one is to be written with the same ticket, is still what
        // the durable log has to be replaced by.
        let mut reset = self.disk.next_snapshot.as_ref().is_some_and(|older| older.reset);
        let follows = !matches!(self.state, State::Leader(_));
        if follows && self.config.flawed(Mutation::SnapshotDropsTail) {
            self.log.reset(snapshot.last_index, snapshot.last_term);
            self.disk.cut(snapshot.last_index);
            reset = true;
        }
        self.disk.next_snapshot = Some(PersistSnapshot { snapshot, first_index, reset });
    }

    /// Puts a snapshot from the leader in the place of the state and of the whole log.
    pub(crate) fn replace_by(&mut self, snapshot: Snapshot) {
        let Snapshot { last_index, last_term, .. } = snapshot;
        assert!(last_index > self.commit, "a snapshot never takes anything back");
        // Until it is durable, all that counts of the durable log is what agrees with every
        // leader's.
        self.disk.cut(self.commit);
        self.disk.next_entries.clear();
        let first_index = last_index + 1;
        self.disk.next_snapshot =
            Some(PersistSnapshot { snapshot: snapshot.clone(), first_index, reset: true });
        self.log.reset(last_index, last_term);
        self.commit = last_index;
        self.output.committed.clear();
        self.output.install = Some(snapshot.clone());
        self.snapshot = Some(snapshot);
    }

    pub(crate) fn persisted(&mut self, ticket: u64) {
        assert!(ticket <= self.disk.issued, "ticket {ticket} was never given out");
        self.disk.durable = self.disk.durable.max(ticket);
        while let Some(&(written, last)) = self.disk.writes.front() {
            if written > ticket {
                break;
            }
            self.disk.durable_index = last;
            self.disk.writes.pop_front();
        }
        while self.disk.snapshots.front().is_some_and(|(written, _)| *written <= ticket) {
            let (_, durable) = self.disk.snapshots.pop_front().expect("it has been seen");
            self.snapshot_durable(durable);
        }
        for (due, envelope) in std::mem::take(&mut self.held) {
            if due <= ticket {
                self.output.messages.push(envelope);
            } else {
                self.held.push((due, envelope));
            }
        }
        match &self.state {
            State::Candidate(_) => self.own_vote_durable(),
            State::Leader(_) => self.advance_commit(),
            _ => {}
        }
    }

    /// The node's own snapshot is durable: the log's beginning is needed no more.
    fn snapshot_durable(&mut self, durable: PersistSnapshot) {
        let PersistSnapshot { snapshot, first_index, .. } = durable;
        if self.snapshot.as_ref().is_some_and(|newer| newer.last_index >= snapshot.last_index) {
            return;
        }
        let (index, bytes) = (snapshot.last_index, snapshot.data.len() as u64);
        self.log.compact(first_index - 1);
        self.snapshot = Some(snapshot);
        self.emit(Event::SnapshotTaken { index, bytes });
        self.log_compacted();
    }

    /// Moves the commit index up and hands the entries to the driver.
    pub(crate) fn commit_to(&mut self, index: Index) {
        let index = index.min(self.log.last_index());
        if index > self.commit {
            self.output.committed.extend_from_slice(self.log.range(self.commit + 1, index));
            self.commit = index;
        }
    }
}
