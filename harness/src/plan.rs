//! From an experiment to what will be run: checked, expanded, lowered and put in order, all before
//! anything starts.

mod cells;
mod describe;
mod faults;
mod power;
#[cfg(test)]
mod tests;
mod variant;
mod workload;

pub(crate) use describe::describe;
pub(crate) use workload::Probe;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    time::Duration,
};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use sraft_agent::protocol::{Disk, Effect, Needs};
use sraft_core::{Protocol, Span, Timing, TimingKnobs};
use sraft_report::results::{Block, Plan, PlannedVariant, Setting, WishedFigure};

use crate::{
    experiment::{Experiment, File, Refused},
    fault::{Direction, Kind, Links, Target},
    inventory::Inventory,
    simulate::Sim,
    system::System,
};

/// Most trials of a run: two days and nights of work, and more than its report could show.
const MOST_TRIALS: u32 = 1_000_000;

/// What a trial may be given. Below, nothing could come of it but time-outs.
const TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(24 * 60 * 60);

/// Size of a disk of a node's own: more than a run writes. It takes room as it is written to.
const DISK_BYTES: u64 = 1 << 30;

/// Longest name: names of files are made of it, and these have 255 bytes at most.
const LONGEST_NAME: usize = 64;

/// Everything that a run needs to know.
#[derive(Clone, Debug)]
pub(crate) struct RunPlan {
    /// The part that is written to `plan.json`.
    pub(crate) plan: Plan,
    pub(crate) timeout: Duration,
    pub(crate) backend: Backend,
    /// Whether the run is checked at its end, and a broken promise fails it.
    pub(crate) check: bool,
    /// What is not as the experiment says, for a human.
    pub(crate) place: Option<String>,
    launches: BTreeMap<(String, String), Launch>,
}

/// What runs the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Processes of this machine.
    Local,
    /// Processes of the hosts of an inventory.
    Ssh,
    /// A simulator within this program.
    Sim,
}

/// What is done to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) target: Target,
    /// How long it lasts at least, if it does not end processes.
    pub(crate) duration: Duration,
    /// How often each victim is struck.
    pub(crate) count: u32,
    /// How many writes a victim has in a second, if its disk is to be slow.
    pub(crate) iops: Option<u32>,
    /// What is done to links, if it is a fault of links.
    pub(crate) links: Option<Links>,
}

impl Fault {
    /// Whom it is aimed at, for records.
    pub(crate) fn aim(&self) -> String {
        match &self.links {
            Some(links) if !links.groups.is_empty() => links.to_string(),
            Some(Links { direction: Direction::Out, .. }) => format!("{} >", self.target),
            Some(Links { direction: Direction::In, .. }) => format!("{} <", self.target),
            _ => self.target.to_string(),
        }
    }

    /// Whether it lasts until it is undone, beside the nodes' processes.
    pub(crate) fn is_healed(&self) -> bool {
        self.links.is_some() || self.iops.is_some()
    }

    /// The disk that nodes have to have for it.
    pub(crate) fn disk(&self) -> Disk {
        match () {
            () if self.kind.fills_disk() => Disk::Own { bytes: DISK_BYTES },
            () if self.iops.is_some() => Disk::Limitable,
            () => Disk::Shared,
        }
    }

    /// What it needs of hosts.
    pub(crate) fn needs(&self) -> Needs {
        let delay = self.links.as_ref().is_some_and(|l| matches!(l.effect, Effect::Delay { .. }));
        Needs {
            rules: self.links.is_some(),
            delay,
            slow_disk: self.iops.is_some(),
            own_disk: self.kind.fills_disk(),
            reboot: self.kind == Kind::Reboot,
        }
    }
}

/// How the nodes of a variant are started in a cell, and what is done to them.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) system: &'static dyn System,
    pub(crate) fault: Fault,
    pub(crate) size: u32,
    pub(crate) protocol: Protocol,
    pub(crate) timing: Timing,
    /// Sub-leaders that this variant designates.
    pub(crate) sub_leaders: u32,
    /// The most sub-leaders that any variant of the cell designates.
    pub(crate) cell_sub_leaders: u32,
    /// What is asked of the cluster meanwhile, if anything.
    pub(crate) probe: Option<Probe>,
    /// The surroundings, if they are simulated.
    pub(crate) sim: Option<Sim>,
}

/// What the command line changes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) trials: Option<u32>,
    pub(crate) seed: Option<u64>,
}

impl RunPlan {
    /// What a variant is started with in a cell.
    pub(crate) fn launch(&self, cell: &str, variant: &str) -> &Launch {
        let key = (cell.to_owned(), variant.to_owned());
        self.launches.get(&key).expect("blocks are made from the settings")
    }

    /// Every system that takes part.
    pub(crate) fn systems(&self) -> Vec<&'static dyn System> {
        let mut systems: Vec<&'static dyn System> = Vec::new();
        for launch in self.launches.values() {
            if systems.iter().all(|other| other.name() != launch.system.name()) {
                systems.push(launch.system);
            }
        }
        systems
    }

    /// What the run's faults need of its hosts.
    pub(crate) fn needs(&self) -> Needs {
        let all = self.launches.values().map(|launch| launch.fault.needs());
        all.fold(Needs::default(), |a, b| Needs {
            rules: a.rules || b.rules,
            delay: a.delay || b.delay,
            slow_disk: a.slow_disk || b.slow_disk,
            own_disk: a.own_disk || b.own_disk,
            reboot: a.reboot || b.reboot,
        })
    }

    /// Leaves only these variants: those that can be run on cluster `name`, which is up already.
    pub(crate) fn attach(&mut self, name: &str, variants: &BTreeSet<String>) {
        self.launches.retain(|(_, variant), _| variants.contains(variant));
        let plan = &mut self.plan;
        plan.attached = Some(name.to_owned());
        plan.settings.retain(|setting| variants.contains(&setting.variant));
        plan.variants.retain(|variant| variants.contains(&variant.name));
        if let Some(first) = plan.variants.first().cloned()
            && plan.variants.iter().all(|variant| !variant.baseline)
        {
            plan.variants[0] = PlannedVariant { baseline: true, ..first };
        }
        if let Some(wish) = &mut plan.report {
            wish.panels.iter_mut().for_each(|panel| panel.retain(|name| variants.contains(name)));
            wish.panels.retain(|panel| !panel.is_empty());
        }
        plan.blocks.retain(|block| variants.contains(&block.variant));
        let mut trials = 1..;
        for (block, number) in plan.blocks.iter_mut().zip(1..) {
            block.block = number;
            block.trials = trials.by_ref().take(block.trials.len()).collect();
        }
    }

    /// Checks and expands an experiment that runs on this machine.
    #[cfg(test)]
    pub(crate) fn new(file: &File, overrides: Overrides) -> Result<RunPlan, Refused> {
        RunPlan::on(file, overrides, None)
    }

    /// Checks and expands an experiment. With an inventory it runs on its hosts, also if it says
    /// that it runs here: the same file is for both.
    pub(crate) fn on(
        file: &File,
        overrides: Overrides,
        inventory: Option<&Inventory>,
    ) -> Result<RunPlan, Refused> {
        let given = &file.experiment;
        file_name(file, &["name"], &given.name)?;
        let backend = backend(file, given, inventory)?;
        let variants = variants(file, given)?;
        if let Some(wish) = &given.report {
            let names = variants.iter().map(|variant| variant.name.as_str());
            wish.check(names).map_err(|why| file.refuse(&["report"], why.to_string()))?;
        }
        let trials = &given.trials;
        let positive = |key, value: i64, least: i64| {
            let fits = (least..=i64::from(MOST_TRIALS)).contains(&value);
            u32::try_from(value).ok().filter(|_| fits).ok_or_else(|| {
                let message = format!(
                    "trials.{key} is {value}; write a number from {least} to {MOST_TRIALS}"
                );
                file.refuse(&["trials", key], message)
            })
        };
        let count = match overrides.trials {
            Some(count) => count,
            None => positive("count", trials.count, 1)?,
        };
        let warmup = positive("warmup", trials.warmup, 0)?;
        let block = positive("block", trials.block, 1)?;
        if !TIMEOUTS.contains(&trials.timeout.0) {
            let (least, most) = (Span(*TIMEOUTS.start()), Span(*TIMEOUTS.end()));
            let message = format!(
                "trials.timeout is {}; write a duration from {least} to {most}, such as 10s",
                trials.timeout
            );
            return Err(file.refuse(&["trials", "timeout"], message));
        }
        let seed = match overrides.seed {
            Some(seed) => seed,
            None => u64::try_from(trials.seed).map_err(|_| {
                let message = format!("trials.seed is {}; write a number from 0", trials.seed);
                file.refuse(&["trials", "seed"], message)
            })?,
        };

        let mut settings = Vec::new();
        let mut launches = BTreeMap::new();
        let cells = cells::cells(file, given)?;
        for cell in &cells {
            for (variant, launch) in cells::lower(file, cell, backend)? {
                enough_hosts(file, &launch, inventory)?;
                settings.push(setting(&cell.name, &variant, &launch));
                launches.insert((cell.name.clone(), variant), launch);
            }
        }
        let all = settings.len() as u64 * (u64::from(count) + u64::from(warmup));
        if all > u64::from(MOST_TRIALS) {
            let message = format!(
                "{count} trials and {warmup} warm-ups for each variant in each cell ({} in all) are {all}, \
                 more than {MOST_TRIALS}; lower trials.count or --trials, or divide the experiment",
                settings.len()
            );
            return Err(file.refuse(&["trials", "count"], message));
        }
        let felt = given.report.as_ref().and_then(|wish| wish.figure) == Some(WishedFigure::Outage);
        if felt && launches.values().any(|launch| launch.probe.is_none()) {
            let message = "report.figure is \"outage\", which nobody feels without a probe; set \
                           workload.rate, 200 say";
            return Err(file.refuse(&["report"], message));
        }
        let cells: Vec<String> = cells.into_iter().map(|cell| cell.name).collect();
        let strata: Vec<(String, String)> =
            settings.iter().map(|s| (s.cell.clone(), s.variant.clone())).collect();
        let plan = Plan {
            experiment: given.name.clone(),
            question: given.question.clone(),
            seed,
            fault: given.fault.kind.clone(),
            target: given.fault.aim(),
            timeout_ns: u64::try_from(trials.timeout.0.as_nanos()).unwrap_or(u64::MAX),
            cells,
            variants,
            settings,
            blocks: order(&strata, count, block, warmup, seed),
            report: given.report.clone(),
            attached: None,
        };
        let place = inventory.map(|inventory| place(given, inventory));
        let check = given.workload.check;
        Ok(RunPlan { plan, timeout: trials.timeout.0, backend, check, place, launches })
    }
}

fn file_name(file: &File, keys: &[&str], name: &str) -> Result<(), Refused> {
    if fits_file_name(name) {
        return Ok(());
    }
    Err(file.refuse(keys, format!("`{name}` cannot be part of a file name; {FILE_NAME_RULE}")))
}

/// What [`fits_file_name`] asks for.
pub(crate) const FILE_NAME_RULE: &str =
    "use up to 64 letters, digits, `.`, `_` and `-`, and begin with neither a dot nor a dash";

/// Whether a name can be part of a file's name anywhere.
pub(crate) fn fits_file_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=LONGEST_NAME).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.chars().all(fits)
}

/// Refuses what only other backends, or later versions, can do.
fn backend(
    file: &File,
    given: &Experiment,
    inventory: Option<&Inventory>,
) -> Result<Backend, Refused> {
    let refuse = |message: String| Err(file.refuse(&["cluster", "backend"], message));
    let backend = match (given.cluster.backend.as_str(), inventory) {
        ("local", None) => Backend::Local,
        ("local" | "ssh", Some(_)) => Backend::Ssh,
        ("ssh", None) => {
            return refuse(
                "backend = \"ssh\" runs on hosts; say which with --inventory FILE, or write \
                 backend = \"local\""
                    .to_owned(),
            );
        }
        ("sim", None) => Backend::Sim,
        ("sim", Some(inventory)) => {
            return refuse(format!(
                "a simulated experiment has no hosts; leave out --inventory {}, or write backend \
                 = \"local\"",
                inventory.path.display()
            ));
        }
        (other, _) => {
            return refuse(format!(
                "there is no backend `{other}`; write backend = \"local\", \"ssh\" or \"sim\""
            ));
        }
    };
    if backend != Backend::Sim && given.sim.is_some() {
        let message = "[sim] says what is simulated, and only backend = \"sim\" simulates; \
                       remove it, or write backend = \"sim\"";
        return Err(file.refuse(&["sim"], message));
    }
    Ok(backend)
}

/// Every node has a host of its own.
fn enough_hosts(
    file: &File,
    launch: &Launch,
    inventory: Option<&Inventory>,
) -> Result<(), Refused> {
    let Some(inventory) = inventory else { return Ok(()) };
    let (size, hosts) = (launch.size as usize, inventory.hosts.len());
    if size <= hosts {
        return Ok(());
    }
    let message = format!(
        "a cluster of {size} nodes needs {size} hosts, and {} has {hosts}; lower cluster.size or \
         add hosts",
        inventory.path.display()
    );
    Err(file.refuse(&["cluster", "size"], message))
}

fn place(given: &Experiment, inventory: &Inventory) -> String {
    let names: Vec<&str> = inventory.hosts.iter().map(|host| host.name.as_str()).collect();
    let instead = match given.cluster.backend.as_str() {
        "ssh" => String::new(),
        other => format!(" (the experiment says backend = \"{other}\")"),
    };
    format!("over SSH on {}, of {}{instead}", names.join(", "), inventory.path.display())
}

fn variants(file: &File, given: &Experiment) -> Result<Vec<PlannedVariant>, Refused> {
    if given.variants.is_empty() {
        return Err(file.refuse(
            &[],
            "there is no [[variant]]; add one with a name and protocol = \"raft\" or \"s-raft\"",
        ));
    }
    let mut planned: Vec<PlannedVariant> = Vec::new();
    for (index, variant) in given.variants.iter().enumerate() {
        let index = index.to_string();
        let at = ["variant", index.as_str(), "name"];
        file_name(file, &at, &variant.name)?;
        if planned.iter().any(|other| other.name == variant.name) {
            let message = format!(
                "there is a variant `{}` already; give this one another name",
                variant.name
            );
            return Err(file.refuse(&at, message));
        }
        if variant.baseline && planned.iter().any(|other| other.baseline) {
            let message = "there is a baseline already; mark one variant at most";
            return Err(file.refuse(&["variant", index.as_str(), "baseline"], message));
        }
        let (name, baseline) = (variant.name.clone(), variant.baseline);
        planned.push(PlannedVariant { name, baseline });
    }
    if planned.iter().all(|variant| !variant.baseline) {
        planned[0].baseline = true;
    }
    Ok(planned)
}

fn setting(cell: &str, variant: &str, launch: &Launch) -> Setting {
    let mut node = launch.system.settings(launch);
    if let Some(probe) = &launch.probe {
        node["workload"] = serde_json::to_value(probe).expect("plain data can be written as JSON");
    }
    if let Some(sim) = &launch.sim {
        node["sim"] = serde_json::to_value(sim).expect("plain data can be written as JSON");
    }
    Setting {
        cell: cell.to_owned(),
        variant: variant.to_owned(),
        size: launch.size,
        sub_leaders: launch.sub_leaders,
        node,
        log: launch.system.log(),
    }
}

/// The knobs that give exactly this timing, whatever the presets may become.
pub(crate) fn every_knob(timing: &Timing) -> TimingKnobs {
    TimingKnobs {
        preset: None,
        heartbeat: Some(Span(timing.heartbeat)),
        election_timeout: Some(timing.election_timeout),
        rank_timeout: Some(timing.rank_timeout),
        rank_step: Some(timing.rank_step),
        follower_timeout: Some(timing.follower_timeout),
        promotion_timeout: Some(Span(timing.promotion_timeout)),
        lease: Some(Span(timing.lease)),
        stagger: Some(Span(timing.stagger)),
        sub_leader_ratio: Some(timing.sub_leader_ratio),
        rtt_alpha: Some(timing.rtt_alpha),
        detector: Some(timing.detector),
        pre_vote: Some(timing.pre_vote),
        handover: Some(timing.handover),
        read_lease: Some(timing.read_lease),
    }
}

/// Randomised multiple interleaved trials: every round holds one block of every cell and variant,
/// in an order that is drawn anew, so that no variant is ever more than one block ahead of another
/// and a machine that drifts, drifts for all (Abedi and Brecht, "Conducting Repeatable Experiments
/// in Highly Variable Cloud Computing Environments", ICPE 2017).
fn order(
    strata: &[(String, String)],
    count: u32,
    block: u32,
    warmup: u32,
    seed: u64,
) -> Vec<Block> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut blocks = Vec::new();
    let mut next = 1;
    for done in (0..count).step_by(block as usize) {
        let trials = u64::from(block.min(count - done));
        let mut round: Vec<&(String, String)> = strata.iter().collect();
        round.shuffle(&mut rng);
        for (cell, variant) in round {
            blocks.push(Block {
                block: blocks.len() as u32 + 1,
                cell: cell.clone(),
                variant: variant.clone(),
                warmup: if done == 0 { warmup } else { 0 },
                trials: (next..next + trials).collect(),
            });
            next += trials;
        }
    }
    blocks
}
