//! The simulated cluster: what happens next, and what follows from it.

mod connection;
mod driver;
mod machine;
mod view;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sraft_core::{
    Config, Entry, Event, HardState, Index, Input, Message, Node, NodeId, Restored, Role, Term,
    Time,
};
use sraft_events::{FaultAction, LossCause, Record};

use crate::{
    application::Application,
    calendar::Calendar,
    checker::{Checker, Violation},
    clients::{ClientOp, Clients},
    disk::Disk,
    link::{Link, State},
    model::{Cut, Fault, Model, ModelError, Samplers},
    recorder::Recorder,
    trace::Trace,
};

#[derive(Debug)]
enum Happening {
    Deliver {
        from: u32,
        to: u32,
        life: u32,
        message: Message,
    },
    Durable {
        node: u32,
        serial: u64,
    },
    Wake {
        node: u32,
    },
    /// The node's process, of this life, has serialised its state machine.
    Serialised {
        node: u32,
        life: u32,
        index: Index,
        data: Arc<[u8]>,
    },
    /// The peer's process, of this life, has died, and its connection closes.
    Close {
        node: u32,
        peer: u32,
        life: u32,
    },
    /// The node dials the peer.
    Dial {
        node: u32,
        peer: u32,
    },
    Fault(Fault),
}

/// The machine of one node.
#[derive(Debug)]
pub(crate) struct Host {
    pub node: Option<Node>,
    pub life: u32,
    pub disk: Disk,
    config: Config,
    ppm: i64,
    paused: bool,
    /// What has arrived for a process that stands still.
    inbox: Vec<Input>,
    links: Vec<Link>,
    /// When the next wake-up is scheduled.
    wake: u64,
    /// The term in which it accepted its leader last.
    accepted: Term,
    pub application: Application,
    /// Where the last snapshot of its application stands, be it on its way to the disk.
    serialised: Index,
    serialises: bool,
}

impl Host {
    fn local(&self, now: u64) -> Time {
        if self.ppm == 0 {
            return Time::from_nanos(now);
        }
        let gained = i128::from(now) * i128::from(self.ppm) / 1_000_000;
        Time::from_nanos((i128::from(now) + gained) as u64)
    }

    /// The first instant at which this host's clock shows at least `local`.
    fn global(&self, local: Time) -> u64 {
        let local = local.as_nanos();
        if self.ppm == 0 {
            return local;
        }
        let rate = 1_000_000 + i128::from(self.ppm);
        let mut at = (i128::from(local) * 1_000_000 / rate) as u64;
        while self.local(at).as_nanos() < local {
            at += 1;
        }
        at
    }

    fn runs(&self) -> bool {
        self.node.is_some() && !self.paused
    }
}

/// What a run adds up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events simulated.
    pub events: u64,
    /// Messages that nodes sent.
    pub messages: u64,
    /// Leaders elected, by whatever kind of campaign.
    pub leaders: u64,
    /// Of those, the ones that promoted themselves.
    pub promotions: u64,
    /// Of those, the ones to whom the old leader handed over.
    pub handovers: u64,
    /// Entries committed by the cluster (without checking, those that a running node has applied).
    pub committed: u64,
    /// Snapshots that nodes have taken of their own state.
    pub snapshots: u64,
    /// Snapshots that followers have got from their leader.
    pub installs: u64,
    /// Reads that could be served.
    pub reads: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.events += other.events;
        self.messages += other.messages;
        self.leaders += other.leaders;
        self.promotions += other.promotions;
        self.handovers += other.handovers;
        self.committed += other.committed;
        self.snapshots += other.snapshots;
        self.installs += other.installs;
        self.reads += other.reads;
    }
}

/// A leader and an instant in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Milestone {
    /// The leader.
    pub leader: NodeId,
    /// Its term.
    pub term: Term,
    /// When.
    pub at: Time,
}

/// What is kept of a run, and whether it is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observe {
    /// Check every invariant after every event.
    pub check: bool,
    /// Keep the records that a live run would write.
    pub record: bool,
    /// Keep a readable account of the last events.
    pub trace: bool,
    /// Keep what clients asked and were told.
    pub clients: bool,
}

/// A simulated cluster. The same model and the same seed give the same run on every machine.
#[derive(Debug)]
pub struct World {
    seed: u64,
    now: u64,
    rng: ChaCha8Rng,
    samplers: Samplers,
    /// Latency of each ordered pair that differs from the rest, as an index into `samplers.links`.
    link_latency: Vec<Option<u32>>,
    loss: f64,
    duplication: f64,
    reordering: bool,
    hosts: Vec<Host>,
    cut: Vec<bool>,
    calendar: Calendar<Happening>,
    snapshot_entries: u64,
    /// Reads that have been asked.
    asked: u64,
    checker: Option<Checker>,
    clients: Option<Clients>,
    recorder: Option<Recorder>,
    trace: Option<Trace>,
    violation: Option<Box<Violation>>,
    tally: Tally,
    elected: Option<Milestone>,
    ready: Option<Milestone>,
    announced: Option<Milestone>,
    #[cfg(feature = "mutants")]
    forgets_votes: bool,
}

impl World {
    /// A cluster whose nodes all start, connected with one another, with empty disks.
    ///
    /// # Errors
    /// What is wrong with the model.
    pub fn new(model: &Model, seed: u64, observe: Observe) -> Result<World, ModelError> {
        Self::start(model, seed, observe, |_| {})
    }

    /// Like [`World::new`], with a flaw in every node.
    ///
    /// # Errors
    /// What is wrong with the model.
    #[cfg(feature = "mutants")]
    pub fn with_flaw(
        model: &Model,
        seed: u64,
        observe: Observe,
        flaw: crate::Flaw,
    ) -> Result<World, ModelError> {
        let mut world = match flaw {
            crate::Flaw::Core(mutation) => {
                Self::start(model, seed, observe, |config| config.mutation = Some(mutation))
            }
            crate::Flaw::ForgetVote => Self::start(model, seed, observe, |_| {}),
        }?;
        world.forgets_votes = flaw == crate::Flaw::ForgetVote;
        Ok(world)
    }

    fn start(
        model: &Model,
        seed: u64,
        observe: Observe,
        alter: impl Fn(&mut Config),
    ) -> Result<World, ModelError> {
        let samplers = model.samplers()?;
        let size = model.nodes as usize;
        let members: Vec<NodeId> = (1..=NodeId::from(model.nodes)).collect();
        let lowered = model.timing.resolve().lower(model.protocol, 1, &members)?;
        let host = |&id: &NodeId| {
            let mut config = Config {
                id,
                max_append_entries: model.replication.max_entries,
                max_inflight: model.replication.max_inflight,
                snapshot_chunk_bytes: model.replication.snapshot_chunk_bytes,
                retained_entries: model.replication.retained_entries,
                ..lowered.clone()
            };
            alter(&mut config);
            Host {
                node: None,
                life: 0,
                disk: Disk::new(),
                config,
                ppm: model.clocks.iter().filter(|c| c.node == id).map(|c| i64::from(c.ppm)).sum(),
                paused: false,
                inbox: Vec::new(),
                links: vec![Link::NEW; size],
                wake: u64::MAX,
                accepted: 0,
                application: Application::default(),
                serialised: 0,
                serialises: false,
            }
        };
        let mut link_latency = Vec::new();
        if !samplers.links.is_empty() {
            link_latency = vec![None; size * size];
            for (index, (from, to, _)) in samplers.links.iter().enumerate() {
                link_latency[(*from as usize - 1) * size + *to as usize - 1] = Some(index as u32);
            }
        }
        let mut world = World {
            seed,
            now: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            link_latency,
            samplers,
            loss: model.network.loss,
            duplication: model.network.duplication,
            reordering: model.network.reordering,
            hosts: members.iter().map(host).collect(),
            cut: vec![false; size * size],
            calendar: Calendar::new(),
            snapshot_entries: model.replication.snapshot_entries,
            asked: 0,
            checker: observe.check.then(|| Checker::new(size)),
            clients: observe.clients.then(|| Clients::new(size)),
            recorder: observe.record.then(|| Recorder::new(&members, lowered.sub_leaders())),
            trace: observe.trace.then(Trace::default),
            violation: None,
            tally: Tally::default(),
            elected: None,
            ready: None,
            announced: None,
            #[cfg(feature = "mutants")]
            forgets_votes: false,
        };
        for scheduled in &model.faults {
            let at = scheduled.at.0.as_nanos() as u64;
            world.calendar.schedule(at, Happening::Fault(scheduled.fault.clone()));
        }
        for index in 0..size {
            world.boot(index);
        }
        for index in 0..size {
            for peer in (0..size).filter(|peer| *peer != index) {
                world.connect(index, peer);
            }
            world.carry_out(index);
        }
        Ok(world)
    }

    /// Runs until nothing more is due at or before `end`.
    ///
    /// # Errors
    /// The first invariant that was broken. The world stands still from then on.
    pub fn run_until(&mut self, end: Time) -> Result<(), Box<Violation>> {
        self.run_while(end, |_| true).map(|_| ())
    }

    /// Lets `span` pass.
    ///
    /// # Errors
    /// As [`World::run_until`].
    pub fn run_for(&mut self, span: Duration) -> Result<(), Box<Violation>> {
        self.run_until(self.now() + span)
    }

    /// Runs until `go_on` says no after an event, or `end` is reached. Returns whether it was
    /// stopped before `end`.
    ///
    /// # Errors
    /// As [`World::run_until`].
    pub fn run_while(
        &mut self,
        end: Time,
        mut go_on: impl FnMut(&World) -> bool,
    ) -> Result<bool, Box<Violation>> {
        self.verdict()?;
        let end = end.as_nanos();
        // One frame for many events: setting it up for each would cost more than many an event.
        let stopped = self.guarded(|world| {
            while world.calendar.next_at().is_some_and(|at| at <= end) {
                let (at, happening) = world.calendar.pop().expect("it has been seen");
                world.now = world.now.max(at);
                world.tally.events += 1;
                world.happen(happening);
                if world.violation.is_some() || !go_on(world) {
                    return true;
                }
            }
            world.now = world.now.max(end);
            false
        });
        self.verdict()?;
        Ok(stopped)
    }

    /// Does something to the cluster now.
    ///
    /// # Errors
    /// As [`World::run_until`].
    ///
    /// # Panics
    /// If the fault names a node that does not exist.
    pub fn strike(&mut self, fault: Fault) -> Result<(), Box<Violation>> {
        self.verdict()?;
        self.tally.events += 1;
        self.guarded(|world| {
            world.fault(fault);
            false
        });
        self.verdict()
    }

    /// Does something to the cluster once `after` has passed.
    ///
    /// # Panics
    /// When it happens, if the fault names a node that does not exist.
    pub fn strike_later(&mut self, after: Duration, fault: Fault) {
        self.after(after.as_nanos() as u64, Happening::Fault(fault));
    }

    /// The core asserts what must never happen; that is a finding like any other.
    fn guarded(&mut self, run: impl FnOnce(&mut World) -> bool) -> bool {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(self)));
        outcome.unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no reason given");
            self.violated("an assertion of the core", text.to_owned());
            true
        })
    }

    fn verdict(&self) -> Result<(), Box<Violation>> {
        self.violation.clone().map_or(Ok(()), Err)
    }

    fn violated(&mut self, invariant: &'static str, detail: String) {
        if self.violation.is_none() {
            self.violation = Some(Box::new(Violation {
                invariant,
                detail,
                seed: self.seed,
                event: self.tally.events,
                at: self.now(),
                nodes: self.describe(),
            }));
        }
    }
}
