//! Rows -> figures. Every figure is drawn once, as SVG, and rendered to PNG from that SVG.

mod announced;
mod around;
mod axis;
mod by_cell;
mod canvas;
mod cells;
mod curve;
mod ecdf;
mod histogram;
mod legend;
mod multiples;
mod over_time;
mod palette;
mod phases;
mod stability;

pub use around::Probed;
pub use canvas::Drawing;

use crate::{
    groups::{Figure, Group},
    measure::TrialRow,
    results::Plan,
};

/// A figure could not be drawn. This is a fault of the program, not of the run.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The drawing failed.
    #[error("cannot draw a figure: {0}")]
    Drawing(String),
    /// Rendering it failed.
    #[error("cannot render a figure: {0}")]
    Rendering(String),
}

/// A drawn figure and what is to be said about it.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Name of its files, without extension.
    pub name: String,
    /// What it shows, for a heading.
    pub title: String,
    /// The drawing.
    pub drawing: Drawing,
}

/// What the names of figures begin with; the cell follows if a figure is of one.
pub(crate) const STEMS: [&str; 11] = [
    "stability",
    "by_cell",
    "ecdf_by_cell",
    "announced_panels",
    "around_fault",
    "outage_histogram",
    "outage_ecdf",
    "leaderless_histogram",
    "leaderless_ecdf",
    "phases",
    "trials_over_time",
];

/// Up to this many cells each has its own figures; beyond it only the figures across cells remain,
/// because nobody reads that many files.
pub(crate) const CELLS_ON_THEIR_OWN: usize = 6;

/// All figures of a run. Those that show distributions exist once per cell, up to six cells; those
/// of what a client felt, only if a probe was at work.
///
/// # Errors
/// [`PlotError`].
pub fn all(plan: &Plan, rows: &[TrialRow], probed: Probed<'_>) -> Result<Vec<Plot>, PlotError> {
    let groups = Group::all(plan, rows);
    // Across cells first: it answers what was varied.
    let mut plots = across_cells(plan, &groups)?;
    if plan.cells.len() <= CELLS_ON_THEIR_OWN {
        for cell in &plan.cells {
            let groups = of_cell(&groups, cell);
            plots.extend(Subject { plan, cell, groups: &groups }.plots(probed)?);
        }
    }
    Ok(plots)
}

fn across_cells(plan: &Plan, groups: &[Group<'_>]) -> Result<Vec<Plot>, PlotError> {
    let mut plots = Vec::new();
    if groups.iter().any(|group| group.spared().next().is_some()) {
        plots.push(Subject { plan, cell: "", groups }.plot("stability", stability::draw)?);
    }
    let (mut plan, mut groups) = (plan.clone(), groups.to_vec());
    let headline = Figure::headline(&plan);
    plan.cells.retain(|cell| has_times(&of_cell(&groups, cell), headline));
    groups.retain(|group| plan.cells.iter().any(|cell| cell == group.cell));
    if plan.cells.len() > 1 {
        let across = Subject { plan: &plan, cell: "", groups: &groups };
        plots.push(across.plot("by_cell", by_cell::draw)?);
        plots.push(across.plot("ecdf_by_cell", multiples::draw)?);
    }
    Ok(plots)
}

fn of_cell<'a>(groups: &[Group<'a>], cell: &str) -> Vec<Group<'a>> {
    groups.iter().filter(|group| group.cell == cell).cloned().collect()
}

/// Whether there are values of a figure to show, or at least should be: where the fault leaves the
/// leader in place, there is no time without one.
fn has_times(groups: &[Group<'_>], figure: Figure) -> bool {
    groups.iter().all(|group| group.spared().next().is_none())
        || groups.iter().any(|group| !group.sample(figure).is_empty())
}

/// What a figure is about.
#[derive(Clone, Copy, Debug)]
struct Subject<'a> {
    plan: &'a Plan,
    /// Empty without a matrix, and for a figure of all cells.
    cell: &'a str,
    groups: &'a [Group<'a>],
}

impl Subject<'_> {
    /// The figures of a cell.
    fn plots(&self, probed: Probed<'_>) -> Result<Vec<Plot>, PlotError> {
        let histogram =
            |figure| move |s: &Subject<'_>, title: &str| histogram::draw(s, title, figure);
        let ecdf = |figure| move |s: &Subject<'_>, title: &str| ecdf::draw(s, title, figure);
        let headline = Figure::headline(self.plan);
        let mut plots = Vec::new();
        if let Some(wish) = self.plan.report.as_ref().filter(|_| headline == Figure::Announced) {
            plots.push(self.plot("announced_panels", |s, title| announced::draw(s, title, wish))?);
        }
        if self.groups.iter().any(Group::probed) {
            plots.push(self.plot("around_fault", |s, title| around::draw(s, title, probed))?);
            plots.push(self.plot("outage_histogram", histogram(Figure::Outage))?);
            plots.push(self.plot("outage_ecdf", ecdf(Figure::Outage))?);
        }
        if has_times(self.groups, Figure::Leaderless) {
            plots.push(self.plot("leaderless_histogram", histogram(Figure::Leaderless))?);
            plots.push(self.plot("leaderless_ecdf", ecdf(Figure::Leaderless))?);
            plots.push(self.plot("phases", phases::draw)?);
        }
        if has_times(self.groups, headline) {
            plots.push(self.plot("trials_over_time", over_time::draw)?);
        }
        Ok(plots)
    }

    fn plot(
        &self,
        stem: &str,
        draw: impl Fn(&Subject<'_>, &str) -> Result<Drawing, PlotError>,
    ) -> Result<Plot, PlotError> {
        debug_assert!(STEMS.contains(&stem), "{stem} would not be removed when it is out of date");
        let headline = Figure::headline(self.plan).title();
        let title = self.title(&match stem {
            "announced_panels" => Figure::Announced.title().to_owned(),
            "around_fault" => "What a client sees around the fault".to_owned(),
            "outage_histogram" => Figure::Outage.title().to_owned(),
            "outage_ecdf" => "Share of trials that serve clients again".to_owned(),
            "leaderless_histogram" => Figure::Leaderless.title().to_owned(),
            "leaderless_ecdf" => "Share of trials that have a leader again".to_owned(),
            "stability" => "Does the leader stay?".to_owned(),
            "phases" => "Where the time without service goes".to_owned(),
            "trials_over_time" => "Every trial, in the order of running".to_owned(),
            "ecdf_by_cell" => format!("{headline}, cell by cell"),
            _ => format!("Median {}, by cell", lower(headline)),
        });
        let name = match self.cell {
            "" => stem.to_owned(),
            cell => format!("{stem}.{}", slug(cell)),
        };
        Ok(Plot { name, drawing: draw(self, &title)?, title })
    }

    fn title(&self, what: &str) -> String {
        let mut parts = vec![what.to_owned()];
        // Where the matrix varies the fault, its cells say what it was.
        let varied = |cell: &String| {
            cell.split(',').any(|part| part.starts_with("fault.") || part.starts_with("fault="))
        };
        if !self.plan.cells.iter().any(varied) {
            parts.push(format!("{} of {}", self.plan.fault, self.plan.target));
        }
        parts.extend(Some(self.cell.to_owned()).filter(|cell| !cell.is_empty()));
        parts.join(" · ")
    }

    /// Every observed value of a figure of the subject, milliseconds.
    fn observed_ms(&self, figure: Figure) -> Vec<f64> {
        self.groups.iter().flat_map(|group| observed_ms(group, figure)).collect()
    }
}

/// With a small letter at the beginning.
fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// The values of a figure that were observed in trials that count, milliseconds.
fn observed_ms(group: &Group<'_>, figure: Figure) -> Vec<f64> {
    let sample = group.sample(figure);
    sample.iter().filter(|o| o.observed).map(|o| o.value / 1000.0).collect()
}

/// A name that can stand in a file name.
pub(crate) fn slug(name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    name.chars().map(fits).collect()
}

/// Milliseconds with three significant digits.
pub(crate) fn ms(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 => 2,
        _ => 3,
    };
    let rounded = format!("{value:.decimals$}");
    let text = match decimals {
        0 => axis::label(rounded.parse().unwrap_or(value)),
        _ => rounded,
    };
    text.replace('-', "−")
}

#[cfg(test)]
mod tests;
