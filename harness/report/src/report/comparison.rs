//! Variants of a cell, two by two: is there a difference, and how large is it?

use serde::Serialize;

use super::{
    digest::{Digest, GroupDigest},
    stability,
};
use crate::{
    groups::{Figure, Group},
    plot::ms,
    results::Plan,
    stats::{self, Contrast},
};

/// A difference is claimed below this p-value (after Holm's correction).
const SIGNIFICANT: f64 = 0.05;
/// An A/A pair has failed below this one (uncorrected): a true A/A must rarely void a run.
const AA_FAILED: f64 = 0.01;
/// Up to this many variants all pairs are compared, above it each with the baseline.
const ALL_PAIRS_UP_TO: usize = 4;

/// What a comparison comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The first variant is faster.
    Faster,
    /// No difference can be claimed.
    NoDifference,
    /// An A/A pair shows none, as it must.
    AaHolds,
    /// An A/A pair differs: the machine drifts.
    AaFailed,
    /// There would be one, but an A/A pair of the run has failed.
    Withheld,
    /// The fault left the leader in place, so there is no time to compare.
    LeaderSpared,
    /// Too few trials.
    TooFew,
}

/// A comparison between two variants of a cell, by [`Figure::compared`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The cell.
    pub cell: String,
    /// The first variant; the faster one if one is.
    pub first: String,
    /// The second.
    pub second: String,
    /// Whether both run with the same settings.
    pub aa: bool,
    /// The finding.
    pub finding: Finding,
    /// First minus second, medians, milliseconds.
    pub difference_ms: Option<f64>,
    /// Its 95 % interval.
    pub difference_ci_ms: Option<[f64; 2]>,
    /// First over second, medians.
    pub ratio: Option<f64>,
    /// Its 95 % interval.
    pub ratio_ci: Option<[f64; 2]>,
    /// First minus second, 99th percentiles, milliseconds; empty with less than 100 trials a side.
    pub p99_difference_ms: Option<f64>,
    /// Its 95 % interval.
    pub p99_difference_ci_ms: Option<[f64; 2]>,
    /// Hodges-Lehmann shift, milliseconds.
    pub shift_ms: Option<f64>,
    /// Cliff's delta.
    pub delta: Option<f64>,
    /// Mann-Whitney, uncorrected.
    pub p: Option<f64>,
    /// Mann-Whitney, corrected by Holm over the run.
    pub p_holm: Option<f64>,
    /// Whether the bootstrap drew blocks (else single trials).
    pub by_blocks: Option<bool>,
    /// The finding in a sentence.
    pub sentence: String,
}

/// Compares the variants of every cell.
pub(super) fn all(plan: &Plan, groups: &[Group<'_>], digests: &[GroupDigest]) -> Vec<Comparison> {
    let pairs = pairs(plan, groups);
    let figure = Figure::compared(plan);
    let mut compared: Vec<Comparison> = pairs
        .iter()
        .enumerate()
        .map(|(nth, (a, b))| {
            let aa = alike(plan, &groups[*a], &groups[*b]);
            let seed = plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(nth as u64);
            compare((&groups[*a], &groups[*b]), figure, aa, seed)
        })
        .collect();
    let p: Vec<Option<f64>> = compared.iter().map(|comparison| comparison.p).collect();
    for (comparison, p) in compared.iter_mut().zip(stats::holm(&p)) {
        comparison.p_holm = p;
    }
    let failed = compared.iter().any(|c| c.aa && c.differs(c.p, AA_FAILED));
    for (comparison, (a, b)) in compared.iter_mut().zip(&pairs) {
        comparison.conclude(failed);
        // The comparison may have turned the pair round.
        let turned = comparison.first != groups[*a].variant;
        let (first, second) = if turned { (*b, *a) } else { (*a, *b) };
        comparison.sentence = comparison.say(&digests[first], &digests[second], figure);
    }
    compared
}

/// Pairs of groups of one cell, as positions. The baseline is the second of its pairs.
fn pairs(plan: &Plan, groups: &[Group<'_>]) -> Vec<(usize, usize)> {
    let base = plan.variants.iter().position(|variant| variant.baseline).unwrap_or(0);
    let all = plan.variants.len() <= ALL_PAIRS_UP_TO;
    let mut pairs = Vec::new();
    for cell in &plan.cells {
        let own: Vec<usize> = (0..groups.len()).filter(|i| groups[*i].cell == cell).collect();
        for (nth, a) in own.iter().enumerate() {
            for b in &own[nth + 1..] {
                let with_base = groups[*a].index == base || groups[*b].index == base;
                if all || with_base || alike(plan, &groups[*a], &groups[*b]) {
                    pairs.push(if groups[*b].index == base { (*a, *b) } else { (*b, *a) });
                }
            }
        }
    }
    pairs
}

/// Whether two groups run with the same settings.
fn alike(plan: &Plan, a: &Group<'_>, b: &Group<'_>) -> bool {
    match (plan.setting(a.cell, a.variant), plan.setting(b.cell, b.variant)) {
        (Some(a), Some(b)) => a.size == b.size && a.node == b.node,
        _ => false,
    }
}

fn blocks(group: &Group<'_>, figure: Figure) -> Vec<Vec<f64>> {
    let sample = group.sample(figure);
    sample
        .chunk_by(|a, b| a.block == b.block)
        .map(|block| block.iter().map(|o| o.value / 1000.0).collect())
        .collect()
}

/// Trials that each side of a comparison must have. With fewer than five a side no Mann-Whitney test
/// reaches the level at which an A/A pair fails, so it could not but hold.
fn least(aa: bool) -> usize {
    if aa { 5 } else { 2 }
}

fn compare((a, b): (&Group<'_>, &Group<'_>), figure: Figure, aa: bool, seed: u64) -> Comparison {
    let (x, y) = (blocks(a, figure), blocks(b, figure));
    let (first, second) = (x.concat(), y.concat());
    let enough = first.len().min(second.len());
    let contrast = (enough > 0).then(|| stats::contrast(&x, &y, 0.5, seed)).flatten();
    let tail = stats::supports(enough, 0.99).then(|| stats::contrast(&x, &y, 0.99, seed)).flatten();
    let spared = figure == Figure::Leaderless
        && enough == 0
        && [a, b].iter().all(|group| group.spared().next().is_some());
    let ends = |interval: stats::Interval| Some([interval.low?, interval.high?]);
    let difference = |c: &Contrast| ends(c.difference_ci);
    Comparison {
        cell: a.cell.into(),
        first: a.variant.into(),
        second: b.variant.into(),
        aa,
        finding: match enough < least(aa) {
            true if spared => Finding::LeaderSpared,
            true => Finding::TooFew,
            false => Finding::NoDifference,
        },
        difference_ms: contrast.map(|c| c.difference),
        difference_ci_ms: contrast.as_ref().and_then(difference),
        ratio: contrast.map(|c| c.ratio),
        ratio_ci: contrast.and_then(|c| ends(c.ratio_ci)),
        p99_difference_ms: tail.map(|c| c.difference),
        p99_difference_ci_ms: tail.as_ref().and_then(difference),
        shift_ms: stats::hodges_lehmann(&first, &second),
        delta: stats::cliffs_delta(&first, &second),
        p: stats::mann_whitney(&first, &second).map(|test| test.p),
        p_holm: None,
        by_blocks: contrast.map(|c| c.by_blocks),
        sentence: String::new(),
    }
}

impl Comparison {
    /// Whether both the interval and the test see a difference.
    fn differs(&self, p: Option<f64>, below: f64) -> bool {
        self.finding == Finding::NoDifference
            && self.excludes_zero()
            && p.is_some_and(|p| p < below)
    }

    fn excludes_zero(&self) -> bool {
        self.difference_ci_ms.is_some_and(|[low, high]| low > 0.0 || high < 0.0)
    }

    fn conclude(&mut self, aa_failed: bool) {
        let differs = self.differs(self.p_holm, SIGNIFICANT);
        self.finding = match (self.finding, self.aa) {
            (Finding::TooFew | Finding::LeaderSpared, _) => self.finding,
            (_, true) if self.differs(self.p, AA_FAILED) => Finding::AaFailed,
            (_, true) => Finding::AaHolds,
            (_, false) if differs && aa_failed => Finding::Withheld,
            (_, false) if differs => Finding::Faster,
            (_, false) => Finding::NoDifference,
        };
        if self.finding == Finding::Faster && self.difference_ms.is_some_and(|d| d > 0.0) {
            self.turn();
        }
    }

    /// Names the second variant first.
    fn turn(&mut self) {
        std::mem::swap(&mut self.first, &mut self.second);
        let negated = |ci: Option<[f64; 2]>| ci.map(|[low, high]| [-high, -low]);
        self.difference_ms = self.difference_ms.map(|d| -d);
        self.difference_ci_ms = negated(self.difference_ci_ms);
        self.p99_difference_ms = self.p99_difference_ms.map(|d| -d);
        self.p99_difference_ci_ms = negated(self.p99_difference_ci_ms);
        self.ratio = self.ratio.map(f64::recip);
        self.ratio_ci = self.ratio_ci.map(|[low, high]| [high.recip(), low.recip()]);
        self.shift_ms = self.shift_ms.map(|s| -s);
        self.delta = self.delta.map(|d| -d);
    }

    fn say(&self, first: &GroupDigest, second: &GroupDigest, figure: Figure) -> String {
        let spared = [first, second].map(|group| group.stability.unwrap_or_default());
        let (first, second) = (first.figure(figure), second.figure(figure));
        let place = if self.cell.is_empty() { String::new() } else { format!("{}: ", self.cell) };
        let (a, b) = (&self.first, &self.second);
        let medians =
            format!("median {} {} against {}", first.figure, shown(first, 0), shown(second, 0));
        let difference = match (self.difference_ms, self.difference_ci_ms) {
            (Some(difference), Some([low, high])) => format!(
                ", difference {} ms [{}, {}]",
                signed(difference),
                signed(low),
                signed(high)
            ),
            _ => String::new(),
        };
        let told = match self.finding {
            Finding::Faster => {
                let ratio = self.ratio.unwrap_or(1.0).recip();
                let tail = match (&first.quantiles[3], &second.quantiles[3]) {
                    (Some(_), Some(_)) => {
                        format!("; p99 {} against {}", shown(first, 3), shown(second, 3))
                    }
                    _ => String::new(),
                };
                format!("{a} is {}x faster than {b}: {medians}{difference}{tail}", times(ratio))
            }
            Finding::NoDifference => {
                let why = match (self.excludes_zero(), self.p_holm) {
                    (true, Some(p)) => format!(
                        " (the interval alone would, but not the rank test: p = {p:.2} after \
                         Holm's correction)"
                    ),
                    _ => String::new(),
                };
                format!(
                    "no difference between {a} and {b} can be claimed: \
                     {medians}{difference}{why}"
                )
            }
            Finding::AaHolds => {
                let doubt = if self.excludes_zero() {
                    " (the interval alone would show one, but not the rank test)"
                } else {
                    ""
                };
                format!(
                    "A/A holds: {a} and {b} run with the same settings and show no difference: \
                     {medians}{difference}{doubt}"
                )
            }
            Finding::AaFailed => format!(
                "A/A FAILED: {a} and {b} run with the same settings and differ: the machine \
                 drifts, no winner is called: {medians}{difference}"
            ),
            Finding::Withheld => format!(
                "no winner is called between {a} and {b}, because an A/A pair of this run has \
                 failed: {medians}{difference}"
            ),
            Finding::LeaderSpared => stability::sentence((a, spared[0]), (b, spared[1])),
            Finding::TooFew => format!(
                "{a} and {b} cannot be compared: {} and {} trials that count; at least {} of each \
                 are needed",
                first.n,
                second.n,
                least(self.aa)
            ),
        };
        format!("{place}{told}")
    }
}

fn shown(digest: &Digest, quantile: usize) -> String {
    match &digest.quantiles[quantile] {
        Some(estimate) if estimate.seen => format!("{} ms", ms(estimate.ms)),
        Some(estimate) => format!("at least {} ms", ms(estimate.ms)),
        None => "unknown".into(),
    }
}

fn signed(value: f64) -> String {
    let text = ms(value.abs());
    if value < 0.0 { format!("−{text}") } else { format!("+{text}") }
}

/// A factor with two significant digits, three from 100 on.
pub(super) fn times(factor: f64) -> String {
    match factor {
        f if f < 9.95 => format!("{f:.1}"),
        f => format!("{f:.0}"),
    }
}
