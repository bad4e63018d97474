//! Random clusters under random faults. Every seed draws its own size, protocol, timing, network,
//! disks and clocks, and its own mix of faults: a mix that always holds everything would rarely
//! let any one fault run its course.

use std::time::Duration;

use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use sraft_core::{
    Detector, Node, NodeId, Preset, Protocol, Role, Span, Time, TimeoutRange, TimingKnobs,
};

use crate::{
    ClockModel, Cut, DiskModel, Distribution, EvidenceModel, Fault, LogNormal, Model, Network,
    Observe, Replication, Tally, Violation, World,
};

/// What went wrong with a seed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// An invariant was broken.
    #[error(transparent)]
    Unsafe(#[from] Box<Violation>),
    /// All was well again, but no leader served.
    #[error("seed {seed}: {bound:?} after the last fault had healed {what}")]
    NotLive {
        /// The run.
        seed: u64,
        /// What was waited for.
        what: &'static str,
        /// How long.
        bound: Duration,
    },
}

/// Runs one seed and says what it added up to.
///
/// # Errors
/// What went wrong.
pub fn swarm(seed: u64) -> Result<Tally, Failure> {
    Swarm::new(seed).run(seed, false).0
}

/// Runs one seed with a flaw in every node.
///
/// # Errors
/// What went wrong: the flaw was seen.
#[cfg(feature = "mutants")]
pub fn swarm_with_flaw(seed: u64, flaw: crate::Flaw) -> Result<Tally, Failure> {
    Swarm { flaw: Some(flaw), ..Swarm::new(seed) }.run(seed, false).0
}

/// Runs one seed again and returns the last events as text, with what went wrong at the end.
pub fn replay(seed: u64) -> String {
    Swarm::new(seed).replayed(seed)
}

/// Like [`replay`], with a flaw in every node.
#[cfg(feature = "mutants")]
pub fn replay_with_flaw(seed: u64, flaw: crate::Flaw) -> String {
    Swarm { flaw: Some(flaw), ..Swarm::new(seed) }.replayed(seed)
}

/// What a seed stands for.
#[derive(Clone, Debug)]
struct Swarm {
    model: Model,
    rng: ChaCha8Rng,
    /// How often each kind of trouble comes, relative to the others.
    weights: Vec<(Trouble, u32)>,
    /// How long the troubles last.
    span: Duration,
    /// The longest pause between two of them, in microseconds.
    pause_us: u64,
    /// How long after its election a winner is struck at the latest, in microseconds.
    strike_us: u64,
    /// Commands proposed with every trouble at most.
    burst: u32,
    /// Reads asked with every trouble at most.
    reads: u32,
    #[cfg(feature = "mutants")]
    flaw: Option<crate::Flaw>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    CrashLeader,
    CrashAny,
    CrashMany,
    /// The next leader dies or is cut off right after it has been elected.
    StrikeWinner,
    /// The leader is cut off the moment it commits.
    StrikeCommit,
    /// A follower that does not hear the leader stands, and at that moment the others lose their
    /// connections to the leader, which is asked for reads.
    Usurp,
    Restart,
    Pause,
    Resume,
    Isolate,
    OneWay,
    OneLink,
    Split,
    Disconnect,
    SlowDisk,
    StallDisk,
    MendDisk,
    Transfer,
    Noise,
    Propose,
}

const TROUBLES: [Trouble; 20] = [
    Trouble::CrashLeader,
    Trouble::CrashAny,
    Trouble::CrashMany,
    Trouble::StrikeWinner,
    Trouble::StrikeCommit,
    Trouble::Usurp,
    Trouble::Restart,
    Trouble::Pause,
    Trouble::Resume,
    Trouble::Isolate,
    Trouble::OneWay,
    Trouble::OneLink,
    Trouble::Split,
    Trouble::Disconnect,
    Trouble::SlowDisk,
    Trouble::StallDisk,
    Trouble::MendDisk,
    Trouble::Transfer,
    Trouble::Noise,
    Trouble::Propose,
];

impl Swarm {
    fn new(seed: u64) -> Swarm {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed_0ff4);
        let nodes = rng.random_range(3..=9);
        let timing = timing(&mut rng);
        let heartbeat_us = timing.resolve().heartbeat.as_micros() as u64;
        let latency = latency(&mut rng, heartbeat_us);
        let links = (0..rng.random_range(0..=2u32)).filter_map(|_| {
            let (from, to) = (rng.random_range(1..=nodes), rng.random_range(1..=nodes));
            let latency = Distribution::uniform_us(heartbeat_us / 4, heartbeat_us);
            let (from, to) = (NodeId::from(from), NodeId::from(to));
            (from != to).then_some(crate::LinkModel { from, to, latency })
        });
        let links = links.collect();
        let network = Network {
            latency,
            links,
            loss: if rng.random_bool(0.4) { rng.random_range(0.0..0.1) } else { 0.0 },
            duplication: if rng.random_bool(0.4) { rng.random_range(0.0..0.1) } else { 0.0 },
            reordering: rng.random_bool(0.5),
        };
        let writes = [
            Distribution::uniform_us(100, 500),
            Distribution::uniform_us(100, heartbeat_us),
            Distribution::LogNormal(LogNormal { median: span_us(300), sigma: 1.5 }),
        ];
        let write = writes.choose(&mut rng).expect("not empty").clone();
        let mut clocks = Vec::new();
        for node in 1..=NodeId::from(nodes) {
            if rng.random_bool(0.2) {
                clocks.push(ClockModel { node, ppm: rng.random_range(-20_000..20_000) });
            }
        }
        let often = snapshots(&mut rng);
        let replication = match rng.random_range(0..3) {
            0 => often,
            1 => Replication { max_entries: 1, max_inflight: rng.random_range(1..=4), ..often },
            _ => Replication { max_entries: rng.random_range(2..=5), max_inflight: 2, ..often },
        };
        let model = Model {
            nodes,
            protocol: if rng.random_bool(0.7) { Protocol::SRaft } else { Protocol::Raft },
            timing,
            network,
            replication,
            disk: DiskModel { write },
            evidence: EvidenceModel::default(),
            clocks,
            faults: Vec::new(),
        };
        let mut weights: Vec<(Trouble, u32)> =
            TROUBLES.iter().map(|&trouble| (trouble, 0)).collect();
        for (trouble, weight) in &mut weights {
            // Half of all kinds are left out; what mends is always there.
            let mends = matches!(trouble, Trouble::Restart | Trouble::Resume | Trouble::MendDisk);
            if mends || rng.random_bool(0.5) {
                *weight = rng.random_range(1..=4) + if mends { 3 } else { 0 };
            }
        }
        let mut swarm = Swarm {
            model,
            weights,
            span: Duration::from_micros(heartbeat_us * rng.random_range(20..=200)),
            pause_us: heartbeat_us * rng.random_range(1..=10),
            strike_us: rng.random_range(0..=heartbeat_us),
            burst: rng.random_range(0..=3),
            reads: rng.random_range(0..=4),
            rng,
            #[cfg(feature = "mutants")]
            flaw: None,
        };
        match swarm.rng.random_range(0..10) {
            0 | 1 => swarm.left_behind(heartbeat_us),
            2 | 3 => swarm.unaware(heartbeat_us),
            _ => {}
        }
        swarm
    }

    /// Leaders that leave entries behind which nobody else has, and others that take them up
    /// later: what figure 8 of the Raft paper is about.
    fn left_behind(&mut self, heartbeat_us: u64) {
        let model = &mut self.model;
        model.nodes = self.rng.random_range(3..=5);
        model.network.links.clear();
        model.clocks.clear();
        model.replication = Replication { max_entries: 1, max_inflight: 1, ..model.replication };
        self.strike_us = self.rng.random_range(0..=heartbeat_us / 10);
        self.span *= 2;
        self.weigh(|trouble| match trouble {
            Trouble::StrikeWinner | Trouble::StrikeCommit => 6,
            Trouble::Restart => 4,
            Trouble::OneLink | Trouble::CrashAny => 1,
            _ => 0,
        });
    }

    /// Leaders that learn late, over slow links, that others have been elected meanwhile, and are
    /// asked for reads all the time.
    fn unaware(&mut self, heartbeat_us: u64) {
        let model = &mut self.model;
        model.nodes = 3;
        model.clocks.clear();
        model.network.loss = 0.0;
        let slow = self.rng.random_range(1..=3);
        model.network.links = [1, 2, 3]
            .into_iter()
            .filter(|node| *node != slow)
            .map(|from| {
                let latency = Distribution::uniform_us(heartbeat_us / 2, heartbeat_us * 3 / 2);
                crate::LinkModel { from, to: slow, latency }
            })
            .collect();
        model.evidence.connect = Distribution::uniform_us(heartbeat_us / 2, heartbeat_us * 3);
        model.timing.read_lease = Some(self.rng.random_bool(0.5));
        model.timing.pre_vote = Some(self.rng.random_bool(0.5));
        self.pause_us = heartbeat_us;
        self.reads = 8;
        self.burst = 1;
        self.span = Duration::from_micros(heartbeat_us * 200);
        self.weigh(|trouble| match trouble {
            Trouble::OneLink | Trouble::Disconnect => 6,
            Trouble::Restart | Trouble::Usurp => 5,
            Trouble::Transfer => 3,
            Trouble::CrashAny | Trouble::CrashLeader => 1,
            _ => 0,
        });
    }

    fn weigh(&mut self, weight: impl Fn(Trouble) -> u32) {
        self.weights.iter_mut().for_each(|(trouble, weighs)| *weighs = weight(*trouble));
    }

    fn replayed(&self, seed: u64) -> String {
        let (outcome, trace) = self.run(seed, true);
        match outcome {
            Ok(tally) => format!("{trace}seed {seed}: nothing is wrong; {tally:?}\n"),
            Err(failure) => format!("{trace}{failure}\n"),
        }
    }

    fn world(&self, seed: u64, observe: Observe) -> World {
        #[cfg(feature = "mutants")]
        if let Some(flaw) = self.flaw {
            return World::with_flaw(&self.model, seed, observe, flaw).expect("swarms are valid");
        }
        World::new(&self.model, seed, observe).expect("swarms draw valid models only")
    }

    fn run(&self, seed: u64, trace: bool) -> (Result<Tally, Failure>, String) {
        let mut world = self.world(seed, Observe { check: true, record: false, trace });
        let outcome = self.clone().trouble(&mut world, seed);
        (outcome.map(|()| world.tally()), world.trace())
    }

    fn trouble(mut self, world: &mut World, seed: u64) -> Result<(), Failure> {
        let config = world.nodes().find_map(|(_, node)| node.map(|node| node.config().clone()));
        let config = config.expect("all nodes run at the start");
        // Half of the runs begin with a settled cluster, the others with none.
        if self.rng.random_bool(0.5) {
            world.run_for(config.timeout.max * 2)?;
        }
        let end = world.now() + self.span;
        while world.now() < end {
            for _ in 0..self.rng.random_range(0..=self.burst) {
                let at = self.anybody();
                world.strike(Fault::Propose(world.leader().unwrap_or(at)))?;
            }
            let trouble = self.next();
            self.strike(world, trouble)?;
            self.read(world)?;
            let pause = Duration::from_micros(self.rng.random_range(0..=self.pause_us));
            world.run_for(pause)?;
        }
        world.heal()?;
        // Long enough for what may be in everybody's way at first (a leader without a majority, a
        // promotion that comes to nothing) and for a score of split votes in a row after it.
        let bound = config.lease + config.promotion_timeout * 2 + config.timeout.max * 40;
        // And for a leader that replicates a few entries at a time to send all that is missing.
        let last = world.nodes().filter_map(|(_, node)| node).map(|node| node.log().last_index());
        let messages = last.max().unwrap_or(0) / config.max_append_entries as u64 + 1;
        let bound = bound + config.heartbeat * 3 * messages as u32;
        // And for snapshots, of which the pieces may arrive in the wrong order each time.
        let bound = bound + config.heartbeat * 40;
        let deadline = world.now() + bound;
        while world.now() < deadline {
            world.run_while(deadline, |world| world.serving().is_none())?;
            let Some(leader) = world.serving() else {
                return Err(Failure::NotLive { seed, what: "no leader served", bound });
            };
            let before = world.tally().committed;
            world.strike(Fault::Propose(leader))?;
            // A leader that is deposed in the meantime has not served.
            let step = deadline.min(world.now() + config.timeout.max);
            if world.run_while(step, |world| world.tally().committed == before)? {
                return self.all_reads_are_answered(world, seed, deadline);
            }
        }
        Err(Failure::NotLive { seed, what: "no command was committed", bound })
    }

    /// Reads are served again, and those that were asked before have been answered.
    fn all_reads_are_answered(
        mut self,
        world: &mut World,
        seed: u64,
        deadline: Time,
    ) -> Result<(), Failure> {
        let config = world.nodes().find_map(|(_, node)| node.map(|node| node.config().clone()));
        // Of the slowest clock, and beyond the next heartbeat.
        let patience = (config.expect("all nodes run").read_patience() * 3).mul_f64(1.1);
        let before = world.tally().reads;
        while world.tally().reads == before {
            if world.now() > deadline + patience {
                let bound = patience;
                return Err(Failure::NotLive { seed, what: "no read was served", bound });
            }
            world.strike(Fault::Read(self.anybody()))?;
            let step = world.now() + patience / 3;
            world.run_while(step, |world| world.tally().reads == before)?;
        }
        let asked_by = world.now();
        world.run_while(asked_by + patience, |world| {
            world.unanswered_since().is_some_and(|since| since <= asked_by)
        })?;
        if world.unanswered_since().is_some_and(|since| since <= asked_by) {
            return Err(Failure::NotLive { seed, what: "a read got no answer", bound: patience });
        }
        Ok(())
    }

    fn usurp(
        &mut self,
        world: &mut World,
        leader: NodeId,
        usurper: NodeId,
    ) -> Result<(), Box<Violation>> {
        let Some(node) = world.node(usurper).filter(|_| usurper != leader) else { return Ok(()) };
        let limit = world.now() + node.config().timeout.max * 2;
        let cut = Cut { from: vec![leader], to: vec![usurper], both_ways: true };
        world.strike(Fault::Cut(cut.clone()))?;
        let stands =
            |node: &Node| matches!(node.status().role, Role::PreCandidate | Role::Candidate);
        world.run_while(limit, |world| !world.node(usurper).is_some_and(stands))?;
        for other in 1..=NodeId::from(self.model.nodes) {
            if other != leader && other != usurper {
                world.strike(Fault::Disconnect(leader, other))?;
            }
        }
        for _ in 0..8 {
            let step = self.rng.random_range(0..=self.strike_us / 2);
            world.run_for(Duration::from_micros(step))?;
            world.strike(Fault::Read(leader))?;
        }
        world.strike(Fault::Mend(cut))
    }

    /// Asks for reads: anywhere, and where they are most likely to go wrong, at nodes that take
    /// themselves for the leader.
    fn read(&mut self, world: &mut World) -> Result<(), Box<Violation>> {
        for _ in 0..self.rng.random_range(0..=self.reads) {
            let leads = |node: &Node| node.status().role == Role::Leader;
            let leaders = world.nodes().filter(|(_, node)| node.is_some_and(leads));
            let leaders: Vec<NodeId> = leaders.map(|(id, _)| id).collect();
            let any = self.anybody();
            let at = leaders.choose(&mut self.rng).filter(|_| self.rng.random_bool(0.5));
            world.strike(Fault::Read(at.copied().unwrap_or(any)))?;
        }
        Ok(())
    }

    fn next(&mut self) -> Trouble {
        let all: u32 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.rng.random_range(0..all);
        for (trouble, weight) in &self.weights {
            if drawn < *weight {
                return *trouble;
            }
            drawn -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }

    fn anybody(&mut self) -> NodeId {
        self.rng.random_range(1..=NodeId::from(self.model.nodes))
    }

    fn strike(&mut self, world: &mut World, trouble: Trouble) -> Result<(), Box<Violation>> {
        let any = self.anybody();
        let leader = world.leader().unwrap_or(any);
        let all = 1..=NodeId::from(self.model.nodes);
        let others = |out: &[NodeId]| all.clone().filter(|id| !out.contains(id)).collect();
        let cut = match trouble {
            Trouble::CrashLeader => return world.strike(Fault::Crash(leader)),
            Trouble::CrashAny => return world.strike(Fault::Crash(any)),
            Trouble::CrashMany => {
                for node in all.clone() {
                    if self.rng.random_bool(0.6) {
                        world.strike(Fault::Crash(node))?;
                    }
                }
                return Ok(());
            }
            Trouble::StrikeWinner => {
                let limit = Duration::from_micros(self.pause_us * 10);
                let term = world.elected().map_or(0, |elected| elected.term);
                let news = |world: &World| world.elected().is_some_and(|e| e.term > term);
                if !world.run_while(world.now() + limit, |world| !news(world))? {
                    return Ok(());
                }
                let winner = world.elected().map_or(any, |elected| elected.leader);
                for _ in 0..self.rng.random_range(0..=self.burst) {
                    world.strike(Fault::Propose(winner))?;
                }
                // From before its first messages arrive until about when they are answered.
                world.run_for(Duration::from_micros(self.rng.random_range(0..=self.strike_us)))?;
                if self.rng.random_bool(0.6) {
                    return world.strike(Fault::Crash(winner));
                }
                Cut { from: vec![winner], to: others(&[winner]), both_ways: true }
            }
            Trouble::StrikeCommit => {
                let limit = Duration::from_micros(self.pause_us * 10);
                let committed = world.tally().committed;
                world.run_while(world.now() + limit, |w| w.tally().committed == committed)?;
                let leader = world.leader().unwrap_or(any);
                Cut { from: vec![leader], to: others(&[leader]), both_ways: true }
            }
            Trouble::Usurp => return self.usurp(world, leader, any),
            Trouble::Restart => return world.strike(Fault::Restart(any)),
            Trouble::Pause => {
                let node = if self.rng.random_bool(0.5) { leader } else { any };
                return world.strike(Fault::Pause(node));
            }
            Trouble::Resume => {
                for node in all.clone() {
                    world.strike(Fault::Resume(node))?;
                }
                return Ok(());
            }
            Trouble::SlowDisk => {
                return world.strike(Fault::SlowDisk(any, self.rng.random_range(2..=50)));
            }
            Trouble::StallDisk => return world.strike(Fault::StallDisk(any)),
            Trouble::MendDisk => return world.strike(Fault::MendDisk(any)),
            Trouble::Transfer => return world.strike(Fault::Transfer(leader)),
            Trouble::Propose => return world.strike(Fault::Propose(any)),
            Trouble::Disconnect => {
                return if any == leader {
                    Ok(())
                } else {
                    world.strike(Fault::Disconnect(leader, any))
                };
            }
            Trouble::Noise => {
                world.set_noise(self.rng.random_range(0.0..0.4), self.rng.random_range(0.0..0.3));
                return Ok(());
            }
            Trouble::Isolate => Cut { from: vec![leader], to: others(&[leader]), both_ways: true },
            Trouble::OneWay => {
                let (from, to) = (vec![any], others(&[any]));
                if self.rng.random_bool(0.5) {
                    Cut { from, to, both_ways: false }
                } else {
                    Cut { from: to, to: from, both_ways: false }
                }
            }
            Trouble::OneLink => {
                if any == leader {
                    return Ok(());
                }
                Cut { from: vec![leader], to: vec![any], both_ways: self.rng.random_bool(0.7) }
            }
            Trouble::Split => {
                let side: Vec<_> = all.clone().filter(|_| self.rng.random_bool(0.5)).collect();
                if side.is_empty() || side.len() == self.model.nodes as usize {
                    return Ok(());
                }
                let rest = others(&side);
                Cut { from: side, to: rest, both_ways: true }
            }
        };
        world.strike(Fault::Cut(cut.clone()))?;
        let lasts = Duration::from_micros(self.rng.random_range(0..=self.pause_us * 4));
        world.strike_later(lasts, Fault::Mend(cut));
        Ok(())
    }
}

fn timing(rng: &mut ChaCha8Rng) -> TimingKnobs {
    let preset = *[Preset::Reference, Preset::RaftPaper, Preset::Lan].choose(rng).expect("three");
    let mut knobs = TimingKnobs { preset: Some(preset), ..TimingKnobs::default() };
    let detector = if rng.random_bool(0.5) { Detector::Connection } else { Detector::Silence };
    knobs.detector = Some(detector);
    let base = knobs.resolve();
    if rng.random_bool(0.3) {
        // Nearly equal timeouts: split votes and campaigns that meet.
        let narrow = |range: TimeoutRange, rng: &mut ChaCha8Rng| TimeoutRange {
            min: range.min,
            max: range.min + range.width() / rng.random_range(2..=6),
        };
        knobs.election_timeout = Some(narrow(base.election_timeout, rng));
        knobs.follower_timeout = Some(narrow(base.follower_timeout, rng));
    }
    if rng.random_bool(0.3) {
        knobs.lease = Some(Span(base.election_timeout.max.max(base.heartbeat * 4)));
    }
    if rng.random_bool(0.3) {
        knobs.sub_leader_ratio = Some(rng.random_range(0.2..0.9));
    }
    if rng.random_bool(0.2) {
        knobs.promotion_timeout = Some(Span(base.heartbeat));
    }
    if rng.random_bool(0.25) {
        knobs.read_lease = Some(true);
    }
    knobs
}

/// How often nodes take snapshots, and in how many pieces those travel.
fn snapshots(rng: &mut ChaCha8Rng) -> Replication {
    if rng.random_bool(0.3) {
        return Replication::default();
    }
    Replication {
        snapshot_entries: rng.random_range(1..=12),
        snapshot_chunk_bytes: rng.random_range(8..=64),
        retained_entries: if rng.random_bool(0.5) { 0 } else { rng.random_range(1..=8) },
        ..Replication::default()
    }
}

fn latency(rng: &mut ChaCha8Rng, heartbeat_us: u64) -> Distribution {
    match rng.random_range(0..4) {
        0 => Distribution::constant_us(rng.random_range(50..=2000)),
        1 => Distribution::uniform_us(50, rng.random_range(100..=heartbeat_us / 2)),
        2 => Distribution::LogNormal(LogNormal {
            median: span_us(rng.random_range(50..=1000)),
            sigma: rng.random_range(0.1..1.5),
        }),
        _ => {
            let table = (0..20).map(|_| span_us(rng.random_range(50..=heartbeat_us / 3)));
            Distribution::Samples(table.collect())
        }
    }
}

fn span_us(micros: u64) -> Span {
    Span(Duration::from_micros(micros))
}
