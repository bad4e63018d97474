//! The simulator as a backend: the same plan, records and rows as those of a live run, but every
//! trial in a simulated cluster of its own. The same seed gives the same files, byte for byte.
//!
//! Trials lie one after the other on one simulated clock that begins with the year 2000.

mod keys;
mod trial;

pub(crate) use keys::Sim;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::Context;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use sraft_events::{Event, Record, Source};
use sraft_report::{
    measure::{self, TrialRow},
    results::{Block, RunDir},
};
use sraft_sim::Tally;

use crate::{
    cli::{RunArgs, SimCommand},
    cluster::Halt,
    manifest,
    plan::RunPlan,
    progress::Progress,
    run::{self, Begun, Failure},
    say,
};

/// Name of the simulated host in the manifest.
const HOST: &str = "sim";

/// The wall clock when a run begins: 1 January 2000, UTC, in nanoseconds.
const EPOCH: u64 = 946_684_800_000_000_000;

/// Between two trials on the simulated clock, nanoseconds.
const GAP: u64 = 1_000_000_000;

/// How many trials become durable together.
const BATCH: usize = 100;

/// Whether somebody wants the work to end. Who asks twice does not want to wait for the report.
fn interruption() -> anyhow::Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_shutdown(signal, 130, asked.clone())
            .and_then(|_| flag::register(signal, asked.clone()))
            .context("cannot watch for signals")?;
    }
    Ok(asked)
}

/// What stands in the manifest in the place of a host's facts.
#[derive(serde::Serialize)]
struct Facts {
    kind: &'static str,
    program: &'static str,
}

/// `sraft run` of an experiment whose cluster is simulated.
pub(crate) fn run(args: &RunArgs, begun: Begun) -> anyhow::Result<ExitCode> {
    let asked = interruption()?;
    let Begun { plan, dir, lock, done, reached_ns, .. } = begun;
    let facts = Facts { kind: "simulated", program: env!("CARGO_PKG_VERSION") };
    let mut manifest = match dir.read_manifest() {
        Ok(manifest) if args.resume.is_some() => manifest,
        _ => manifest::new(&plan.plan, dir.run(), &[((HOST, &facts), 0)])?,
    };
    manifest.sessions.push(manifest::session());
    dir.write_manifest(&manifest)?;
    let mut progress = Progress::new(&plan.plan, done.len() as u64);
    progress.note(&format!("{}: writing to {}", plan.plan.experiment, dir.results().display()));

    let mut session = Session {
        plan: &plan,
        dir: &dir,
        progress: &mut progress,
        now: if reached_ns == 0 { 0 } else { reached_ns + GAP },
        written: 0,
        lines: Vec::new(),
        rows: Vec::new(),
        kept: 0,
    };
    let result = session.begin(args.resume.is_some()).and_then(|()| {
        for block in &plan.plan.blocks {
            let left = block.trials.iter().copied().filter(|trial| !done.contains(trial));
            session.block(block, left.collect(), &asked)?;
        }
        Ok(())
    });
    let kept = session.keep();
    let result = result.and(kept.map_err(Failure::Other));
    progress.finish();
    run::conclude(args, (&dir, lock), manifest, plan.check, &progress, result)
}

/// One stretch of work on a run.
struct Session<'a> {
    plan: &'a RunPlan,
    dir: &'a RunDir,
    progress: &'a mut Progress,
    /// The simulated clock, nanoseconds.
    now: u64,
    /// Records of the harness.
    written: u64,
    /// What is not on the disk yet.
    lines: Vec<String>,
    rows: Vec<TrialRow>,
    kept: usize,
}

impl Session<'_> {
    fn begin(&mut self, resumed: bool) -> Result<(), Failure> {
        let experiment = self.plan.plan.experiment.clone();
        let schema = sraft_events::SCHEMA;
        self.record(Event::RunStarted { schema, experiment, resumed })
    }

    fn block(&mut self, block: &Block, left: Vec<u64>, asked: &AtomicBool) -> Result<(), Failure> {
        if left.is_empty() {
            return Ok(());
        }
        let launch = self.plan.launch(&block.cell, &block.variant);
        let sim = launch.sim.as_ref().expect("the plan is one for the simulator");
        let setup = sim.setup(launch).expect("the plan has checked the set-up");
        self.progress.stage(&block.cell, &block.variant, "simulate");
        self.record(Event::ClusterStarted {
            cell: block.cell.clone(),
            variant: block.variant.clone(),
            block: block.block,
            size: launch.size,
        })?;
        let warmups = (1..=u64::from(block.warmup)).map(|nth| (0, nth));
        for (number, nth) in warmups.chain(left.into_iter().map(|number| (number, 0))) {
            if asked.load(Ordering::Relaxed) {
                return Err(Failure::Halt(Halt::Interrupted));
            }
            // Its own stream of random numbers, so that a resumed run draws what it would have.
            let mut rng = ChaCha8Rng::seed_from_u64(self.plan.plan.seed);
            rng.set_stream(match number {
                0 => u64::MAX - (u64::from(block.block) << 32 | nth),
                number => number,
            });
            let trial = trial::Trial {
                number,
                cell: &block.cell,
                variant: &block.variant,
                block: block.block,
                launch,
                setup: &setup,
                timeout: self.plan.timeout,
            };
            let records = trial::conduct(&trial, rng.random())
                .with_context(|| format!("trial {number} of variant {}", block.variant))
                .map_err(Failure::Other)?;
            self.add(number, records).map_err(Failure::Other)?;
        }
        self.record(Event::ClusterStopped {})
    }

    /// Takes a trial up, at its place on the clock of the run.
    fn add(&mut self, number: u64, mut records: Vec<Record>) -> anyhow::Result<()> {
        let began = self.now;
        for record in &mut records {
            record.mono_ns += began;
            record.wall_ns = EPOCH.saturating_add(record.mono_ns);
            self.now = self.now.max(record.mono_ns);
            if record.source == Source::Harness {
                record.seq = self.written;
                self.written += 1;
            }
        }
        self.now += GAP;
        self.lines.extend(run::lines(&records)?);
        if number > 0 {
            self.rows.push(measure::row(&self.plan.plan, &records, &[])?);
        }
        self.kept += 1;
        if self.kept.is_multiple_of(BATCH) { self.keep() } else { Ok(()) }
    }

    /// A record of the harness itself.
    fn record(&mut self, event: Event) -> Result<(), Failure> {
        let (mono_ns, wall_ns) = (self.now, EPOCH.saturating_add(self.now));
        let record = Record { source: Source::Harness, seq: self.written, mono_ns, wall_ns, event };
        self.written += 1;
        let lines = run::lines(std::slice::from_ref(&record)).map_err(Failure::Other)?;
        self.lines.extend(lines);
        Ok(())
    }

    /// Writes down what has come together.
    fn keep(&mut self) -> anyhow::Result<()> {
        let (lines, rows) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.rows));
        self.dir.append_trials(&lines, &rows)?;
        self.progress.trials(&rows);
        Ok(())
    }
}

/// `sraft sim`.
pub(crate) fn swarm(command: &SimCommand) -> anyhow::Result<ExitCode> {
    match *command {
        SimCommand::Replay { seed } => {
            let text = sraft_sim::replay(seed);
            say(&text)?;
            let sound = sraft_sim::swarm(seed).is_ok();
            Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        SimCommand::Swarm { seeds, first } => {
            let asked = interruption()?;
            let began = Instant::now();
            let (mut sum, mut done) = (Tally::default(), 0);
            for seed in (first..=u64::MAX).take(usize::try_from(seeds).unwrap_or(usize::MAX)) {
                if asked.load(Ordering::Relaxed) {
                    say(&account(done, &sum, began))?;
                    return Ok(ExitCode::from(run::INTERRUPTED));
                }
                match sraft_sim::swarm(seed) {
                    Ok(tally) => sum += tally,
                    Err(failure) => {
                        say(&account(done, &sum, began))?;
                        return Err(anyhow::Error::from(failure).context(format!(
                            "seed {seed} has found a bug of this program; `sraft sim replay \
                             --seed {seed}` shows the events before it"
                        )));
                    }
                }
                done += 1;
            }
            say(&account(done, &sum, began))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn account(seeds: u64, sum: &Tally, began: Instant) -> String {
    let seconds = began.elapsed().as_secs_f64();
    format!(
        "{seeds} seeds without a violation in {seconds:.1} s ({:.0} a second): {} events, {} \
         messages, {} leaders elected, {} of them by promotion and {} by handover, {} entries \
         committed, {} reads served, {} snapshots taken and {} installed\n",
        seeds as f64 / seconds,
        sum.events,
        sum.messages,
        sum.leaders,
        sum.promotions,
        sum.handovers,
        sum.committed,
        sum.reads,
        sum.snapshots,
        sum.installs,
    )
}
