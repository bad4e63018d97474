//! The node: its state, the dispatch of inputs, and what becomes durable when.

mod fingerprint;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sraft_events::{Event, Evidence, Index, LossCause, NodeId, StepDownReason, Term};

use crate::{
    Config, Designation, Entry, Envelope, HardState, Input, Log, Message, Output, Persist,
    ReadReply, RequestVote, Restored, Time, TimeoutRange,
    campaign::Campaign,
    leader::Leadership,
    log::Fit,
    message::{Conflict, MAX_TERM},
    mutation::Mutation,
};

/// What a node is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks whether it could win.
    PreCandidate,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub id: NodeId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader it knows, itself included.
    pub leader: Option<NodeId>,
    /// Its rank among the sub-leaders, if it may still promote itself.
    pub rank: Option<u32>,
    /// Its commit index.
    pub commit: Index,
    /// Index of the first entry that its log still has, or would have if it is empty.
    pub first_index: Index,
    /// Index of the last entry of its log.
    pub last_index: Index,
    /// Whether it leads and its no-op has committed.
    pub ready: bool,
}

/// A role with what belongs to it.
#[derive(Clone, Debug, Hash)]
pub(crate) enum State {
    Follower,
    PreCandidate(Campaign),
    Candidate(Campaign),
    Leader(Box<Leadership>),
}

/// When a node that does not lead acts next, and on which evidence.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Alarm {
    pub at: Time,
    pub evidence: Evidence,
}

/// One node of a cluster. See the [crate's documentation](crate) for how to drive it.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) config: Config,
    pub(crate) now: Time,
    rng: ChaCha8Rng,

    pub(crate) hard_state: HardState,
    pub(crate) log: Log,
    pub(crate) commit: Index,
    disk: Disk,

    pub(crate) state: State,
    pub(crate) alarm: Alarm,
    /// The leader of this term, as far as it is known.
    pub(crate) leader: Option<NodeId>,
    /// When that leader was last heard.
    pub(crate) heard: Option<Time>,
    /// The highest term in which this node has known a leader: the terms just above it are
    /// reserved for that leader's sub-leaders.
    pub(crate) led_term: Term,
    /// The newest designation of the leader known last.
    pub(crate) designation: Option<Designation>,
    /// Whether this node may make use of its rank: not after it has promoted itself, nor after
    /// it was told in a pre-vote that the leader lives, until it hears that leader again.
    pub(crate) may_promote: bool,
    /// The designation under which this node has stood, so that it does so only once.
    pub(crate) stood_under: Option<(Term, u64)>,
    /// Peers to which the transport has a connection.
    pub(crate) connected: BTreeMap<NodeId, bool>,
    /// Vote requests that would be refused only because the leader seems alive: see `vote`.
    pub(crate) doubts: BTreeMap<NodeId, RequestVote>,

    held: Vec<(u64, Envelope)>,
    output: Output,
}

/// What of the node's state is durable.
#[derive(Clone, Debug, Default)]
struct Disk {
    /// The last ticket given out by `take_output`.
    issued: u64,
    /// The ticket of the last write that carries term and vote.
    hard_state: u64,
    /// The highest durable ticket.
    durable: u64,
    /// The last durable index, and where each write under way will move it.
    durable_index: Index,
    writes: VecDeque<(u64, Index)>,
    /// What the next ticket will carry.
    next_hard_state: bool,
    next_entries: Vec<Entry>,
}

impl Disk {
    /// The ticket that covers all that has changed so far.
    fn ticket(&self) -> u64 {
        if self.next_hard_state || !self.next_entries.is_empty() {
            self.issued + 1
        } else {
            self.issued
        }
    }
}

impl Node {
    /// A node that starts, or starts again, with what was durable. All its random draws follow
    /// from `seed`, which should differ between nodes and between starts.
    ///
    /// # Panics
    /// If the restored log has gaps, which the storage must rule out.
    pub fn new(config: Config, restored: Restored, seed: u64, now: Time) -> Node {
        let log = Log::new(restored.entries);
        let peers = config.members.iter().filter(|&&peer| peer != config.id);
        let mut node = Node {
            now,
            rng: ChaCha8Rng::seed_from_u64(seed),
            hard_state: restored.hard_state,
            disk: Disk { durable_index: log.last_index(), ..Disk::default() },
            log,
            commit: 0,
            state: State::Follower,
            alarm: Alarm { at: now, evidence: Evidence::Silence },
            leader: None,
            heard: None,
            // Perhaps that term had a leader, whose sub-leaders' terms are not to be taken.
            led_term: restored.hard_state.term,
            designation: None,
            may_promote: false,
            stood_under: None,
            connected: peers.map(|&peer| (peer, false)).collect(),
            doubts: BTreeMap::new(),
            held: Vec::new(),
            output: Output::default(),
            config,
        };
        node.arm(node.config.timeout);
        node
    }

    /// Takes an input in; what follows from it is fetched with [`Node::take_output`].
    ///
    /// # Panics
    /// If a message proves that a safety property of Raft is broken (two leaders in one term, a
    /// committed entry contradicted): going on would only spread the damage.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.now = self.now.max(now);
        match input {
            Input::Message { from, message } => {
                if self.connected.contains_key(&from) && message.term() <= MAX_TERM {
                    self.message(from, message);
                }
            }
            Input::Timeout => self.timeout(),
            Input::Persisted { ticket } => self.persisted(ticket),
            Input::PeerLost { peer, cause } => self.peer_lost(peer, cause),
            Input::PeerBack { peer, same_process } => self.peer_back(peer, same_process),
            Input::Propose { command } => self.propose(command),
            Input::Read { id } => self.output.reads.push(ReadReply { id, index: None }),
            Input::Snapshot { .. } => {}
            Input::Transfer => self.transfer(),
        }
    }

    /// When [`Input::Timeout`] is due. It moves with every input.
    pub fn next_deadline(&self) -> Option<Time> {
        match &self.state {
            State::Leader(leadership) => Some(leadership.next_heartbeat),
            _ => Some(self.doubts_end().map_or(self.alarm.at, |end| end.min(self.alarm.at))),
        }
    }

    /// What the driver has to do now, in the order of the fields.
    pub fn take_output(&mut self) -> Output {
        self.replicate();
        let disk = &mut self.disk;
        if disk.next_hard_state || !disk.next_entries.is_empty() {
            disk.issued += 1;
            if disk.next_hard_state {
                disk.hard_state = disk.issued;
            }
            if let Some(last) = disk.next_entries.last() {
                disk.writes.push_back((disk.issued, last.index));
            }
            self.output.persist = Some(Persist {
                ticket: disk.issued,
                hard_state: std::mem::take(&mut disk.next_hard_state).then_some(self.hard_state),
                snapshot: None,
                entries: std::mem::take(&mut disk.next_entries),
            });
        }
        std::mem::take(&mut self.output)
    }

    /// What the node says of itself.
    pub fn status(&self) -> Status {
        Status {
            id: self.config.id,
            role: match &self.state {
                State::Follower => Role::Follower,
                State::PreCandidate(_) => Role::PreCandidate,
                State::Candidate(_) => Role::Candidate,
                State::Leader(_) => Role::Leader,
            },
            term: self.hard_state.term,
            leader: self.leader,
            rank: self.rank(),
            commit: self.commit,
            first_index: self.log.first_index(),
            last_index: self.log.last_index(),
            ready: matches!(&self.state, State::Leader(leadership) if leadership.ready),
        }
    }

    /// The configuration that the node runs with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Term and vote, durable or about to be.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The log in memory, of which the end may not be durable yet.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Index of the last durable entry.
    pub fn durable_index(&self) -> Index {
        self.disk.durable_index
    }

    /// The newest designation that the node knows; on a leader, its own.
    pub fn designation(&self) -> Option<&Designation> {
        match &self.state {
            State::Leader(leadership) => leadership.designation.as_ref(),
            _ => self.designation.as_ref(),
        }
    }

    fn message(&mut self, from: NodeId, message: Message) {
        match message {
            Message::RequestVote(request) => self.vote_requested(from, request),
            Message::VoteReply(reply) => self.vote_replied(from, &reply),
            Message::AppendEntries(append) => self.append_requested(from, append),
            Message::AppendReply(reply) => self.append_replied(from, &reply),
            Message::TimeoutNow { term } => self.timeout_now(from, term),
            Message::Forward { command } => {
                // Forwarded once and no further: two nodes that take each other for the leader
                // would send a command back and forth for ever.
                if matches!(self.state, State::Leader(_)) {
                    self.propose(command);
                }
            }
            Message::ReadIndex { id } => {
                self.send(from, Message::ReadIndexReply { id, index: None });
            }
            Message::ReadIndexReply { .. }
            | Message::InstallSnapshot(_)
            | Message::InstallReply(_) => {}
        }
    }

    fn timeout(&mut self) {
        if matches!(self.state, State::Leader(_)) {
            self.heartbeat_due();
            return;
        }
        if self.doubts_end().is_some_and(|end| end <= self.now) {
            self.settle_doubts();
        }
        if self.alarm.at <= self.now && !matches!(self.state, State::Leader(_)) {
            self.alarm_due();
        }
    }

    fn peer_lost(&mut self, peer: NodeId, cause: LossCause) {
        let Some(connected) = self.connected.get_mut(&peer) else { return };
        *connected = false;
        self.emit(Event::PeerLost { peer, cause });
        match &self.state {
            State::Leader(_) => self.follower_lost(peer, true),
            _ if self.leader == Some(peer) => {
                self.settle_doubts();
                // Who has just voted for the successor lets it take over.
                if cause != LossCause::Closed && self.leader == Some(peer) {
                    self.leader_died();
                }
            }
            _ => {}
        }
    }

    fn peer_back(&mut self, peer: NodeId, same_process: bool) {
        let Some(connected) = self.connected.get_mut(&peer) else { return };
        *connected = true;
        if same_process {
            self.emit(Event::FalseAlarm { peer });
        }
        if matches!(self.state, State::Leader(_)) {
            self.follower_back(peer);
        }
    }

    /// A follower in `term`, for a leader that is not known yet. The alarm stays as it is unless
    /// there was none.
    pub(crate) fn follow_term(&mut self, term: Term) {
        assert!(term >= self.hard_state.term, "terms never fall");
        if term > self.hard_state.term {
            self.set_hard_state(HardState { term, voted_for: None });
            self.leader = None;
            self.heard = None;
        }
        match std::mem::replace(&mut self.state, State::Follower) {
            State::Follower => {}
            State::PreCandidate(campaign) => self.campaign_superseded(&campaign, true),
            State::Candidate(campaign) => self.campaign_superseded(&campaign, false),
            State::Leader(leadership) => {
                self.emit(Event::SteppedDown {
                    term: leadership.term,
                    reason: StepDownReason::HigherTerm,
                });
                self.leader = None;
                self.arm(self.config.timeout);
            }
        }
    }

    /// Sets the alarm anew, for silence.
    pub(crate) fn arm(&mut self, range: TimeoutRange) {
        let timeout = self.draw(range);
        self.alarm = Alarm { at: self.now + timeout, evidence: Evidence::Silence };
    }

    /// Draws a duration from a range, uniformly, to the nanosecond.
    pub(crate) fn draw(&mut self, range: TimeoutRange) -> Duration {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.rng.random_range(nanos(range.min)..=nanos(range.max)))
    }

    /// Takes note of something for the event log.
    pub(crate) fn emit(&mut self, event: Event) {
        self.output.events.push((self.now, event));
    }

    /// Every other member.
    pub(crate) fn peers(&self) -> Vec<NodeId> {
        self.connected.keys().copied().collect()
    }

    // ---- what may leave the node before what it says is durable --------------------------

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
        }
        self.hard_state = hard_state;
        self.disk.next_hard_state = true;
    }

    /// Whether term and vote, as they stand, are durable.
    pub(crate) fn hard_state_durable(&self) -> bool {
        !self.disk.next_hard_state && self.disk.hard_state <= self.disk.durable
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
    ) -> Result<Fit, Conflict> {
        let fit = self.log.splice(prev_index, prev_term, entries, self.commit)?;
        if let Fit::Extended { from, truncated } = fit {
            let disk = &mut self.disk;
            if truncated {
                disk.durable_index = disk.durable_index.min(from - 1);
                for (_, last) in &mut disk.writes {
                    *last = (*last).min(from - 1);
                }
                disk.next_entries.retain(|entry| entry.index < from);
            }
            disk.next_entries.extend_from_slice(self.log.range(from, self.log.last_index()));
        }
        Ok(fit)
    }

    /// Only a flawed core ever cuts its log without a leader's word.
    pub(crate) fn cut_log(&mut self, last: Index) {
        self.log.truncate(last);
        self.disk.durable_index = self.disk.durable_index.min(last);
        for (_, written) in &mut self.disk.writes {
            *written = (*written).min(last);
        }
        self.disk.next_entries.retain(|entry| entry.index <= last);
    }

    fn persisted(&mut self, ticket: u64) {
        assert!(ticket <= self.disk.issued, "ticket {ticket} was never given out");
        self.disk.durable = self.disk.durable.max(ticket);
        while let Some(&(written, last)) = self.disk.writes.front() {
            if written > ticket {
                break;
            }
            self.disk.durable_index = last;
            self.disk.writes.pop_front();
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

    /// Moves the commit index up and hands the entries to the driver.
    pub(crate) fn commit_to(&mut self, index: Index) {
        let index = index.min(self.log.last_index());
        if index > self.commit {
            self.output.committed.extend_from_slice(self.log.range(self.commit + 1, index));
            self.commit = index;
        }
    }
}
