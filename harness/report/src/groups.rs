//! The rows of a run by cell and variant, and the figures that are taken from them.

use crate::{
    measure::TrialRow,
    results::{Plan, WishedFigure},
    stats,
};
use serde::Serialize;
use sraft_events::Verdict;

/// A time that every trial yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// From the fault to the majority of the new leader.
    Leaderless,
    /// From the last write acknowledged before the fault to the first that began after it.
    Outage,
    /// From the fault to the campaign that wins.
    Detect,
    /// From there to its majority.
    Promote,
    /// From there to its committed no-op.
    Commit,
    /// From the fault until every node that was not struck knows the new leader.
    Announced,
    /// From the fault until the cluster is whole again.
    Restored,
}

impl Figure {
    /// Every figure, the headline first.
    pub const ALL: [Figure; 7] = [
        Figure::Leaderless,
        Figure::Outage,
        Figure::Detect,
        Figure::Promote,
        Figure::Commit,
        Figure::Announced,
        Figure::Restored,
    ];

    /// The one that a run is about.
    pub fn headline(plan: &Plan) -> Figure {
        match plan.report.as_ref().and_then(|wish| wish.figure) {
            Some(WishedFigure::Announced) => Figure::Announced,
            Some(WishedFigure::Outage) => Figure::Outage,
            Some(WishedFigure::Leaderless) | None => Figure::Leaderless,
        }
    }

    /// The one by which variants are compared: what a client felt if the run is about that, else
    /// what the logs say of the leaders.
    pub fn compared(plan: &Plan) -> Figure {
        match Figure::headline(plan) {
            Figure::Outage => Figure::Outage,
            _ => Figure::Leaderless,
        }
    }

    /// Its name; the column of `trials.csv` is this with `_us`.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Leaderless => "leaderless",
            Figure::Outage => "outage",
            Figure::Detect => "detect",
            Figure::Promote => "promote",
            Figure::Commit => "commit",
            Figure::Announced => "announced",
            Figure::Restored => "restored",
        }
    }

    /// What it spans, in one line.
    pub fn meaning(self) -> &'static str {
        match self {
            Figure::Leaderless => "fault to the new leader's majority",
            Figure::Outage => {
                "last write acknowledged before the fault to the first one begun after it"
            }
            Figure::Detect => "fault to the start of the campaign that wins",
            Figure::Promote => "start of that campaign to its majority",
            Figure::Commit => "majority to the new leader's committed no-op",
            Figure::Announced => "fault until the last spared node has accepted the new leader",
            Figure::Restored => "fault until the cluster is whole again",
        }
    }

    /// What it is, for the title of a figure and beside its axis.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Figure::Leaderless => "Time without a leader",
            Figure::Outage => "Time without service, as a client felt it",
            Figure::Announced => "Time until all know the new leader",
            Figure::Detect => "Time until the winner stands",
            Figure::Promote => "Time from standing to majority",
            Figure::Commit => "Time from majority to service",
            Figure::Restored => "Time until the cluster is whole again",
        }
    }

    /// The same with its two ends, beside an axis.
    pub(crate) fn axis(self) -> &'static str {
        match self {
            Figure::Outage => "outage, last write acknowledged before the fault to the next one",
            Figure::Announced => "time until all know the new leader",
            _ => "time without a leader, fault to new majority",
        }
    }

    /// Its value in a row, microseconds.
    pub fn of(self, row: &TrialRow) -> Option<f64> {
        match self {
            Figure::Leaderless => row.leaderless_us,
            Figure::Outage => row.outage_us,
            Figure::Detect => row.detect_us,
            Figure::Promote => row.promote_us,
            Figure::Commit => row.commit_us,
            Figure::Announced => row.announced_us,
            Figure::Restored => row.restored_us,
        }
    }

    /// Whether a time-out of this trial bounds it from below: it counts from the fault or before,
    /// and somebody has looked for its end.
    fn bounded_by_timeout(self, row: &TrialRow) -> bool {
        match self {
            Figure::Promote | Figure::Commit => false,
            Figure::Outage => row.acked_writes.is_some(),
            _ => true,
        }
    }
}

/// One value of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Microseconds.
    pub value: f64,
    /// Whether the end was seen; if not, it took at least `value`.
    pub observed: bool,
    /// The block in which it was measured.
    pub block: u32,
}

/// What became of leaders whom the fault left in place, over the trials that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stability {
    /// The trials.
    pub trials: usize,
    /// Those in which somebody stood all the same, and nobody else led.
    pub contested: usize,
    /// Those in which somebody else led.
    pub replaced: usize,
    /// Campaigns, in all of them.
    pub campaigns: u64,
    /// Terms used up, in all of them.
    pub terms: u64,
}

impl Stability {
    /// Those in which nobody stood.
    pub fn in_place(&self) -> usize {
        self.trials - self.contested - self.replaced
    }
}

/// The trials of one variant in one cell, in the order in which they ran.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// The cell, empty without a matrix.
    pub cell: &'a str,
    /// The variant.
    pub variant: &'a str,
    /// Position of the variant in the plan.
    pub index: usize,
    /// Its rows.
    pub rows: Vec<&'a TrialRow>,
    timeout_us: f64,
}

impl<'a> Group<'a> {
    /// Every variant in every cell, cells first, in the order of the plan; empty ones included.
    pub fn all(plan: &'a Plan, rows: &'a [TrialRow]) -> Vec<Group<'a>> {
        let mut groups = Vec::new();
        for cell in &plan.cells {
            for (index, variant) in plan.variants.iter().enumerate() {
                let of = |row: &&TrialRow| row.cell == *cell && row.variant == variant.name;
                groups.push(Group {
                    cell,
                    variant: &variant.name,
                    index,
                    rows: rows.iter().filter(of).collect(),
                    timeout_us: plan.timeout_ns as f64 / 1000.0,
                });
            }
        }
        groups
    }

    /// The sample of a figure over the trials that count. A censored trial that did not get as
    /// far as the figure's end counts with the time-out, as not observed.
    pub fn sample(&self, figure: Figure) -> Vec<Observation> {
        let observe = |row: &&TrialRow| match figure.of(row) {
            Some(value) => Some(Observation { value, observed: true, block: row.block }),
            None if row.verdict == Verdict::Censored && figure.bounded_by_timeout(row) => {
                Some(Observation { value: self.timeout_us, observed: false, block: row.block })
            }
            None => None,
        };
        self.rows.iter().filter(|row| row.counts()).filter_map(observe).collect()
    }

    /// Trials that count and whose fault left the leader in place, so that no other one was called for.
    pub fn spared(&self) -> impl Iterator<Item = &TrialRow> {
        let spared = |row: &&&TrialRow| row.verdict == Verdict::Ok && row.leaderless_us.is_none();
        self.rows.iter().filter(spared).copied()
    }

    /// What became of the leaders of these; empty if there are no such trials.
    pub fn stability(&self) -> Option<Stability> {
        let trials = self.spared().count();
        let (replaced, kept): (Vec<&TrialRow>, Vec<&TrialRow>) =
            self.spared().partition(|row| row.spurious_failovers > 0);
        let unrest = |row: &&&TrialRow| row.campaigns > 0 || row.terms.is_some_and(|t| t > 0);
        let stability = Stability {
            trials,
            contested: kept.iter().filter(unrest).count(),
            replaced: replaced.len(),
            campaigns: self.spared().map(|row| u64::from(row.campaigns)).sum(),
            terms: self.spared().filter_map(|row| row.terms).sum(),
        };
        (trials > 0).then_some(stability)
    }

    /// A quantile of a figure over the trials that count, in milliseconds, and whether it was seen;
    /// if not, it lies among the censored and is at least this long. Empty without trials.
    pub fn quantile_ms(&self, figure: Figure, p: f64) -> Option<(f64, bool)> {
        let sample = self.sample(figure);
        let mut values: Vec<f64> = sample.iter().map(|o| o.value / 1000.0).collect();
        values.sort_by(f64::total_cmp);
        let quantile = stats::quantile(&values, p)?;
        // Nothing is seen at or beyond the first time-out.
        let unseen = sample.iter().filter(|o| !o.observed).map(|o| o.value / 1000.0);
        let seen = unseen.fold(f64::INFINITY, f64::min) > values[upper_rank(values.len(), p)];
        Some((quantile, seen))
    }

    /// Messages of each failover among the trials that count, where they were counted, ascending.
    pub fn messages(&self) -> Vec<f64> {
        let counted = self.rows.iter().filter(|row| row.counts());
        let mut messages: Vec<f64> =
            counted.filter_map(|row| row.messages).map(|count| count as f64).collect();
        messages.sort_by(f64::total_cmp);
        messages
    }

    /// Whether a probe was at work in any of its trials.
    pub fn probed(&self) -> bool {
        self.rows.iter().any(|row| row.acked_writes.is_some())
    }

    /// Number of trials with this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == verdict).count()
    }
}

/// The higher of the two ranks, from 0, between which a quantile of `n` values lies.
fn upper_rank(n: usize, p: f64) -> usize {
    (((n - 1) as f64 * p).ceil() as usize).min(n - 1)
}
