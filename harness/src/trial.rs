//! The life of one trial, from a settled cluster to a settled cluster.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};
use sraft_core::Span;
use sraft_events::{Event, FaultAction, NodeId, Record, Source, Verdict};

use crate::{
    cluster::{Cluster, Halt},
    fault::{self, Kind, Standing, Strike},
    plan::Launch,
    view::{Leader, View},
};

/// How long a cluster may take to settle, after its start or after a trial.
pub(crate) const SETTLED_WITHIN: Duration = Duration::from_secs(15);

/// What is to be tried.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    /// Its number in the plan; 0 for a warm-up.
    pub(crate) number: u64,
    pub(crate) cell: &'a str,
    pub(crate) variant: &'a str,
    pub(crate) block: u32,
    pub(crate) launch: &'a Launch,
    pub(crate) timeout: Duration,
}

/// What became of it.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    verdict: Verdict,
    reason: Option<String>,
    restored: Option<u64>,
    /// Whether the cluster can be used for another trial.
    pub(crate) sound: bool,
}

/// Waits until a trial may begin.
pub(crate) fn settle(cluster: &mut Cluster, launch: &Launch) -> Result<(), Halt> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    let missing = |cluster: &Cluster| cluster.view().missing(launch.size, launch.sub_leaders);
    let settled = cluster.wait(deadline, |view| {
        view.missing(launch.size, launch.sub_leaders).is_none().then_some(())
    })?;
    match settled {
        Some(()) => Ok(()),
        None => Err(Halt::Stuck(format!(
            "after {} s the cluster still waited for {}",
            SETTLED_WITHIN.as_secs(),
            missing(cluster).unwrap_or_default()
        ))),
    }
}

/// Conducts a trial on a settled cluster. The records of it, with `trial_started` first and
/// `trial_ended` last, are the cluster's afterwards.
pub(crate) fn conduct(
    cluster: &mut Cluster,
    trial: &Trial<'_>,
    rng: &mut impl Rng,
    stage: &mut dyn FnMut(&'static str),
) -> Result<Ended, Halt> {
    let Some(leader) = cluster.view().leader() else {
        return Err(Halt::Stuck("the leader is gone".to_owned()));
    };
    let ranks = cluster.view().ranks().to_vec();
    let standing = Standing {
        leader: leader.node,
        ranks: &ranks,
        size: trial.launch.size,
        sub_leaders: trial.launch.cell_sub_leaders,
    };
    let strike = fault::strike(&trial.launch.fault, &standing, rng);
    let victims: Vec<NodeId> = strike.actions.iter().map(|(node, _)| *node).collect();
    // A fault at a fixed distance from the last heartbeat would bias every figure by up to one
    // heartbeat.
    let phase = trial.launch.timing.heartbeat.mul_f64(rng.random());
    cluster.record(Event::TrialStarted {
        trial: trial.number,
        warmup: trial.number == 0,
        cell: trial.cell.to_owned(),
        variant: trial.variant.to_owned(),
        block: trial.block,
        fault: trial.launch.fault.kind.to_string(),
        target: trial.launch.fault.aim(),
        leader: leader.node,
        term: leader.term,
        ranks: ranks.clone(),
        victims: victims.clone(),
    });
    // A host that is reset can neither keep the time nor watch.
    let reset: &[NodeId] = if trial.launch.fault.kind == Kind::Reboot { &victims } else { &[] };
    let attempted = cluster
        .lean_on_others(reset)
        .and_then(|()| cluster.compare_clocks())
        .and_then(|()| attempt(cluster, trial, leader, &ranks, &strike, phase, stage));
    // Whatever has gone wrong, links are not left cut, disks not slow, and nothing armed.
    let mended = match trial.launch.fault.is_healed() {
        true => cluster.heal(&victims),
        false => Ok(()),
    };
    let ended = attempted
        .and_then(|ended| mended.map(|()| ended))
        .and_then(|ended| cluster.compare_clocks().map(|()| ended));
    let ended = match ended {
        Ok(ended) => ended,
        Err(Halt::Died(why) | Halt::Stuck(why)) => Ended::invalid(why, false),
        // Another agent can be started; what the lost one had to say of this trial is lost.
        Err(halt @ Halt::Agent { .. }) if cluster.is_remote() => {
            Ended::invalid(halt.to_string(), false)
        }
        Err(halt) => return Err(halt),
    };
    let ended = match cluster.stop_probe() {
        Ok(()) => ended,
        Err(Halt::Stuck(why)) => Ended { sound: ended.sound, ..ended.spoiled(why) },
        Err(Halt::Died(why)) => ended.spoiled(why),
        Err(halt @ Halt::Agent { .. }) if cluster.is_remote() => ended.spoiled(halt.to_string()),
        Err(halt) => return Err(halt),
    };
    let ended = match early_change(&cluster.placed_records()) {
        Some(why) => Ended { sound: ended.sound, ..Ended::invalid(why, true) },
        None => ended,
    };
    cluster.record(Event::TrialEnded {
        trial: trial.number,
        verdict: ended.verdict,
        reason: ended.reason.clone(),
        restored_mono_ns: ended.restored,
        messages: None,
    });
    Ok(ended)
}

impl Ended {
    /// What it would be if this had not happened, besides.
    fn spoiled(self, why: String) -> Ended {
        let both = self.reason.into_iter().chain([why]).collect::<Vec<_>>().join("; ");
        Ended::invalid(both, false)
    }

    fn invalid(reason: String, sound: bool) -> Ended {
        Ended { verdict: Verdict::Invalid, reason: Some(reason), restored: None, sound }
    }
}

fn attempt(
    cluster: &mut Cluster,
    trial: &Trial<'_>,
    leader: Leader,
    ranks: &[NodeId],
    strike: &Strike,
    phase: Duration,
    stage: &mut dyn FnMut(&'static str),
) -> Result<Ended, Halt> {
    let size = trial.launch.size;
    let fault = &trial.launch.fault;
    let ends = fault.kind.ends_processes();
    let victims: Vec<NodeId> = strike.actions.iter().map(|(node, _)| *node).collect();
    let victims = victims.as_slice();

    let around = trial.launch.probe.as_ref();
    if let Some(probe) = around {
        stage("probe");
        cluster.start_probe(probe, trial.number)?;
        cluster.pass(probe.before)?;
    }
    if let Some(links) = &fault.links {
        let after = trial.launch.probe.as_ref().map_or(Duration::ZERO, |probe| probe.after);
        let longest = trial.timeout + fault.duration + after;
        cluster.arm(strike, links, longest + LEASE_BEYOND)?;
    }
    if let Some(iops) = fault.iops {
        cluster.arm_disks(victims, iops)?;
    }
    if fault.kind == Kind::Reboot {
        cluster.arm_reboot(victims)?;
    }
    cluster.pass(phase)?;
    if cluster.view().leader() != Some(leader) {
        return Ok(Ended::invalid("the leader changed before the fault".to_owned(), true));
    }
    if cluster.view().ranks() != ranks {
        return Ok(Ended::invalid("the designation changed before the fault".to_owned(), true));
    }

    stage("fault");
    match (&fault.links, fault.kind.action()) {
        (Some(links), _) => cluster.strike(strike, links)?,
        (None, Some(_)) if fault.is_healed() => cluster.strike_disks(strike)?,
        (None, Some(FaultAction::Reboot)) => cluster.reboot(victims)?,
        (None, Some(action)) => cluster.fault(victims, action)?,
        (None, None) => {}
    }
    let struck_at = Instant::now();
    let deadline = struck_at + trial.timeout;

    stage("observe");
    let (mut verdict, mut reason) = (Verdict::Ok, None);
    let replaced = strike.actions.iter().any(|(node, a)| *node == leader.node && a.severs());
    for again in 1..fault.count {
        stage("again");
        if !strike_again(cluster, victims, deadline)? {
            let why = format!("node {} did not come back {again} times", fault::list(victims));
            return Ok(Ended { verdict, reason: Some(why), restored: None, sound: false });
        }
    }
    if replaced {
        if cluster.wait(deadline, |view| view.successor(leader, size, victims))?.is_none() {
            verdict = Verdict::Censored;
            reason = Some(format!("no new leader was known to all within {:?}", trial.timeout));
        }
    } else {
        // Nobody has to replace anybody: it is enough that the leader has noticed. What only
        // troubles links or disks may go unnoticed, and that is what is looked at.
        let pause = struck_at + fault.duration;
        let noticed = if ends { deadline } else { pause };
        cluster.wait(noticed, |view| {
            let away = victims.iter().all(|victim| !view.is_synced(*victim));
            (away && !fault.is_healed()).then_some(())
        })?;
    }
    if ends {
        let ended = cluster.wait(deadline.max(Instant::now() + A_MOMENT), |view| {
            victims.iter().all(|victim| !view.is_up(*victim)).then_some(())
        })?;
        if ended.is_none() {
            let why = format!("node {} did not end", fault::list(victims));
            return Ok(Ended { verdict, reason: Some(why), restored: None, sound: false });
        }
    }

    if let Some(probe) = around {
        let served = match felt(&cluster.placed_records()) {
            Some(fault) => cluster.wait_served(fault, deadline)?,
            None => true,
        };
        if !served {
            verdict = Verdict::Censored;
            let why = format!("no client was served within {:?}", trial.timeout);
            reason = Some(reason.map_or(why.clone(), |before| format!("{before}; {why}")));
        }
        let after = struck_at + probe.after;
        cluster.pass(after.saturating_duration_since(Instant::now()))?;
    }

    stage("heal");
    if fault.kind == Kind::Reboot {
        stage("boot");
        cluster.come_back(victims)?;
    }
    if ends {
        cluster.restart(victims)?;
    } else {
        // It lasts until there is a new leader, but at least as long as was asked for.
        let heal = struck_at + fault.duration;
        cluster.pass(heal.saturating_duration_since(Instant::now()))?;
        if fault.is_healed() {
            if replaced && fault.duration > trial.launch.timing.lease + A_MOMENT / 2 {
                // It cannot have heard of its successor, or hardly; it must have found out by
                // itself that it leads no more.
                let down = |view: &View| view.has_stepped_down(leader).then_some(());
                if cluster.wait(Instant::now(), down)?.is_none() {
                    reason.get_or_insert(format!(
                        "node {} still led when its links came back, {} after they were cut, though \
                         its lease is {}",
                        leader.node,
                        Span(fault.duration),
                        Span(trial.launch.timing.lease)
                    ));
                }
            }
            cluster.heal(victims)?;
        } else {
            cluster.fault(victims, FaultAction::Resume)?;
        }
    }
    let (restored, sound) = match settle(cluster, trial.launch) {
        Ok(()) => (Some(cluster.view().last_change()), true),
        Err(Halt::Stuck(why)) => {
            reason.get_or_insert(format!("not restored: {why}"));
            (None, false)
        }
        Err(Halt::Died(why)) => {
            reason.get_or_insert(format!("not restored: {why}"));
            (None, false)
        }
        Err(halt) => return Err(halt),
    };
    Ok(Ended { verdict, reason, restored, sound })
}

/// Has the victims started and killed once more. Returns whether they came that far.
fn strike_again(
    cluster: &mut Cluster,
    victims: &[NodeId],
    deadline: Instant,
) -> Result<bool, Halt> {
    let all = |up: bool| {
        move |view: &View| victims.iter().all(|victim| view.is_up(*victim) == up).then_some(())
    };
    if cluster.wait(deadline, all(false))?.is_none() {
        return Ok(false);
    }
    cluster.restart(victims)?;
    if cluster.wait(deadline, all(true))?.is_none() {
        return Ok(false);
    }
    cluster.fault(victims, FaultAction::Kill)?;
    Ok(true)
}

/// What the kernel gives rules beyond the time that a trial can take. They are removed long before.
const LEASE_BEYOND: Duration = Duration::from_secs(5);

/// For processes that have their signal already, but have not been seen to end.
const A_MOMENT: Duration = Duration::from_secs(2);

/// When the latest trial began, nanoseconds.
fn begun(records: &[Record]) -> Option<u64> {
    let begun = records.iter().rev().find(|r| matches!(r.event, Event::TrialStarted { .. }));
    begun.map(|record| record.mono_ns)
}

/// When the fault of the latest trial struck first, nanoseconds.
fn struck(records: &[Record]) -> Option<u64> {
    let begun = begun(records)?;
    let since = records.iter().filter(|record| record.mono_ns >= begun);
    let faults = since.filter(|record| matches!(record.event, Event::FaultApplied { .. }));
    faults.map(|record| record.mono_ns).min()
}

/// When clients could feel it first, nanoseconds, as far as that can be told before the end: nodes whose
/// disks are full serve for a while.
fn felt(records: &[Record]) -> Option<u64> {
    let struck = struck(records)?;
    let since = || records.iter().filter(|record| record.mono_ns >= struck);
    let full = since().any(|record| {
        matches!(record.event, Event::FaultApplied { action: FaultAction::DiskFull, .. })
    });
    let ends = since().filter(|record| matches!(record.event, Event::ProcessExited { .. }));
    let end = ends.map(|record| record.mono_ns).min();
    Some(end.filter(|_| full).unwrap_or(struck))
}

/// Whether the records tell of a change of leadership between the beginning of the trial and its
/// fault: they may arrive too late for the fault to be called off.
fn early_change(records: &[Record]) -> Option<String> {
    let begun = begun(records)?;
    let struck = struck(records)?;
    let early = records.iter().find(|record| {
        (begun..struck).contains(&record.mono_ns)
            && matches!(record.event, Event::Elected { .. } | Event::SteppedDown { .. })
    })?;
    match &early.source {
        Source::Node(node) => Some(format!("leadership changed before the fault, at node {node}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use sraft_events::CampaignKind;

    use super::*;

    fn record(source: Source, mono_ns: u64, event: Event) -> Record {
        Record { source, seq: 0, mono_ns, wall_ns: 0, event }
    }

    fn begun(at: u64) -> Record {
        let event = Event::TrialStarted {
            trial: 1,
            warmup: false,
            cell: String::new(),
            variant: String::new(),
            block: 1,
            fault: String::new(),
            target: String::new(),
            leader: 1,
            term: 1,
            ranks: vec![],
            victims: vec![1],
        };
        record(Source::Harness, at, event)
    }

    fn struck(at: u64) -> Record {
        let event = Event::FaultApplied { node: 1, pid: 1, action: FaultAction::Kill };
        record(Source::Agent("local".into()), at, event)
    }

    #[test]
    fn a_full_disk_is_felt_when_its_node_ends() {
        let exited = |at, node| {
            let event = Event::ProcessExited { node, pid: 1, code: Some(1), signal: None };
            record(Source::Agent("local".into()), at, event)
        };
        let fault = |action| {
            let event = Event::FaultApplied { node: 1, pid: 1, action };
            record(Source::Agent("local".into()), 20, event)
        };
        let of = |action| felt(&[begun(10), fault(action), exited(35, 1)]);
        assert_eq!(of(FaultAction::DiskFull), Some(35));
        assert_eq!(of(FaultAction::Kill), Some(20));
        assert_eq!(felt(&[begun(10), fault(FaultAction::DiskFull)]), Some(20), "it lives");
        assert_eq!(felt(&[begun(10)]), None);
    }

    fn elected(at: u64) -> Record {
        let campaign = CampaignKind::Election;
        record(Source::Node(2), at, Event::Elected { term: 2, campaign, rank: None, votes: 2 })
    }

    #[test]
    fn a_change_of_leadership_counts_as_early_by_its_stamp_not_by_its_arrival() {
        // The election of the trial before, of this one before its fault, and after it.
        assert_eq!(early_change(&[elected(5), begun(10), struck(20)]), None);
        let said = early_change(&[begun(10), struck(20), elected(15)]).unwrap();
        assert_eq!(said, "leadership changed before the fault, at node 2");
        assert_eq!(early_change(&[begun(10), struck(20), elected(25)]), None);
        assert_eq!(early_change(&[begun(10), elected(15)]), None, "nothing was struck");
    }

    #[test]
    fn only_the_latest_trial_is_looked_at() {
        let records = [begun(10), elected(12), struck(20), begun(30), struck(40), elected(50)];
        assert_eq!(early_change(&records), None);
    }
}
