//! The node: its state, and the dispatch of inputs.

mod fingerprint;

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sraft_events::{Event, Evidence, Index, LossCause, NodeId, StepDownReason, Term};

use crate::{
    Config, Designation, Envelope, HardState, Input, Log, Message, Output, RequestVote, Restored,
    Snapshot, Time, TimeoutRange, campaign::Campaign, durability::Disk, leader::Leadership,
    message::MAX_TERM, read::Reads, snapshot::Incoming, vote::Promise,
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
    /// The newest snapshot, of the node's own state or from a leader. It covers all that the log
    /// has no more, and nothing that is not committed.
    pub(crate) snapshot: Option<Snapshot>,
    /// The snapshot that the leader is sending.
    pub(crate) incoming: Option<Incoming>,
    pub(crate) disk: Disk,

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
    /// Where reads rely on a leader's lease: until when this node has no vote for anybody else.
    pub(crate) promise: Option<Promise>,
    /// Reads that have not been answered.
    pub(crate) reads: Reads,

    pub(crate) held: Vec<(u64, Envelope)>,
    pub(crate) output: Output,
}

impl Node {
    /// A node that starts, or starts again, with what was durable. All its random draws follow
    /// from `seed`, which should differ between nodes and between starts.
    ///
    /// # Panics
    /// If the restored log has gaps or contradicts the snapshot, which the storage must rule out.
    pub fn new(config: Config, restored: Restored, seed: u64, now: Time) -> Node {
        let snapshot = restored.snapshot;
        let log = Log::restored(snapshot.as_ref(), restored.entries);
        let peers = config.members.iter().filter(|&&peer| peer != config.id);
        let mut node = Node {
            now,
            rng: ChaCha8Rng::seed_from_u64(seed),
            hard_state: restored.hard_state,
            disk: Disk { durable_index: log.last_index(), ..Disk::default() },
            log,
            commit: snapshot.as_ref().map_or(0, |snapshot| snapshot.last_index),
            snapshot,
            incoming: None,
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
            promise: None,
            reads: Reads::new(seed),
            held: Vec::new(),
            output: Output::default(),
            config,
        };
        node.arm(node.config.timeout);
        if node.hard_state.term > 0 {
            // What it had promised before it stopped is forgotten, but has to be kept.
            node.promise_lease(None);
        }
        node
    }

    /// Takes an input in; what follows from it is fetched with [`Node::take_output`].
    ///
    /// # Panics
    /// If a message proves that a safety property of Raft is broken (two leaders in one term, a
    /// committed entry contradicted): going on would only spread the damage. If the driver reports
    /// a ticket or a snapshot that it cannot have.
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
            Input::Propose { command } => _ = self.propose(command),
            Input::Read { id } => self.read(id),
            Input::Snapshot { index, data } => self.snapshot_taken(index, data),
            Input::Transfer => self.transfer(),
        }
        self.drop_lost_reads();
    }

    /// When [`Input::Timeout`] is due. It moves with every input.
    pub fn next_deadline(&self) -> Option<Time> {
        match &self.state {
            State::Leader(leadership) => Some(leadership.next_heartbeat),
            _ => {
                let doubts = self.doubts_end().map_or(self.alarm.at, |end| end.min(self.alarm.at));
                Some(self.reads_end().map_or(doubts, |end| end.min(doubts)))
            }
        }
    }

    /// What the driver has to do now, in the order of the fields.
    pub fn take_output(&mut self) -> Output {
        self.replicate();
        self.carry_reads_on();
        self.tell_commits();
        let installed = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.last_index);
        self.output.persist = self.disk.take(self.hard_state, installed);
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
            Message::InstallSnapshot(install) => self.install_requested(from, install),
            Message::InstallReply(reply) => self.install_replied(from, &reply),
            Message::ReadIndex { id } => self.read_asked(from, id),
            Message::ReadIndexReply { id, index } => self.read_answered(from, id, index),
            Message::Forward { command } => {
                // Forwarded once and no further: two nodes that take each other for the leader
                // would send a command back and forth for ever.
                if matches!(self.state, State::Leader(_))
                    && let Some(index) = self.propose(command)
                {
                    self.tell_when_committed(from, index);
                }
            }
        }
    }

    fn timeout(&mut self) {
        if matches!(self.state, State::Leader(_)) {
            self.heartbeat_due();
            return;
        }
        self.give_up_reads();
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
                if !self.is_bound() {
                    self.settle_doubts();
                }
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
}
