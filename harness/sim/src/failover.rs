use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sraft_core::{Detector, NodeId, Protocol, Span, Time, TimeoutRange, TimingKnobs};

use crate::{
    Cut, DiskModel, Distribution, Fault, LogNormal, Model, ModelError, Network, Observe, Violation,
    World,
};

/// Trials in which a leader dies right after its followers have all heard it.
///
/// The cluster elects a leader. At one of its heartbeats an entry is proposed that the laggards
/// never get. Two heartbeats later, and then uniformly within the heartbeat interval, the leader
/// dies.
#[derive(Clone, Debug, PartialEq)]
pub struct Failover {
    /// The cluster.
    pub model: Model,
    /// Survivors that cannot win because their logs are shorter.
    pub laggards: usize,
    /// How long each node starts after the one before it; zero starts all at once. Nodes whose
    /// timeouts are all the same would never elect their first leader otherwise.
    pub stagger: Duration,
    /// A trial is given up after this long without a new leader.
    pub timeout: Duration,
}

/// The outcome of one trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// All survivors knew the new leader this long after the old one's death: the `announced` of
    /// the Raft paper's figure 16.
    Announced(Duration),
    /// There was no new leader within the time-out.
    Censored,
    /// No leader lasted until it was to die, so there is nothing to measure.
    Unsettled,
}

/// Why a trial has no outcome.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TrialError {
    /// The model is refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An invariant was broken.
    #[error(transparent)]
    Unsafe(#[from] Box<Violation>),
}

impl Failover {
    /// The set-up of the benchmark in Ongaro's dissertation (figure 16 of the Raft paper): five
    /// servers without pre-vote, heartbeats every half of the shortest timeout, and two of the
    /// four survivors with shorter logs. One set-up for every range.
    ///
    /// The dissertation gives a broadcast time of about 15 ms for the round trip and the disk
    /// together, and not their shares. The shares matter: how many candidates stand at the same
    /// time follows from the latency one way, and the published curves fit 2.55 ms of it. Both have
    /// a long tail here, as networks and disks do. A new leader is then known three latencies and
    /// one write after its timeout: 10 ms here on average. With 15 ms every curve would lie some
    /// 5 ms to the right of the published one.
    pub fn raft_figure_16(timeout: TimeoutRange) -> Failover {
        let timing = TimingKnobs {
            heartbeat: Some(Span(timeout.min / 2)),
            election_timeout: Some(timeout),
            lease: Some(Span(Duration::from_secs(1))),
            detector: Some(Detector::Silence),
            pre_vote: Some(false),
            ..TimingKnobs::default()
        };
        let model = Model {
            nodes: 5,
            protocol: Protocol::Raft,
            timing,
            network: Network { latency: log_normal(2_550, 0.2), ..Network::default() },
            disk: DiskModel { write: log_normal(1_500, 0.9) },
            ..Model::default()
        };
        let (stagger, timeout) = (Duration::from_millis(20), Duration::from_secs(60));
        Failover { model, laggards: 2, stagger, timeout }
    }

    /// Runs one trial.
    ///
    /// # Errors
    /// The model makes no sense, or an invariant was broken (if `observe` says to check).
    pub fn run(&self, seed: u64, observe: Observe) -> Result<Trial, TrialError> {
        let mut world = World::new(&self.model, seed, observe)?;
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        let limit = Time::ZERO + self.timeout;
        self.stagger(&mut world)?;
        world.run_while(limit, |world| {
            world.announced().is_none_or(|known| world.ready().is_none_or(|r| r.term != known.term))
        })?;
        let Some(old) = world.ready().filter(|ready| world.serving() == Some(ready.leader)) else {
            return Ok(Trial::Unsettled);
        };
        let Some(node) = world.node(old.leader) else { return Ok(Trial::Unsettled) };
        let heartbeat = node.config().heartbeat;
        // The instant of its next heartbeat.
        let Some(next) = node.next_deadline() else { return Ok(Trial::Unsettled) };
        world.run_until(next)?;
        self.leave_behind(&mut world, old.leader, &mut rng)?;
        world.run_for(heartbeat * 2)?;
        world.run_for(heartbeat.mul_f64(rng.random::<f64>()))?;
        if world.leader() != Some(old.leader)
            || world.elected().is_some_and(|elected| elected.term != old.term)
        {
            return Ok(Trial::Unsettled);
        }
        let died = world.now();
        world.strike(Fault::Crash(old.leader))?;
        let new = |world: &World| world.announced().filter(|known| known.term > old.term);
        world.run_while(died + self.timeout, |world| new(world).is_none())?;
        Ok(new(&world).map_or(Trial::Censored, |known| Trial::Announced(known.at.since(died))))
    }

    fn stagger(&self, world: &mut World) -> Result<(), Box<Violation>> {
        if self.stagger.is_zero() {
            return Ok(());
        }
        for index in 1..self.model.nodes {
            let node = NodeId::from(index) + 1;
            world.strike(Fault::Crash(node))?;
            world.strike_later(self.stagger * index, Fault::Restart(node));
        }
        Ok(())
    }

    /// Gives everybody but the laggards one more entry.
    fn leave_behind(
        &self,
        world: &mut World,
        leader: NodeId,
        rng: &mut ChaCha8Rng,
    ) -> Result<(), Box<Violation>> {
        if self.laggards == 0 {
            return Ok(());
        }
        let mut laggards: Vec<NodeId> =
            world.nodes().map(|(id, _)| id).filter(|id| *id != leader).collect();
        while laggards.len() > self.laggards {
            laggards.swap_remove(rng.random_range(0..laggards.len()));
        }
        let gap = Cut { from: vec![leader], to: laggards.clone(), both_ways: false };
        world.strike(Fault::Cut(gap.clone()))?;
        world.strike(Fault::Propose(leader))?;
        world.strike(Fault::Mend(gap))?;
        // They hear the leader, but it does not hear them: it would send the entry again.
        let deaf = Cut { from: laggards, to: vec![leader], both_ways: false };
        world.strike(Fault::Cut(deaf))
    }
}

fn log_normal(median_us: u64, sigma: f64) -> Distribution {
    let median = Span(Duration::from_micros(median_us));
    Distribution::LogNormal(LogNormal { median, sigma })
}
