//! A run beside published results: how far apart are they?

use serde::Serialize;

use super::tables;
use crate::{
    groups::{Figure, Group},
    plot::ms,
    results::{Plan, Published},
    stats,
};

/// A variant in a cell beside the published line of its name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// The cell, empty without a matrix.
    pub cell: String,
    /// The variant, and the line.
    pub variant: String,
    /// The published results.
    pub published: Published,
    /// Trials that count.
    pub n: usize,
    /// Kolmogorov-Smirnov distance, known to within [`Published::resolution`]; empty without
    /// trials.
    pub distance: Option<f64>,
    /// The median.
    pub median: Quantile,
    /// The 99th percentile.
    pub p99: Quantile,
}

/// A quantile of a run and of the published line.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantile {
    /// Ours, milliseconds; empty if the sample does not support it or it was not seen.
    pub ours_ms: Option<f64>,
    /// The published one, milliseconds.
    pub published_ms: Option<f64>,
}

impl Quantile {
    /// By how much ours is the greater, as a share of the published one.
    pub fn difference(self) -> Option<f64> {
        Some(self.ours_ms? / self.published_ms? - 1.0)
    }
}

/// Every variant that a published line has the name of.
pub(super) fn all(plan: &Plan, groups: &[Group<'_>]) -> Vec<Agreement> {
    let Some(published) = plan.report.as_ref().and_then(|wish| wish.published) else {
        return Vec::new();
    };
    let beside = |group: &Group<'_>| {
        let line = published.line(group.variant)?;
        let sample = group.sample(Figure::Announced);
        let mut seen: Vec<f64> =
            sample.iter().filter(|o| o.observed).map(|o| o.value / 1000.0).collect();
        seen.sort_by(f64::total_cmp);
        let quantile = |p: f64| {
            let ours = group.quantile_ms(Figure::Announced, p).filter(|(_, seen)| *seen);
            let enough = p <= 0.5 || stats::supports(sample.len(), p);
            Quantile {
                ours_ms: ours.filter(|_| enough).map(|(ms, _)| ms),
                published_ms: line.quantile(p),
            }
        };
        Some(Agreement {
            cell: group.cell.into(),
            variant: group.variant.into(),
            published,
            n: sample.len(),
            distance: line.distance(&seen, sample.len()),
            median: quantile(0.5),
            p99: quantile(0.99),
        })
    };
    groups.iter().filter_map(beside).collect()
}

/// The table of it; the first row is the head, the first column the cell.
pub(super) fn rows(published: &[Agreement]) -> Vec<Vec<String>> {
    let head = [
        "cell",
        "line",
        "n",
        "KS distance",
        "median",
        "published",
        "difference",
        "p99",
        "published",
        "difference",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let time = |value: Option<f64>| value.map_or("–".into(), ms);
    for beside in published {
        let mut row = vec![beside.cell.clone(), beside.variant.clone(), beside.n.to_string()];
        row.push(beside.distance.map_or("–".into(), |distance| format!("{distance:.3}")));
        for quantile in [beside.median, beside.p99] {
            row.extend([time(quantile.ours_ms), time(quantile.published_ms)]);
            row.push(quantile.difference().map_or("–".into(), percent));
        }
        rows.push(row);
    }
    rows
}

/// A relative difference.
fn percent(share: f64) -> String {
    let text = format!("{:.1} %", share.abs() * 100.0);
    match (text.as_str(), share < 0.0) {
        ("0.0 %", _) => text,
        (_, true) => format!("−{text}"),
        (_, false) => format!("+{text}"),
    }
}

/// The published results beside ours, for the terminal.
pub(super) fn terminal(published: &[Agreement]) -> String {
    let mut rows = rows(published);
    if published.iter().all(|beside| beside.cell.is_empty()) {
        for row in &mut rows {
            row.remove(0);
        }
    }
    let name = published.first().map_or("", |beside| beside.published.name());
    let mut text = format!("beside the published results {name} (announced), milliseconds\n");
    text.extend(tables::aligned(&rows));
    text
}
