//! The simulated cluster: what happens next, and what follows from it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sraft_core::{Config, Entry, Event, HardState, Input, Message, Node, NodeId, Restored, Role};
use sraft_core::{Term, Time};
use sraft_events::{FaultAction, LossCause, Record};

use crate::{
    calendar::Calendar,
    checker::{Checker, Violation},
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
    /// Entries committed by the cluster (0 without checking).
    pub committed: u64,
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

/// Whether a run checks, records and traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observe {
    /// Check every invariant after every event.
    pub check: bool,
    /// Keep the records that a live run would write.
    pub record: bool,
    /// Keep a readable account of the last events.
    pub trace: bool,
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
    checker: Option<Checker>,
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
            checker: observe.check.then(|| Checker::new(size)),
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

    // ---- what happens ------------------------------------------------------------------------

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Deliver { from, to, life, message } => {
                let (from, to) = (from as usize, to as usize);
                // A datagram finds whatever process is there; a connection leads to one process.
                let reaches = self.reordering || self.hosts[to].life == life;
                if reaches && !self.is_cut(from, to) {
                    self.note(|| format!("{} -> {}: {message:?}", from + 1, to + 1));
                    self.input(to, Input::Message { from: from as NodeId + 1, message });
                }
            }
            Happening::Durable { node, serial } => self.durable(node as usize, serial),
            Happening::Wake { node } => self.wake(node as usize),
            Happening::Close { node, peer, life } => {
                let (node, peer) = (node as usize, peer as usize);
                let known = self.hosts[node].links[peer].life == life;
                if self.hosts[node].node.is_none() || !known || self.is_separated(node, peer) {
                    return;
                }
                let input = self.hosts[node].links[peer].closed(peer as NodeId + 1);
                self.tell(node, input);
                let delay = self.samplers.refused.draw(&mut self.rng);
                self.dial_after(delay, node, peer);
            }
            Happening::Dial { node, peer } => self.dial(node as usize, peer as usize),
            Happening::Fault(fault) => self.fault(fault),
        }
    }

    fn fault(&mut self, fault: Fault) {
        self.note(|| format!("fault: {fault:?}"));
        let index = |node: NodeId| node as usize - 1;
        match fault {
            Fault::Crash(node) => self.crash(index(node)),
            Fault::Restart(node) => self.restart(index(node)),
            Fault::Pause(node) => {
                let host = &mut self.hosts[index(node)];
                if host.runs() {
                    host.paused = true;
                    self.agent(index(node), FaultAction::Pause);
                }
            }
            Fault::Resume(node) => self.resume(index(node)),
            Fault::Cut(cut) => self.set_cut(&cut, true),
            Fault::Mend(cut) => self.set_cut(&cut, false),
            Fault::Disconnect(a, b) => {
                for (node, peer) in [(index(a), index(b)), (index(b), index(a))] {
                    if self.hosts[node].node.is_some() && !self.is_separated(node, peer) {
                        let input = self.hosts[node].links[peer].closed(peer as NodeId + 1);
                        self.tell(node, input);
                        self.redial(node, peer);
                    }
                }
            }
            Fault::SlowDisk(node, factor) => self.hosts[index(node)].disk.factor = factor.into(),
            Fault::StallDisk(node) => self.hosts[index(node)].disk.stalled = true,
            Fault::MendDisk(node) => {
                let host = &mut self.hosts[index(node)];
                host.disk.factor = 1;
                if std::mem::take(&mut host.disk.stalled) {
                    // A write that was held up ends now; else one may begin.
                    if host.disk.writing().is_empty() {
                        self.begin_write(index(node));
                    } else {
                        let serial = host.disk.next_serial();
                        let delay = self.samplers.write.draw(&mut self.rng);
                        let node = index(node) as u32;
                        self.after(delay, Happening::Durable { node, serial });
                    }
                }
            }
            Fault::Propose(node) => {
                let command = vec![b'x'];
                self.input(index(node), Input::Propose { command });
            }
            Fault::Transfer(node) => {
                self.agent(index(node), FaultAction::Stop);
                self.input(index(node), Input::Transfer);
            }
        }
    }

    fn boot(&mut self, index: usize) {
        let (seed, now) = (self.rng.random(), self.now);
        let host = &mut self.hosts[index];
        host.life += 1;
        host.paused = false;
        host.links.fill(Link::NEW);
        host.wake = u64::MAX;
        host.accepted = 0;
        #[cfg(feature = "mutants")]
        if self.forgets_votes {
            host.disk.hard_state.voted_for = None;
        }
        let hard_state = host.disk.hard_state;
        let restored = Restored { hard_state, entries: host.disk.entries.clone() };
        let last_index = restored.entries.len() as u64;
        let node = Node::new(host.config.clone(), restored, seed, host.local(now));
        host.node = Some(node);
        if let Some(recorder) = &mut self.recorder {
            recorder.started(index, host.life, hard_state.term, last_index, now);
        }
        if let Some(checker) = &mut self.checker {
            checker.started(index, hard_state);
        }
    }

    fn restart(&mut self, index: usize) {
        if self.hosts[index].node.is_some() {
            return;
        }
        self.boot(index);
        self.carry_out(index);
        self.redial_all(index);
    }

    fn crash(&mut self, index: usize) {
        if self.hosts[index].node.is_none() {
            return;
        }
        self.agent(index, FaultAction::Kill);
        // What the disk was writing may or may not have got there; it is one write, so all of it.
        let survives = self.rng.random_bool(0.5);
        let (now, life) = (self.now, self.hosts[index].life);
        self.hosts[index].disk.lose_queue();
        if survives && !self.hosts[index].disk.stalled {
            self.written(index);
        } else {
            self.hosts[index].disk.lose_group();
        }
        let host = &mut self.hosts[index];
        host.node = None;
        host.paused = false;
        host.inbox.clear();
        if let Some(recorder) = &mut self.recorder {
            recorder.exited(index, now);
        }
        for peer in (0..self.hosts.len()).filter(|peer| *peer != index) {
            let link = self.hosts[peer].links[index];
            if link.state != State::Up || link.life != life {
                continue;
            }
            let delay = self.samplers.closed.draw(&mut self.rng);
            // On a connection the end comes after all that was sent before.
            let mut at = now + delay;
            if !self.reordering {
                at = at.max(self.hosts[index].links[peer].last_arrival);
            }
            let (node, peer) = (peer as u32, index as u32);
            self.calendar.schedule(at, Happening::Close { node, peer, life });
        }
        self.announce();
    }

    fn resume(&mut self, index: usize) {
        let now = self.now;
        if !self.hosts[index].paused {
            return;
        }
        self.agent(index, FaultAction::Resume);
        let host = &mut self.hosts[index];
        host.paused = false;
        let local = host.local(now);
        let inbox = std::mem::take(&mut host.inbox);
        let node = host.node.as_mut().expect("a paused process exists");
        // Taken in as one batch, as a driver does that finds its sockets full.
        for input in inbox {
            node.handle(local, input);
        }
        self.carry_out(index);
        self.timeout_if_due(index);
        self.redial_all(index);
    }

    /// Makes what the disk was writing durable, under the checker's eyes.
    fn written(&mut self, index: usize) -> Option<u64> {
        let breach = match &mut self.checker {
            Some(checker) => checker.writing(&self.hosts, index),
            None => Ok(()),
        };
        let ticket = self.hosts[index].disk.finish();
        self.found(breach);
        ticket
    }

    fn durable(&mut self, index: usize, serial: u64) {
        let disk = &self.hosts[index].disk;
        if disk.serial != serial || disk.stalled {
            return;
        }
        if let Some(ticket) = self.written(index) {
            self.note(|| format!("{}: durable up to #{ticket}", index + 1));
            self.input(index, Input::Persisted { ticket });
        }
        self.begin_write(index);
    }

    fn begin_write(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.disk.begin() {
            let (serial, factor) = (host.disk.next_serial(), host.disk.factor);
            let delay = self.samplers.write.draw(&mut self.rng).saturating_mul(factor);
            self.after(delay, Happening::Durable { node: index as u32, serial });
        }
    }

    fn wake(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.wake != self.now {
            return;
        }
        host.wake = u64::MAX;
        self.timeout_if_due(index);
    }

    fn timeout_if_due(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if !host.runs() {
            return;
        }
        let local = host.local(self.now);
        let node = host.node.as_mut().expect("it runs");
        if node.next_deadline().is_some_and(|deadline| deadline <= local) {
            node.handle(local, Input::Timeout);
            self.note(|| format!("{}: timeout", index + 1));
            self.carry_out(index);
        } else {
            self.set_alarm(index);
        }
    }

    fn input(&mut self, index: usize, input: Input) {
        let host = &mut self.hosts[index];
        let local = host.local(self.now);
        let Some(node) = &mut host.node else { return };
        if host.paused {
            host.inbox.push(input);
        } else {
            node.handle(local, input);
            self.carry_out(index);
        }
    }

    // ---- connections -------------------------------------------------------------------------

    fn connect(&mut self, index: usize, peer: usize) {
        let life = self.hosts[peer].life;
        let inputs = self.hosts[index].links[peer].dialled(peer as NodeId + 1, life);
        if let Some(recorder) = &mut self.recorder
            && !inputs.is_empty()
        {
            recorder.connected(index, peer, life, self.now);
        }
        let local = self.hosts[index].local(self.now);
        let node = self.hosts[index].node.as_mut().expect("only a running node dials");
        inputs.into_iter().for_each(|input| node.handle(local, input));
    }

    fn dial(&mut self, index: usize, peer: usize) {
        let (here, there) = (&self.hosts[index], &self.hosts[peer]);
        // A process that stands still does not dial, and answers nobody; it, or the mended link,
        // dials again.
        if !here.runs() || there.paused || self.is_separated(index, peer) {
            return;
        }
        if there.node.is_some() {
            let life = there.life;
            self.note(|| format!("{}: connected with {} (life {life})", index + 1, peer + 1));
            self.connect(index, peer);
            self.carry_out(index);
        } else {
            let id = peer as NodeId + 1;
            let link = &mut self.hosts[index].links[peer];
            let closed = link.closed(id);
            let died = link.died(id, LossCause::Refused);
            self.tell(index, closed);
            self.tell(index, died);
        }
    }

    fn tell(&mut self, index: usize, input: Option<Input>) {
        if let Some(input) = input {
            self.note(|| format!("{}: {input:?}", index + 1));
            self.input(index, input);
        }
    }

    fn redial(&mut self, index: usize, peer: usize) {
        let delay = self.samplers.connect.draw(&mut self.rng);
        self.dial_after(delay, index, peer);
    }

    fn redial_all(&mut self, index: usize) {
        for peer in (0..self.hosts.len()).filter(|peer| *peer != index) {
            self.redial(index, peer);
            self.redial(peer, index);
        }
    }

    fn dial_after(&mut self, delay: u64, index: usize, peer: usize) {
        self.after(delay, Happening::Dial { node: index as u32, peer: peer as u32 });
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from * self.hosts.len() + to]
    }

    fn is_separated(&self, a: usize, b: usize) -> bool {
        self.is_cut(a, b) || self.is_cut(b, a)
    }

    fn set_cut(&mut self, cut: &Cut, value: bool) {
        for &from in &cut.from {
            for &to in &cut.to {
                let (from, to) = (from as usize - 1, to as usize - 1);
                let size = self.hosts.len();
                self.cut[from * size + to] = value;
                if cut.both_ways {
                    self.cut[to * size + from] = value;
                }
                if !value {
                    self.redial(from, to);
                    self.redial(to, from);
                }
            }
        }
    }

    // ---- the driver's duties -----------------------------------------------------------------

    /// Carries out what a node wants, in the order of the core's contract.
    fn carry_out(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let Some(node) = &mut host.node else { return };
        let mut output = node.take_output();
        if let Some(checker) = &mut self.checker {
            let breach = checker.after(&self.hosts, index, &output);
            self.found(breach);
        }
        if let Some(persist) = output.persist.take() {
            self.hosts[index].disk.enqueue(persist);
            self.begin_write(index);
        }
        for (_, event) in output.events {
            self.observe(index, event);
        }
        for envelope in output.messages {
            self.send(index, envelope.to as usize - 1, envelope.message);
        }
        self.set_alarm(index);
    }

    fn observe(&mut self, index: usize, event: Event) {
        self.note(|| format!("{}: {event:?}", index + 1));
        let (leader, at) = (index as NodeId + 1, self.now());
        match &event {
            Event::Elected { term, campaign, .. } => {
                self.elected = Some(Milestone { leader, term: *term, at });
                self.hosts[index].accepted = *term;
                self.tally.leaders += 1;
                match campaign {
                    sraft_events::CampaignKind::Promotion => self.tally.promotions += 1,
                    sraft_events::CampaignKind::Transfer => self.tally.handovers += 1,
                    sraft_events::CampaignKind::Election => {}
                }
                self.announce();
            }
            Event::LeaderAccepted { term, .. } => {
                self.hosts[index].accepted = *term;
                self.announce();
            }
            Event::Ready { term, .. } => {
                self.ready = Some(Milestone { leader, term: *term, at });
            }
            _ => {}
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.node(index, self.now, event);
        }
    }

    /// Looks whether every live node knows the leader elected last.
    fn announce(&mut self) {
        let Some(elected) = self.elected else { return };
        if self.announced.is_some_and(|known| known.term >= elected.term) {
            return;
        }
        let mut live = self.hosts.iter().filter(|host| host.node.is_some());
        if live.all(|host| host.accepted >= elected.term) {
            self.announced = Some(Milestone { at: self.now(), ..elected });
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        self.tally.messages += 1;
        let link = self.hosts[from].links[to];
        let connected = self.reordering || link.state == State::Up;
        if !connected
            || self.is_cut(from, to)
            || (self.loss > 0.0 && self.rng.random_bool(self.loss))
        {
            return;
        }
        if self.duplication > 0.0 && self.rng.random_bool(self.duplication) {
            self.post(from, to, message.clone());
        }
        self.post(from, to, message);
    }

    fn post(&mut self, from: usize, to: usize, message: Message) {
        let special = self.link_latency.get(from * self.hosts.len() + to).copied().flatten();
        let sampler = match special {
            Some(index) => &self.samplers.links[index as usize].2,
            None => &self.samplers.latency,
        };
        let mut at = self.now + sampler.draw(&mut self.rng);
        let link = &mut self.hosts[from].links[to];
        if !self.reordering {
            at = at.max(link.last_arrival);
            link.last_arrival = at;
        }
        let (from, to, life) = (from as u32, to as u32, link.life);
        self.calendar.schedule(at, Happening::Deliver { from, to, life, message });
    }

    fn set_alarm(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.paused {
            return;
        }
        let Some(deadline) = host.node.as_ref().and_then(Node::next_deadline) else { return };
        let at = host.global(deadline).max(self.now);
        if at < host.wake {
            host.wake = at;
            self.calendar.schedule_alarm(at, Happening::Wake { node: index as u32 });
        }
    }

    fn after(&mut self, delay: u64, happening: Happening) {
        self.calendar.schedule(self.now.saturating_add(delay), happening);
    }

    fn agent(&mut self, index: usize, action: FaultAction) {
        if let Some(recorder) = &mut self.recorder {
            recorder.fault(index, action, self.now);
        }
    }

    fn found(&mut self, breach: Result<(), crate::checker::Breach>) {
        if let Err(breach) = breach {
            self.violated(breach.invariant, breach.detail);
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(self.tally.events, Time::from_nanos(self.now), line());
        }
    }

    // ---- what can be seen --------------------------------------------------------------------

    /// The present instant, nanoseconds from the start of the run on a clock without error.
    pub fn now(&self) -> Time {
        Time::from_nanos(self.now)
    }

    /// The nodes, by id from 1; a node that does not run is absent.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, Option<&Node>)> {
        self.hosts.iter().enumerate().map(|(index, host)| (index as NodeId + 1, host.node.as_ref()))
    }

    /// A node, if it runs (or stands still).
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.hosts.get((id as usize).checked_sub(1)?)?.node.as_ref()
    }

    /// What of a node's state is durable.
    pub fn durable_state(&self, id: NodeId) -> Option<(HardState, &[Entry])> {
        let disk = &self.hosts.get((id as usize).checked_sub(1)?)?.disk;
        Some((disk.hard_state, &disk.entries))
    }

    /// The leader of the highest term that is ready to serve, if there is one.
    pub fn serving(&self) -> Option<NodeId> {
        let live = self.hosts.iter().filter(|host| !host.paused).filter_map(|h| h.node.as_ref());
        let ready = live.map(Node::status).filter(|status| status.ready);
        ready.max_by_key(|status| status.term).map(|status| status.id)
    }

    /// The node that leads in the highest term, ready or not.
    pub fn leader(&self) -> Option<NodeId> {
        let live = self.hosts.iter().filter_map(|host| host.node.as_ref());
        let leaders = live.map(Node::status).filter(|status| status.role == Role::Leader);
        leaders.max_by_key(|status| status.term).map(|status| status.id)
    }

    /// The last election won.
    pub fn elected(&self) -> Option<Milestone> {
        self.elected
    }

    /// The last leader whose no-op committed.
    pub fn ready(&self) -> Option<Milestone> {
        self.ready
    }

    /// The last leader of whom every live node has accepted a message, and when the last one did.
    pub fn announced(&self) -> Option<Milestone> {
        self.announced
    }

    /// What the run adds up to so far.
    pub fn tally(&self) -> Tally {
        let committed = self.checker.as_ref().map_or(0, Checker::committed);
        Tally { committed, ..self.tally }
    }

    /// The records so far, if they are kept; they are handed over only once.
    pub fn take_records(&mut self) -> Vec<Record> {
        self.recorder.as_mut().map(Recorder::take).unwrap_or_default()
    }

    /// The account of the last events, if one is kept.
    pub fn trace(&self) -> String {
        self.trace.as_ref().map(Trace::to_string).unwrap_or_default()
    }

    /// From now on messages are lost and duplicated with these probabilities.
    ///
    /// # Panics
    /// If one of them is no probability.
    pub fn set_noise(&mut self, loss: f64, duplication: f64) {
        assert!((0.0..=1.0).contains(&loss) && (0.0..=1.0).contains(&duplication));
        (self.loss, self.duplication) = (loss, duplication);
    }

    /// Mends whatever is broken: links, disks, processes that stand still or are dead; nothing is
    /// lost or duplicated any more.
    ///
    /// # Errors
    /// As [`World::run_until`].
    pub fn heal(&mut self) -> Result<(), Box<Violation>> {
        self.set_noise(0.0, 0.0);
        let all: Vec<NodeId> = (1..=self.hosts.len() as NodeId).collect();
        self.cut.fill(false);
        for &node in &all {
            self.strike(Fault::MendDisk(node))?;
            self.strike(Fault::Resume(node))?;
            self.strike(Fault::Restart(node))?;
        }
        (0..self.hosts.len()).for_each(|index| self.redial_all(index));
        Ok(())
    }

    fn describe(&self) -> Vec<String> {
        let line = |(index, host): (usize, &Host)| {
            let disk = &host.disk;
            let last = disk.entries.last().map_or((0, 0), |e| (e.index, e.term));
            let durable = format!(
                "durable: term {} vote {} last {}@{}",
                disk.hard_state.term,
                disk.hard_state.voted_for.map_or("none".to_owned(), |vote| vote.to_string()),
                last.0,
                last.1
            );
            let Some(node) = &host.node else {
                return format!("{}: dead (life {}); {durable}", index + 1, host.life);
            };
            let status = node.status();
            format!(
                "{}: {:?}{} term {} leader {} rank {} commit {} last {}@{}; {durable}",
                index + 1,
                status.role,
                if host.paused { " (paused)" } else { "" },
                status.term,
                status.leader.map_or("none".to_owned(), |leader| leader.to_string()),
                status.rank.map_or("none".to_owned(), |rank| rank.to_string()),
                status.commit,
                status.last_index,
                node.log().last_term(),
            )
        };
        self.hosts.iter().enumerate().map(line).collect()
    }
}
