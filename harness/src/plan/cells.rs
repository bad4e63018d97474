//! The cells of an experiment's matrix, each checked and lowered to what nodes run with.

use sraft_core::TimingKnobs;

use super::{Backend, Launch, faults, variant, workload};
use crate::{
    experiment::{Experiment, File, Refused},
    fault::Target,
};

/// Largest cluster whose nodes are processes of this machine.
const LARGEST: i64 = 99;

/// Largest cluster that is simulated.
const LARGEST_SIMULATED: i64 = 101;

/// Most cells of a matrix: each has figures and files of its own.
const MOST_CELLS: usize = 200;

/// Longest name of a cell: names of files are made of it and of a variant's name.
const LONGEST_NAME: usize = 150;

/// What a matrix may vary, besides the timing.
const VARIED: &[&str] = &[
    "cluster.size",
    "workload.rate",
    "fault",
    "fault.target",
    "fault.direction",
    "fault.percent",
    "fault.delay",
    "fault.iops",
    "timings",
];

/// One combination of the matrix's values.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) name: String,
    pub(super) experiment: Experiment,
    /// The path that is to blame if this combination cannot run.
    paths: Vec<String>,
}

impl Cell {
    /// A refusal of what this cell's experiment has at `keys`: if the matrix has put it there, the
    /// line is the matrix's.
    pub(super) fn blame(&self, file: &File, keys: &[&str], message: String) -> Refused {
        let dotted = keys.join(".");
        // What is wrong with one knob may be another's fault, so any knob of the matrix will do.
        let timing = |path: &&String| keys[0] == "timing" && path.starts_with("timing.");
        // `sim.round_trip` may have been given as a whole, or one of its values.
        let within = |path: &str| {
            let sim = keys[0] == "sim" && path.starts_with("sim.");
            sim && (dotted.starts_with(path) || path.starts_with(&dotted))
        };
        let whole = |path: &str| keys[0] == path;
        let path = self.paths.iter().find(|path| **path == dotted || within(path) || whole(path));
        match path.or_else(|| self.paths.iter().find(timing)) {
            Some(path) => file.refuse(&["matrix", path], format!("with {}: {message}", self.name)),
            None => file.refuse(keys, message),
        }
    }
}

/// The cartesian product of the matrix; one cell without a name if there is none.
pub(super) fn cells(file: &File, given: &Experiment) -> Result<Vec<Cell>, Refused> {
    let mut combinations: Vec<Vec<(&str, &toml::Value)>> = vec![Vec::new()];
    for (path, values) in &given.matrix {
        let refuse = |message: String| file.refuse(&["matrix", path], message);
        let simulated = given.cluster.backend == "sim";
        let offered = VARIED.contains(&path.as_str())
            || path.starts_with("timing.")
            || (simulated && path.starts_with("sim."));
        if !offered {
            let (varied, sim) = (VARIED.join(", "), if simulated { ", sim.KEY" } else { "" });
            return Err(refuse(format!(
                "the matrix cannot vary `{path}`; it can vary {varied}{sim} and timing.KNOB (in \
                 quotes)"
            )));
        }
        let values = values.as_array().filter(|values| !values.is_empty()).ok_or_else(|| {
            refuse(format!("`{path}` needs an array with one value at least, such as [3, 5]"))
        })?;
        let product = combinations.len() * values.len();
        if product > MOST_CELLS {
            return Err(refuse(format!(
                "with `{path}` the matrix has {product} cells, more than {MOST_CELLS}; list fewer \
                 values, or divide the experiment"
            )));
        }
        combinations = combinations
            .iter()
            .flat_map(|before| {
                values.iter().map(move |value| [before.as_slice(), &[(path, value)]].concat())
            })
            .collect();
    }
    let mut cells: Vec<Cell> = Vec::new();
    for values in combinations {
        let name: Vec<String> =
            values.iter().map(|(path, value)| format!("{path}={}", word(value))).collect();
        let name = name.join(",");
        let paths: Vec<String> = values.iter().map(|(path, _)| (*path).to_owned()).collect();
        let first = paths.first().cloned().unwrap_or_default();
        if cells.iter().any(|cell| cell.name == name) {
            let message = format!("the matrix holds {name} twice; list every value once");
            return Err(file.refuse(&["matrix", &first], message));
        }
        if name.len() > LONGEST_NAME {
            let message = format!(
                "{name} is too long for the names of files; vary fewer things at once, {LONGEST_NAME} \
                 letters have room"
            );
            return Err(file.refuse(&["matrix", &first], message));
        }
        let experiment = file.with(&values).map_err(|why| {
            file.refuse(&["matrix", &first], format!("{name} cannot be applied: {why}"))
        })?;
        cells.push(Cell { name, experiment, paths });
    }
    for (index, variant) in given.variants.iter().enumerate() {
        let asked =
            |name: &str| cells.iter().any(|cell| cell.experiment.timings.as_deref() == Some(name));
        if let Some(name) = variant.timings.keys().find(|name| !asked(name)) {
            let message = format!(
                "variant {}: nobody asks for its timings.{name}; write timings = \"{name}\" above \
                 all tables, or list it under [matrix] as one of \"timings\"",
                variant.name
            );
            return Err(file.refuse(&["variant", &index.to_string(), "timings", name], message));
        }
    }
    Ok(cells)
}

/// A value as part of a name. A whole `[fault]` goes by its values alone: `loss-leader-20-3s`.
fn word(value: &toml::Value) -> String {
    let list = |values: Vec<String>, between: &str| values.join(between);
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Table(table) => list(table.values().map(word).collect(), "-"),
        toml::Value::Array(values) => list(values.iter().map(word).collect(), "+"),
        other => other.to_string(),
    }
}

/// Lowers every variant of a cell to what its nodes will run with.
pub(super) fn lower(
    file: &File,
    cell: &Cell,
    backend: Backend,
) -> Result<Vec<(String, Launch)>, Refused> {
    let experiment = &cell.experiment;
    let blame = |keys: &[&str], message: String| cell.blame(file, keys, message);
    let fault = faults::fault(file, cell, backend)?;
    let largest = match backend {
        Backend::Local | Backend::Ssh => LARGEST,
        Backend::Sim => LARGEST_SIMULATED,
    };
    let size = u32::try_from(experiment.cluster.size)
        .ok()
        .filter(|_| (2..=largest).contains(&experiment.cluster.size))
        .ok_or_else(|| {
            let size = experiment.cluster.size;
            let message = format!("cluster.size is {size}; write a number from 2 to {largest}");
            blame(&["cluster", "size"], message)
        })?;
    let probe = workload::probe(&experiment.workload, backend)
        .map_err(|wrong| blame(&["workload", wrong.key], wrong.message))?;
    faults::asked(&fault, probe.as_ref()).map_err(|why| blame(&["fault", "kind"], why))?;
    if let Some(chosen) = &experiment.timings
        && experiment.variants.iter().all(|variant| !variant.timings.contains_key(chosen))
    {
        let message = format!(
            "no variant has timings of the name `{chosen}`; add timings.{chosen} = {{ ... }} to one"
        );
        return Err(blame(&["timings"], message));
    }
    let mut launches = Vec::new();
    for (index, variant) in experiment.variants.iter().enumerate() {
        let (index, name) = (index.to_string(), &variant.name);
        let refuse = |key: &str, message: String| {
            blame(&["variant", &index, key], format!("variant {name}: {message}"))
        };
        let system = variant::system(variant, backend).map_err(|(key, why)| refuse(key, why))?;
        faults::suits(&fault, system, backend).map_err(|why| refuse("system", why))?;
        let protocol = variant::protocol(variant, system).map_err(|why| refuse("protocol", why))?;
        let own =
            variant::timing(experiment, variant, system).map_err(|(key, why)| refuse(key, why))?;
        let mut timing = experiment.timing.overridden_by(&own).resolve();
        let sub_leaders = system.fit(&mut timing, protocol, size).map_err(|unfit| {
            let (knob, message) = (unfit.knob, format!("variant {name}: {}", unfit.message));
            match &experiment.timings {
                _ if own == TimingKnobs::default() => blame(&["timing", knob], message),
                Some(chosen) if variant.timings.contains_key(chosen) => {
                    blame(&["variant", &index, "timings", chosen, knob], message)
                }
                _ => blame(&["variant", &index, "timing", knob], message),
            }
        })?;
        let launch = Launch {
            system,
            fault: fault.clone(),
            size,
            protocol,
            timing,
            sub_leaders,
            cell_sub_leaders: 0,
            probe,
            sim: (backend == Backend::Sim).then(|| experiment.sim.clone().unwrap_or_default()),
        };
        launches.push((variant.name.clone(), launch));
    }
    let most = launches.iter().map(|(_, launch)| launch.sub_leaders).max().unwrap_or(0);
    for (_, launch) in &mut launches {
        launch.cell_sub_leaders = most;
    }
    faults::fits(&fault, size, most).map_err(|message| blame(too_small(cell, &fault), message))?;
    for launch in launches.iter().map(|(_, launch)| launch) {
        let Some(sim) = &launch.sim else { continue };
        sim.setup(launch).map_err(|wrong| {
            let keys: Vec<&str> =
                std::iter::once("sim").chain(wrong.keys.iter().map(String::as_str)).collect();
            blame(&keys, wrong.message)
        })?;
    }
    Ok(launches)
}

/// Whether the size or the target is to blame if they do not fit: what the matrix varies.
fn too_small(cell: &Cell, fault: &super::Fault) -> &'static [&'static str] {
    match cell.paths.iter().any(|path| path == "cluster.size") {
        true => &["cluster", "size"],
        false if fault.target == Target::Groups => &["fault", "groups"],
        false => &["fault", "target"],
    }
}
