//! One figure of one variant in one cell, in numbers.

use std::collections::BTreeMap;

use serde::Serialize;
use sraft_events::{CampaignKind, NodeId, Verdict};

use super::takeover::{self, Takeover};
use crate::{
    groups::{Figure, Group, Stability},
    results::{Plan, Setting},
    stats,
};

/// The quantiles that are reported, and their names.
pub(super) const QUANTILES: [(&str, f64); 4] =
    [("median", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)];

/// A quantile with its interval, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The quantile.
    pub ms: f64,
    /// Whether it was seen; if not it lies among the trials that timed out, and is at least `ms`.
    pub seen: bool,
    /// Lower end of the 95 % interval, if the sample bounds it.
    pub low_ms: Option<f64>,
    /// Upper end, if the sample bounds it and it was seen.
    pub high_ms: Option<f64>,
}

/// A figure in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Digest {
    /// Its name.
    pub figure: &'static str,
    /// Values, censored ones included.
    pub n: usize,
    /// How many of them are time-outs.
    pub censored: usize,
    /// Median, p90, p95, p99; empty where the sample does not support it ([`stats::supports`]).
    pub quantiles: [Option<Estimate>; 4],
    /// The greatest value, and whether it was seen.
    pub max_ms: Option<(f64, bool)>,
}

/// Writes of the probe by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Writes {
    /// Acknowledged.
    pub acked: u64,
    /// Certainly not carried out.
    pub failed: u64,
    /// Of unknown outcome.
    pub unknown: u64,
    /// Acknowledged and not there afterwards, over all trials whatever their verdict.
    pub lost: u64,
    /// Trials in which nobody could tell what is there afterwards.
    pub unaudited: u64,
}

/// A variant in a cell: its trials, counted, and its figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupDigest {
    /// The cell, empty without a matrix.
    pub cell: String,
    /// The variant.
    pub variant: String,
    /// Trials that the plan asks for.
    pub planned: usize,
    /// Trials that ran to their end, whatever their verdict.
    pub trials: usize,
    /// Trials by verdict.
    pub ok: usize,
    /// They timed out.
    pub censored: usize,
    /// Their witnesses contradict one another.
    pub inconsistent: usize,
    /// They are not trials of what was asked.
    pub invalid: usize,
    /// Promotions by rank, Primary first, over the trials that count.
    pub promotions: Vec<usize>,
    /// Elections, likewise.
    pub elections: usize,
    /// Handovers, likewise.
    pub handovers: usize,
    /// Who took over from whom, over the trials that count, the most frequent first.
    pub takeovers: Vec<Takeover>,
    /// The region of each node, where the network has regions.
    pub regions: BTreeMap<NodeId, String>,
    /// Median of the messages of a failover; empty where nobody counts them.
    pub messages: Option<f64>,
    /// Campaigns, over the trials that count.
    pub campaigns: u64,
    /// Split votes, likewise.
    pub split_votes: u64,
    /// Changes of leadership without a fault, over all trials.
    pub spurious_failovers: u64,
    /// Most leaders in any term, over all trials.
    pub max_leaders_per_term: u32,
    /// What became of leaders whom the fault left in place; empty if it left none.
    pub stability: Option<Stability>,
    /// What the probe's writes came to, over the trials that count; empty without a probe.
    pub writes: Option<Writes>,
    /// The figures, in the order of [`Figure::ALL`].
    pub figures: Vec<Digest>,
}

impl GroupDigest {
    pub(super) fn of(group: &Group<'_>, plan: &Plan) -> GroupDigest {
        let setting = plan.setting(group.cell, group.variant);
        let counted = || group.rows.iter().filter(|row| row.counts());
        let by = |kind| counted().filter(move |row| row.passed_by == Some(kind));
        let ranks = by(CampaignKind::Promotion).map(|row| row.rank.unwrap_or(0) as usize);
        let mut promotions = Vec::new();
        for rank in ranks {
            promotions.resize(promotions.len().max(rank + 1), 0);
            promotions[rank] += 1;
        }
        GroupDigest {
            cell: group.cell.into(),
            variant: group.variant.into(),
            planned: planned(plan, group),
            trials: group.rows.len(),
            ok: group.count(Verdict::Ok),
            censored: group.count(Verdict::Censored),
            inconsistent: group.count(Verdict::Inconsistent),
            invalid: group.count(Verdict::Invalid),
            promotions,
            elections: by(CampaignKind::Election).count(),
            handovers: by(CampaignKind::Transfer).count(),
            takeovers: takeover::all(group),
            regions: setting.map(Setting::regions).unwrap_or_default(),
            messages: stats::quantile(&group.messages(), 0.5),
            campaigns: counted().map(|row| u64::from(row.campaigns)).sum(),
            split_votes: counted().map(|row| u64::from(row.split_votes)).sum(),
            spurious_failovers: group.rows.iter().map(|r| u64::from(r.spurious_failovers)).sum(),
            max_leaders_per_term: group
                .rows
                .iter()
                .map(|row| row.max_leaders_per_term)
                .max()
                .unwrap_or(0),
            stability: group.stability(),
            writes: group.probed().then(|| writes(group)),
            figures: Figure::ALL.iter().map(|figure| digest(group, *figure)).collect(),
        }
    }

    /// Trials whose verdict keeps them out of the statistics.
    pub fn flagged(&self) -> usize {
        self.inconsistent + self.invalid
    }

    /// Whether the fault left the leader in place in every trial that counts.
    pub(super) fn is_spared(&self) -> bool {
        self.stability.is_some() && self.figure(Figure::Leaderless).n == 0
    }

    /// The digest of a figure.
    pub fn figure(&self, figure: Figure) -> &Digest {
        let at = Figure::ALL.iter().position(|other| *other == figure);
        &self.figures[at.expect("every figure is among them all")]
    }

    /// How leadership passed, in short: `P0` is a promotion by the Primary.
    pub fn passed_by(&self) -> String {
        let mut parts = Vec::new();
        for (rank, count) in self.promotions.iter().enumerate().filter(|(_, count)| **count > 0) {
            parts.push(format!("P{rank} {count}"));
        }
        for (name, count) in [("E", self.elections), ("H", self.handovers)] {
            if count > 0 {
                parts.push(format!("{name} {count}"));
            }
        }
        if parts.is_empty() { "–".into() } else { parts.join(", ") }
    }
}

fn writes(group: &Group<'_>) -> Writes {
    let mut writes = Writes::default();
    for row in group.rows.iter().filter(|row| row.acked_writes.is_some()) {
        if row.counts() {
            writes.acked += row.acked_writes.unwrap_or(0);
            writes.failed += row.failed_writes.unwrap_or(0);
            writes.unknown += row.unknown_writes.unwrap_or(0);
        }
        writes.lost += row.lost_writes.unwrap_or(0);
        writes.unaudited += u64::from(row.lost_writes.is_none());
    }
    writes
}

fn planned(plan: &Plan, group: &Group<'_>) -> usize {
    let own = plan.blocks.iter().filter(|b| b.cell == group.cell && b.variant == group.variant);
    own.map(|block| block.trials.len()).sum()
}

fn digest(group: &Group<'_>, figure: Figure) -> Digest {
    let sample = group.sample(figure);
    let mut values: Vec<f64> = sample.iter().map(|o| o.value / 1000.0).collect();
    values.sort_by(f64::total_cmp);
    let first_unseen = sample.iter().filter(|o| !o.observed).map(|o| o.value / 1000.0);
    let first_unseen = first_unseen.fold(f64::INFINITY, f64::min);
    let quantiles = QUANTILES.map(|(_, p)| {
        let (ms, seen) = group.quantile_ms(figure, p)?;
        // A median is printed for any sample; its interval says how little it may mean.
        if p > 0.5 && !stats::supports(values.len(), p) {
            return None;
        }
        let interval = stats::order_interval(&values, p);
        let high_ms = interval.high.filter(|high| *high < first_unseen);
        Some(Estimate { ms, seen, low_ms: interval.low, high_ms })
    });
    Digest {
        figure: figure.name(),
        n: values.len(),
        censored: sample.iter().filter(|o| !o.observed).count(),
        quantiles,
        max_ms: values.last().map(|max| (*max, *max < first_unseen)),
    }
}
