use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use super::{
    Cluster,
    verdicts::{History, Judgement},
};
use crate::{
    drawing,
    history::Operation,
    model::{Action, Register, RegisterOp, Value},
    ops::{OpKind, Outcome, Row},
    search::{self, Budget, Verdict},
};

/// Writes that nobody has recorded and that nobody has seen may still have come in between, so
/// that a comparison failed; so many are allowed for where operations are missing.
const UNSEEN_WRITES: usize = 16;

/// An operation, its trial's place in the life of the cluster, and the instants.
#[derive(Clone, Debug)]
struct Timed {
    trial: usize,
    start_ns: u64,
    end_ns: Option<u64>,
    op: RegisterOp,
}

/// How much of a trial's operations is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    All,
    /// The probe did not get to its end, so what was under way then is missing.
    Some,
    None,
}

impl Kept {
    fn of(rows: &[&Row]) -> Kept {
        match rows {
            [] => Kept::None,
            rows if super::audit_is_closed(rows) => Kept::All,
            _ => Kept::Some,
        }
    }
}

/// The histories of every key of a cluster, with drawings of what cannot be explained.
pub(super) fn check(
    cluster: &Cluster,
    rows: &BTreeMap<u64, Vec<&Row>>,
    budget: &Budget,
) -> Vec<(History, Option<String>)> {
    let end = Instant::now() + budget.time;
    let of = |trial: &u64| rows.get(trial).map_or(&[][..], Vec::as_slice);
    // Keys that are only ever written cannot contradict anything.
    let told: BTreeSet<Arc<str>> = cluster
        .trials
        .iter()
        .flat_map(of)
        .filter(|row| matches!(row.op, OpKind::Get | OpKind::Cas))
        .map(|row| row.key.clone())
        .collect();
    let kept: Vec<Kept> = cluster.trials.iter().map(|trial| Kept::of(of(trial))).collect();
    let mut checked = Vec::new();
    for (nth, key) in told.iter().enumerate() {
        let mut ops = Vec::new();
        for (place, trial) in cluster.trials.iter().enumerate() {
            ops.extend(
                of(trial).iter().filter(|row| row.key == *key).filter_map(|row| timed(row, place)),
            );
        }
        let failed: BTreeSet<Arc<str>> = cluster
            .trials
            .iter()
            .flat_map(of)
            .filter(|row| row.key == *key && row.outcome == Outcome::Failed)
            .filter_map(|row| row.value.clone())
            .collect();
        let left = (told.len() - nth) as u32;
        let share = end.saturating_duration_since(Instant::now()) / left;
        let budget = Budget { time: share, ..*budget };
        checked.extend(one_key(cluster, (key, &failed), &ops, &kept, &budget));
    }
    checked
}

/// The operation on a register, if it happened or may have.
fn timed(row: &Row, trial: usize) -> Option<Timed> {
    let value = || row.value.clone();
    let (action, known) = match (row.op, row.outcome) {
        (OpKind::Audit, _) | (_, Outcome::Failed) | (OpKind::Get, Outcome::Unknown) => return None,
        (OpKind::Put, outcome) => (Action::Write(value()?), outcome == Outcome::Ok),
        (OpKind::Get, Outcome::Ok) => {
            let found = row.found == Some(true);
            (Action::Read(found.then(|| value().unwrap_or_default())), true)
        }
        (OpKind::Cas, outcome) => {
            let known = outcome == Outcome::Ok;
            let swapped = !known || row.found == Some(true);
            (Action::Cas { expected: row.expected.clone(), new: value()?, swapped }, known)
        }
    };
    let op = RegisterOp { key: row.key.clone(), action };
    Some(Timed { trial, start_ns: row.start_ns, end_ns: row.end_ns.filter(|_| known), op })
}

/// The history of a key, in as many pieces as it has to be cut into.
fn one_key(
    cluster: &Cluster,
    (key, failed): (&Arc<str>, &BTreeSet<Arc<str>>),
    ops: &[Timed],
    kept: &[Kept],
    budget: &Budget,
) -> Vec<(History, Option<String>)> {
    let mut pieces = Vec::new();
    let mut from = 0;
    let end = Instant::now() + budget.time;
    while from < cluster.trials.len() {
        if kept[from] == Kept::None {
            from += 1;
            continue;
        }
        let gone = (from..kept.len()).find(|place| kept[*place] == Kept::None);
        let to = gone.unwrap_or(kept.len());
        if !ops.iter().any(|op| (from..to).contains(&op.trial)) {
            from = to;
            continue;
        }
        // Whatever is not known to have been first may have left anything behind.
        let before = kept[..from].iter().filter(|kept| **kept == Kept::None).count();
        let fresh = from == 0 && cluster.warmups == 0;
        let gaps = cluster.warmups
            + before
            + kept[..to].iter().filter(|kept| **kept == Kept::Some).count();
        let history = piece((key, failed), ops, from..to, gaps);
        let model = if fresh { Register::absent() } else { Register::carried_over() };
        let left = Budget { time: end.saturating_duration_since(Instant::now()), ..*budget };
        let checked = search::check(&model, &history, &left);
        let found = checked.keys.first().and_then(|key| key.prefix.as_ref());
        let stuck = found.map(|prefix| prefix.stuck);
        let until = stuck.map_or(to - 1, |stuck| trial_of(ops, from..to, stuck, history.len()));
        let (verdict, next) = match checked.verdict() {
            Verdict::Linearizable => (Judgement::Linearizable, to),
            Verdict::NotLinearizable => (Judgement::NotLinearizable, until + 1),
            Verdict::Undecided(_) => (Judgement::Undecided, to),
        };
        let last = if verdict == Judgement::NotLinearizable { until } else { to - 1 };
        let trial = |place: usize| cluster.trials[place];
        let violation = found.filter(|_| verdict == Judgement::NotLinearizable);
        let drawing = violation.map(|prefix| {
            let title = format!("{key} in trial {}: not linearizable", trial(until));
            drawing::draw(&title, &history, prefix)
        });
        let told = |stuck: usize| {
            let op = &history[stuck].op;
            let state = violation.map_or("", |prefix| &prefix.state);
            format!(
                "{op} in trial {} has a place in no order; one that explains all before it leaves \
                 {key} at {state}",
                trial(until)
            )
        };
        let own = || ops.iter().filter(|op| (from..=last).contains(&op.trial));
        let piece = History {
            cluster: cluster.number,
            cell: cluster.cell.clone(),
            variant: cluster.variant.clone(),
            key: key.to_string(),
            trials: (trial(from), trial(last)),
            operations: own().count(),
            unknown: own().filter(|op| op.end_ns.is_none()).count(),
            verdict,
            until: trial(until),
            violation: violation.map(|prefix| told(prefix.stuck)),
            drawing: None,
        };
        pieces.push((piece, drawing));
        from = next;
    }
    pieces
}

/// The operations of these trials on one line of time; before them, what may still come from
/// earlier ones, and, if `gaps` stretches of operations are missing, what may come from there.
fn piece(
    (key, failed): (&Arc<str>, &BTreeSet<Arc<str>>),
    ops: &[Timed],
    trials: std::ops::Range<usize>,
    gaps: usize,
) -> Vec<Operation<RegisterOp>> {
    let own = || ops.iter().filter(|op| trials.contains(&op.trial));
    // Within a trial by its clock, one trial after the other.
    let mut instants: Vec<(usize, u64)> = own()
        .flat_map(|op| {
            [Some(op.start_ns), op.end_ns].into_iter().flatten().map(|ns| (op.trial, ns))
        })
        .collect();
    instants.sort_unstable();
    instants.dedup();
    let rank = |trial: usize, ns: u64| {
        instants.binary_search(&(trial, ns)).map_or(0, |place| place as u64 + 1)
    };
    let mut history: Vec<Operation<RegisterOp>> = own()
        .map(|op| Operation {
            process: 0,
            call: rank(op.trial, op.start_ns),
            back: op.end_ns.map(|end| rank(op.trial, end)),
            op: op.op.clone(),
        })
        .collect();
    let earlier = ops.iter().filter(|op| op.trial < trials.start && op.end_ns.is_none());
    let mut before: Vec<RegisterOp> = earlier.map(|op| op.op.clone()).collect();
    if gaps > 0 {
        before.extend(unrecorded((key, failed), &history, gaps));
    }
    // After the others, so that positions of these are positions of `own`.
    history.extend(before.into_iter().map(|op| Operation { process: 0, call: 0, back: None, op }));
    rows(&mut history);
    history
}

/// Writes that somebody may have made whose operations were not kept: of values that were seen and
/// that nobody is known to have written, and of some that were not seen.
fn unrecorded(
    (key, failed): (&Arc<str>, &BTreeSet<Arc<str>>),
    history: &[Operation<RegisterOp>],
    gaps: usize,
) -> Vec<RegisterOp> {
    // What failed was recorded, and is not to be seen.
    let (mut written, mut seen) = (failed.clone(), BTreeSet::new());
    for operation in history {
        let see = |value: &Value, seen: &mut BTreeSet<Arc<str>>| seen.extend(value.clone());
        match &operation.op.action {
            Action::Read(value) => see(value, &mut seen),
            Action::Write(new) => {
                written.insert(new.clone());
            }
            Action::Cas { expected, new, swapped } => {
                see(expected, &mut seen);
                if *swapped {
                    written.insert(new.clone());
                }
            }
        }
    }
    let mut unseen = "unrecorded".to_owned();
    while seen.contains(&*unseen) {
        unseen.push('\'');
    }
    let foreign =
        seen.difference(&written).flat_map(|value| std::iter::repeat_n(value.clone(), gaps));
    let unseen = std::iter::repeat_n(Arc::from(unseen), UNSEEN_WRITES);
    foreign
        .chain(unseen)
        .map(|value| RegisterOp { key: key.clone(), action: Action::Write(value) })
        .collect()
}

/// The place of the trial that an operation of a piece belongs to.
fn trial_of(ops: &[Timed], trials: std::ops::Range<usize>, position: usize, len: usize) -> usize {
    debug_assert!(position < len);
    let mut own = ops.iter().filter(|op| trials.contains(&op.trial));
    own.nth(position).map_or(trials.start, |op| op.trial)
}

/// Gives operations that overlap different rows; the probe has no processes.
fn rows(history: &mut [Operation<RegisterOp>]) {
    let mut order: Vec<usize> = (0..history.len()).collect();
    order.sort_by_key(|at| history[*at].call);
    // The instant at which each row is free again.
    let mut free: std::collections::BinaryHeap<std::cmp::Reverse<(u64, u64)>> = Default::default();
    let mut rows = 0;
    for at in order {
        let row = match free.peek() {
            Some(std::cmp::Reverse((back, row))) if *back < history[at].call => {
                let row = *row;
                free.pop();
                row
            }
            _ => {
                rows += 1;
                rows
            }
        };
        history[at].process = row;
        free.push(std::cmp::Reverse((history[at].back.unwrap_or(u64::MAX), row)));
    }
}
