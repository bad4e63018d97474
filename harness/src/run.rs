//! The life of a run: its folder, an agent, blocks of trials, and the report.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sraft_events::Event;
use sraft_report::{
    measure,
    results::{Block, Manifest, Op, Plan, ResultsError, RunDir, RunLock},
};

use crate::{
    check,
    cli::RunArgs,
    cluster::{Cluster, Halt},
    experiment::File,
    host::Host,
    manifest,
    plan::{Backend, Launch, Overrides, RunPlan},
    progress::Progress,
    simulate,
    trial::{self, Trial},
};

mod attach;
mod hosts;

use self::hosts::{Reached, reach, same_hosts};

/// How often a cluster is started for a block before the run gives up.
const STARTS: u32 = 3;

/// Exit code after Ctrl-C, as a shell would report it.
pub(crate) const INTERRUPTED: u8 = 130;

/// `sraft run`.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    // 1. Everything is checked before anything starts.
    let begun = match &args.resume {
        None => begin(args)?,
        Some(run) => resume(args, run)?,
    };
    if begun.plan.backend == Backend::Sim {
        return simulate::run(args, begun);
    }
    let Begun { plan, reached, left_out, dir, lock, done, .. } = begun;

    // 2. Agents, which own every process and every working file from now on.
    let work = work_dir(&dir)?;
    let seed = plan.plan.seed ^ done.len() as u64;
    let mut sent = Vec::new();
    let hosts = match reached {
        None => vec![Host::local(work.to_string_lossy().into_owned())],
        Some(reached) => {
            sent.extend(reached.iter().filter(|(_, t)| t.sent).map(|(host, _)| host.name.clone()));
            // A folder of its own, so that a run that was interrupted does not stand in the way.
            let folder = format!("{}-{}", dir.experiment(), dir.run());
            reached.into_iter().map(|(host, t)| Host::remote(&host, t, &folder)).collect()
        }
    };
    let (mut cluster, facts) = Cluster::open(hosts, args.keep, seed)?;
    if plan.plan.attached.is_some() {
        cluster.attach();
    }
    cluster.check_faults(plan.needs())?;
    let mut manifest = match dir.read_manifest() {
        Ok(manifest) if args.resume.is_some() => {
            same_hosts(&manifest, cluster.hosts(), &dir)?;
            manifest
        }
        _ => {
            let names = cluster.hosts().iter().map(|host| host.name.as_str());
            let bounds = cluster.clock_bounds_ns();
            let hosts: Vec<_> = names.zip(&facts).zip(bounds).collect();
            manifest::new(&plan.plan, dir.run(), &hosts)?
        }
    };
    manifest.sessions.push(manifest::session());
    dir.write_manifest(&manifest)?;
    cluster.record(Event::RunStarted {
        schema: sraft_events::SCHEMA,
        experiment: plan.plan.experiment.clone(),
        resumed: args.resume.is_some(),
    });

    // 3. The trials.
    let mut progress = Progress::new(&plan.plan, done.len() as u64);
    progress.note(&format!("{}: writing to {}", plan.plan.experiment, dir.results().display()));
    if let Some(name) = &plan.plan.attached {
        let left_out = match left_out.is_empty() {
            true => String::new(),
            false => format!("; it runs with other settings than {}", left_out.join(", ")),
        };
        progress.note(&format!("on cluster {name}, which stays up{left_out}"));
    }
    if !sent.is_empty() {
        progress.note(&format!("the program was sent to {}", sent.join(", ")));
    }
    for (host, facts) in cluster.hosts().iter().zip(&facts) {
        if facts.filesystem.as_deref() == Some("tmpfs") {
            progress.note(&format!(
                "warning: {} is in memory, where durable writes cost nothing; set TMPDIR to a \
                 folder on a disk",
                host.dir
            ));
        }
    }
    let mut session = Session { plan: &plan, dir: &dir, done, progress: &mut progress };
    let result = session.work(&mut cluster);
    progress.finish();
    let kept: Vec<String> = cluster.hosts().iter().map(Host::place).collect();
    let kept = kept.join(", ");
    drop(cluster); // every process is gone, before anything is computed
    if !args.keep {
        // The agent has removed it, unless somebody has killed the agent.
        let _ = std::fs::remove_dir_all(&work);
    }
    if args.keep {
        progress.note(&format!("the nodes' directories are in {kept}"));
    }
    conclude(args, (&dir, lock), manifest, plan.check, &progress, result)
}

/// Closes a run's books, whether or not it got to its end.
pub(crate) fn conclude(
    args: &RunArgs,
    (dir, lock): (&RunDir, RunLock),
    mut manifest: Manifest,
    check: bool,
    progress: &Progress,
    result: Result<(), Failure>,
) -> anyhow::Result<ExitCode> {
    let end = match &result {
        Ok(()) => "complete",
        Err(Failure::Halt(Halt::Interrupted)) => "interrupted",
        Err(_) => "failed",
    };
    close(&mut manifest, end, dir)?;

    // 4. What was measured is reported, also if the run did not get to its end.
    let reported = crate::conclude(dir, args.json);
    // Half a run is not judged: `sraft check` does it for who wants it.
    let judged = match (&result, &reported) {
        (Ok(()), Ok(())) if check => judge(args, dir, progress),
        _ => Ok(ExitCode::SUCCESS),
    };
    drop(lock);
    if let (Err(_), Err(error)) = (&result, &reported) {
        progress.note(&format!("error: {}", sraft_node::one_line(error)));
    }
    match result {
        Ok(()) => reported.and(judged),
        Err(Failure::Halt(Halt::Interrupted)) => {
            progress.note(&format!("interrupted; go on with: {}", args.again(dir.results())));
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(failure) => {
            let error = match failure {
                Failure::Halt(halt) => anyhow::Error::from(halt),
                Failure::Other(error) => error,
            };
            Err(error.context(format!(
                "the run stopped; what was measured is in {}, and `{}` goes on",
                dir.results().display(),
                args.again(dir.results())
            )))
        }
    }
}

/// The verdicts on a complete run. A broken promise fails it.
fn judge(args: &RunArgs, dir: &RunDir, progress: &Progress) -> anyhow::Result<ExitCode> {
    let (verdicts, kept) = check::judge(dir)?;
    match args.json {
        // The summary is what a program reads there; the verdicts are in check.json for it.
        true => progress.note(verdicts.trim_end()),
        false => crate::say(&verdicts)?,
    }
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A run whose folder is there and locked.
pub(crate) struct Begun {
    pub(crate) plan: RunPlan,
    /// The hosts, if they are others than this machine.
    reached: Option<Vec<Reached>>,
    /// Variants that do not suit the cluster which is up already.
    left_out: Vec<String>,
    pub(crate) dir: RunDir,
    pub(crate) lock: RunLock,
    pub(crate) done: BTreeSet<u64>,
    /// The last instant in the records so far, nanoseconds.
    pub(crate) reached_ns: u64,
}

fn begin(args: &RunArgs) -> anyhow::Result<Begun> {
    let path = args.experiment.as_deref().context("name an experiment")?;
    let file = File::read(path)?;
    let overrides = Overrides { trials: args.trials, seed: args.seed };
    let inventory = args.hosts.inventory()?;
    let mut plan = RunPlan::on(&file, overrides, inventory.as_ref())?;
    installed(&plan)?;
    if args.attach {
        attach::suits(&plan)?;
    }
    may_reboot(&plan, args)?;
    if plan.backend == Backend::Local {
        sraft_agent::needs::check(plan.needs(), &work_parent()).map_err(anyhow::Error::msg)?;
    }
    let reached = inventory.map(|inventory| reach(inventory, args)).transpose()?;
    let left_out = match (&reached, args.attach) {
        (Some(hosts), true) => attach::fit(&mut plan, hosts)?,
        _ => Vec::new(),
    };
    let dir = create(&args.out, &plan.plan.experiment, args.name.as_deref())?;
    let lock = dir.lock()?;
    dir.write_experiment(&file.text)?;
    dir.write_plan(&plan.plan)?;
    Ok(Begun { plan, reached, left_out, dir, lock, done: BTreeSet::new(), reached_ns: 0 })
}

/// Refuses what this machine has no programs for.
fn installed(plan: &RunPlan) -> anyhow::Result<()> {
    for system in plan.systems() {
        system.installed().map_err(|why| anyhow::anyhow!(why))?;
    }
    Ok(())
}

/// Hosts are not reset because of a line in a file that somebody else may have written.
fn may_reboot(plan: &RunPlan, args: &RunArgs) -> anyhow::Result<()> {
    if plan.needs().reboot && !args.allow_reboot {
        bail!(
            "{} resets hosts without a shutdown, and whatever else runs there goes down with them; \
             say that they may be, with --allow-reboot",
            plan.plan.experiment
        );
    }
    Ok(())
}

/// Makes the folders of a run, named after the second in which it begins if not otherwise.
fn create(out: &Path, experiment: &str, name: Option<&str>) -> Result<RunDir, ResultsError> {
    // `results/...` reads better than `./results/...`.
    let out = out.strip_prefix(".").unwrap_or(out);
    if let Some(name) = name {
        return RunDir::create(out, experiment, name);
    }
    let name = manifest::run_name();
    let mut created = RunDir::create(out, experiment, &name);
    // Several may begin in the same second.
    for nth in 2..100 {
        match created {
            Err(ResultsError::Exists { .. }) => {
                created = RunDir::create(out, experiment, &format!("{name}-{nth}"));
            }
            _ => break,
        }
    }
    created
}

fn resume(args: &RunArgs, run: &Path) -> anyhow::Result<Begun> {
    let dir = RunDir::open(run)?;
    let lock = dir.lock()?;
    let stored = dir.results().join("experiment.toml");
    let file = File::read(&stored)?;
    if let Some(path) = &args.experiment {
        let given = File::read(path)?;
        if given.text != file.text {
            bail!(
                "{} is not the experiment of this run any more (see {}); start a new run with it",
                path.display(),
                stored.display()
            );
        }
    }
    let planned = dir.read_plan()?;
    // What the first command line had changed stands in the plan.
    let per_variant = trials_per_setting(&planned);
    let overrides = Overrides {
        trials: Some(args.trials.unwrap_or(per_variant)),
        seed: Some(args.seed.unwrap_or(planned.seed)),
    };
    let inventory = args.hosts.inventory()?;
    let mut plan = RunPlan::on(&file, overrides, inventory.as_ref())?;
    if args.attach != planned.attached.is_some() {
        bail!(
            "{} was begun {} --attach; go on with it in the same way",
            dir.results().display(),
            if args.attach { "without" } else { "with" }
        );
    }
    let mut early = None;
    let mut left_out = Vec::new();
    if let (true, Some(inventory)) = (args.attach, &inventory) {
        let hosts = reach(inventory.clone(), args)?;
        left_out = attach::fit(&mut plan, &hosts)?;
        early = Some(hosts);
    }
    if plan.plan != planned {
        bail!(
            "the plan of {} was another one: it cannot be gone on with under other options or by \
             another version of this program; start a new run",
            dir.results().display()
        );
    }
    may_reboot(&plan, args)?;
    installed(&plan)?;
    let resumed = dir.resume(&lock)?;
    let done = resumed.events.completed();
    let all = planned.blocks.iter().flat_map(|block| &block.trials);
    if all.into_iter().all(|trial| done.contains(trial)) {
        bail!(
            "{0} is complete; `sraft report {0}` derives its figures again",
            dir.results().display()
        );
    }
    let reached_ns = resumed.events.records.iter().map(|record| record.mono_ns).max();
    let reached = match early {
        Some(hosts) => Some(hosts),
        None => inventory.map(|inventory| reach(inventory, args)).transpose()?,
    };
    Ok(Begun { plan, reached, left_out, dir, lock, done, reached_ns: reached_ns.unwrap_or(0) })
}

/// Trials of one variant in one cell; the same number for all.
fn trials_per_setting(plan: &Plan) -> u32 {
    let trials: usize = plan.blocks.iter().map(|block| block.trials.len()).sum();
    (trials / plan.settings.len().max(1)) as u32
}

/// Where the nodes of a run work: not among the results, which are to be kept, and on a disk. What
/// is made durable in memory costs nothing, and many systems have /tmp in memory; /var/tmp outlives
/// a reboot (Filesystem Hierarchy Standard 3.0, 5.15), so it is on a disk.
fn work_dir(dir: &RunDir) -> anyhow::Result<PathBuf> {
    let name = format!("sraft-{}-{}-{}", dir.experiment(), dir.run(), std::process::id());
    let folder = work_parent().join(name);
    std::path::absolute(folder).context("cannot tell where the nodes are to work")
}

/// The folder that it is in.
fn work_parent() -> PathBuf {
    let on_disk = Path::new("/var/tmp");
    match std::env::var_os("TMPDIR") {
        None if on_disk.is_dir() => on_disk.to_owned(),
        _ => std::env::temp_dir(),
    }
}

fn close(manifest: &mut Manifest, end: &str, dir: &RunDir) -> anyhow::Result<()> {
    if let Some(session) = manifest.sessions.last_mut() {
        session.ended_at = Some(manifest::now());
        session.end = Some(end.to_owned());
    }
    Ok(dir.write_manifest(manifest)?)
}

/// Why the trials did not get to their end.
#[derive(Debug)]
pub(crate) enum Failure {
    Halt(Halt),
    Other(anyhow::Error),
}

impl From<Halt> for Failure {
    fn from(halt: Halt) -> Failure {
        Failure::Halt(halt)
    }
}

/// One stretch of work on a run.
struct Session<'a> {
    plan: &'a RunPlan,
    dir: &'a RunDir,
    done: BTreeSet<u64>,
    progress: &'a mut Progress,
}

impl Session<'_> {
    fn work(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        for block in &self.plan.plan.blocks {
            let left: Vec<u64> =
                block.trials.iter().copied().filter(|trial| !self.done.contains(trial)).collect();
            if !left.is_empty() {
                self.block(cluster, block, &left)?;
            }
        }
        Ok(())
    }

    /// Trials on a cluster of their own.
    fn block(
        &mut self,
        cluster: &mut Cluster,
        block: &Block,
        trials: &[u64],
    ) -> Result<(), Failure> {
        let launch = self.plan.launch(&block.cell, &block.variant);
        let mut started = 0;
        let mut sound = false;
        for number in std::iter::repeat_n(0, block.warmup as usize).chain(trials.iter().copied()) {
            if sound {
                sound = match trial::settle(cluster, launch) {
                    Ok(()) => true,
                    Err(Halt::Died(_) | Halt::Stuck(_)) => false,
                    Err(Halt::Agent { .. }) if cluster.is_remote() => false,
                    Err(halt) => return Err(halt.into()),
                };
            }
            if !sound {
                self.start(cluster, block, launch, &mut started)?;
            }
            // Its own stream of random numbers, so that a resumed run draws what it would have.
            let mut rng = ChaCha8Rng::seed_from_u64(self.plan.plan.seed);
            rng.set_stream(if number == 0 { u64::MAX - u64::from(block.block) } else { number });
            let trial = Trial {
                number,
                cell: &block.cell,
                variant: &block.variant,
                block: block.block,
                launch,
                timeout: self.plan.timeout,
            };
            let progress = &mut *self.progress;
            let mut stage = |stage| progress.stage(&block.cell, &block.variant, stage);
            let ended = trial::conduct(cluster, &trial, &mut rng, &mut stage)?;
            sound = ended.sound;
            self.keep(cluster, number).map_err(Failure::Other)?;
        }
        match cluster.stop() {
            Err(halt @ Halt::Agent { .. }) if cluster.is_remote() => {
                self.engage_again(cluster, &halt)?;
            }
            stopped => stopped?,
        }
        cluster.record(Event::ClusterStopped {});
        self.append(cluster).map_err(Failure::Other)
    }

    /// Starts a cluster and waits until it has settled; another one if it does not.
    fn start(
        &mut self,
        cluster: &mut Cluster,
        block: &Block,
        launch: &Launch,
        started: &mut u32,
    ) -> Result<(), Failure> {
        let mut failed = 0;
        loop {
            *started += 1;
            self.progress.stage(&block.cell, &block.variant, "start");
            // A name of its own: whatever is left of another cluster is refused.
            let name =
                format!("{}-{}-{}-{started}", self.dir.run(), std::process::id(), block.block);
            let settled = cluster.start(launch, name).and_then(|()| trial::settle(cluster, launch));
            match settled {
                Ok(()) => break,
                Err(Halt::Agent { host, why }) if cluster.is_remote() && failed + 1 < STARTS => {
                    failed += 1;
                    self.engage_again(cluster, &Halt::Agent { host, why })?;
                }
                Err(Halt::Died(why) | Halt::Stuck(why)) => {
                    failed += 1;
                    if failed == STARTS {
                        return Err(Failure::Other(anyhow::anyhow!(
                            "{STARTS} clusters in a row did not settle for variant {}: {why}",
                            block.variant
                        )));
                    }
                }
                Err(halt) => return Err(halt.into()),
            }
        }
        cluster.record(Event::ClusterStarted {
            cell: block.cell.clone(),
            variant: block.variant.clone(),
            block: block.block,
            size: launch.size,
        });
        Ok(())
    }

    /// Starts agents anew after one was lost.
    fn engage_again(&mut self, cluster: &mut Cluster, lost: &Halt) -> Result<(), Failure> {
        self.progress.note(&format!("{lost}; connecting again"));
        Ok(cluster.engage_again()?)
    }

    /// Writes down what a trial has left, before the next one begins.
    fn keep(&mut self, cluster: &mut Cluster, number: u64) -> anyhow::Result<()> {
        let rows = cluster.take_ops();
        if number == 0 {
            return self.append(cluster);
        }
        let records = cluster.take_records();
        let ops: Result<Vec<Op>, String> = rows.iter().map(|row| Op::parse(row)).collect();
        let ops = ops.map_err(anyhow::Error::msg)?;
        let row = measure::row(&self.plan.plan, &records, &ops)?;
        self.dir.append_trial(&lines(&records)?, &rows, Some(&row))?;
        self.done.insert(number);
        self.progress.trials(std::slice::from_ref(&row));
        Ok(())
    }

    fn append(&self, cluster: &mut Cluster) -> anyhow::Result<()> {
        Ok(self.dir.append_trial(&lines(&cluster.take_records())?, &[], None)?)
    }
}

pub(crate) fn lines(records: &[sraft_events::Record]) -> anyhow::Result<Vec<String>> {
    records.iter().map(|record| Ok(serde_json::to_string(record)?)).collect()
}
