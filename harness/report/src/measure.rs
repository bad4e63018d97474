//! The records of one trial, measured: one row of `trials.csv`.
//!
//! Definitions stand with the columns, in [`TrialRow`]. Instants are taken from these records:
//!
//! | instant | record |
//! |---|---|
//! | t_fault | the agent's first `fault_applied` |
//! | t_dead | the agent's first `process_exited` of the old leader after it |
//! | t_suspect | the winner's last `suspected` at or before t_stand |
//! | t_stand | the winner's `campaign_started` in the term that it won |
//! | t_elected | the winner's `elected` |
//! | t_known | the last `leader_accepted` of the winner's term among the nodes that were not struck |
//! | t_ready | the winner's `ready` |
//!
//! | t_served | the end of the first acknowledged write that was meant to start after t_fault |
//!
//! The winner is the first leader elected after t_fault that gets as far as t_ready: one that is
//! deposed before it serves has replaced nobody. Nor is it one that the fault strikes as well
//! (leader and Primary, one after the other).

use std::collections::{BTreeMap, BTreeSet};

use sraft_events::{
    CampaignKind, Event, Evidence, FaultAction, NodeId, Record, Source, Term, Verdict,
};

use crate::{
    results::{LogFacts, Op, Ops, Plan},
    timeline::{self, Trial},
};

mod outage;

/// One row of `trials.csv`. Times are microseconds; what was not observed is empty, never 0.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialRow {
    /// Number of the trial in the plan, from 1; 0 for a warm-up.
    pub trial: u64,
    /// The matrix cell, empty without a matrix.
    pub cell: String,
    /// The variant.
    pub variant: String,
    /// What is to be thought of the trial. Only `ok` and `censored` enter the statistics.
    pub verdict: Verdict,
    /// Why the verdict is not `ok`, and what else is odd.
    pub reason: String,
    /// The fault's kind.
    pub fault: String,
    /// What it strikes.
    pub target: String,
    /// The leader when the trial began.
    pub old_leader: NodeId,
    /// Who leads after the fault.
    pub new_leader: Option<NodeId>,
    /// How leadership passed.
    pub passed_by: Option<CampaignKind>,
    /// The rank of the sub-leader that was promoted, 0 for the Primary.
    pub rank: Option<u32>,
    /// What made the winner stand.
    pub evidence: Option<Evidence>,
    /// t_stand - t_fault.
    pub detect_us: Option<f64>,
    /// t_elected - t_stand, on one node's clock.
    pub promote_us: Option<f64>,
    /// t_ready - t_elected, on one node's clock.
    pub commit_us: Option<f64>,
    /// t_elected - t_fault.
    pub leaderless_us: Option<f64>,
    /// t_known - t_fault (the metric of figure 16 of the Raft paper).
    pub announced_us: Option<f64>,
    /// t_served less the end of the last write that was acknowledged before t_fault, both on the
    /// probe's clock: what a client felt. Empty without a probe.
    pub outage_us: Option<f64>,
    /// t_restored - t_fault.
    pub restored_us: Option<f64>,
    /// Error bound of times that span two hosts, or of the stamps of another system's log: 0 for
    /// this project's nodes on one host, empty if it is not known.
    pub clock_bound_us: Option<f64>,
    /// Campaigns started by any node from t_fault to t_elected (pre-votes are none); to the end of
    /// the trial if the fault left the leader in place.
    pub campaigns: u32,
    /// Terms from the old leader's to the new one's; to the newest of the trial if the fault left
    /// the leader in place.
    pub terms: Option<u64>,
    /// Terms after the fault and up to t_elected in which two or more nodes stood and none won
    /// (a split vote: Raft paper, 5.2).
    pub split_votes: u32,
    /// Refusals that reached a candidate from t_fault to t_elected, pre-votes' included, by reason
    /// (`log_behind:1;leader_alive:2`).
    pub refusals: String,
    /// Writes acknowledged to the probe, swaps included; empty without one.
    pub acked_writes: Option<u64>,
    /// Writes that failed; empty without a probe.
    pub failed_writes: Option<u64>,
    /// Writes of unknown outcome; empty without a probe.
    pub unknown_writes: Option<u64>,
    /// Acknowledged writes that were lost; must be 0, empty without a probe, and if its look at
    /// everything written was not complete.
    pub lost_writes: Option<u64>,
    /// Most leaders that any one term had; more than 1 breaks Raft.
    pub max_leaders_per_term: u32,
    /// Changes of leadership that no fault had called for.
    pub spurious_failovers: u32,
    /// When the trial began, RFC 3339 in UTC.
    pub started_at: String,
    /// t_suspect - t_fault.
    pub suspect_us: Option<f64>,
    /// t_dead - t_fault, for faults that end the process.
    pub dead_us: Option<f64>,
    /// The block of trials that it ran in, from 1.
    pub block: u32,
    /// Messages that all nodes sent from t_fault to t_ready; empty where nobody counts them.
    pub messages: Option<u64>,
    /// From t_fault until the old leader stepped down; empty if its process ended.
    pub step_down_us: Option<f64>,
}

impl TrialRow {
    /// The columns of `trials.csv`, in order.
    pub const HEADER: [&'static str; 36] = [
        "trial",
        "cell",
        "variant",
        "verdict",
        "reason",
        "fault",
        "target",
        "old_leader",
        "new_leader",
        "passed_by",
        "rank",
        "evidence",
        "detect_us",
        "promote_us",
        "commit_us",
        "leaderless_us",
        "announced_us",
        "outage_us",
        "restored_us",
        "clock_bound_us",
        "campaigns",
        "terms",
        "split_votes",
        "refusals",
        "acked_writes",
        "failed_writes",
        "unknown_writes",
        "lost_writes",
        "max_leaders_per_term",
        "spurious_failovers",
        "started_at",
        "suspect_us",
        "dead_us",
        "block",
        "messages",
        "step_down_us",
    ];

    /// The row's cells, as they stand in `trials.csv`, in the order of [`TrialRow::HEADER`].
    pub fn fields(&self) -> [String; 36] {
        fn cell(value: Option<impl ToString>) -> String {
            value.map(|value| value.to_string()).unwrap_or_default()
        }
        [
            self.trial.to_string(),
            self.cell.clone(),
            self.variant.clone(),
            self.verdict.to_string(),
            self.reason.clone(),
            self.fault.clone(),
            self.target.clone(),
            self.old_leader.to_string(),
            cell(self.new_leader),
            cell(self.passed_by),
            cell(self.rank),
            cell(self.evidence),
            cell(self.detect_us),
            cell(self.promote_us),
            cell(self.commit_us),
            cell(self.leaderless_us),
            cell(self.announced_us),
            cell(self.outage_us),
            cell(self.restored_us),
            cell(self.clock_bound_us),
            self.campaigns.to_string(),
            cell(self.terms),
            self.split_votes.to_string(),
            self.refusals.clone(),
            cell(self.acked_writes),
            cell(self.failed_writes),
            cell(self.unknown_writes),
            cell(self.lost_writes),
            self.max_leaders_per_term.to_string(),
            self.spurious_failovers.to_string(),
            self.started_at.clone(),
            cell(self.suspect_us),
            cell(self.dead_us),
            self.block.to_string(),
            cell(self.messages),
            cell(self.step_down_us),
        ]
    }

    /// Whether the trial enters the statistics.
    pub fn counts(&self) -> bool {
        matches!(self.verdict, Verdict::Ok | Verdict::Censored)
    }
}

/// The records handed to [`row`] are not those of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the records hold no whole trial; give everything from trial_started to trial_ended")]
pub struct NoTrial;

/// The rows of every complete trial that counts (no warm-ups), in the order in which they ran.
pub fn rows(plan: &Plan, records: &[Record], ops: &Ops) -> Vec<TrialRow> {
    let trials = timeline::trials(records);
    let counted = trials.iter().filter(|trial| !trial.warmup);
    counted.filter_map(|trial| measure(plan, trial, ops.of(trial.number)).ok()).collect()
}

/// When the fault of every complete trial struck first, nanoseconds.
pub fn faults(records: &[Record]) -> BTreeMap<u64, u64> {
    let first = |trial: &Trial| Some((trial.number, *struck(&trial.records).values().min()?));
    timeline::trials(records).iter().filter(|trial| !trial.warmup).filter_map(first).collect()
}

/// The row of the first trial in `records`, which hold everything from its `trial_started` to its
/// `trial_ended`, in the order of arrival; what lies around it does no harm. `ops` are the probe's
/// operations of that trial. Takes time in proportion to the number of both.
///
/// # Errors
/// [`NoTrial`] if the records do not hold both.
pub fn row(plan: &Plan, records: &[Record], ops: &[Op]) -> Result<TrialRow, NoTrial> {
    measure(plan, &timeline::trial(records).ok_or(NoTrial)?, ops)
}

fn measure(plan: &Plan, trial: &Trial, ops: &[Op]) -> Result<TrialRow, NoTrial> {
    let records = &trial.records;
    let mut row = begun(records).ok_or(NoTrial)?;
    let log = plan.setting(&row.cell, &row.variant).map_or(LogFacts::WHOLE, |s| s.log);
    row.clock_bound_us = trial.clock_bound_ns.map(|bound| micros(0, bound) + log.bound_us);
    let mut odd = Vec::new();
    let mut restored = None;
    for record in records {
        if let Event::TrialEnded { verdict, reason, restored_mono_ns, messages, .. } = &record.event
        {
            row.messages = *messages;
            row.verdict = *verdict;
            row.reason = reason.clone().unwrap_or_default();
            restored = *restored_mono_ns;
        }
    }
    let struck = struck(records);
    let severed = struck_by(records, FaultAction::severs);
    leaders(records, &mut row, &mut odd);
    let fault = struck.values().min().copied();
    match fault {
        None if row.verdict == Verdict::Ok => odd.push("no fault was recorded".into()),
        None => {}
        // Only the loss of the leader calls for another one.
        Some(fault) if severed.contains_key(&row.old_leader) => {
            passing(plan, records, fault, &severed, &mut row);
            row.restored_us = restored.map(|at| micros(fault, at));
            missing(&row, log, &mut odd);
        }
        Some(fault) => unrest(records, fault, &mut row),
    }
    let felt = fault.map(|fault| outage::felt(records, fault, ops, &row));
    outage::measure(ops, felt, &mut row);
    contradictions(&row, log, &mut odd);
    if let Some((fault, felt)) = fault.zip(felt) {
        outage::contradiction(records, micros(fault, felt), &row, &mut odd);
    }
    if !odd.is_empty() && row.counts() {
        row.verdict = Verdict::Inconsistent;
    }
    let said = Some(row.reason.clone()).filter(|reason| !reason.is_empty());
    // The times of such a trial are as good as any.
    let lost = row.lost_writes.filter(|lost| *lost > 0);
    let lost = lost.map(|lost| format!("{lost} acknowledged writes were lost"));
    let notes: Vec<String> =
        said.into_iter().chain(odd).chain(lost).chain(trial.gaps.clone()).collect();
    row.reason = notes.join("; ");
    Ok(row)
}

/// From one instant to another in microseconds; the quotient is the double nearest to the exact
/// decimal, so it prints with three decimals at most.
fn micros(from: u64, to: u64) -> f64 {
    (i128::from(to) - i128::from(from)) as f64 / 1000.0
}

fn after(records: &[Record], at: u64) -> impl Iterator<Item = &Record> {
    records.iter().filter(move |record| record.mono_ns >= at)
}

/// The row as it is when the trial begins.
fn begun(records: &[Record]) -> Option<TrialRow> {
    let (record, event) = records.iter().find_map(|record| match &record.event {
        event @ Event::TrialStarted { .. } => Some((record, event)),
        _ => None,
    })?;
    let Event::TrialStarted { trial, cell, variant, block, fault, target, leader, .. } = event
    else {
        return None;
    };
    let began = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(record.wall_ns);
    Some(TrialRow {
        trial: *trial,
        cell: cell.clone(),
        variant: variant.clone(),
        verdict: Verdict::Invalid,
        reason: String::new(),
        fault: fault.clone(),
        target: target.clone(),
        old_leader: *leader,
        new_leader: None,
        passed_by: None,
        rank: None,
        evidence: None,
        detect_us: None,
        promote_us: None,
        commit_us: None,
        leaderless_us: None,
        announced_us: None,
        outage_us: None,
        restored_us: None,
        clock_bound_us: None,
        campaigns: 0,
        terms: None,
        split_votes: 0,
        refusals: String::new(),
        acked_writes: None,
        failed_writes: None,
        unknown_writes: None,
        lost_writes: None,
        max_leaders_per_term: 0,
        spurious_failovers: 0,
        started_at: humantime::format_rfc3339_millis(began).to_string(),
        suspect_us: None,
        dead_us: None,
        block: *block,
        messages: None,
        step_down_us: None,
    })
}

/// When the fault first struck each node. Undoing a fault is none.
fn struck(records: &[Record]) -> BTreeMap<NodeId, u64> {
    struck_by(records, |_| true)
}

/// The same for faults of some kind.
fn struck_by(records: &[Record], kind: impl Fn(FaultAction) -> bool) -> BTreeMap<NodeId, u64> {
    let mut struck = BTreeMap::new();
    for record in records {
        if let Event::FaultApplied { node, action, .. } = record.event
            && !action.undoes()
            && kind(action)
        {
            struck.entry(node).or_insert(record.mono_ns);
        }
    }
    struck
}

/// What became of a cluster whose leader the fault has left in place: nobody had to stand, and no
/// term had to be used up.
fn unrest(records: &[Record], fault: u64, row: &mut TrialRow) {
    contest(records, fault, u64::MAX, row);
    let newest = records.iter().filter_map(|record| match record.event {
        Event::CampaignStarted { term, .. }
        | Event::Elected { term, .. }
        | Event::LeaderAccepted { term, .. } => Some(term),
        _ => None,
    });
    let Some(started) = started_term(records) else { return };
    row.terms = newest.max().unwrap_or(started).checked_sub(started);
}

/// Leaders per term, by every witness, and changes of leadership that no fault had called for.
fn leaders(records: &[Record], row: &mut TrialRow, odd: &mut Vec<String>) {
    let mut by_term: BTreeMap<Term, BTreeSet<NodeId>> = BTreeMap::new();
    let (mut current, mut called_for) = (row.old_leader, false);
    for record in records {
        match (&record.source, &record.event) {
            (_, Event::TrialStarted { leader, term, .. })
            | (_, Event::LeaderAccepted { leader, term }) => {
                by_term.entry(*term).or_default().insert(*leader);
            }
            (_, Event::FaultApplied { node, action, .. }) if action.severs() => {
                called_for |= *node == current;
            }
            (Source::Node(node), Event::Elected { term, .. }) => {
                by_term.entry(*term).or_default().insert(*node);
                row.spurious_failovers += u32::from(!called_for);
                (current, called_for) = (*node, false);
            }
            _ => {}
        }
    }
    row.max_leaders_per_term = by_term.values().map(|nodes| nodes.len() as u32).max().unwrap_or(0);
    for (term, nodes) in by_term.iter().filter(|(_, nodes)| nodes.len() > 1) {
        let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        odd.push(format!("{} leaders in term {term}: {}", nodes.len(), nodes.join(", ")));
    }
}

/// How leadership passed, from the fault to the new leader's no-op.
fn passing(
    plan: &Plan,
    records: &[Record],
    fault: u64,
    struck: &BTreeMap<NodeId, u64>,
    row: &mut TrialRow,
) {
    let dead = after(records, fault).find(|record| {
        matches!(record.event, Event::ProcessExited { node, .. } if node == row.old_leader)
    });
    row.dead_us = dead.map(|record| micros(fault, record.mono_ns));
    let down = after(records, fault).find(|record| {
        record.source == Source::Node(row.old_leader)
            && matches!(record.event, Event::SteppedDown { .. })
    });
    row.step_down_us = down.map(|record| micros(fault, record.mono_ns));
    let elections = after(records, fault).filter_map(|r| match (&r.source, &r.event) {
        (Source::Node(node), Event::Elected { term, campaign, rank, .. }) => {
            let fell_too = struck.get(node).is_some_and(|at| *at > r.mono_ns);
            (!fell_too).then_some((r.mono_ns, *node, *term, *campaign, *rank))
        }
        _ => None,
    });
    let elections: Vec<_> = elections.collect();
    let served = |node: NodeId, term: Term| {
        let ready = |event: &Event| matches!(event, Event::Ready { term: of, .. } if *of == term);
        records.iter().any(|r| r.source == Source::Node(node) && ready(&r.event))
    };
    let first_to_serve = elections.iter().find(|(_, node, term, ..)| served(*node, *term));
    let won = first_to_serve.or(elections.first()).copied();
    contest(records, fault, won.map_or(u64::MAX, |(at, ..)| at), row);
    let Some((elected, winner, term, campaign, rank)) = won else { return };
    row.new_leader = Some(winner);
    row.passed_by = Some(campaign);
    // A leader that hands over asks its Primary, but that is no promotion.
    row.rank = rank.filter(|_| campaign == CampaignKind::Promotion);
    row.leaderless_us = Some(micros(fault, elected));
    row.terms = started_term(records).and_then(|old| term.checked_sub(old));

    let own = || records.iter().filter(move |r| r.source == Source::Node(winner));
    let stood = own().find_map(|record| match record.event {
        Event::CampaignStarted { term: of, evidence, .. } if of == term => {
            Some((record.mono_ns, evidence))
        }
        _ => None,
    });
    if let Some((stood, evidence)) = stood {
        row.evidence = Some(evidence);
        row.detect_us = Some(micros(fault, stood));
        row.promote_us = Some(micros(stood, elected));
        let suspected =
            own().rfind(|r| r.mono_ns <= stood && matches!(r.event, Event::Suspected { .. }));
        row.suspect_us = suspected.map(|record| micros(fault, record.mono_ns));
    }
    let ready = own().find(|r| matches!(r.event, Event::Ready { term: of, .. } if of == term));
    row.commit_us = ready.map(|record| micros(elected, record.mono_ns));

    let size = plan.size(&row.cell, &row.variant);
    let spared = (1..=size).filter(|node| *node != winner && !struck.contains_key(node));
    let known: Option<Vec<u64>> = spared
        .map(|node| {
            let accepted = |r: &&Record| {
                r.source == Source::Node(node)
                    && matches!(r.event, Event::LeaderAccepted { leader, term: of }
                        if leader == winner && of == term)
            };
            records.iter().find(accepted).map(|record| record.mono_ns)
        })
        .collect();
    let last = known.filter(|_| size > 0).and_then(|known| known.into_iter().max());
    row.announced_us = last.map(|at| micros(fault, at));
}

fn started_term(records: &[Record]) -> Option<Term> {
    records.iter().find_map(|record| match record.event {
        Event::TrialStarted { term, .. } => Some(term),
        _ => None,
    })
}

/// Who stood between the fault and `elected`, and who was refused.
fn contest(records: &[Record], fault: u64, elected: u64, row: &mut TrialRow) {
    let mut candidates: BTreeMap<Term, BTreeSet<&Source>> = BTreeMap::new();
    let mut won = BTreeSet::new();
    let mut refusals = BTreeMap::new();
    for record in after(records, fault).take_while(|record| record.mono_ns <= elected) {
        match &record.event {
            Event::CampaignStarted { term, .. } => {
                row.campaigns += 1;
                candidates.entry(*term).or_default().insert(&record.source);
            }
            Event::Elected { term, .. } => {
                won.insert(*term);
            }
            Event::VoteReceived { refusal: Some(refusal), .. } => {
                *refusals.entry(*refusal).or_insert(0) += 1;
            }
            _ => {}
        }
    }
    let split =
        |(term, nodes): &(&Term, &BTreeSet<&Source>)| nodes.len() > 1 && !won.contains(*term);
    row.split_votes = candidates.iter().filter(split).count() as u32;
    let counted: Vec<String> =
        refusals.iter().map(|(reason, count): (_, &u32)| format!("{reason}:{count}")).collect();
    row.refusals = counted.join(";");
}

/// What must have been seen if the harness is right to call the trial `ok`.
fn missing(row: &TrialRow, log: LogFacts, odd: &mut Vec<String>) {
    if row.verdict != Verdict::Ok {
        return;
    }
    if row.leaderless_us.is_none() {
        odd.push("the harness saw a new leader, the journals show none".into());
    } else if row.detect_us.is_none() {
        odd.push("the new leader's campaign was not recorded".into());
    } else if row.commit_us.is_none() && log.ready {
        odd.push("the new leader's no-op never committed".into());
    }
}

/// Spans that run backwards by more than clocks can explain.
fn contradictions(row: &TrialRow, log: LogFacts, odd: &mut Vec<String>) {
    let bound = row.clock_bound_us.unwrap_or(f64::INFINITY);
    // The first two lie on one clock.
    let spans = [
        ("promote", row.promote_us, log.bound_us),
        ("commit", row.commit_us, log.bound_us),
        ("suspect", row.suspect_us, bound),
        ("detect", row.detect_us, bound),
        ("dead", row.dead_us, bound),
        ("restored", row.restored_us, bound),
        (
            "announced less leaderless",
            row.announced_us.zip(row.leaderless_us).map(|(known, elected)| known - elected),
            bound,
        ),
    ];
    for (name, span, bound) in spans {
        if let Some(span) = span.filter(|span| *span < -bound) {
            odd.push(format!("{name} is negative ({span} us)"));
        }
    }
}

#[cfg(test)]
mod tests;
