//! Linearizable reads (dissertation, 6.4): from which index on a read may be served.
//!
//! A leader that has committed an entry of its own term knows all that has ever been acknowledged
//! to a client: its commit index. What it cannot know is whether it still leads, so it asks: one
//! round of heartbeats, at once, and once a majority has answered messages *that were sent after
//! the read had come*, nobody else had been elected by then. Reads that come while a round is
//! under way wait for the next one, all together. A follower asks its leader, one message for all
//! reads of a batch of inputs.
//!
//! With [`Config::read_lease`] the round is spared while a majority has promised not to elect
//! anybody else: see [`Node::promise_lease`].

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{Config, Index, Message, Node, NodeId, Term, Time, mutation::Mutation, node::State};

/// Reads of other nodes that a leader keeps at most; beyond that they are told to ask again.
const MOST_WAITING: usize = 1 << 16;

/// The answer to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadReply {
    /// The read.
    pub id: u64,
    /// The read may be served once the state machine has applied everything up to here. Empty if
    /// it has to be asked again.
    pub index: Option<Index>,
}

/// Reads that have not been answered.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Reads {
    /// Of this node's driver, since the last output.
    fresh: Vec<u64>,
    /// What a follower has asked its leader, oldest first.
    batches: VecDeque<Batch>,
    /// Counts the batches. It begins anywhere, so that an answer to an earlier process of this
    /// node answers nothing.
    next_batch: u64,
    /// What a leader is to answer with its next round.
    waiting: Vec<Asked>,
    round: Option<Round>,
    /// The term in which the reads before have been asked.
    term: Term,
}

#[derive(Clone, Debug, Hash)]
struct Batch {
    id: u64,
    reads: Vec<u64>,
    leader: NodeId,
    term: Term,
    give_up: Time,
}

/// A read that a leader is to answer.
#[derive(Clone, Copy, Debug, Hash)]
struct Asked {
    /// The follower; empty for the leader's own driver.
    from: Option<NodeId>,
    id: u64,
    give_up: Time,
}

/// Heartbeats by which a leader finds out whether it still leads.
#[derive(Clone, Debug, Hash)]
struct Round {
    reads: Vec<Asked>,
    /// The commit index when it began.
    index: Index,
    /// The followers that have not confirmed, and the first message whose answer would.
    unconfirmed: BTreeMap<NodeId, u64>,
}

impl Reads {
    pub(crate) fn new(seed: u64) -> Reads {
        Reads {
            fresh: Vec::new(),
            batches: VecDeque::new(),
            next_batch: seed,
            waiting: Vec::new(),
            round: None,
            term: 0,
        }
    }

    /// Whether nothing waits for an answer from anybody: most of the time, in a cluster without
    /// clients.
    fn is_idle(&self) -> bool {
        self.batches.is_empty() && self.waiting.is_empty() && self.round.is_none()
    }
}

impl Config {
    /// How long a read waits before it has to be asked again.
    pub fn read_patience(&self) -> Duration {
        self.timeout.max
    }

    /// How long after it has sent what a majority acknowledged a leader may take for granted that
    /// nobody else has been elected: less than the followers' promise, for clocks that drift.
    fn read_lease(&self) -> Duration {
        self.smallest_timeout() / 10 * 9
    }
}

impl Node {
    /// A read of this node's driver.
    pub(crate) fn read(&mut self, id: u64) {
        if self.leader.is_some() {
            self.reads.fresh.push(id);
        } else {
            self.answer_read(None, id, None);
        }
    }

    /// A read of a follower.
    pub(crate) fn read_asked(&mut self, from: NodeId, id: u64) {
        if matches!(self.state, State::Leader(_)) && self.reads.waiting.len() < MOST_WAITING {
            self.wait(Some(from), id);
        } else {
            self.answer_read(Some(from), id, None);
        }
    }

    fn wait(&mut self, from: Option<NodeId>, id: u64) {
        let give_up = self.now + self.config.read_patience();
        self.reads.term = self.hard_state.term;
        self.reads.waiting.push(Asked { from, id, give_up });
    }

    /// The leader's answer.
    pub(crate) fn read_answered(&mut self, from: NodeId, id: u64, index: Option<Index>) {
        let batches = &mut self.reads.batches;
        let answered = batches.iter().position(|batch| (batch.leader, batch.id) == (from, id));
        let Some(batch) = answered.and_then(|position| batches.remove(position)) else { return };
        for id in batch.reads {
            self.answer_read(None, id, index);
        }
    }

    fn answer_read(&mut self, to: Option<NodeId>, id: u64, index: Option<Index>) {
        match (to, index) {
            (None, _) => self.output.reads.push(ReadReply { id, index }),
            (Some(peer), _) => {
                self.send(peer, Message::ReadIndexReply { id, index });
                if let Some(index) = index {
                    // It cannot serve the read before it has applied that much.
                    self.tell_when_committed(peer, index);
                }
            }
        }
    }

    /// Before the output is taken: what has come since the last one is asked all at once.
    pub(crate) fn carry_reads_on(&mut self) {
        if !self.reads.fresh.is_empty() {
            self.ask_fresh_reads();
        }
        while !self.reads.waiting.is_empty() && self.reads.round.is_none() && self.may_serve() {
            let reads = std::mem::take(&mut self.reads.waiting);
            if self.holds_lease() || self.config.flawed(Mutation::ReadUnconfirmed) {
                self.answer_all(reads, Some(self.commit));
            } else {
                self.begin_round(reads);
            }
        }
    }

    fn ask_fresh_reads(&mut self) {
        let reads = std::mem::take(&mut self.reads.fresh);
        match (&self.state, self.leader) {
            (State::Leader(_), _) => reads.into_iter().for_each(|id| self.wait(None, id)),
            (_, Some(leader)) => {
                let id = self.reads.next_batch;
                self.reads.next_batch = id.wrapping_add(1);
                let (term, give_up) =
                    (self.hard_state.term, self.now + self.config.read_patience());
                self.reads.batches.push_back(Batch { id, reads, leader, term, give_up });
                self.send(leader, Message::ReadIndex { id });
            }
            (_, None) => reads.into_iter().for_each(|id| self.answer_read(None, id, None)),
        }
    }

    /// Whether this leader knows what its predecessors have committed.
    fn may_serve(&self) -> bool {
        matches!(&self.state, State::Leader(leadership) if leadership.ready)
            || self.config.flawed(Mutation::ReadBeforeReady)
    }

    /// Whether a majority has promised, and not long ago, to elect nobody else.
    fn holds_lease(&self) -> bool {
        let State::Leader(leadership) = &self.state else { return false };
        if !self.config.read_lease || leadership.has_asked_successor {
            return false;
        }
        let mut since: Vec<_> =
            leadership.followers.values().map(|follower| follower.acknowledged).collect();
        since.push(Some(self.now));
        since.sort_unstable_by(|a, b| b.cmp(a));
        let since = since[self.config.majority() - 1];
        since.is_some_and(|since| self.now.since(since) < self.config.read_lease())
    }

    fn begin_round(&mut self, reads: Vec<Asked>) {
        let State::Leader(leadership) = &self.state else { return };
        let next_seqs = leadership.followers.iter().map(|(&peer, f)| (peer, f.next_seq));
        self.reads.round =
            Some(Round { reads, index: self.commit, unconfirmed: next_seqs.collect() });
        self.broadcast();
        self.end_round_if_confirmed();
    }

    /// A follower has answered a message of this leader's present term.
    pub(crate) fn confirm_lead(&mut self, from: NodeId, seq: u64) {
        let Some(round) = &mut self.reads.round else { return };
        let enough = round.unconfirmed.get(&from).is_some_and(|&first| seq >= first);
        if enough || self.config.flawed(Mutation::ReadConfirmedBefore) {
            round.unconfirmed.remove(&from);
            self.end_round_if_confirmed();
        }
    }

    fn end_round_if_confirmed(&mut self) {
        let needless = self.config.members.len() - self.config.majority();
        if let Some(round) = self.reads.round.take_if(|r| r.unconfirmed.len() <= needless) {
            self.answer_all(round.reads, Some(round.index));
        }
    }

    fn answer_all(&mut self, reads: Vec<Asked>, index: Option<Index>) {
        for read in reads {
            self.answer_read(read.from, read.id, index);
        }
    }

    /// After every input: whoever has lost its leader, or its lead, answers no read any more.
    pub(crate) fn drop_lost_reads(&mut self) {
        if self.reads.is_idle() {
            return;
        }
        let term = self.hard_state.term;
        let leads = matches!(self.state, State::Leader(_)) && self.reads.term == term;
        let Reads { batches, waiting, round, .. } = &mut self.reads;
        let mut lost = Vec::new();
        if !leads && (!waiting.is_empty() || round.is_some()) {
            lost = std::mem::take(waiting);
            lost.extend(round.take().into_iter().flat_map(|round| round.reads));
        }
        let stale = |batch: &Batch| (batch.term, Some(batch.leader)) != (term, self.leader);
        if let Some(first) = batches.iter().position(stale) {
            for batch in batches.split_off(first) {
                let reads = batch.reads.into_iter();
                self.output.reads.extend(reads.map(|id| ReadReply { id, index: None }));
            }
        }
        self.answer_all(lost, None);
    }

    /// When a follower gives up the read that it has asked first.
    pub(crate) fn reads_end(&self) -> Option<Time> {
        self.reads.batches.front().map(|batch| batch.give_up)
    }

    /// The leader does not answer.
    pub(crate) fn give_up_reads(&mut self) {
        while self.reads_end().is_some_and(|end| end <= self.now) {
            for id in self.reads.batches.pop_front().into_iter().flat_map(|batch| batch.reads) {
                self.answer_read(None, id, None);
            }
        }
    }

    /// At a leader's heartbeat: reads that it could not confirm for too long are to be asked again.
    pub(crate) fn expire_reads(&mut self) {
        let now = self.now;
        let Reads { waiting, round, .. } = &mut self.reads;
        let mut expired: Vec<_> = waiting.extract_if(.., |read| read.give_up <= now).collect();
        if let Some(round) = round {
            expired.extend(round.reads.extract_if(.., |read| read.give_up <= now));
        }
        self.answer_all(expired, None);
    }
}
