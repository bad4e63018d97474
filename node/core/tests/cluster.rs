//! Whole clusters under random faults: crashes that lose what was not durable, restarts, lost,
//! delayed, duplicated and reordered messages, cut links, slow disks. Whatever happens, Raft's
//! safety properties (paper, figure 3) must hold after every event, and once the faults have
//! healed a leader must serve. A failure names the seed that repeats it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sraft_core::{
    Config, Detector, Entry, Event, HardState, Input, Message, Node, NodeId, Persist, Protocol,
    Restored, Term, Time, Timing,
};
use sraft_events::{CampaignKind, LossCause};

enum Happening {
    Deliver { from: NodeId, to: NodeId, message: Message },
    Durable { node: NodeId, life: u64, persist: Persist },
    Wake { node: NodeId, life: u64 },
    Connection { node: NodeId, life: u64, input: Input },
    Crash(NodeId),
    Restart(NodeId),
    Cut(NodeId, NodeId),
    Mend(NodeId, NodeId),
    Propose(NodeId),
}

#[derive(Default)]
struct Host {
    node: Option<Node>,
    life: u64,
    hard_state: HardState,
    entries: Vec<Entry>,
}

struct World {
    seed: u64,
    rng: ChaCha8Rng,
    timing: Timing,
    protocol: Protocol,
    members: Vec<NodeId>,
    hosts: BTreeMap<NodeId, Host>,
    cut: BTreeSet<(NodeId, NodeId)>,
    now: Time,
    calendar: BTreeMap<(Time, u64), Happening>,
    scheduled: u64,
    loss: f64,
    slow_disk: bool,
    // What the checker remembers.
    leaders: BTreeMap<Term, NodeId>,
    committed: Vec<Entry>,
    designations: BTreeMap<(Term, NodeId), BTreeSet<u32>>,
    promotions: u64,
    elections: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let size = [3, 4, 5, 7][rng.random_range(0..4)];
        let mut timing = [Timing::reference(), Timing::preset(sraft_core::Preset::Lan)]
            [rng.random_range(0..2)]
        .clone();
        timing.detector =
            if rng.random_bool(0.5) { Detector::Connection } else { Detector::Silence };
        let protocol = if rng.random_bool(0.7) { Protocol::SRaft } else { Protocol::Raft };
        let members: Vec<NodeId> = (1..=size).collect();
        let mut world = World {
            seed,
            timing,
            protocol,
            hosts: members.iter().map(|&id| (id, Host::default())).collect(),
            members,
            cut: BTreeSet::new(),
            now: Time::ZERO,
            calendar: BTreeMap::new(),
            scheduled: 0,
            loss: if rng.random_bool(0.5) { 0.0 } else { 0.05 },
            slow_disk: rng.random_bool(0.3),
            leaders: BTreeMap::new(),
            committed: Vec::new(),
            designations: BTreeMap::new(),
            promotions: 0,
            elections: 0,
            rng,
        };
        for id in world.members.clone() {
            world.restart(id);
        }
        world
    }

    fn schedule(&mut self, after: Duration, happening: Happening) {
        self.scheduled += 1;
        self.calendar.insert((self.now + after, self.scheduled), happening);
    }

    fn micros(&mut self, min: u64, max: u64) -> Duration {
        Duration::from_micros(self.rng.random_range(min..=max))
    }

    fn config(&self, id: NodeId) -> Config {
        self.timing.lower(self.protocol, id, &self.members).expect("presets are valid")
    }

    fn restart(&mut self, id: NodeId) {
        let (config, seed, now) = (self.config(id), self.rng.random(), self.now);
        let host = self.hosts.get_mut(&id).unwrap();
        if host.node.is_some() {
            return;
        }
        host.life += 1;
        let life = host.life;
        let restored = Restored { hard_state: host.hard_state, entries: host.entries.clone() };
        host.node = Some(Node::new(config, restored, seed, now));
        for peer in self.members.clone() {
            if peer == id || self.hosts[&peer].node.is_none() {
                continue;
            }
            let other = self.hosts[&peer].life;
            for (node, life, peer) in [(id, life, peer), (peer, other, id)] {
                let after = self.micros(200, 2000);
                let input = Input::PeerBack { peer, same_process: false };
                self.schedule(after, Happening::Connection { node, life, input });
            }
        }
        self.drive(id);
    }

    fn crash(&mut self, id: NodeId) {
        if self.hosts.get_mut(&id).unwrap().node.take().is_none() {
            return;
        }
        for peer in self.members.clone() {
            let life = self.hosts[&peer].life;
            if peer == id || self.cut.contains(&(id, peer)) {
                continue;
            }
            for (cause, delay) in [(LossCause::Closed, 100), (LossCause::Refused, 400)] {
                let after = self.micros(delay, delay + 200);
                let input = Input::PeerLost { peer: id, cause };
                self.schedule(after, Happening::Connection { node: peer, life, input });
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Deliver { from, to, message } => {
                if !self.cut.contains(&(from, to)) {
                    self.input(to, None, Input::Message { from, message });
                }
            }
            Happening::Durable { node, life, persist } => {
                let host = self.hosts.get_mut(&node).unwrap();
                if host.life == life && host.node.is_some() {
                    if let Some(hard_state) = persist.hard_state {
                        host.hard_state = hard_state;
                    }
                    if let Some(first) = persist.entries.first() {
                        host.entries.truncate(first.index as usize - 1);
                        host.entries.extend(persist.entries);
                    }
                    self.input(node, Some(life), Input::Persisted { ticket: persist.ticket });
                }
            }
            Happening::Wake { node, life } => {
                let due = self.hosts[&node].node.as_ref().and_then(Node::next_deadline);
                if due.is_some_and(|due| due <= self.now) {
                    self.input(node, Some(life), Input::Timeout);
                }
            }
            Happening::Connection { node, life, input } => self.input(node, Some(life), input),
            Happening::Crash(id) => self.crash(id),
            Happening::Restart(id) => self.restart(id),
            Happening::Cut(from, to) => _ = self.cut.insert((from, to)),
            Happening::Mend(from, to) => _ = self.cut.remove(&(from, to)),
            Happening::Propose(id) => {
                self.input(id, None, Input::Propose { command: b"x".to_vec() });
            }
        }
    }

    fn input(&mut self, id: NodeId, life: Option<u64>, input: Input) {
        let now = self.now;
        let host = self.hosts.get_mut(&id).unwrap();
        if life.is_some_and(|life| life != host.life) {
            return;
        }
        let Some(node) = &mut host.node else { return };
        node.handle(now, input);
        self.drive(id);
    }

    /// Carries out a node's output, in the order of the contract.
    fn drive(&mut self, id: NodeId) {
        let host = self.hosts.get_mut(&id).unwrap();
        let life = host.life;
        let node = host.node.as_mut().unwrap();
        let output = node.take_output();
        let deadline = node.next_deadline();
        if let Some(persist) = output.persist {
            // One disk, first come first served: a write is never done before an earlier one.
            let done = if self.slow_disk { 20_000 } else { 500 };
            let earlier = self.calendar.iter().rev().find_map(|((at, _), happening)| {
                let same = matches!(happening,
                    Happening::Durable { node, life: l, .. } if *node == id && *l == life);
                same.then_some(*at)
            });
            let start = earlier.map_or(Duration::ZERO, |at| at.since(self.now));
            let after = start + self.micros(100, done);
            self.schedule(after, Happening::Durable { node: id, life, persist });
        }
        for (_, event) in output.events {
            self.observe(id, &event);
        }
        for envelope in output.messages {
            self.check_promise(id, &envelope.message);
            let copies = if self.rng.random_bool(0.02) { 2 } else { 1 };
            for _ in 0..copies {
                if !self.rng.random_bool(self.loss) {
                    let after = self.micros(50, 1500);
                    let (to, message) = (envelope.to, envelope.message.clone());
                    self.schedule(after, Happening::Deliver { from: id, to, message });
                }
            }
        }
        for entry in output.committed {
            self.check_committed(id, entry);
        }
        if let Some(deadline) = deadline {
            self.schedule(deadline.since(self.now), Happening::Wake { node: id, life });
        }
    }

    /// Whoever receives this must be able to count on it after a crash of the sender.
    fn check_promise(&self, id: NodeId, message: &Message) {
        let host = &self.hosts[&id];
        match message {
            Message::VoteReply(reply) if !reply.pre_vote && reply.refusal.is_none() => {
                assert_eq!(
                    host.hard_state.term, reply.term,
                    "seed {}: vote not durable",
                    self.seed
                );
            }
            Message::AppendReply(reply) => {
                let durable = host.entries.len() as u64;
                let promised = reply.result.map_or(0, |appended| appended.match_index);
                assert!(promised <= durable, "seed {}: {promised} is not durable", self.seed);
                assert!(reply.term <= host.hard_state.term, "seed {}: term", self.seed);
            }
            Message::AppendEntries(append) => {
                assert_eq!(append.term, host.hard_state.term, "seed {}: leads", self.seed);
            }
            _ => {}
        }
    }

    fn observe(&mut self, id: NodeId, event: &Event) {
        let seed = self.seed;
        match event {
            Event::Elected { term, campaign, .. } => {
                let leader = *self.leaders.entry(*term).or_insert(id);
                assert_eq!(leader, id, "seed {seed}: Election Safety in term {term}");
                let log = self.hosts[&id].node.as_ref().unwrap().log();
                for entry in &self.committed {
                    let held = log.get(entry.index);
                    assert_eq!(held, Some(entry), "seed {seed}: Leader Completeness, term {term}");
                }
                match campaign {
                    CampaignKind::Promotion => self.promotions += 1,
                    _ => self.elections += 1,
                }
            }
            Event::CampaignStarted { term, campaign: CampaignKind::Promotion, rank, .. } => {
                let node = self.hosts[&id].node.as_ref().unwrap();
                let designation = node.designation().expect("a sub-leader has a designation");
                let reserved = designation.term + 1 + u64::from(rank.unwrap());
                assert_eq!(*term, reserved, "seed {seed}: a rank takes its reserved term");
                let ranks = self.designations.entry((*term, id)).or_default();
                assert!(ranks.insert(rank.unwrap()), "seed {seed}: promoted twice");
            }
            _ => {}
        }
    }

    fn check_committed(&mut self, id: NodeId, entry: Entry) {
        let seed = self.seed;
        match self.committed.get(entry.index as usize - 1) {
            Some(known) => assert_eq!(known, &entry, "seed {seed}: State Machine Safety"),
            None => {
                assert_eq!(entry.index as usize, self.committed.len() + 1, "seed {seed}: a gap");
                let durable = self
                    .hosts
                    .values()
                    .filter(|host| host.entries.get(entry.index as usize - 1) == Some(&entry));
                let majority = self.members.len() / 2 + 1;
                assert!(
                    durable.count() >= majority,
                    "seed {seed}: node {id} committed {} before a majority had it",
                    entry.index
                );
                self.committed.push(entry);
            }
        }
    }

    fn run_until(&mut self, end: Time) {
        while let Some(next) = self.calendar.first_entry() {
            if next.key().0 > end {
                break;
            }
            let ((at, _), happening) = next.remove_entry();
            self.now = self.now.max(at);
            self.happen(happening);
        }
        self.now = end;
    }

    fn torment(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            let pick = |world: &mut World| {
                let n = world.members.len();
                world.members[world.rng.random_range(0..n)]
            };
            let id = pick(self);
            let leader = self.leaders.last_key_value().map_or(id, |(_, &leader)| leader);
            let happening = match self.rng.random_range(0..10) {
                0 => Happening::Crash(id),
                1 => Happening::Crash(leader),
                2..=4 => Happening::Restart(id),
                5 => Happening::Cut(leader, id),
                6 => Happening::Mend(leader, id),
                7 => Happening::Cut(id, pick(self)),
                _ => Happening::Propose(id),
            };
            if let Happening::Cut(from, to) = happening {
                let after = self.micros(10_000, 900_000);
                self.schedule(after, Happening::Mend(from, to));
            }
            self.happen(happening);
            let pause = self.micros(100, 150_000);
            self.run_until(self.now + pause);
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
        self.loss = 0.0;
        for id in self.members.clone() {
            self.restart(id);
        }
    }

    fn ready(&self) -> Option<NodeId> {
        let nodes = self.hosts.values().filter_map(|host| host.node.as_ref());
        let ready = nodes.map(Node::status).filter(|status| status.ready);
        ready.max_by_key(|status| status.term).map(|status| status.id)
    }
}

fn torment(seed: u64) -> World {
    let mut world = World::new(seed);
    world.torment(Duration::from_secs(8));
    world.heal();
    let before = world.committed.len();
    world.run_until(world.now + Duration::from_secs(6));
    let leader = world.ready().unwrap_or_else(|| panic!("seed {seed}: nobody leads after healing"));
    world.happen(Happening::Propose(leader));
    world.run_until(world.now + Duration::from_secs(1));
    assert!(world.committed.len() > before, "seed {seed}: nothing commits after healing");
    world
}

#[test]
fn safety_and_liveness_under_random_faults() {
    let seeds = std::env::var("SRAFT_SEEDS").map_or(400, |n| n.parse().expect("a number of seeds"));
    let (mut promotions, mut elections, mut committed) = (0, 0, 0);
    for seed in 0..seeds {
        let world = torment(seed);
        promotions += world.promotions;
        elections += world.elections;
        committed += world.committed.len();
    }
    println!("{seeds} seeds: {promotions} promotions, {elections} elections, {committed} entries");
    assert!(promotions > 0 && elections > 0 && committed > 0, "the faults must reach the protocol");
}

#[test]
fn same_seed_same_run() {
    let digest = |seed| {
        let world = torment(seed);
        (world.scheduled, world.now, world.leaders, world.committed)
    };
    assert_eq!(digest(7), digest(7));
    assert_ne!(digest(7), digest(8));
}

/// Both protocols, without faults: who takes over when the leader dies.
fn kill_leader(protocol: Protocol, victims: usize) -> (World, Vec<NodeId>) {
    let mut world = World::new(1);
    world.protocol = protocol;
    world.timing = Timing::reference();
    world.members = (1..=7).collect();
    world.hosts = world.members.iter().map(|&id| (id, Host::default())).collect();
    world.calendar.clear();
    world.loss = 0.0;
    world.slow_disk = false;
    for id in world.members.clone() {
        world.restart(id);
    }
    world.run_until(world.now + Duration::from_secs(5));
    let leader = world.ready().expect("a leader");
    let node = world.hosts[&leader].node.as_ref().unwrap();
    let ranks = node.designation().map_or(Vec::new(), |designation| designation.ranks.clone());
    let mut dead = vec![leader];
    dead.extend(ranks.iter().take(victims - 1));
    for &id in &dead {
        world.crash(id);
    }
    (world, ranks)
}

#[test]
fn the_primary_follows_the_leader() {
    let (mut world, ranks) = kill_leader(Protocol::SRaft, 1);
    world.run_until(world.now + Duration::from_millis(210));
    assert_eq!(world.ready(), Some(ranks[0]));
}

#[test]
fn the_secondary_follows_if_the_primary_dies_as_well() {
    let (mut world, ranks) = kill_leader(Protocol::SRaft, 2);
    world.run_until(world.now + Duration::from_millis(360));
    assert_eq!(world.ready(), Some(ranks[1]));
}

#[test]
fn anybody_follows_if_all_sub_leaders_die_as_well() {
    let (mut world, ranks) = kill_leader(Protocol::SRaft, 3);
    world.run_until(world.now + Duration::from_secs(5));
    let leader = world.ready().expect("a leader");
    assert!(!ranks.contains(&leader));
    assert_eq!(world.promotions, 0);
}

#[test]
fn original_raft_elects() {
    let (mut world, ranks) = kill_leader(Protocol::Raft, 1);
    assert_eq!(ranks, []);
    world.run_until(world.now + Duration::from_secs(5));
    assert!(world.ready().is_some());
    assert_eq!(world.promotions, 0);
}
