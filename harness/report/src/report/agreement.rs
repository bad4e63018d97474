//! A run beside published results: how far apart are they?

use serde::Serialize;

use crate::{
    groups::{Figure, Group},
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
