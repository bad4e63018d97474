//! One trial in a world of its own, from a cluster that starts to a leader that serves.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{
    RngExt, SeedableRng,
    seq::{IndexedRandom, SliceRandom},
};
use rand_chacha::ChaCha8Rng;
use sraft_core::{NodeId, Time};
use sraft_events::{Event, FaultAction, Record, Source, Verdict};
use sraft_sim::{Cut, Fault, Observe, Violation, World};

use super::keys::Setup;
use crate::{
    fault::{self, Direction, Kind, Links, Standing, Strike},
    plan::Launch,
    view::{Leader, View},
};

/// What is to be tried.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    /// Its number in the plan; 0 for a warm-up.
    pub(crate) number: u64,
    pub(crate) cell: &'a str,
    pub(crate) variant: &'a str,
    pub(crate) block: u32,
    pub(crate) launch: &'a Launch,
    pub(crate) setup: &'a Setup,
    pub(crate) timeout: Duration,
}

/// Why there is no trial.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The protocol is broken.
    #[error("a bug of this program: {0}")]
    Unsafe(#[from] Box<Violation>),
    /// Cluster after cluster did not get to the point at which a trial can begin.
    #[error(
        "{WORLDS} simulated clusters in a row were not ready for a trial within {} s; the last one \
         waited for {missing}; are the latencies and writes of [sim] too slow for the timeouts?",
        SETTLED_WITHIN.as_secs()
    )]
    Unsettled {
        /// What the last one waited for.
        missing: String,
    },
}

/// What worlds call the agent that does faults.
const AGENT: &str = "sim";

/// How many clusters are started for a trial before it is given up.
const WORLDS: u64 = 50;

/// Simulated time that a cluster has to settle.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// Runs a trial; its records, from `trial_started` to `trial_ended`, are stamped from then on.
pub(crate) fn conduct(trial: &Trial<'_>, seed: u64) -> Result<Vec<Record>, Failure> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut missing = String::new();
    for _ in 0..WORLDS {
        match Stage::set(trial, &mut rng)? {
            Ok(stage) => return stage.play(trial, &mut rng),
            Err(what) => missing = what,
        }
    }
    Err(Failure::Unsettled { missing })
}

/// A cluster on which a trial can begin, and what its records have told so far.
struct Stage {
    world: World,
    told: Told,
    leader: Leader,
}

/// A reader of a world's records.
#[derive(Default)]
struct Told {
    view: View,
    read: usize,
}

impl Told {
    /// Takes up what is new, and says whether anything was.
    fn read(&mut self, world: &World) -> bool {
        let new = &world.records()[self.read..];
        new.iter().for_each(|record| self.view.fold(record));
        self.read += new.len();
        !new.is_empty()
    }
}

impl Stage {
    /// A fresh cluster that has settled under the leader that is wanted; else what is missing.
    fn set(
        trial: &Trial<'_>,
        rng: &mut ChaCha8Rng,
    ) -> Result<Result<Stage, String>, Box<Violation>> {
        let (launch, setup) = (trial.launch, trial.setup);
        let model = setup.model(|most| rng.random_range(-most..=most));
        let observe = Observe { record: true, ..Observe::default() };
        let mut world =
            World::new(&model, rng.random(), observe).expect("the plan has checked the model");
        let deadline = Time::ZERO + SETTLED_WITHIN;
        stagger(&mut world, setup.stagger)?;
        let wanted = setup.leaders.choose(rng).copied();
        if let Some(wanted) = wanted {
            install(&mut world, wanted, deadline)?;
        }
        let mut told = Told::default();
        let missing = loop {
            world.run_for(launch.timing.heartbeat)?;
            told.read(&world);
            match told.view.missing(launch.size, launch.sub_leaders) {
                Some(missing) if world.now() >= deadline => break Some(missing),
                Some(_) => {}
                None => break None,
            }
        };
        if missing.is_some() {
            return Ok(Err(missing.unwrap_or_default()));
        }
        world.run_for(setup.settle)?;
        told.read(&world);
        let Some(leader) = told.view.leader() else { return Ok(Err("a leader that lasts".into())) };
        if wanted.is_some_and(|wanted| wanted != leader.node) {
            return Ok(Err(format!("node {} to lead", wanted.unwrap_or_default())));
        }
        if setup.heartbeats_synchronised || setup.laggards > 0 {
            let next = world.node(leader.node).and_then(|node| node.next_deadline());
            // The leader's own clock may run at a rate of its own; so little time makes no odds.
            world.run_until(next.unwrap_or(world.now()))?;
        }
        if setup.laggards > 0 {
            leave_behind(&mut world, leader.node, setup.laggards, told.view.ranks(), rng)?;
            // Two heartbeats, so that all but them have committed it.
            world.run_for(launch.timing.heartbeat * 2)?;
        }
        told.read(&world);
        if told.view.leader() != Some(leader) {
            return Ok(Err("a leader that lasts".into()));
        }
        Ok(Ok(Stage { world, told, leader }))
    }

    /// The trial itself.
    fn play(self, trial: &Trial<'_>, rng: &mut ChaCha8Rng) -> Result<Vec<Record>, Failure> {
        let Stage { mut world, mut told, leader } = self;
        let launch = trial.launch;
        let ranks = told.view.ranks().to_vec();
        let standing = Standing {
            leader: leader.node,
            ranks: &ranks,
            size: launch.size,
            sub_leaders: launch.cell_sub_leaders,
        };
        let strike = fault::strike(&launch.fault, &standing, rng);
        let victims: Vec<NodeId> = strike.actions.iter().map(|(node, _)| *node).collect();
        let begin = world.now();
        let mut journal = Journal::begin(&world);
        journal.harness(
            begin,
            Event::TrialStarted {
                trial: trial.number,
                warmup: trial.number == 0,
                cell: trial.cell.to_owned(),
                variant: trial.variant.to_owned(),
                block: trial.block,
                fault: launch.fault.kind.to_string(),
                target: launch.fault.aim(),
                leader: leader.node,
                term: leader.term,
                ranks: ranks.clone(),
                victims,
            },
        );
        let drawn = rng.random::<f64>();
        let part = trial.setup.crash_phase.unwrap_or(drawn);
        world.run_for(launch.timing.heartbeat.mul_f64(part))?;
        told.read(&world);
        let early = if told.view.leader() != Some(leader) {
            Some("the leader changed before the fault")
        } else if told.view.ranks() != ranks {
            Some("the designation changed before the fault")
        } else {
            None
        };
        let (verdict, reason, messages) = match early {
            Some(why) => (Verdict::Invalid, Some(why.to_owned()), None),
            None => {
                if !isolates(launch) {
                    // A world does not know whom a cut strikes.
                    journal.cut(world.now(), &strike);
                }
                observe(&mut world, &mut told, trial, leader, &strike)?
            }
        };
        journal.take(&mut world);
        let trial = trial.number;
        let ended = Event::TrialEnded { trial, verdict, reason, restored_mono_ns: None, messages };
        journal.harness(world.now(), ended);
        Ok(journal.records)
    }
}

/// Whether the fault is what worlds themselves know as isolation.
fn isolates(launch: &Launch) -> bool {
    let both = |links: &Links| links.direction == Direction::Both;
    launch.fault.kind == Kind::Isolate && launch.fault.links.as_ref().is_some_and(both)
}

/// Strikes, and watches until leadership has passed.
fn observe(
    world: &mut World,
    told: &mut Told,
    trial: &Trial<'_>,
    leader: Leader,
    strike: &Strike,
) -> Result<(Verdict, Option<String>, Option<u64>), Failure> {
    let launch = trial.launch;
    let victims: Vec<NodeId> = strike.actions.iter().map(|(node, _)| *node).collect();
    let victims = victims.as_slice();
    let (struck, before) = (world.now(), world.tally().messages);
    match launch.fault.kind {
        _ if isolates(launch) => {
            for &victim in victims {
                world.strike(Fault::Isolate(victim))?;
            }
        }
        _ if launch.fault.links.is_some() => {
            for &(from, to) in &strike.paths {
                let cut = Cut { from: vec![from], to: vec![to], both_ways: false };
                world.strike(Fault::Cut(cut))?;
            }
        }
        Kind::Pause => {
            for &victim in victims {
                world.strike(Fault::Pause(victim))?;
            }
        }
        _ => {
            for &victim in victims {
                world.strike(Fault::Crash(victim))?;
            }
        }
    }
    for cut in &trial.setup.cuts {
        world.strike(Fault::Cut(cut.clone()))?;
    }
    let severed = |(node, action): &(NodeId, FaultAction)| *node == leader.node && action.severs();
    if !strike.actions.iter().any(severed) {
        // Nobody has to replace anybody: it is enough that the leader has noticed.
        let ends = launch.fault.kind.ends_processes();
        let lasts = if ends { trial.timeout } else { launch.fault.duration };
        let noticed = |view: &View| victims.iter().all(|victim| !view.is_synced(*victim));
        let cut = launch.fault.links.is_some();
        world
            .run_while(struck + lasts, |world| cut || !(told.read(world) && noticed(&told.view)))?;
        return Ok((Verdict::Ok, None, None));
    }
    let mut messages = None;
    let passed = world.run_while(struck + trial.timeout, |world| {
        if messages.is_none() && world.ready().is_some_and(|ready| ready.term > leader.term) {
            messages = Some(world.tally().messages - before);
        }
        !(told.read(world) && told.view.successor(leader, launch.size, victims).is_some())
    })?;
    Ok(match passed {
        true => (Verdict::Ok, None, messages),
        false => {
            let why = format!("no new leader was known to all within {:?}", trial.timeout);
            (Verdict::Censored, Some(why), None)
        }
    })
}

/// Lets each node start some time after the one before it.
fn stagger(world: &mut World, step: Duration) -> Result<(), Box<Violation>> {
    if step.is_zero() {
        return Ok(());
    }
    let others: Vec<NodeId> = world.nodes().map(|(id, _)| id).skip(1).collect();
    for (node, nth) in others.into_iter().zip(1..) {
        world.strike(Fault::Crash(node))?;
        world.strike_later(step * nth, Fault::Restart(node));
    }
    Ok(())
}

/// Sees to it that a certain node is elected: the others do not hear one another until it is. Of
/// three nodes any two are a majority, so there it may fail, and another cluster is tried.
fn install(world: &mut World, wanted: NodeId, deadline: Time) -> Result<(), Box<Violation>> {
    let others: Vec<NodeId> = world.nodes().map(|(id, _)| id).filter(|id| *id != wanted).collect();
    let cuts: Vec<Cut> = others
        .iter()
        .map(|&node| Cut {
            from: vec![node],
            to: others.iter().copied().filter(|other| *other != node).collect(),
            both_ways: false,
        })
        .filter(|cut| !cut.to.is_empty())
        .collect();
    for cut in &cuts {
        world.strike(Fault::Cut(cut.clone()))?;
    }
    world.run_while(deadline, |world| world.ready().is_none())?;
    for cut in cuts {
        world.strike(Fault::Mend(cut))?;
    }
    Ok(())
}

/// Gives everybody but some one more entry, and lets these lag for good. A leader does not
/// designate who lags, so nodes without a rank come first.
fn leave_behind(
    world: &mut World,
    leader: NodeId,
    count: usize,
    ranks: &[NodeId],
    rng: &mut ChaCha8Rng,
) -> Result<(), Box<Violation>> {
    let mut laggards: Vec<NodeId> =
        world.nodes().map(|(id, _)| id).filter(|id| *id != leader && !ranks.contains(id)).collect();
    laggards.shuffle(rng);
    laggards.extend(ranks.iter().rev());
    laggards.truncate(count);
    let gap = Cut { from: vec![leader], to: laggards.clone(), both_ways: false };
    world.strike(Fault::Cut(gap.clone()))?;
    world.strike(Fault::Propose(leader))?;
    world.strike(Fault::Mend(gap))?;
    // They hear the leader, but it does not hear them: it would send the entry again.
    let deaf = Cut { from: laggards, to: vec![leader], both_ways: false };
    world.strike(Fault::Cut(deaf))
}

/// The records of a trial, stamped from its beginning.
struct Journal {
    began: u64,
    /// Records of the world that lie before the trial.
    earlier: usize,
    written: BTreeMap<Source, u64>,
    records: Vec<Record>,
}

impl Journal {
    fn begin(world: &World) -> Journal {
        Journal {
            began: world.now().as_nanos(),
            earlier: world.records().len(),
            written: BTreeMap::new(),
            records: Vec::new(),
        }
    }

    fn harness(&mut self, at: Time, event: Event) {
        self.write(Source::Harness, at.as_nanos(), event);
    }

    /// Who is struck by a cut.
    fn cut(&mut self, at: Time, strike: &Strike) {
        for &(node, action) in strike.actions.iter().filter(|_| !strike.paths.is_empty()) {
            let event = Event::FaultApplied { node, pid: 0, action };
            self.write(Source::Agent(AGENT.to_owned()), at.as_nanos(), event);
        }
    }

    /// Takes over what tells of faults, campaigns and leaders. What nodes write of connections,
    /// replication and votes no time depends on, and it would be nine tenths of the file.
    fn take(&mut self, world: &mut World) {
        let mut records = world.take_records();
        let ours = records.split_off(self.earlier);
        let winners: BTreeSet<Source> = ours
            .iter()
            .filter(|record| matches!(record.event, Event::Elected { .. }))
            .map(|record| record.source.clone())
            .collect();
        for record in ours {
            let kept = match &record.event {
                Event::Suspected { .. } => winners.contains(&record.source),
                event => matches!(
                    event,
                    Event::FaultApplied { .. }
                        | Event::ProcessExited { .. }
                        | Event::CampaignStarted { .. }
                        | Event::Elected { .. }
                        | Event::Ready { .. }
                        | Event::LeaderAccepted { .. }
                        | Event::SteppedDown { .. }
                ),
            };
            if kept {
                self.write(record.source, record.mono_ns, record.event);
            }
        }
    }

    fn write(&mut self, source: Source, at: u64, event: Event) {
        let next = self.written.entry(source.clone()).or_default();
        let seq = *next;
        *next += 1;
        self.records.push(Record { source, seq, mono_ns: at - self.began, wall_ns: 0, event });
    }
}
