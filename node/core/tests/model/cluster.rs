//! Three nodes of the real core, their disks and the network between them, as one state, and what
//! may happen to it.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use sraft_core::{
    Config, Entry, HardState, Index, Input, Message, Node, NodeId, Persist, Restored, Role,
    Snapshot, Term, Time, TimeoutRange,
};
use sraft_events::CampaignKind;

use crate::promises::{self, Broken};

pub(crate) const MEMBERS: [NodeId; 3] = [1, 2, 3];

/// What one check explores. Whatever costs nothing here could go on for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Sub-leaders; none is original Raft.
    pub ranks: usize,
    /// Where it begins.
    pub start: Start,
    /// Whether a write is durable at once. If not, becoming durable is a step of its own, and a
    /// crash before it loses the write.
    pub instant_disk: bool,
    /// Whether a node may hold the leader's process for dead (rightly or not) and stand without
    /// asking first. If not, suspicion is silence, and it asks first.
    pub connection_evidence: bool,
    /// Whether whoever heard a leader refuses to depose it until its connection closes.
    pub doubts: bool,
    /// Whether a leader gives up at its next heartbeat, as if no majority had answered.
    pub lease_runs_out: bool,
    /// How many entries one AppendEntries takes.
    pub max_append_entries: usize,
    /// The highest term.
    pub max_term: Term,
    /// How often each thing may happen.
    pub budget: Budget,
}

/// How often each thing may still happen in one history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// A node that does not lead runs out of patience, by silence or by a closed connection.
    pub suspicions: u8,
    pub heartbeats: u8,
    pub proposals: u8,
    pub handovers: u8,
    /// A node loses what is not durable and starts again.
    pub crashes: u8,
    /// A message arrives and stays on its way.
    pub duplicates: u8,
    /// A node takes a snapshot of all that it has applied.
    pub snapshots: u8,
    /// A client asks a node for a read.
    pub reads: u8,
}

/// The state in which a check begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Nothing has happened.
    Empty,
    /// Node 1 leads, all is replicated and committed, and a sub-leader is designated if there are
    /// ranks: what the core itself comes to when node 1 stands and nothing goes wrong.
    Settled,
    /// A power failure in figure 8 of the Raft paper: node 1 led in term 2 and node 2 in term 3,
    /// and neither got its second entry across.
    Figure8,
}

/// A node and its disk.
#[derive(Clone)]
pub(crate) struct Member {
    pub node: Arc<Node>,
    pub disk: Arc<Disk>,
    digest: u64,
}

/// What a crash leaves, and the writes that it takes away.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub hard_state: HardState,
    pub snapshot: Option<Snapshot>,
    pub entries: Vec<Entry>,
    pub writes: VecDeque<Persist>,
}

/// A message on its way. The network is a bag: it keeps no order, and to lose a message is never
/// to deliver it.
#[derive(Clone, PartialEq)]
pub(crate) struct Flight {
    pub digest: u64,
    pub from: NodeId,
    pub to: NodeId,
    pub message: Arc<Message>,
}

/// The state of the cluster, and what its history must not be forgotten of.
#[derive(Clone)]
pub(crate) struct State {
    pub members: [Member; 3],
    /// In the order of their digests, so that the same bag is the same list.
    pub flights: Vec<Flight>,
    pub left: Budget,
    /// Who led each term, and how it came to that.
    pub elected: BTreeMap<Term, (NodeId, CampaignKind)>,
    /// What any node has ever taken for committed, and the term of the leader that committed it.
    pub committed: Vec<(Entry, Term)>,
    /// How much any node had taken for committed when a read was asked, of those that have not been
    /// answered.
    pub reads: BTreeMap<(NodeId, u64), usize>,
    /// A read has been served.
    pub served: bool,
    /// A snapshot has taken the place of a node's log.
    pub installed: bool,
    /// A durable entry has been replaced.
    pub truncated: bool,
    /// A promise that the last step broke.
    pub broken: Option<Broken>,
    digest: u64,
}

/// What may happen next.
#[derive(Clone, PartialEq)]
pub(crate) enum Action {
    Deliver(Flight),
    Duplicate(Flight),
    Persisted(NodeId),
    Timeout(NodeId),
    Suspect(NodeId),
    Close(NodeId),
    Propose(NodeId),
    Read(NodeId),
    Snapshot(NodeId),
    HandOver(NodeId),
    Crash(NodeId),
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Deliver(flight) => {
                write!(f, "{} -> {}: {:?}", flight.from, flight.to, flight.message)
            }
            Action::Duplicate(flight) => {
                write!(f, "{} -> {} (stays): {:?}", flight.from, flight.to, flight.message)
            }
            Action::Persisted(id) => write!(f, "{id}: the next write is durable"),
            Action::Timeout(id) => write!(f, "{id}: timeout"),
            Action::Suspect(id) => write!(f, "{id}: holds the leader's process for dead"),
            Action::Close(id) => write!(f, "{id}: its connection to the leader closes"),
            Action::Propose(id) => write!(f, "{id}: a command"),
            Action::Read(id) => write!(f, "{id}: a read"),
            Action::Snapshot(id) => write!(f, "{id}: takes a snapshot"),
            Action::HandOver(id) => write!(f, "{id}: told to hand over"),
            Action::Crash(id) => write!(f, "{id}: crash and restart"),
        }
    }
}

impl Flight {
    pub(crate) fn new(from: NodeId, to: NodeId, message: Message) -> Flight {
        let mut hasher = DefaultHasher::new();
        (from, to, &message).hash(&mut hasher);
        Flight { digest: hasher.finish(), from, to, message: Arc::new(message) }
    }

    /// What its receiver gets.
    pub(crate) fn arrival(&self) -> Input {
        Input::Message { from: self.from, message: self.message.as_ref().clone() }
    }

    /// Whether it can never have an effect again: an answer from a term that its receiver has
    /// left for good (the later term is durable), and that tells of no later one.
    fn spent(&self, term: Term) -> bool {
        match self.message.as_ref() {
            Message::VoteReply(reply) => reply.for_term < term && reply.term <= term,
            Message::AppendReply(reply) => reply.term < term,
            Message::InstallReply(reply) => reply.term < term,
            _ => false,
        }
    }
}

pub(crate) fn slot(id: NodeId) -> usize {
    (id - 1) as usize
}

impl Start {
    /// How many elections had been won by then.
    pub(crate) fn elections(self) -> usize {
        match self {
            Start::Empty => 0,
            Start::Settled => 1,
            Start::Figure8 => 3,
        }
    }
}

impl Member {
    pub(crate) fn new(node: Node, disk: Arc<Disk>) -> Member {
        let mut hasher = DefaultHasher::new();
        (&node, disk.hard_state, &disk.snapshot, &disk.entries).hash(&mut hasher);
        disk.writes.len().hash(&mut hasher);
        disk.writes.iter().for_each(|w| (w.hard_state, &w.snapshot, &w.entries).hash(&mut hasher));
        Member { node: Arc::new(node), disk, digest: hasher.finish() }
    }
}

impl Disk {
    /// Makes a write durable. Whether it replaced an entry, or broke what it must keep.
    pub(crate) fn apply(&mut self, write: Persist) -> Result<bool, Broken> {
        if let Some(new) = write.hard_state {
            let old = std::mem::replace(&mut self.hard_state, new);
            promises::hard_state_goes_on(old, new)?;
        }
        if let Some(new) = write.snapshot {
            self.entries.retain(|entry| !new.reset && entry.index >= new.first_index);
            self.snapshot = Some(new.snapshot);
        }
        let Some(first) = write.entries.first() else { return Ok(false) };
        let truncated = first.index <= self.last().1;
        self.entries.retain(|entry| entry.index < first.index);
        self.entries.extend(write.entries);
        Ok(truncated)
    }

    /// Term and index of the last durable entry.
    pub(crate) fn last(&self) -> (Term, Index) {
        let snapshot = self.snapshot.as_ref().map(|s| (s.last_term, s.last_index));
        self.entries.last().map(|last| (last.term, last.index)).or(snapshot).unwrap_or_default()
    }

    /// Whether an entry, if it is committed, is there or covered by the snapshot.
    pub(crate) fn holds(&self, entry: &Entry) -> bool {
        self.snapshot.as_ref().is_some_and(|s| s.last_index >= entry.index)
            || self.entries.contains(entry)
    }
}

impl Bounds {
    /// A configuration without time: the clock stands still and every wait is zero, so whatever
    /// waits for time may happen at any moment. Where doubts are to be had the timeouts are not
    /// zero, hence never over, and only a closed connection is evidence.
    fn config(&self, id: NodeId) -> Config {
        let wait = if self.doubts { Duration::from_secs(1) } else { Duration::ZERO };
        let range = TimeoutRange { min: wait, max: wait };
        Config {
            id,
            members: MEMBERS.to_vec(),
            heartbeat: Duration::ZERO,
            timeout: range,
            rank_timeouts: vec![range; self.ranks],
            promotion_timeout: wait,
            lease: if self.lease_runs_out { Duration::ZERO } else { Duration::MAX },
            stagger: Duration::ZERO,
            rtt_alpha: 0.5,
            connection_evidence: self.connection_evidence,
            pre_vote: true,
            handover: true,
            max_append_entries: self.max_append_entries,
            max_append_bytes: 1 << 20,
            max_inflight: 4,
            read_lease: false,
            snapshot_chunk_bytes: 64,
            retained_entries: 0,
        }
    }

    /// The instant at which the clock stands.
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.config(1).timeout.max
    }

    /// A node that starts, at `now` or a whole timeout before.
    pub(crate) fn boot(&self, id: NodeId, disk: &Disk, now: Time) -> Node {
        let entries = disk.entries.clone();
        let snapshot = disk.snapshot.clone();
        let restored = Restored { hard_state: disk.hard_state, snapshot, entries };
        let mut node = Node::new(self.config(id), restored, id, now);
        for peer in MEMBERS.into_iter().filter(|&peer| peer != id) {
            node.handle(now, Input::PeerBack { peer, same_process: false });
        }
        node.take_output();
        node
    }

    /// The state in which the check begins.
    pub(crate) fn first_state(&self) -> State {
        let log = |terms: &[Term]| -> Vec<Entry> {
            let entries = (1..).zip(terms);
            entries.map(|(index, &term)| Entry { index, term, command: Vec::new() }).collect()
        };
        let disk = |term, vote, terms: &[Term]| Disk {
            hard_state: HardState { term, voted_for: vote },
            snapshot: None,
            entries: log(terms),
            writes: VecDeque::new(),
        };
        let disks = match self.start {
            Start::Empty | Start::Settled => [(); 3].map(|()| Disk::default()),
            Start::Figure8 => {
                [disk(3, None, &[1, 2]), disk(3, Some(2), &[1, 3]), disk(3, Some(2), &[1])]
            }
        };
        let mut members = MEMBERS.into_iter().zip(disks).map(|(id, disk)| {
            let node = self.boot(id, &disk, Time::ZERO);
            Member::new(node, Arc::new(disk))
        });
        let mut state = State {
            members: [(); 3].map(|()| members.next().expect("three of them")),
            flights: Vec::new(),
            left: self.budget,
            elected: BTreeMap::new(),
            committed: Vec::new(),
            reads: BTreeMap::new(),
            served: false,
            installed: false,
            truncated: false,
            broken: None,
            digest: 0,
        };
        match self.start {
            Start::Empty => {}
            Start::Figure8 => {
                let led = [(1, 1), (2, 1), (3, 2)];
                state.elected = led
                    .map(|(term, id)| (term, (id, CampaignKind::Election)))
                    .into_iter()
                    .collect();
                state.committed = log(&[1]).into_iter().map(|entry| (entry, 1)).collect();
            }
            Start::Settled => self.settle(&mut state),
        }
        state.seal();
        state
    }

    /// Lets node 1 win an election, with every write and message getting through at once.
    fn settle(&self, state: &mut State) {
        let calm = Bounds { instant_disk: true, ..*self };
        let mut queue = VecDeque::from(calm.feed(state, 1, vec![Input::Timeout]));
        while let Some(flight) = queue.pop_front() {
            queue.extend(calm.feed(state, flight.to, vec![flight.arrival()]));
        }
        let designated = state.members.iter().filter(|m| m.node.designation().is_some()).count();
        assert_eq!(state.members[0].node.status().role, Role::Leader);
        assert_eq!(designated, if self.ranks > 0 { 3 } else { 0 }, "everybody knows the ranks");
        assert_eq!(state.broken, None);
    }
}

impl State {
    /// Brings the state into the one form that equal states share.
    pub(crate) fn seal(&mut self) {
        let members = &self.members;
        self.flights.retain(|flight| {
            let Member { node, disk, digest } = &members[slot(flight.to)];
            let spent = flight.spent(disk.hard_state.term);
            if spent && cfg!(debug_assertions) {
                let mut node = node.as_ref().clone();
                node.handle(Time::ZERO, flight.arrival());
                let deaf = Member::new(node, Arc::clone(disk)).digest == *digest;
                assert!(deaf, "{:?} was thought to have no effect", flight.message);
            }
            !spent
        });
        self.flights.sort_unstable_by_key(|flight| flight.digest);
        let mut hasher = DefaultHasher::new();
        self.members.iter().for_each(|member| hasher.write_u64(member.digest));
        self.flights.iter().for_each(|flight| hasher.write_u64(flight.digest));
        (self.left, &self.elected, &self.committed, self.truncated).hash(&mut hasher);
        (&self.reads, self.served, self.installed, self.broken).hash(&mut hasher);
        self.digest = hasher.finish();
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

impl PartialEq for State {
    /// By digest, as the checker itself tells states apart.
    fn eq(&self, other: &State) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Member { node, disk, .. } in &self.members {
            let log = |entries: &[Entry]| -> Vec<String> {
                entries.iter().map(|entry| format!("{}@{}", entry.index, entry.term)).collect()
            };
            let status = node.status();
            let memory = log(node.log().range(status.first_index, status.last_index));
            let durable = log(&disk.entries);
            let (vote, on_disk) = (node.hard_state().voted_for, disk.hard_state);
            writeln!(f, "{status:?} vote={vote:?} log={memory:?} disk: {on_disk:?} {durable:?}")?;
        }
        write!(f, "committed {:?}, broken: {:?}", self.committed, self.broken)
    }
}
