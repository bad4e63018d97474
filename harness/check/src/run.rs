//! The safety verdicts of a run: leaders per term, lost writes, linearizability.
//!
//! * **Leaders per term.** Within each trial, by every witness: whoever says that it was elected,
//!   and whomever a node has accepted as leader.
//! * **Writes.** After a trial the probe looks for every key that it ever wrote. One that was
//!   acknowledged and is not there is lost; one that had certainly failed and is there all the same
//!   was reported wrongly. Without an audit nothing is known, and that is said.
//! * **Linearizability** of every key that was also read or compared. A register keeps its value
//!   from trial to trial, and an operation of unknown outcome may take effect in a later trial; so
//!   the history of a key is that of the whole life of a cluster. Trials follow one another, so no
//!   clock is compared across trials. What went before is unknown where the operations of warm-ups
//!   or of a trial are not there: then the first value is free, and so are writes that nobody has
//!   recorded. The latter also where a probe was ended before its audit was, with operations under
//!   way. After a violation the rest is checked as if it began anew.

mod histories;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sraft_events::{Event, NodeId, Record, Source, Term};

use crate::{
    ops::{OpKind, Outcome, Row},
    search::Budget,
};
pub use verdicts::{
    DRAWING, History, Judgement, Leaders, RunCheck, Trial, TwoLeaders, Writes, file_name,
};

/// A cluster and what was done with it.
#[derive(Clone, Debug, Default)]
struct Cluster {
    /// Counts from 1.
    number: usize,
    variant: String,
    cell: String,
    /// Warm-up trials, whose operations nobody has kept.
    warmups: usize,
    /// Trials that have ended, in the order in which they ran.
    trials: Vec<u64>,
}

/// Checks the records of a run, in the order in which they were written, and the operations of its
/// probe, if it had one. Trials without an end are left out. The budget is for each cluster; whose
/// history costs more is undecided.
pub fn check(records: &[Record], ops: Option<&[Row]>, budget: &Budget) -> RunCheck {
    let (clusters, mut trials) = observed(records);
    let mut of_trial: BTreeMap<u64, Vec<&Row>> = BTreeMap::new();
    for row in ops.unwrap_or_default() {
        of_trial.entry(row.trial).or_default().push(row);
    }
    for trial in &mut trials {
        trial.writes = of_trial.get(&trial.trial).map(|rows| writes(rows));
    }
    let mut found = RunCheck::of(trials, ops.is_some());
    for cluster in &clusters {
        for (history, drawing) in histories::check(cluster, &of_trial, budget) {
            found.add(cluster.number, &cluster.trials, history, drawing);
        }
    }
    found
}

/// Clusters and trials, as the records tell them.
fn observed(records: &[Record]) -> (Vec<Cluster>, Vec<Trial>) {
    let mut clusters: Vec<Cluster> = Vec::new();
    let mut trials = Vec::new();
    let mut open: Option<(Trial, bool, BTreeMap<Term, BTreeSet<NodeId>>)> = None;
    for record in records {
        match (&record.source, &record.event) {
            (_, Event::ClusterStarted { cell, variant, .. }) => {
                let number = clusters.len() + 1;
                let (cell, variant) = (cell.clone(), variant.clone());
                clusters.push(Cluster { number, cell, variant, ..Cluster::default() });
            }
            (_, Event::TrialStarted { trial, warmup, cell, variant, leader, term, .. }) => {
                let begun = Trial::begun(*trial, cell, variant, clusters.len());
                let leaders = BTreeMap::from([(*term, BTreeSet::from([*leader]))]);
                open = Some((begun, *warmup, leaders));
            }
            (_, Event::LeaderAccepted { leader, term }) => {
                if let Some((_, _, leaders)) = &mut open {
                    leaders.entry(*term).or_default().insert(*leader);
                }
            }
            (Source::Node(node), Event::Elected { term, .. }) => {
                if let Some((_, _, leaders)) = &mut open {
                    leaders.entry(*term).or_default().insert(*node);
                }
            }
            (_, Event::TrialEnded { trial: ended, .. }) => {
                let Some((mut trial, warmup, leaders)) = open.take() else { continue };
                if trial.trial != *ended {
                    continue;
                }
                trial.most_leaders_per_term =
                    leaders.values().map(BTreeSet::len).max().unwrap_or(0);
                trial.two_leaders = leaders
                    .into_iter()
                    .filter(|(_, leaders)| leaders.len() > 1)
                    .map(|(term, leaders)| (term, leaders.into_iter().collect()))
                    .collect();
                if let Some(cluster) = clusters.last_mut() {
                    match warmup {
                        true => cluster.warmups += 1,
                        false => cluster.trials.push(*ended),
                    }
                }
                trials.push(trial);
            }
            _ => {}
        }
    }
    (clusters, trials)
}

/// What an audit has found in one trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audited {
    /// Acknowledged writes that are not there.
    pub lost: u64,
    /// Writes that had certainly failed and are there.
    pub undead: u64,
}

/// The writes of one trial to keys of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TrialWrites {
    /// Acknowledged.
    pub acknowledged: u64,
    /// What the audit has found; nothing if it has not come to its end.
    pub audit: Option<Audited>,
}

/// Whether the audit came to its end, and with it the probe.
fn audit_is_closed(rows: &[&Row]) -> bool {
    rows.iter()
        .any(|row| row.op == OpKind::Audit && row.key.is_empty() && row.outcome == Outcome::Ok)
}

fn writes(rows: &[&Row]) -> TrialWrites {
    let audits = rows.iter().filter(|row| row.op == OpKind::Audit);
    let missing: BTreeSet<&str> =
        audits.filter(|row| row.found == Some(false)).map(|row| &*row.key).collect();
    let own = |outcome: Outcome| {
        let puts = rows.iter().filter(move |row| row.op == OpKind::Put && row.outcome == outcome);
        puts.filter(|row| row.key.starts_with("w/"))
    };
    let audit = audit_is_closed(rows).then(|| Audited {
        lost: own(Outcome::Ok).filter(|row| missing.contains(&*row.key)).count() as u64,
        undead: own(Outcome::Failed).filter(|row| !missing.contains(&*row.key)).count() as u64,
    });
    TrialWrites { acknowledged: own(Outcome::Ok).count() as u64, audit }
}

#[cfg(test)]
mod tests;
