//! What a seed stands for: a cluster, and how it is treated.

use std::time::Duration;

use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use sraft_core::{Detector, NodeId, Preset, Protocol, Span, TimeoutRange, TimingKnobs};

use super::{
    Swarm,
    trouble::{TROUBLES, Trouble},
};
use crate::{
    ClockModel, DiskModel, Distribution, EvidenceModel, LogNormal, Model, Network, Replication,
};

impl Swarm {
    pub(super) fn new(seed: u64) -> Swarm {
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
