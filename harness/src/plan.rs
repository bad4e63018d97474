//! From an experiment to what will be run: checked, expanded, lowered and put in order, all before
//! anything starts.

use std::{collections::BTreeMap, time::Duration};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use sraft_core::{ConfigError, Protocol, Span, Timing, TimingKnobs};
use sraft_report::results::{Block, Plan, PlannedVariant, Setting};

use crate::{
    experiment::{Experiment, File, Refused},
    fault::{Kind, Target, list},
};

/// Everything that a run needs to know.
#[derive(Clone, Debug)]
pub(crate) struct RunPlan {
    /// The part that is written to `plan.json`.
    pub(crate) plan: Plan,
    pub(crate) fault: Fault,
    pub(crate) timeout: Duration,
    launches: BTreeMap<(String, String), Launch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) target: Target,
    /// How long a pause lasts at least.
    pub(crate) duration: Duration,
}

/// How the nodes of a variant are started in a cell.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) size: u32,
    pub(crate) protocol: Protocol,
    pub(crate) timing: Timing,
    /// Sub-leaders that this variant designates.
    pub(crate) sub_leaders: u32,
    /// The most sub-leaders that any variant of the cell designates.
    pub(crate) cell_sub_leaders: u32,
    /// Increments per second that the leader proposes.
    pub(crate) rate: u32,
}

/// What the command line changes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) trials: Option<u32>,
    pub(crate) seed: Option<u64>,
}

/// Largest cluster: each node is a process of this machine.
const LARGEST: i64 = 99;

/// Highest rate that a node accepts.
const FASTEST: u32 = 100_000;

impl RunPlan {
    /// What a variant is started with in a cell.
    pub(crate) fn launch(&self, cell: &str, variant: &str) -> &Launch {
        let key = (cell.to_owned(), variant.to_owned());
        self.launches.get(&key).expect("blocks are made from the settings")
    }

    /// Checks and expands an experiment.
    pub(crate) fn new(file: &File, overrides: Overrides) -> Result<RunPlan, Refused> {
        let given = &file.experiment;
        file_name(file, &["name"], &given.name)?;
        let fault = fault(file, given)?;
        let variants = variants(file, given)?;
        let trials = &given.trials;
        let positive = |key, value: i64, least: i64| {
            u32::try_from(value).ok().filter(|_| value >= least).ok_or_else(|| {
                let message =
                    format!("trials.{key} is {value}; write a number from {least} to {}", u32::MAX);
                file.refuse(&["trials", key], message)
            })
        };
        let count = match overrides.trials {
            Some(count) => count,
            None => positive("count", trials.count, 1)?,
        };
        let warmup = positive("warmup", trials.warmup, 0)?;
        let block = positive("block", trials.block, 1)?;
        if trials.timeout.0.is_zero() {
            return Err(
                file.refuse(&["trials", "timeout"], "trials.timeout is zero; write 10s, say")
            );
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
        let cells = cells(file, given)?;
        for cell in &cells {
            for (variant, launch) in lower(file, cell, fault.target)? {
                settings.push(setting(&cell.name, &variant, &launch));
                launches.insert((cell.name.clone(), variant), launch);
            }
        }
        let cells: Vec<String> = cells.into_iter().map(|cell| cell.name).collect();
        let strata: Vec<(String, String)> =
            settings.iter().map(|s| (s.cell.clone(), s.variant.clone())).collect();
        let plan = Plan {
            experiment: given.name.clone(),
            question: given.question.clone(),
            seed,
            fault: given.fault.kind.clone(),
            target: given.fault.target.clone(),
            timeout_ns: u64::try_from(trials.timeout.0.as_nanos()).unwrap_or(u64::MAX),
            cells,
            variants,
            settings,
            blocks: order(&strata, count, block, warmup, seed),
        };
        Ok(RunPlan { plan, fault, timeout: trials.timeout.0, launches })
    }
}

fn file_name(file: &File, keys: &[&str], name: &str) -> Result<(), Refused> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.is_empty() && !name.starts_with('.') && name.chars().all(fits) {
        return Ok(());
    }
    let message = format!(
        "`{name}` cannot be part of a file name; use letters, digits, `.`, `_` and `-`, and do \
         not begin with a dot"
    );
    Err(file.refuse(keys, message))
}

fn fault(file: &File, given: &Experiment) -> Result<Fault, Refused> {
    let fault = &given.fault;
    let kind = Kind::parse(&fault.kind).map_err(|why| file.refuse(&["fault", "kind"], why))?;
    let target =
        Target::parse(&fault.target).map_err(|why| file.refuse(&["fault", "target"], why))?;
    let at = ["fault", "duration"];
    let duration = match fault.duration {
        None => Duration::from_secs(1),
        Some(_) if kind.ends_processes() => {
            let message = format!(
                "fault.duration says how long a pause lasts, and {kind} has no end; remove it"
            );
            return Err(file.refuse(&at, message));
        }
        Some(duration) if duration.0 >= given.trials.timeout.0 => {
            let message = format!(
                "fault.duration is {duration}, which is not below trials.timeout of {}",
                given.trials.timeout
            );
            return Err(file.refuse(&at, message));
        }
        Some(duration) => duration.0,
    };
    match given.cluster.backend.as_str() {
        "local" => {}
        other @ ("ssh" | "sim") => {
            let message = format!("this version has no {other} backend; write backend = \"local\"");
            return Err(file.refuse(&["cluster", "backend"], message));
        }
        other => {
            let message = format!("there is no backend `{other}`; write backend = \"local\"");
            return Err(file.refuse(&["cluster", "backend"], message));
        }
    }
    if given.workload.value_size.is_some() {
        let message = "workload.value_size is not offered yet: the workload increments a counter, \
                       whose size is fixed; remove it";
        return Err(file.refuse(&["workload", "value_size"], message));
    }
    Ok(Fault { kind, target, duration })
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

/// One combination of the matrix's values.
#[derive(Debug)]
struct Cell {
    name: String,
    experiment: Experiment,
    /// The path that is to blame if this combination cannot run.
    paths: Vec<String>,
}

/// The cartesian product of the matrix; one cell without a name if there is none.
fn cells(file: &File, given: &Experiment) -> Result<Vec<Cell>, Refused> {
    let mut combinations: Vec<Vec<(&str, &toml::Value)>> = vec![Vec::new()];
    for (path, values) in &given.matrix {
        let refuse = |message: String| file.refuse(&["matrix", path], message);
        let offered =
            path == "cluster.size" || path == "workload.rate" || path.starts_with("timing.");
        if !offered {
            return Err(refuse(format!(
                "the matrix cannot vary `{path}`; it can vary cluster.size, workload.rate and \
                 timing.KNOB (in quotes)"
            )));
        }
        let values = values.as_array().filter(|values| !values.is_empty()).ok_or_else(|| {
            refuse(format!("`{path}` needs an array with one value at least, such as [3, 5]"))
        })?;
        combinations = combinations
            .iter()
            .flat_map(|before| {
                values.iter().map(move |value| [before.as_slice(), &[(path, value)]].concat())
            })
            .collect();
    }
    let mut cells: Vec<Cell> = Vec::new();
    for values in combinations {
        let word = |value: &toml::Value| value.as_str().map_or(value.to_string(), str::to_owned);
        let name: Vec<String> =
            values.iter().map(|(path, value)| format!("{path}={}", word(value))).collect();
        let name = name.join(",");
        let paths: Vec<String> = values.iter().map(|(path, _)| (*path).to_owned()).collect();
        let first = paths.first().cloned().unwrap_or_default();
        if cells.iter().any(|cell| cell.name == name) {
            let message = format!("the matrix holds {name} twice; list every value once");
            return Err(file.refuse(&["matrix", &first], message));
        }
        let experiment = file.with(&values).map_err(|why| {
            file.refuse(&["matrix", &first], format!("{name} cannot be applied: {why}"))
        })?;
        cells.push(Cell { name, experiment, paths });
    }
    Ok(cells)
}

/// Lowers every variant of a cell to what its nodes will run with.
fn lower(file: &File, cell: &Cell, target: Target) -> Result<Vec<(String, Launch)>, Refused> {
    let experiment = &cell.experiment;
    let blame = |keys: &[&str], message: String| match cell.paths.iter().find(|path| {
        // A timing error may come from any knob, so any knob of the matrix is to blame first.
        path.split('.').next() == keys.first().copied()
    }) {
        Some(path) => file.refuse(&["matrix", path], format!("with {}: {message}", cell.name)),
        None => file.refuse(keys, message),
    };
    let size = u32::try_from(experiment.cluster.size)
        .ok()
        .filter(|_| (2..=LARGEST).contains(&experiment.cluster.size))
        .ok_or_else(|| {
            let size = experiment.cluster.size;
            let message = format!("cluster.size is {size}; write a number from 2 to {LARGEST}");
            blame(&["cluster", "size"], message)
        })?;
    let rate = u32::try_from(experiment.workload.rate)
        .ok()
        .filter(|rate| *rate <= FASTEST)
        .ok_or_else(|| {
            let rate = experiment.workload.rate;
            let message = format!(
                "workload.rate is {rate}; write increments per second, from 0 (none) to {FASTEST}"
            );
            blame(&["workload", "rate"], message)
        })?;
    let members: Vec<u64> = (1..=u64::from(size)).collect();
    let mut launches = Vec::new();
    for (index, variant) in experiment.variants.iter().enumerate() {
        let timing = experiment.timing.overridden_by(&variant.timing).resolve();
        let config = timing.lower(variant.protocol, 1, &members).map_err(|why| {
            let message = format!("variant {}: {why}", variant.name);
            let (index, knob) = (index.to_string(), knob(&why));
            if variant.timing == TimingKnobs::default() {
                blame(&["timing", knob], message)
            } else {
                blame(&["variant", &index, "timing", knob], message)
            }
        })?;
        let launch = Launch {
            size,
            protocol: variant.protocol,
            timing,
            sub_leaders: config.sub_leaders() as u32,
            cell_sub_leaders: 0,
            rate,
        };
        launches.push((variant.name.clone(), launch));
    }
    let most = launches.iter().map(|(_, launch)| launch.sub_leaders).max().unwrap_or(0);
    for (_, launch) in &mut launches {
        launch.cell_sub_leaders = most;
    }
    if most < target.needs_sub_leaders() {
        let message = format!(
            "target {target} needs {} sub-leader(s), but no variant designates more than {most} \
             among {size} nodes; take a larger cluster or another target",
            target.needs_sub_leaders()
        );
        return Err(blame_size(file, cell, message));
    }
    let left = size.saturating_sub(target.strikes(most));
    let majority = size / 2 + 1;
    if left < majority {
        let message = format!(
            "target {target} strikes {} of {size} nodes and leaves {left}, but a leader needs a \
             majority of {majority}: nobody could be elected; take a larger cluster, fewer \
             sub-leaders (timing.sub_leader_ratio) or another target",
            target.strikes(most)
        );
        return Err(blame_size(file, cell, message));
    }
    Ok(launches)
}

/// The knob that an error is about.
fn knob(error: &ConfigError) -> &'static str {
    match error {
        ConfigError::TimeoutBelowHeartbeats { knob, .. } | ConfigError::OutOfRange { knob, .. } => {
            knob
        }
        ConfigError::Zero(knob) => knob,
        _ => "",
    }
}

/// Refuses a target that the cluster is too small for.
fn blame_size(file: &File, cell: &Cell, message: String) -> Refused {
    match cell.paths.first() {
        Some(path) => file.refuse(&["matrix", path], format!("with {}: {message}", cell.name)),
        None => file.refuse(&["fault", "target"], message),
    }
}

fn setting(cell: &str, variant: &str, launch: &Launch) -> Setting {
    let mut node = serde_json::json!({
        "protocol": launch.protocol,
        "timing": every_knob(&launch.timing),
    });
    if launch.rate > 0 {
        node["workload_rate"] = launch.rate.into();
    }
    Setting {
        cell: cell.to_owned(),
        variant: variant.to_owned(),
        size: launch.size,
        sub_leaders: launch.sub_leaders,
        node,
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
        handover: Some(timing.handover),
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

/// `sraft plan`: the plan for a human.
pub(crate) fn describe(run: &RunPlan) -> String {
    use std::fmt::Write as _;
    let plan = &run.plan;
    let mut text = format!("{}: {} {}\n", plan.experiment, plan.fault, plan.target);
    if !plan.question.is_empty() {
        text = format!("{text}{}\n", plan.question);
    }
    let trials: usize = plan.blocks.iter().map(|block| block.trials.len()).sum();
    let warmups: u32 = plan.blocks.iter().map(|block| block.warmup).sum();
    let mut expected = Duration::ZERO;
    for setting in &plan.settings {
        let launch = run.launch(&setting.cell, &setting.variant);
        let timing = &launch.timing;
        let ranks: Vec<String> = (0..launch.sub_leaders)
            .map(|rank| sraft_core::TimeoutRange {
                min: timing.rank_timeout.min + timing.rank_step.min * rank,
                max: timing.rank_timeout.max + timing.rank_step.max * rank,
            })
            .map(|range| range.to_string())
            .collect();
        let plain = match launch.protocol {
            Protocol::Raft => timing.election_timeout,
            Protocol::SRaft => timing.follower_timeout,
        };
        let ours = |block: &&Block| block.cell == setting.cell && block.variant == setting.variant;
        let blocks: Vec<&Block> = plan.blocks.iter().filter(ours).collect();
        let count: usize = blocks.iter().map(|block| block.trials.len()).sum();
        let name = if setting.cell.is_empty() {
            setting.variant.clone()
        } else {
            format!("{} ({})", setting.variant, setting.cell)
        };
        let _ = writeln!(
            text,
            "  {name}: {count} trials in {} blocks; {} nodes, heartbeat {}, timeout {plain}{}, \
             detector {:?}",
            blocks.len(),
            setting.size,
            Span(timing.heartbeat),
            if ranks.is_empty() { String::new() } else { format!(", ranks {}", list(&ranks)) },
            timing.detector,
        );
        // Half a timeout range on top of its start is what a typical election takes; restart and
        // settling take a handful of heartbeats.
        let trial = plain.min + plain.width() / 2 + timing.heartbeat * 6 + REST_OF_A_TRIAL;
        let each = (count + blocks.iter().map(|b| b.warmup as usize).sum::<usize>()) as u32;
        expected += trial * each + START_OF_A_CLUSTER * blocks.len() as u32;
    }
    let _ = writeln!(
        text,
        "{trials} trials and {warmups} warm-ups in {} interleaved blocks, seed {}; about {}",
        plan.blocks.len(),
        plan.seed,
        Span(Duration::from_secs(expected.as_secs().max(1))),
    );
    text
}

/// Rough costs on a machine with two cores, for the estimate only.
const REST_OF_A_TRIAL: Duration = Duration::from_millis(300);
const START_OF_A_CLUSTER: Duration = Duration::from_millis(1500);

#[cfg(test)]
mod tests;
