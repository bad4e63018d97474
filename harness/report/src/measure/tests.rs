use super::*;
use crate::script::{Script, plan};

const SILENCE: Evidence = Evidence::Silence;

fn measured(script: &Script) -> TrialRow {
    row(&plan(), script.records(), &[]).unwrap()
}

fn stands(term: Term) -> Event {
    let campaign = CampaignKind::Election;
    Event::CampaignStarted { term, campaign, rank: None, evidence: SILENCE }
}

fn elected(term: Term) -> Event {
    Event::Elected { term, campaign: CampaignKind::Election, rank: None, votes: 3 }
}

fn accepts(leader: NodeId, term: Term) -> Event {
    Event::LeaderAccepted { leader, term }
}

#[test]
fn promotion_gives_every_figure() {
    let fields = measured(&Script::promotion(7, 1000, 172)).fields();
    insta::assert_snapshot!(
        TrialRow::HEADER.iter().zip(&fields).map(|(name, cell)| format!("{name}={cell}\n")).collect::<String>(),
        @r"
    trial=7
    cell=
    variant=s-raft
    verdict=ok
    reason=
    fault=kill
    target=leader
    old_leader=1
    new_leader=2
    passed_by=promotion
    rank=0
    evidence=silence
    detect_us=170500
    promote_us=1500
    commit_us=1250
    leaderless_us=172000
    announced_us=172750
    outage_us=
    restored_us=471000
    clock_bound_us=0
    campaigns=1
    terms=1
    split_votes=0
    refusals=log_behind:1
    acked_writes=
    failed_writes=
    unknown_writes=
    lost_writes=
    max_leaders_per_term=1
    spurious_failovers=0
    started_at=2026-01-01T00:00:01.000Z
    suspect_us=170000
    dead_us=500
    block=1
    messages=
    step_down_us=
    "
    );
}

#[test]
fn two_candidates_and_no_winner_are_a_split_vote() {
    let row = measured(
        &Script::begin(1, 0.0)
            .kill(10.0)
            .node(4, 500.0, stands(2))
            .node(5, 501.0, stands(2))
            .node(3, 900.0, stands(3))
            .node(3, 902.0, elected(3))
            .node(3, 903.0, Event::Ready { term: 3, index: 4 })
            .end(1, 1200.0, Verdict::Ok),
    );
    assert_eq!((row.split_votes, row.campaigns, row.terms), (1, 3, Some(2)));
    assert_eq!((row.new_leader, row.passed_by), (Some(3), Some(CampaignKind::Election)));
    assert_eq!((row.detect_us, row.promote_us), (Some(890_000.0), Some(2_000.0)));
    // Nodes 2, 4 and 5 never told that they know the leader.
    assert_eq!(row.announced_us, None);
    assert_eq!(row.verdict, Verdict::Ok, "{}", row.reason);
}

#[test]
fn candidate_that_fails_alone_is_no_split_vote() {
    let row = measured(
        &Script::begin(1, 0.0)
            .kill(10.0)
            .node(4, 500.0, stands(2))
            .node(3, 900.0, stands(3))
            .node(3, 902.0, elected(3))
            .node(3, 903.0, Event::Ready { term: 3, index: 4 })
            .end(1, 1200.0, Verdict::Ok),
    );
    assert_eq!((row.split_votes, row.campaigns), (0, 2));
}

#[test]
fn two_leaders_in_a_term_are_inconsistent() {
    let mut script = Script::promotion(1, 0, 172);
    let end = script.records().last().cloned().unwrap();
    script = script.node(4, 200.0, accepts(5, 2)).harness(400.0, end.event);
    let row = measured(&script);
    assert_eq!(row.verdict, Verdict::Inconsistent);
    assert_eq!(row.max_leaders_per_term, 2);
    assert_eq!(row.reason, "2 leaders in term 2: 2, 5");
}

#[test]
fn censored_trial_has_no_figures() {
    let row = measured(&Script::begin(1, 0.0).kill(10.0).node(4, 500.0, stands(2)).end(
        1,
        10_010.0,
        Verdict::Censored,
    ));
    assert_eq!(row.verdict, Verdict::Censored);
    assert_eq!((row.leaderless_us, row.detect_us, row.new_leader), (None, None, None));
    assert_eq!(row.campaigns, 1);
    assert_eq!(row.fields()[15], "");
}

#[test]
fn leader_that_changes_before_the_fault_is_spurious() {
    let row =
        measured(&Script::begin(1, 0.0).node(3, 5.0, elected(2)).end(1, 20.0, Verdict::Invalid));
    assert_eq!((row.spurious_failovers, row.verdict), (1, Verdict::Invalid));
    assert_eq!(row.leaderless_us, None);
}

#[test]
fn further_leader_without_a_further_fault_is_spurious() {
    let script = Script::begin(1, 0.0)
        .kill(10.0)
        .node(3, 200.0, stands(2))
        .node(3, 202.0, elected(2))
        .node(3, 203.0, Event::Ready { term: 2, index: 4 })
        .node(4, 300.0, elected(3))
        .end(1, 500.0, Verdict::Ok);
    let row = measured(&script);
    assert_eq!((row.spurious_failovers, row.new_leader), (1, Some(3)));
}

#[test]
fn leader_that_is_deposed_before_it_serves_is_not_the_winner() {
    let row = measured(
        &Script::begin(1, 0.0)
            .kill(10.0)
            .node(2, 100.0, stands(2))
            .node(2, 101.0, elected(2))
            .node(3, 102.0, stands(3))
            .node(3, 105.0, elected(3))
            .node(3, 107.0, Event::Ready { term: 3, index: 9 })
            .end(1, 500.0, Verdict::Ok),
    );
    assert_eq!((row.verdict, row.new_leader), (Verdict::Ok, Some(3)));
    assert_eq!((row.leaderless_us, row.commit_us), (Some(95_000.0), Some(2_000.0)));
    assert_eq!((row.spurious_failovers, row.campaigns), (1, 2), "and it is still counted");
}

#[test]
fn sub_leader_that_falls_after_winning_is_not_the_winner() {
    let kill = |node| Event::FaultApplied { node, pid: 0, action: FaultAction::Kill };
    let row = measured(
        &Script::begin(1, 0.0)
            .kill(10.0)
            .node(2, 11.0, stands(2))
            .node(2, 11.5, elected(2))
            .agent(12.0, kill(2))
            .node(3, 260.0, stands(3))
            .node(3, 261.0, elected(3))
            .node(3, 262.0, Event::Ready { term: 3, index: 4 })
            .node(4, 262.0, accepts(3, 3))
            .node(5, 263.0, accepts(3, 3))
            .end(1, 500.0, Verdict::Ok),
    );
    assert_eq!((row.new_leader, row.leaderless_us), (Some(3), Some(251_000.0)));
    assert_eq!((row.announced_us, row.spurious_failovers), (Some(253_000.0), 0));
}

#[test]
fn suspicion_before_the_fault_is_inconsistent() {
    let suspected = Event::Suspected { leader: Some(1), term: 1, evidence: SILENCE };
    let row = measured(
        &Script::begin(1, 0.0)
            .node(3, 9.0, suspected)
            .kill(10.0)
            .node(3, 10.5, stands(2))
            .node(3, 11.0, elected(2))
            .node(3, 12.0, Event::Ready { term: 2, index: 4 })
            .end(1, 500.0, Verdict::Ok),
    );
    assert_eq!(row.verdict, Verdict::Inconsistent);
    assert_eq!(row.reason, "suspect is negative (-1000 us)");
}

#[test]
fn ok_without_a_leader_in_the_journals_is_inconsistent() {
    let row = measured(&Script::begin(1, 0.0).kill(10.0).end(1, 500.0, Verdict::Ok));
    assert_eq!(row.verdict, Verdict::Inconsistent);
    assert_eq!(row.reason, "the harness saw a new leader, the journals show none");
}

#[test]
fn resumed_process_is_not_a_fault() {
    let act = |action| Event::FaultApplied { node: 1, pid: 0, action };
    let row = measured(
        &Script::begin(1, 0.0)
            .agent(5.0, act(FaultAction::Resume))
            .agent(10.0, act(FaultAction::Pause))
            .node(3, 160.0, stands(2))
            .node(3, 161.0, elected(2))
            .node(3, 162.0, Event::Ready { term: 2, index: 4 })
            .agent(200.0, act(FaultAction::Resume))
            .end(1, 500.0, Verdict::Ok),
    );
    assert_eq!((row.leaderless_us, row.dead_us), (Some(151_000.0), None));
}

#[test]
fn records_of_two_hosts_leave_the_clock_bound_open() {
    let mut script = Script::begin(1, 0.0).kill(10.0);
    script.put(
        Source::Agent("other".into()),
        20_000_000,
        Event::ProcessStarted { node: 9, pid: 1 },
    );
    let row = measured(&script.end(1, 500.0, Verdict::Invalid));
    assert_eq!(row.clock_bound_us, None);
}

#[test]
fn follower_that_is_struck_calls_for_no_leader() {
    let kill = Event::FaultApplied { node: 4, pid: 0, action: FaultAction::Kill };
    let row = measured(&Script::begin(1, 0.0).agent(10.0, kill).end(1, 500.0, Verdict::Ok));
    assert_eq!((row.verdict, row.leaderless_us), (Verdict::Ok, None), "{}", row.reason);
}

#[test]
fn half_a_trial_is_refused() {
    assert_eq!(row(&plan(), &[], &[]), Err(NoTrial));
    assert_eq!(row(&plan(), Script::begin(1, 0.0).records(), &[]), Err(NoTrial));
}

proptest::proptest! {
    /// Whatever is lost between start and end, there is a row; a loss within a journal is noted,
    /// and what was never seen is empty.
    #[test]
    fn lost_records_leave_a_row_with_gaps(kept in proptest::collection::vec(proptest::bool::ANY, 12)) {
        let whole = Script::promotion(1, 0, 172);
        let last = whole.records().len() - 1;
        let records: Vec<Record> = whole
            .records()
            .iter()
            .enumerate()
            .filter(|(at, _)| *at == 0 || *at == last || kept.get(at % kept.len()) == Some(&true))
            .map(|(_, record)| record.clone())
            .collect();
        let row = row(&plan(), &records, &[]).unwrap();
        let has = |wanted: fn(&Event) -> bool| records.iter().any(|r| wanted(&r.event));
        let fault = has(|e| matches!(e, Event::FaultApplied { .. }));
        let won = has(|e| matches!(e, Event::Elected { .. }));
        let stood = has(|e| matches!(e, Event::CampaignStarted { .. }));
        let ready = has(|e| matches!(e, Event::Ready { .. }));
        proptest::prop_assert_eq!(row.leaderless_us.is_some(), fault && won);
        proptest::prop_assert_eq!(row.detect_us.is_some(), fault && won && stood);
        proptest::prop_assert_eq!(row.verdict == Verdict::Ok, fault && won && stood && ready);
        proptest::prop_assert!(row.verdict == Verdict::Ok || !row.reason.is_empty());
    }

    /// Phases add up, and cells hold microseconds with three decimals at most, whatever the times.
    #[test]
    fn phases_add_up(fault in 0_u64..1 << 50, detect in 0_u64..20_000_000_000, promote in 0_u64..1_000_000_000) {
        let mut script = Script::default();
        let (begin, stood, won) = (fault, fault + detect, fault + detect + promote);
        let frame = Script::promotion(1, 0, 172);
        for record in frame.records() {
            let at = match record.event {
                Event::TrialStarted { .. } => begin,
                Event::FaultApplied { .. } | Event::ProcessExited { .. } => fault,
                Event::Suspected { .. } | Event::CampaignStarted { .. } | Event::VoteReceived { .. } => stood,
                _ => won,
            };
            script.put(record.source.clone(), at, record.event.clone());
        }
        let row = measured(&script);
        let sum = row.detect_us.unwrap() + row.promote_us.unwrap();
        proptest::prop_assert!((sum - row.leaderless_us.unwrap()).abs() < 1e-3);
        let decimals = |cell: &str| cell.split_once('.').map_or(0, |(_, d)| d.len());
        proptest::prop_assert!(row.fields()[12..16].iter().all(|cell| decimals(cell) <= 3));
    }
}

#[test]
fn handover_to_the_primary_is_no_promotion() {
    let campaign = CampaignKind::Transfer;
    let stands = Event::CampaignStarted { term: 2, campaign, rank: Some(0), evidence: SILENCE };
    let elected = Event::Elected { term: 2, campaign, rank: Some(0), votes: 3 };
    let row = measured(
        &Script::begin(1, 0.0)
            .kill(10.0)
            .node(2, 11.0, stands)
            .node(2, 12.0, elected)
            .node(2, 13.0, Event::Ready { term: 2, index: 4 })
            .end(1, 100.0, Verdict::Ok),
    );
    assert_eq!((row.passed_by, row.rank), (Some(campaign), None));
}

/// A write, in milliseconds: when it was meant to start, and when it was acknowledged.
fn wrote(key: &str, intended: f64, acked: Option<f64>) -> Op {
    let end = acked.map(|ms| ((ms * 1e6) as u64).to_string()).unwrap_or_default();
    let outcome = if acked.is_some() { "ok" } else { "unknown" };
    let at = (intended * 1e6) as u64;
    Op::parse(&format!("1,put,{key},v,,{at},{at},{end},{outcome},,,x:1,")).unwrap()
}

fn told(line: &str) -> Op {
    Op::parse(line).unwrap()
}

/// The fault strikes at 10 ms, node 2 is elected at 182 ms and serves from 183.25 ms on.
fn felt(ops: &[Op]) -> TrialRow {
    row(&plan(), Script::promotion(1, 0, 172).records(), ops).unwrap()
}

#[test]
fn outage_lasts_from_the_last_write_before_the_fault_to_the_first_begun_after_it() {
    let ops = [
        wrote("w/1/1", 2.0, Some(4.0)),
        wrote("w/1/2", 6.0, Some(8.5)),
        // Meant to start before the fault, and answered by the new leader: nobody asked it anew.
        wrote("w/1/3", 9.0, Some(183.5)),
        wrote("w/1/4", 12.0, Some(185.0)),
        wrote("w/1/5", 16.0, Some(184.5)),
        wrote("w/1/6", 20.0, None),
        told("1,put,w/1/7,v,,24000000,24000000,25000000,failed,,,x:1,refused"),
        told("1,cas,r/1,b,a,26000000,26000000,186000000,ok,false,7,x:1,"),
        told("1,get,r/1,a,,27000000,27000000,187000000,ok,true,7,x:1,"),
    ];
    let row = felt(&ops);
    assert_eq!(row.outage_us, Some(176_000.0));
    assert_eq!(
        (row.acked_writes, row.failed_writes, row.unknown_writes),
        (Some(5), Some(1), Some(1))
    );
    assert_eq!(row.lost_writes, None, "nobody has looked");
    assert_eq!((row.verdict, row.reason.as_str()), (Verdict::Ok, ""));
}

#[test]
fn without_a_probe_and_without_service_columns_are_empty() {
    let row = felt(&[]);
    assert_eq!((row.outage_us, row.acked_writes, row.lost_writes), (None, None, None));
    let row = felt(&[wrote("w/1/1", 2.0, Some(4.0)), wrote("w/1/2", 12.0, None)]);
    assert_eq!((row.outage_us, row.acked_writes, row.unknown_writes), (None, Some(1), Some(1)));
    let row = felt(&[wrote("w/1/2", 12.0, Some(190.0))]);
    assert_eq!(row.outage_us, None, "nothing had been acknowledged before the fault");
}

#[test]
fn client_that_is_served_before_there_is_a_leader_is_inconsistent() {
    let early = [wrote("w/1/1", 8.0, Some(9.5)), wrote("w/1/2", 12.0, Some(100.0))];
    let row = felt(&early);
    assert_eq!((row.verdict, row.outage_us), (Verdict::Inconsistent, Some(90_500.0)));
    assert!(row.reason.starts_with("the probe was served 90500 us after"), "{}", row.reason);
    // Stamps of a coarse log are believed no more than they deserve.
    let mut plan = plan();
    plan.settings[1].log = LogFacts { bound_us: 100_000.0, ready: false };
    let row = super::row(&plan, Script::promotion(1, 0, 172).records(), &early).unwrap();
    assert_eq!((row.verdict, row.clock_bound_us), (Verdict::Ok, Some(100_000.0)));
    // Who is told to stop serves until somebody else does.
    let stop = Event::FaultApplied { node: 1, pid: 0, action: FaultAction::Stop };
    let script = Script::begin(1, 0.0)
        .agent(10.0, stop)
        .node(2, 180.0, stands(2))
        .node(2, 182.0, elected(2))
        .node(2, 183.0, Event::Ready { term: 2, index: 4 })
        .end(1, 500.0, Verdict::Ok);
    let row = super::row(&plan, script.records(), &early).unwrap();
    assert_eq!((row.verdict, row.leaderless_us), (Verdict::Ok, Some(172_000.0)));
}

#[test]
fn log_that_does_not_tell_of_readiness_leaves_commit_empty() {
    let script = Script::begin(1, 0.0)
        .kill(10.0)
        .node(2, 180.0, stands(2))
        .node(2, 182.0, elected(2))
        .end(1, 500.0, Verdict::Ok);
    assert_eq!(measured(&script).reason, "the new leader's no-op never committed");
    let mut plan = plan();
    plan.settings[1].log = LogFacts { bound_us: 500.0, ready: false };
    let row = row(&plan, script.records(), &[]).unwrap();
    assert_eq!((row.verdict, row.leaderless_us), (Verdict::Ok, Some(172_000.0)));
    assert_eq!((row.commit_us, row.clock_bound_us), (None, Some(500.0)));
}

#[test]
fn acknowledged_writes_that_the_audit_misses_are_lost() {
    let ops = [
        wrote("w/1/1", 2.0, Some(4.0)),
        wrote("w/1/2", 12.0, Some(190.0)),
        wrote("w/1/3", 14.0, None),
        told("1,audit,w/1/2,,,,,,,false,,x:1,"),
        told("1,audit,w/1/3,,,,,,,false,,x:1,"),
    ];
    assert_eq!(felt(&ops).lost_writes, None, "the audit did not get to its end");
    let closed = [&ops[..], &[told("1,audit,,1,,,,200000000,ok,,,x:1,")]].concat();
    let row = felt(&closed);
    assert_eq!((row.lost_writes, row.verdict), (Some(1), Verdict::Ok));
    assert_eq!(row.reason, "1 acknowledged writes were lost");
}

fn applies(node: NodeId, action: FaultAction) -> Event {
    Event::FaultApplied { node, pid: 0, action }
}

#[test]
fn a_full_disk_is_felt_from_the_end_of_its_node_on() {
    let exited = Event::ProcessExited { node: 1, pid: 100, code: Some(1), signal: None };
    let script = Script::begin(1, 0.0)
        .agent(10.0, applies(1, FaultAction::DiskFull))
        .agent(60.0, exited)
        .node(2, 200.0, stands(2))
        .node(2, 201.0, elected(2))
        .node(2, 202.0, Event::Ready { term: 2, index: 4 })
        .end(1, 500.0, Verdict::Ok);
    // It serves until it needs a block.
    let ops = [
        wrote("w/1/1", 8.0, Some(9.0)),
        wrote("w/1/2", 40.0, Some(42.0)),
        wrote("w/1/3", 55.0, Some(203.0)),
        wrote("w/1/4", 70.0, Some(204.0)),
    ];
    let row = row(&plan(), script.records(), &ops).unwrap();
    assert_eq!((row.verdict, row.reason.as_str()), (Verdict::Ok, ""));
    assert_eq!((row.dead_us, row.leaderless_us), (Some(50_000.0), Some(191_000.0)));
    assert_eq!(row.outage_us, Some(162_000.0));
    assert_eq!((row.new_leader, row.spurious_failovers), (Some(2), 0));
}

#[test]
fn a_reset_is_felt_from_the_last_write_that_the_host_still_acknowledged() {
    let script = Script::begin(1, 0.0)
        .agent(10.0, applies(1, FaultAction::Reboot))
        .node(2, 200.0, stands(2))
        .node(2, 201.0, elected(2))
        .node(2, 202.0, Event::Ready { term: 2, index: 4 })
        .end(1, 500.0, Verdict::Ok);
    // It goes on for some milliseconds.
    let ops = [
        wrote("w/1/1", 8.0, Some(9.0)),
        wrote("w/1/2", 12.0, Some(14.0)),
        wrote("w/1/3", 17.0, Some(203.0)),
        wrote("w/1/4", 22.0, Some(204.0)),
    ];
    let row = row(&plan(), script.records(), &ops).unwrap();
    assert_eq!((row.verdict, row.reason.as_str()), (Verdict::Ok, ""));
    assert_eq!((row.dead_us, row.leaderless_us), (None, Some(191_000.0)));
    assert_eq!(row.outage_us, Some(189_000.0));
    assert_eq!((row.new_leader, row.spurious_failovers), (Some(2), 0));
}

#[test]
fn an_isolated_leader_is_replaced_and_its_stepping_down_is_timed() {
    let isolated = applies(1, FaultAction::Isolate);
    let reason = sraft_events::StepDownReason::NoQuorum;
    let row = measured(
        &Script::begin(1, 0.0)
            .agent(10.0, isolated)
            .agent(12.0, Event::FaultInForce { nodes: vec![1], action: FaultAction::Isolate })
            .node(2, 200.0, stands(2))
            .node(2, 201.0, elected(2))
            .node(2, 203.0, Event::Ready { term: 2, index: 9 })
            .node(1, 3010.0, Event::SteppedDown { term: 1, reason })
            .agent(4000.0, applies(1, FaultAction::Heal))
            .end(1, 5000.0, Verdict::Ok),
    );
    assert_eq!((row.verdict, row.reason.as_str()), (Verdict::Ok, ""));
    assert_eq!((row.new_leader, row.leaderless_us), (Some(2), Some(191_000.0)));
    assert_eq!(row.step_down_us, Some(3_000_000.0));
    assert_eq!((row.terms, row.spurious_failovers), (Some(1), 0));
}

#[test]
fn a_leader_that_is_being_cut_off_may_serve_until_it_is() {
    let script = |in_force| {
        let in_force =
            (in_force, Event::FaultInForce { nodes: vec![1], action: FaultAction::Isolate });
        Script::begin(1, 0.0)
            .agent(10.0, applies(1, FaultAction::Isolate))
            .agent(in_force.0, in_force.1)
            .node(2, 200.0, stands(2))
            .node(2, 201.0, elected(2))
            .node(2, 202.0, Event::Ready { term: 2, index: 4 })
            .end(1, 500.0, Verdict::Ok)
    };
    let ops = [
        wrote("w/1/1", 8.0, Some(9.0)),
        // Committed before the links were cut; the answer reaches the client after that.
        wrote("w/1/2", 11.0, Some(14.0)),
        wrote("w/1/3", 22.0, Some(203.0)),
        wrote("w/1/4", 32.0, Some(203.5)),
    ];
    let measured = |in_force, ops: &[Op]| row(&plan(), script(in_force).records(), ops).unwrap();
    let row = measured(12.0, &ops);
    assert_eq!((row.verdict, row.reason.as_str()), (Verdict::Ok, ""));
    assert_eq!((row.leaderless_us, row.outage_us), (Some(191_000.0), Some(189_000.0)));

    // Where it takes long until that is known, clients tell when it was.
    let late = measured(400.0, &ops);
    assert_eq!((late.verdict, late.outage_us), (Verdict::Ok, Some(189_000.0)));

    // Nobody is served by a leader that has been cut off.
    let row = measured(10.5, &ops);
    assert_eq!((row.verdict, row.outage_us), (Verdict::Inconsistent, Some(5_000.0)));
}

#[test]
fn a_fault_that_leaves_the_leader_in_place_calls_for_nobody() {
    let gray = [FaultAction::Link, FaultAction::Loss, FaultAction::Delay, FaultAction::SlowDisk];
    for action in gray {
        let begun = || Script::begin(1, 0.0).agent(10.0, applies(1, action));
        let end = |script: Script| {
            let healed = script.agent(3000.0, applies(1, FaultAction::Heal));
            measured(&healed.end(1, 3100.0, Verdict::Ok))
        };
        let calm = end(begun());
        assert_eq!((calm.verdict, calm.reason.as_str()), (Verdict::Ok, ""), "{action}");
        assert_eq!((calm.campaigns, calm.terms, calm.leaderless_us), (0, Some(0), None));

        // Somebody stands all the same, twice, and wins: nothing had called for it.
        let restless = begun()
            .node(2, 200.0, stands(2))
            .node(2, 900.0, stands(3))
            .node(2, 901.0, elected(3))
            .node(2, 902.0, Event::Ready { term: 3, index: 9 });
        let restless = end(restless);
        assert_eq!((restless.campaigns, restless.terms), (2, Some(2)), "{action}");
        assert_eq!((restless.spurious_failovers, restless.new_leader), (1, None), "{action}");
    }
}
