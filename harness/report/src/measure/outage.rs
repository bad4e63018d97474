//! What the probe felt of a trial.

use std::collections::BTreeSet;

use sraft_events::{Event, FaultAction, NodeId, Record};

use super::{TrialRow, micros};
use crate::results::{Op, OpKind, OpOutcome};

/// From when on clients can feel a fault. A leader whose disk is full serves until it needs another
/// block of it, and ends then. One that is cut off serves until its links are cut, some time after the
/// stamp, and one whose host is reset until the kernel gets round to it, which nobody on that host can
/// tell of: the last write that was acknowledged before there was a successor does.
pub(super) fn felt(records: &[Record], fault: u64, ops: &[Op], row: &TrialRow) -> u64 {
    let end = |record: &&Record| {
        record.mono_ns >= fault
            && matches!(record.event, Event::ProcessExited { node, .. } if node == row.old_leader)
    };
    match done_to(records, row.old_leader) {
        Some(FaultAction::DiskFull) => {
            records.iter().find(end).map_or(fault, |record| record.mono_ns)
        }
        Some(action @ (FaultAction::Isolate | FaultAction::Partition)) => {
            last_served(ops, fault, in_force(records, action).unwrap_or(fault), row)
        }
        Some(FaultAction::Reboot) => last_served(ops, fault, u64::MAX, row),
        _ => fault,
    }
}

/// When a fault was in force on every host that was to bring it about.
fn in_force(records: &[Record], which: FaultAction) -> Option<u64> {
    let stamps = records.iter().filter_map(|record| match record.event {
        Event::FaultInForce { action, .. } if action == which => Some(record.mono_ns),
        _ => None,
    });
    stamps.max()
}

/// The end of the last write that the old leader acknowledged although the fault had been stamped; the
/// fault if there is none. It cannot be one that was meant to start when the fault was in force.
fn last_served(ops: &[Op], fault: u64, in_force: u64, row: &TrialRow) -> u64 {
    let (Some(leaderless), Some(bound)) = (row.leaderless_us, row.clock_bound_us) else {
        return fault;
    };
    let writes = ops.iter().filter(|op| op.acknowledged_write() && op.intended_ns <= in_force);
    let ends = writes.filter_map(|op| op.end_ns);
    ends.filter(|end| micros(fault, *end) < leaderless - bound).max().unwrap_or(0).max(fault)
}

/// The first thing that was done to this node.
fn done_to(records: &[Record], to: NodeId) -> Option<FaultAction> {
    records.iter().find_map(|record| match record.event {
        Event::FaultApplied { node, action, .. } if node == to => Some(action),
        _ => None,
    })
}

/// Fills in the columns of the probe; all stay empty if it did nothing in this trial.
pub(super) fn measure(ops: &[Op], felt: Option<u64>, row: &mut TrialRow) {
    if ops.is_empty() {
        return;
    }
    let count = |outcome: OpOutcome| {
        ops.iter().filter(|op| op.writes() && op.outcome == outcome).count() as u64
    };
    row.acked_writes = Some(ops.iter().filter(|op| op.acknowledged_write()).count() as u64);
    row.failed_writes = Some(count(OpOutcome::Failed));
    row.unknown_writes = Some(count(OpOutcome::Unknown));
    row.lost_writes = lost(ops);
    row.outage_us = felt.and_then(|felt| outage_us(ops, felt));
}

/// From the last write that was acknowledged before the fault to the first acknowledged one that was
/// meant to start after it. Intended starts, so that a probe that is held up cannot shorten it.
fn outage_us(ops: &[Op], fault: u64) -> Option<f64> {
    let writes = || ops.iter().filter(|op| op.acknowledged_write());
    let before = writes().filter_map(|op| op.end_ns).filter(|end| *end <= fault).max()?;
    let served = writes().filter(|op| op.intended_ns > fault).filter_map(|op| op.end_ns).min()?;
    Some(micros(before, served))
}

/// Acknowledged writes that the audit did not find. Unknown unless the audit got to its end.
fn lost(ops: &[Op]) -> Option<u64> {
    let audited = || ops.iter().filter(|op| op.kind == OpKind::Audit);
    let closed = |op: &Op| op.key.is_empty() && op.outcome == OpOutcome::Ok;
    if !audited().any(closed) {
        return None;
    }
    let absent: BTreeSet<&str> =
        audited().filter(|op| op.found == Some(false)).map(|op| &*op.key).collect();
    // What was tried and failed, or is unknown, may be absent.
    let acknowledged = ops.iter().filter(|op| op.kind == OpKind::Put && op.acknowledged_write());
    Some(acknowledged.filter(|op| absent.contains(&*op.key)).count() as u64)
}

/// Two witnesses of one event: no client can be served by a leader that does not exist yet. Only
/// where the old leader was struck at once; one that is told to stop serves until it hands over, and
/// for others see [`felt`], which is in microseconds after the fault here.
pub(super) fn contradiction(records: &[Record], felt: f64, row: &TrialRow, odd: &mut Vec<String>) {
    let at_once = done_to(records, row.old_leader).map(|action| {
        !matches!(action, FaultAction::Stop | FaultAction::DiskFull | FaultAction::Reboot)
    });
    let bound = row.clock_bound_us.unwrap_or(f64::INFINITY);
    if let (Some(true), Some(outage), Some(leaderless)) =
        (at_once, row.outage_us, row.leaderless_us)
        && outage < leaderless - felt - bound
    {
        odd.push(format!(
            "the probe was served {outage} us after its last write, before there was a leader \
             ({leaderless} us after the fault)"
        ));
    }
}
