//! A deterministic discrete-event simulator around [`sraft_core`].
//!
//! A [`World`] is a cluster of real cores with simulated clocks, disks and network, driven by the
//! contract that the core's own documentation states and that the node's driver follows too. It is
//! described by a [`Model`]; the same model and the same seed give the same run on any machine.
//! After every event the whole cluster is held against the protocol's invariants, if asked for.
//!
//! ```
//! use sraft_sim::{Fault, Model, Observe, World};
//! use std::time::Duration;
//! let observe = Observe { check: true, ..Observe::default() };
//! let mut world = World::new(&Model::default(), 1, observe).unwrap();
//! world.run_for(Duration::from_secs(5)).unwrap();
//! let old = world.serving().expect("a leader");
//! world.strike(Fault::Crash(old)).unwrap();
//! world.run_for(Duration::from_secs(5)).unwrap();
//! assert_ne!(world.serving().expect("its successor"), old);
//! ```

mod application;
mod calendar;
mod checker;
mod clients;
mod disk;
mod distribution;
mod failover;
mod link;
mod model;
mod recorder;
mod swarm;
mod trace;
mod world;

pub use checker::Violation;
pub use clients::{ClientAction, ClientOp};
pub use distribution::{Distribution, DistributionError, LogNormal, Uniform};
pub use failover::{Failover, Trial, TrialError};
pub use model::{
    ClockModel, Cut, DiskModel, EvidenceModel, Fault, LinkModel, MAX_NODES, Model, ModelError,
    Network, Replication, ScheduledFault,
};
pub use swarm::{Failure, history, replay, swarm};
#[cfg(feature = "mutants")]
pub use swarm::{history_with_flaw, replay_with_flaw, swarm_with_flaw};
pub use world::{Milestone, Observe, Tally, World};

/// What can be wrong with every node of a cluster on purpose.
#[cfg(feature = "mutants")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A flaw of the core.
    Core(sraft_core::Mutation),
    /// The disk keeps the term but not the vote.
    ForgetVote,
}
