//! Everything that is derived from a run, again, from its raw records.

mod agreement;
mod comparison;
mod digest;
mod hdr;
mod html;
mod stability;
mod tables;
mod takeover;

pub use agreement::{Agreement, Quantile};
pub use comparison::{Comparison, Finding};
pub use digest::{Digest, Estimate, GroupDigest, Writes};
pub use takeover::Takeover;

use std::{collections::BTreeMap, fmt, io::ErrorKind, path::PathBuf};

use serde::Serialize;

use crate::{
    groups::{Figure, Group},
    measure,
    plot::{self, PlotError},
    results::{Events, Manifest, Ops, Plan, ResultsError, RunDir},
};

/// Why a run could not be reported.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file of the run could not be read or written.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// A figure could not be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// A histogram could not be exported. This is a fault of the program, not of the run.
    #[error("cannot export a histogram: {0}")]
    Histogram(String),
}

/// What a run comes to. `Display` prints the closing table, the verdicts and the paths.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Name of the experiment.
    pub experiment: String,
    /// Name of the run.
    pub run: String,
    /// What the experiment asks.
    pub question: String,
    /// The time that the run is about.
    pub headline: Figure,
    /// The time by which variants are compared.
    pub compared: Figure,
    /// Every variant in every cell.
    pub groups: Vec<GroupDigest>,
    /// Variants against one another.
    pub comparisons: Vec<Comparison>,
    /// Variants beside the published lines of their names.
    pub published: Vec<Agreement>,
    /// What else the reader must know: trials that did not run, unreadable records, broken rules.
    pub notes: Vec<String>,
    /// The folder with records and tables.
    pub results: PathBuf,
    /// The folder with figures.
    pub plots: PathBuf,
}

impl Summary {
    /// Whether a probe was at work.
    pub fn probed(&self) -> bool {
        self.groups.iter().any(|group| group.writes.is_some())
    }

    /// The other one of what a client felt and what the logs say of the leaders.
    fn beside(&self) -> Option<Figure> {
        let other =
            if self.headline == Figure::Outage { Figure::Leaderless } else { Figure::Outage };
        self.probed().then_some(other)
    }

    /// The figures that this run can have.
    fn figures(&self) -> impl Iterator<Item = Figure> {
        let probed = self.probed();
        Figure::ALL.into_iter().filter(move |figure| probed || *figure != Figure::Outage)
    }

    /// One sentence per comparison.
    pub fn verdicts(&self) -> impl Iterator<Item = &str> {
        let none =
            self.comparisons.is_empty().then_some("There is one variant: nothing to compare.");
        self.comparisons.iter().map(|comparison| comparison.sentence.as_str()).chain(none)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for figure in [self.headline].into_iter().chain(self.beside()) {
            if let Some(table) = tables::terminal(self, figure) {
                writeln!(f, "{table}")?;
            }
        }
        if self.groups.iter().any(|group| group.stability.is_some()) {
            writeln!(f, "{}", stability::terminal(&self.groups))?;
        }
        if !self.published.is_empty() {
            writeln!(f, "{}", agreement::terminal(&self.published))?;
        }
        for verdict in self.verdicts() {
            writeln!(f, "{}", wrapped(verdict))?;
        }
        for note in &self.notes {
            writeln!(f, "{}", wrapped(&format!("note: {note}")))?;
        }
        writeln!(f, "\nreport   {}", self.results.join("report.html").display())?;
        writeln!(f, "trials   {}", self.results.join("trials.csv").display())?;
        write!(f, "figures  {}", self.plots.display())
    }
}

/// Breaks a sentence into lines that a terminal of 100 columns shows whole.
fn wrapped(sentence: &str) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in sentence.split(' ') {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > 100 {
            text.push_str("\n  ");
            column = 2;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
    }
    text
}

/// Rebuilds everything that is derived from `plan.json`, `manifest.json`, `events.jsonl` and
/// `ops.csv`: the same records give the same files to the byte.
///
/// # Errors
/// [`ReportError`] if a file cannot be read or written.
pub fn build(run: &RunDir) -> Result<Summary, ReportError> {
    let plan = run.read_plan()?;
    let manifest = manifest(run)?;
    let events = run.read_events()?;
    let ops = run.read_ops(&events.completed())?;
    let rows = measure::rows(&plan, &events.records, &ops);
    let groups = Group::all(&plan, &rows);
    let digests: Vec<GroupDigest> =
        groups.iter().map(|group| GroupDigest::of(group, &plan)).collect();
    let comparisons = comparison::all(&plan, &groups, &digests);
    let summary = Summary {
        experiment: run.experiment().into(),
        run: run.run().into(),
        question: plan.question.clone(),
        notes: notes(&plan, &digests, &events, &ops),
        headline: Figure::headline(&plan),
        compared: Figure::compared(&plan),
        groups: digests,
        comparisons,
        published: agreement::all(&plan, &groups),
        results: run.results().into(),
        plots: run.plots().into(),
    };
    let faults = match ops.is_empty() {
        true => BTreeMap::new(),
        false => measure::faults(&events.records),
    };
    let plots = plot::all(&plan, &rows, plot::Probed { ops: &ops, faults: &faults })?;

    run.write_trials(&rows)?;
    run.write_result("summary.csv", &tables::csv(&summary))?;
    run.write_result("summary.md", tables::markdown(&summary).as_bytes())?;
    // Of a large matrix only the time that the run is about: hundreds of files help nobody.
    let all = plan.cells.len() <= plot::CELLS_ON_THEIR_OWN;
    let exported: Vec<Figure> =
        Figure::ALL.into_iter().filter(|figure| all || *figure == summary.headline).collect();
    for group in &groups {
        let latencies = hdr::latencies(group, &ops)?;
        for (name, bytes) in hdr::exports(group, &exported)?.into_iter().chain(latencies) {
            run.write_result(&name, &bytes)?;
        }
    }
    let names: Vec<&str> = plots.iter().map(|plot| plot.name.as_str()).collect();
    run.remove_other_plots(&plot::STEMS, &names)?;
    for plot in &plots {
        run.write_plot(&format!("{}.svg", plot.name), plot.drawing.svg.as_bytes())?;
        run.write_plot(&format!("{}.png", plot.name), &plot.drawing.png)?;
    }
    let page = html::page(&summary, &plan, manifest.as_ref(), &rows, &plots);
    run.write_result("report.html", page.as_bytes())?;
    Ok(summary)
}

/// The manifest, if the run got as far as writing one.
fn manifest(run: &RunDir) -> Result<Option<Manifest>, ReportError> {
    match run.read_manifest() {
        Ok(manifest) => Ok(Some(manifest)),
        Err(ResultsError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn notes(plan: &Plan, groups: &[GroupDigest], events: &Events, ops: &Ops) -> Vec<String> {
    let mut notes = Vec::new();
    let planned: usize = plan.blocks.iter().map(|block| block.trials.len()).sum();
    let ran: usize = groups.iter().map(|group| group.trials).sum();
    if ran < planned {
        notes.push(format!(
            "{ran} of {planned} trials have run; `sraft run --resume` completes the run"
        ));
    }
    if let Some(torn) = &events.torn {
        notes.push(format!(
            "events.jsonl cannot be read from line {} on ({} bytes): {}; what stands before it \
             is reported",
            torn.line, torn.bytes, torn.error
        ));
    }
    if let Some(torn) = &ops.torn {
        notes.push(format!(
            "ops.csv cannot be read from line {} on ({} bytes): {}",
            torn.line, torn.bytes, torn.error
        ));
    }
    for group in groups {
        let Some(writes) = group.writes else { continue };
        if writes.lost > 0 {
            notes.push(format!(
                "{} ACKNOWLEDGED WRITES WERE LOST in {}; see the column lost_writes of trials.csv",
                writes.lost, group.variant
            ));
        }
        if writes.unaudited > 0 {
            notes.push(format!(
                "in {} trials of {} the probe could not look for lost writes; their lost_writes \
                 are empty",
                writes.unaudited, group.variant
            ));
        }
    }
    for group in groups.iter().filter(|group| group.max_leaders_per_term > 1) {
        notes.push(format!(
            "ELECTION SAFETY IS BROKEN in {}: a term had {} leaders; see the column reason of \
             trials.csv",
            group.variant, group.max_leaders_per_term
        ));
    }
    let counted = |count: fn(&GroupDigest) -> usize| groups.iter().map(count).sum::<usize>();
    let flagged = counted(GroupDigest::flagged);
    if flagged > 0 {
        notes.push(format!(
            "{flagged} trials are flagged (inconsistent or invalid) and out of the statistics; \
             trials.csv has the reasons"
        ));
    }
    let censored = counted(|group| group.censored);
    if censored > 0 {
        notes.push(format!(
            "{censored} trials timed out; they count as at least {} s",
            plan.timeout_ns as f64 / 1e9
        ));
    }
    let spurious: u64 = groups.iter().map(|group| group.spurious_failovers).sum();
    if spurious > 0 {
        notes.push(format!(
            "leadership changed {spurious} times without a fault (spurious_failovers)"
        ));
    }
    notes
}

#[cfg(test)]
mod tests;
