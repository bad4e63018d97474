//! Random clusters under random faults. Every seed draws its own size, protocol, timing, network,
//! disks and clocks, and its own mix of faults: a mix that always holds everything would rarely
//! let any one fault run its course.

mod profile;
mod trouble;

use std::time::Duration;

use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use sraft_core::{Node, NodeId, Role, Time};

use self::trouble::Trouble;
use crate::{ClientOp, Fault, Model, Observe, Tally, Violation, World};

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

/// Runs one seed without a look at its invariants, and returns what clients saw: one register that
/// every proposed command writes and every read reads.
pub fn history(seed: u64) -> Vec<ClientOp> {
    Swarm::new(seed).history(seed)
}

/// Like [`history`], with a flaw in every node.
#[cfg(feature = "mutants")]
pub fn history_with_flaw(seed: u64, flaw: crate::Flaw) -> Vec<ClientOp> {
    Swarm { flaw: Some(flaw), ..Swarm::new(seed) }.history(seed)
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

impl Swarm {
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

    /// What clients saw, whatever else became of the run. Nothing is checked: the clients are to
    /// find out by themselves.
    fn history(&self, seed: u64) -> Vec<ClientOp> {
        let mut world = self.world(seed, Observe { clients: true, ..Observe::default() });
        let _ = self.clone().trouble(&mut world, seed);
        world.history()
    }

    fn run(&self, seed: u64, trace: bool) -> (Result<Tally, Failure>, String) {
        let mut world = self.world(seed, Observe { check: true, trace, ..Observe::default() });
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
}
