//! Whatever a peer may send, in whatever order, and whenever the disk gets around to its writes:
//! a node takes it or ignores it. It never panics, never takes back what it has promised, and its
//! disk ends up with its log.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use proptest::{collection::vec, option, prelude::*};
use sraft_core::{
    AppendEntries, AppendReply, Appended, Conflict, Designation, Entry, HardState, Input,
    InstallReply, InstallSnapshot, Message, Node, NodeId, Persist, Protocol, RequestVote, Restored,
    Role, Time, Timing, VoteReply,
};
use sraft_events::{CampaignKind, LossCause, Refusal};

/// A number as far as it can be chosen before the node's state is known.
#[derive(Clone, Copy, Debug)]
enum Number {
    Plain(u64),
    /// So far from the node's term.
    Term(i64),
    /// So far from the end of the node's log.
    Index(i64),
}

impl Number {
    fn of(self, node: &Node) -> u64 {
        let status = node.status();
        match self {
            Number::Plain(number) => number,
            Number::Term(away) => status.term.saturating_add_signed(away),
            Number::Index(away) => status.last_index.saturating_add_signed(away),
        }
    }
}

fn number() -> BoxedStrategy<Number> {
    let edges = prop::sample::select(vec![1 << 32, 1 << 62, (1 << 62) + 1, u64::MAX - 1, u64::MAX]);
    prop_oneof![
        3 => (0..6u64).prop_map(Number::Plain),
        6 => (-3..=3i64).prop_map(Number::Term),
        6 => (-3..=3i64).prop_map(Number::Index),
        1 => edges.prop_map(Number::Plain),
        1 => any::<u64>().prop_map(Number::Plain),
    ]
    .boxed()
}

/// Mostly plausible, so that histories get somewhere; now and then anything.
fn term() -> BoxedStrategy<Number> {
    prop_oneof![5 => Just(Number::Term(0)), 3 => (0..4i64).prop_map(Number::Term), 1 => number()]
        .boxed()
}

fn index() -> BoxedStrategy<Number> {
    prop_oneof![5 => Just(Number::Index(0)), 4 => (-4..5i64).prop_map(Number::Index), 1 => number()]
        .boxed()
}

#[derive(Clone, Debug)]
struct Append {
    numbers: [Number; 4],
    prev_index: Number,
    /// The entry before is said to have the term that it has on the node.
    fits: bool,
    /// Terms of the entries; without numbers of their own they follow one another.
    entries: Vec<(Number, Option<Number>)>,
    designation: Option<(Option<Number>, Number, Vec<NodeId>, Number)>,
}

#[derive(Clone, Debug)]
enum Step {
    Vote(bool, CampaignKind, Option<u32>, [Number; 3]),
    Voted([Number; 2], bool, Option<Refusal>),
    /// What the node asked last is granted.
    Granted,
    /// The node waits, stands and wins: by chance alone hardly any history would see a leader.
    Win,
    Append(Append),
    Appended([Number; 2], Number),
    Conflict([Number; 2], [Number; 2], Option<Number>),
    /// A piece of a snapshot: term, last index and term, where in it and how many bytes.
    Install([Number; 3], u64, usize),
    /// A whole one of the node's term, so far beyond the end of its log.
    InstallAll(u64),
    Installed([Number; 2], Number, u64),
    ReadIndex(u64),
    /// So many batches after the first one that the node can have asked.
    ReadAnswered(u64, Option<Number>),
    Read,
    /// The driver serialises its state machine as it was so many entries ago.
    Snapshot(u64),
    TimeoutNow(Number),
    Forward(Vec<u8>),
    Wait(u64),
    Timeout,
    /// So many of the writes under way are done.
    Written(usize),
    /// A ticket that was reported before is reported again.
    WrittenAgain(usize),
    Lost(LossCause),
    Back(bool),
    Propose,
    Transfer,
    /// The driver takes what there is; without it inputs are batched.
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || prop::sample::select(CampaignKind::ALL.to_vec());
    let refusal = || option::weighted(0.3, prop::sample::select(Refusal::ALL.to_vec()));
    let cause = prop::sample::select(vec![LossCause::Closed, LossCause::Refused]);
    let entries = vec((term(), option::weighted(0.1, number())), 0..4);
    let designation =
        option::of((option::weighted(0.2, number()), number(), vec(0..9u64, 0..4), number()));
    let append = ([term(), number(), number(), index()], index(), any::<bool>());
    let append = (append, entries, designation).prop_map(
        |((numbers, prev_index, fits), entries, designation)| {
            Step::Append(Append { numbers, prev_index, fits, entries, designation })
        },
    );
    prop_oneof![
        3 => (any::<bool>(), kind(), any::<Option<u32>>(), [term(), index(), term()])
            .prop_map(|(pre, kind, rank, numbers)| Step::Vote(pre, kind, rank, numbers)),
        6 => ([term(), term()], any::<bool>(), refusal())
            .prop_map(|(terms, pre, refusal)| Step::Voted(terms, pre, refusal)),
        2 => Just(Step::Granted),
        4 => Just(Step::Win),
        6 => append,
        4 => ([term(), number()], index()).prop_map(|(a, b)| Step::Appended(a, b)),
        4 => ([term(), number()], [index(), index()], option::of(number()))
            .prop_map(|(a, b, c)| Step::Conflict(a, b, c)),
        3 => ([term(), index(), term()], 0..12u64, 0..9usize)
            .prop_map(|(numbers, offset, length)| Step::Install(numbers, offset, length)),
        1 => (0..4u64).prop_map(Step::InstallAll),
        2 => ([term(), number()], index(), 0..12u64).prop_map(|(a, b, c)| Step::Installed(a, b, c)),
        1 => (0..9u64).prop_map(Step::ReadIndex),
        1 => (0..4u64, option::of(index())).prop_map(|(id, index)| Step::ReadAnswered(id, index)),
        2 => Just(Step::Read),
        2 => (0..4u64).prop_map(Step::Snapshot),
        1 => term().prop_map(Step::TimeoutNow),
        1 => vec(any::<u8>(), 0..3).prop_map(Step::Forward),
        2 => (0..400u64).prop_map(Step::Wait),
        6 => Just(Step::Timeout),
        8 => (1..4usize).prop_map(Step::Written),
        1 => (0..9usize).prop_map(Step::WrittenAgain),
        1 => cause.prop_map(Step::Lost),
        2 => any::<bool>().prop_map(Step::Back),
        3 => Just(Step::Propose),
        1 => Just(Step::Transfer),
        8 => Just(Step::Take),
    ]
}

/// The node with a disk that is a model of one, and with what it has said so far.
struct Bench {
    node: Node,
    now: Time,
    disk: Restored,
    writes: VecDeque<Persist>,
    done: u64,
    seen: HardState,
    /// What has been applied since the state machine was replaced by a snapshot, and up to where
    /// that one had got.
    applied: Vec<Entry>,
    replaced: u64,
    seed: u64,
    reads: u64,
    unanswered: BTreeSet<u64>,
    asked: Option<RequestVote>,
}

impl Bench {
    fn new(timing: Timing, protocol: Protocol, size: u64, seed: u64) -> Bench {
        let members: Vec<NodeId> = (1..=size).collect();
        let mut config = timing.lower(protocol, 1, &members).expect("presets are valid");
        (config.snapshot_chunk_bytes, config.retained_entries) = (3, seed % 4);
        let disk = Restored::default();
        Bench {
            node: Node::new(config, disk.clone(), seed, Time::ZERO),
            now: Time::ZERO,
            disk,
            writes: VecDeque::new(),
            done: 0,
            seen: HardState::default(),
            applied: Vec::new(),
            replaced: 0,
            seed,
            reads: 0,
            unanswered: BTreeSet::new(),
            asked: None,
        }
    }

    fn feed(&mut self, from: NodeId, step: &Step) {
        if let Some(message) = self.message(step) {
            if !self.proves_a_violation(from, &message) {
                self.node.handle(self.now, Input::Message { from, message });
            }
            return;
        }
        let Bench { node, now, .. } = self;
        match *step {
            Step::Wait(millis) => *now = *now + Duration::from_millis(millis),
            Step::Timeout => {
                let deadline = node.next_deadline().expect("a node always waits for something");
                // A farther one comes of a round trip that no network has.
                if deadline.since(*now) < Duration::from_secs(3600) {
                    *now = deadline.max(*now);
                    node.handle(*now, Input::Timeout);
                    let next = node.next_deadline();
                    assert!(next > Some(*now), "a deadline that has been kept moves on");
                }
            }
            Step::Written(count) => self.written(count),
            Step::WrittenAgain(back) => {
                let ticket = self.done.saturating_sub(back as u64);
                node.handle(*now, Input::Persisted { ticket });
            }
            Step::Lost(cause) => node.handle(*now, Input::PeerLost { peer: from, cause }),
            Step::Back(same_process) => {
                node.handle(*now, Input::PeerBack { peer: from, same_process });
            }
            Step::Propose => node.handle(*now, Input::Propose { command: b"x".to_vec() }),
            Step::Read => {
                self.reads += 1;
                self.unanswered.insert(self.reads);
                node.handle(*now, Input::Read { id: self.reads });
            }
            Step::Snapshot(back) => {
                let index = (self.replaced + self.applied.len() as u64).saturating_sub(back);
                if index > 0 {
                    node.handle(*now, Input::Snapshot { index, data: [7; 10].as_slice().into() });
                }
            }
            Step::Transfer => node.handle(*now, Input::Transfer),
            Step::Take => self.take(),
            Step::Win => self.win(),
            // Everything else is a message, or the answer to a question that was not asked.
            _ => {}
        }
    }

    fn message(&self, step: &Step) -> Option<Message> {
        let of = |number: &Number| number.of(&self.node);
        Some(match step {
            &Step::Vote(pre_vote, campaign, rank, ref numbers) => {
                let [term, last_index, last_term] = numbers.each_ref().map(of);
                let request = RequestVote { term, pre_vote, campaign, rank, last_index, last_term };
                Message::RequestVote(request)
            }
            &Step::Voted(ref terms, pre_vote, refusal) => {
                let [term, for_term] = terms.each_ref().map(of);
                Message::VoteReply(VoteReply { term, for_term, pre_vote, refusal })
            }
            Step::Granted => {
                let RequestVote { term, pre_vote, .. } = *self.asked.as_ref()?;
                Message::VoteReply(VoteReply { term, for_term: term, pre_vote, refusal: None })
            }
            Step::Append(append) => Message::AppendEntries(self.append(append)),
            Step::Appended(numbers, match_index) => {
                let [term, seq] = numbers.each_ref().map(of);
                let result = Ok(Appended { match_index: of(match_index) });
                Message::AppendReply(AppendReply { term, for_term: term, seq, result })
            }
            Step::Conflict(numbers, at, clash) => {
                let [term, seq] = numbers.each_ref().map(of);
                let [prev_index, first_index] = at.each_ref().map(of);
                let clash = clash.as_ref().map(of);
                let result = Err(Conflict { prev_index, term: clash, first_index });
                Message::AppendReply(AppendReply { term, for_term: term, seq, result })
            }
            &Step::Install(ref numbers, offset, length) => {
                let [term, last_index, last_term] = numbers.each_ref().map(of);
                Message::InstallSnapshot(InstallSnapshot {
                    term,
                    seq: offset,
                    last_index,
                    last_term,
                    size: 10,
                    offset,
                    data: vec![7; length],
                })
            }
            Step::InstallAll(beyond) => {
                let term = self.node.status().term;
                Message::InstallSnapshot(InstallSnapshot {
                    term,
                    seq: 1,
                    last_index: self.node.log().last_index() + beyond,
                    last_term: term,
                    size: 3,
                    offset: 0,
                    data: vec![7; 3],
                })
            }
            &Step::Installed(ref numbers, ref last_index, received) => {
                let [term, seq] = numbers.each_ref().map(of);
                let last_index = of(last_index);
                let for_term = term;
                Message::InstallReply(InstallReply { term, for_term, seq, last_index, received })
            }
            &Step::ReadIndex(id) => Message::ReadIndex { id },
            Step::ReadAnswered(after, index) => {
                let id = self.seed.wrapping_add(*after);
                Message::ReadIndexReply { id, index: index.as_ref().map(of) }
            }
            Step::TimeoutNow(term) => Message::TimeoutNow { term: of(term) },
            Step::Forward(command) => Message::Forward { command: command.clone() },
            _ => return None,
        })
    }

    fn append(&self, append: &Append) -> AppendEntries {
        let node = &self.node;
        let [term, seq, prev_term, commit] = append.numbers.map(|number| number.of(node));
        let prev_index = append.prev_index.of(node);
        let here = node.log().term_at(prev_index).filter(|_| append.fits);
        let mut last = (prev_index, here.unwrap_or(prev_term));
        let entries = append.entries.iter().map(|(entry_term, index)| {
            let next = index.map_or(last.0.wrapping_add(1), |index| index.of(node));
            let next_term = entry_term.of(node).max(last.1).min(term);
            last = (next, next_term);
            Entry { index: next, term: next_term, command: Vec::new() }
        });
        AppendEntries {
            term,
            seq,
            prev_index,
            prev_term: here.unwrap_or(prev_term),
            entries: entries.collect(),
            commit,
            designation: append.designation.clone().map(|(other, epoch, ranks, rtt)| Designation {
                term: other.map_or(term, |other| other.of(node)),
                epoch: epoch.of(node),
                ranks,
                largest_rtt_us: rtt.of(node),
            }),
        }
    }

    /// Whether nobody could send this without having broken Raft: another leader in a term that
    /// has one, or a log that lacks what is committed. There a node has to stop.
    fn proves_a_violation(&self, from: NodeId, message: &Message) -> bool {
        let status = self.node.status();
        let second = |term| {
            term == status.term
                && (status.role == Role::Leader
                    || status.leader.is_some_and(|leader| leader != from))
        };
        let clash = |entry: &Entry| {
            (status.first_index - 1..=status.commit).contains(&entry.index)
                && self.node.log().term_at(entry.index) != Some(entry.term)
        };
        match message {
            Message::AppendEntries(append) => {
                second(append.term) || append.entries.iter().any(clash)
            }
            Message::InstallSnapshot(install) => second(install.term),
            _ => false,
        }
    }

    fn take(&mut self) {
        let output = self.node.take_output();
        self.writes.extend(output.persist);
        for envelope in output.messages {
            if let Message::RequestVote(request) = envelope.message {
                self.asked = Some(request);
            }
        }
        if let Some(snapshot) = output.install {
            let applied = self.replaced + self.applied.len() as u64;
            assert!(snapshot.last_index > applied, "nothing that was applied is taken back");
            self.replaced = snapshot.last_index;
            self.applied.clear();
        }
        for entry in output.committed {
            let applied = self.replaced + self.applied.len() as u64;
            assert_eq!(entry.index, applied + 1, "in order, each once");
            self.applied.push(entry);
        }
        for read in output.reads {
            assert!(self.unanswered.remove(&read.id), "each read is answered once");
        }
    }

    fn win(&mut self) {
        if self.node.status().role == Role::Leader {
            return;
        }
        self.feed(0, &Step::Timeout);
        for _round in ["pre-vote", "vote"] {
            self.take();
            self.written(usize::MAX);
            for peer in self.node.config().members.clone() {
                self.feed(peer, &Step::Granted);
            }
        }
    }

    fn written(&mut self, count: usize) {
        for persist in self.writes.drain(..count.min(self.writes.len())) {
            self.done = persist.ticket;
            self.disk.hard_state = persist.hard_state.unwrap_or(self.disk.hard_state);
            let log = &mut self.disk.entries;
            if let Some(new) = persist.snapshot {
                log.retain(|entry| !new.reset && entry.index >= new.first_index);
                let covered = new.snapshot.last_index;
                assert!(log.first().is_none_or(|first| first.index <= covered + 1), "no gap");
                self.disk.snapshot = Some(new.snapshot);
            }
            if let Some(first) = persist.entries.first() {
                let covered = self.disk.snapshot.as_ref().map_or(0, |s| s.last_index);
                let last = log.last().map_or(covered, |last| last.index);
                assert!(first.index <= last + 1, "a gap on the disk");
                log.retain(|entry| entry.index < first.index);
                log.extend(persist.entries);
            }
        }
        self.node.handle(self.now, Input::Persisted { ticket: self.done });
    }

    fn check(&mut self) {
        let node = &self.node;
        let HardState { term, voted_for } = node.hard_state();
        assert!(term >= self.seen.term, "terms never fall");
        if term == self.seen.term && self.seen.voted_for.is_some() {
            assert_eq!(voted_for, self.seen.voted_for, "one vote a term");
        }
        self.seen = node.hard_state();
        let log = node.log();
        let covered = self.disk.snapshot.as_ref().map_or(0, |snapshot| snapshot.last_index);
        for entry in log.range(log.first_index(), node.durable_index()) {
            let on_disk = self.disk.entries.iter().any(|durable| durable == entry);
            assert!(on_disk || entry.index <= covered, "called durable, but is not: {entry:?}");
        }
        let end = self.replaced + self.applied.len() as u64;
        let both = log.range(log.first_index().max(self.replaced + 1), end);
        assert!(self.applied.ends_with(both), "what is applied stays");
    }

    /// Lets time pass, with nobody answering, until all reads are.
    fn wait_for_reads(&mut self) {
        for _ in 0..200 {
            self.take();
            if self.unanswered.is_empty() {
                return;
            }
            self.now = self.now.max(self.node.next_deadline().expect("there is one"));
            self.node.handle(self.now, Input::Timeout);
        }
        panic!("these reads are never answered: {:?}", self.unanswered);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_node_survives_whatever_comes(
        size in prop::sample::select(vec![1, 2, 3, 5]),
        protocol in prop::sample::select(vec![Protocol::Raft, Protocol::SRaft]),
        preset in prop::sample::select(vec![Timing::reference(), Timing::preset(sraft_core::Preset::Lan)]),
        seed in any::<u64>(),
        read_lease in any::<bool>(),
        steps in vec((2..8u64, step()), 0..150),
    ) {
        let preset = Timing { read_lease, ..preset };
        let mut bench = Bench::new(preset, protocol, size, seed);
        for peer in 2..=size {
            let input = Input::PeerBack { peer, same_process: false };
            bench.node.handle(bench.now, input);
        }
        for (from, step) in &steps {
            bench.feed(*from, step);
            bench.check();
        }
        // Once the disk has caught up, it holds what the node holds.
        bench.take();
        while !bench.writes.is_empty() {
            bench.written(usize::MAX);
            bench.check();
            bench.take();
        }
        prop_assert_eq!(bench.disk.hard_state, bench.node.hard_state());
        prop_assert_eq!(&bench.disk.entries[..], bench.node.log().range(1, u64::MAX));
        // A node that starts with that stands where this one stands, but for what may not be
        // committed.
        let restarted = Node::new(bench.node.config().clone(), bench.disk.clone(), seed, bench.now);
        let (old, new) = (bench.node.status(), restarted.status());
        prop_assert_eq!((new.term, new.last_index), (old.term, old.last_index));
        prop_assert!(new.commit <= old.commit);
        bench.wait_for_reads();
    }
}

#[test]
fn a_forwarded_command_that_no_append_can_carry_is_dropped() {
    let mut bench = Bench::new(Timing::reference(), Protocol::SRaft, 3, 1);
    bench.win();
    assert_eq!(bench.node.status().role, Role::Leader);
    let last = bench.node.log().last_index();
    let limit = bench.node.config().max_append_bytes;
    for (length, taken) in [(0, 0), (limit + 1, 0), (limit, 1)] {
        bench.feed(2, &Step::Forward(vec![7; length]));
        assert_eq!(bench.node.log().last_index(), last + taken, "{length} bytes");
    }
}
