use sraft_events::{CampaignKind, Verdict};

use super::*;
use crate::ops;

/// Records of a run, one call an event.
#[derive(Default)]
struct Script(Vec<Record>);

impl Script {
    fn put(mut self, source: Source, event: Event) -> Script {
        let at = self.0.len() as u64;
        self.0.push(Record { source, seq: at, mono_ns: at, wall_ns: at, event });
        self
    }

    fn cluster(self) -> Script {
        let (cell, variant) = (String::new(), "s-raft".to_owned());
        let event = Event::ClusterStarted { cell, variant, block: 1, size: 3 };
        self.put(Source::Harness, event)
    }

    fn begin(self, trial: u64) -> Script {
        let event = Event::TrialStarted {
            trial,
            warmup: trial == 0,
            cell: String::new(),
            variant: "s-raft".into(),
            block: 1,
            fault: "kill".into(),
            target: "leader".into(),
            leader: 1,
            term: 4,
            ranks: vec![],
            victims: vec![1],
        };
        self.put(Source::Harness, event)
    }

    fn elected(self, node: NodeId, term: Term) -> Script {
        let campaign = CampaignKind::Election;
        self.put(Source::Node(node), Event::Elected { term, campaign, rank: None, votes: 2 })
    }

    fn end(self, trial: u64) -> Script {
        let (verdict, reason) = (Verdict::Ok, None);
        let event =
            Event::TrialEnded { trial, verdict, reason, restored_mono_ns: None, messages: None };
        self.put(Source::Harness, event)
    }

    fn trial(self, trial: u64) -> Script {
        self.begin(trial).elected(2, 5).end(trial)
    }
}

/// Rows of ops.csv from `trial op key value expected start end outcome found`, `_` for empty. A
/// trial without audit has found everything that it looked for, which is nothing.
fn rows(lines: &[&str]) -> Vec<Row> {
    let trials: BTreeSet<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
    let audited =
        |trial: &&str| lines.iter().any(|line| line.starts_with(&format!("{trial} audit")));
    let audits: Vec<String> = trials
        .into_iter()
        .filter(|trial| !audited(trial))
        .map(|trial| format!("{trial} audit _ 0 _ _ 9 ok _"))
        .collect();
    as_they_are(&lines.iter().copied().chain(audits.iter().map(String::as_str)).collect::<Vec<_>>())
}

fn as_they_are(lines: &[&str]) -> Vec<Row> {
    let mut text = ops::COLUMNS.join(",") + "\n";
    for line in lines {
        let cells: Vec<&str> =
            line.split(' ').map(|cell| if cell == "_" { "" } else { cell }).collect();
        let [trial, op, key, value, expected, start, end, outcome, found] = cells[..] else {
            panic!("{line}")
        };
        text +=
            &format!("{trial},{op},{key},{value},{expected},,{start},{end},{outcome},{found}\n");
    }
    ops::parse(text.as_bytes()).unwrap()
}

fn checked(script: Script, lines: &[&str]) -> RunCheck {
    check(&script.0, Some(&rows(lines)), &Budget::default())
}

fn verdicts(found: &RunCheck) -> Vec<(u64, u64, Judgement)> {
    let histories = found.histories.iter().flatten();
    histories.map(|h| (h.trials.0, h.trials.1, h.verdict)).collect()
}

#[test]
fn one_leader_per_term_passes_and_says_what_is_not_known() {
    let found = check(&Script::default().cluster().trial(1).0, None, &Budget::default());
    assert!(found.passed);
    assert_eq!((found.leaders.most_per_term, found.trials.len()), (1, 1));
    assert_eq!((found.writes, &found.histories), (None, &None));
}

#[test]
fn two_leaders_in_a_term_are_a_violation() {
    let script = Script::default().cluster().begin(1).elected(2, 5).elected(3, 5).end(1);
    let found = checked(script, &[]);
    assert!(!found.passed);
    let two = TwoLeaders { trial: 1, term: 5, leaders: vec![2, 3] };
    assert_eq!(found.leaders.violations, [two]);
}

#[test]
fn the_same_term_in_another_cluster_is_none() {
    let script = Script::default().cluster().trial(1).cluster().begin(2).elected(3, 5).end(2);
    assert!(checked(script, &[]).passed);
}

#[test]
fn trial_without_an_end_is_left_out() {
    let script = Script::default().cluster().begin(1).elected(2, 5).elected(3, 5);
    let found = checked(script, &["1 put r/0 a _ 1 2 ok _", "1 get r/0 b _ 3 4 ok true"]);
    assert!(found.passed && found.trials.is_empty());
}

#[test]
fn acknowledged_write_that_the_audit_misses_is_lost() {
    let lines = [
        "1 put w/1/0 a _ 1 2 ok _",
        "1 put w/1/1 b _ 1 2 ok _",
        "1 put w/1/2 c _ 1 2 unknown _",
        "1 put w/1/3 d _ 1 2 failed _",
        "1 audit w/1/1 _ _ _ _ ok false",
        "1 audit w/1/2 _ _ _ _ ok false",
        "1 audit w/1/3 _ _ _ _ ok false",
        "1 audit _ 1 _ _ 9 ok _",
    ];
    let found = checked(Script::default().cluster().trial(1), &lines);
    assert!(!found.passed);
    let writes = found.writes.unwrap();
    assert_eq!((writes.audited, writes.acknowledged, writes.lost, writes.undead), (1, 2, 1, 0));
}

#[test]
fn failed_write_that_is_there_was_told_wrongly() {
    let lines = ["1 put w/1/0 a _ 1 2 failed _", "1 audit _ 1 _ _ 9 ok _"];
    let found = checked(Script::default().cluster().trial(1), &lines);
    assert_eq!((found.passed, found.writes.unwrap().undead), (false, 1));
}

#[test]
fn without_the_end_of_an_audit_nothing_is_known() {
    let lines = ["1 put w/1/0 a _ 1 2 ok _", "1 audit w/1/0 _ _ _ _ ok false"];
    let found = checked(Script::default().cluster().trial(1).trial(2), &lines);
    let writes = found.writes.unwrap();
    assert_eq!((writes.audited, writes.not_audited, writes.lost), (0, 2, 0));
    assert!(found.passed && found.trials[0].writes.unwrap().audit.is_none());
}

#[test]
fn register_keeps_its_value_from_trial_to_trial() {
    let script = || Script::default().cluster().trial(1).trial(2);
    let read = "2 get r/0 _ _ 1 2 ok false";
    let found = checked(script(), &["1 put r/1 a _ 1 2 ok _", read]);
    assert_eq!(verdicts(&found), [(1, 2, Judgement::Linearizable)]);
    // The clock of the second trial's host may be behind that of the first one's.
    let found = checked(script(), &["1 put r/0 a _ 1001 1002 ok _", read]);
    assert_eq!(verdicts(&found), [(1, 2, Judgement::NotLinearizable)]);
    assert!(!found.passed);
    let of: Vec<_> = found.trials.iter().map(|trial| trial.linearizable).collect();
    assert_eq!(of, [Some(Judgement::Linearizable), Some(Judgement::NotLinearizable)]);
    let history = &found.histories.as_ref().unwrap()[0];
    let told = "read nil in trial 2 has a place in no order; one that explains all before it \
                leaves r/0 at a";
    assert_eq!(history.violation.as_deref(), Some(told));
    assert_eq!(history.drawing.as_deref(), Some("violation-2-r-0.svg"));
    assert!(found.drawings[0].1.starts_with("<svg"));
}

#[test]
fn new_cluster_begins_with_nothing() {
    let lines =
        ["1 put r/0 a _ 1 2 ok _", "1 get r/0 a _ 3 4 ok true", "2 get r/0 _ _ 1 2 ok false"];
    let script = Script::default().cluster().trial(1).cluster().trial(2);
    assert!(checked(script, &lines).passed);
}

#[test]
fn write_of_unknown_outcome_may_take_effect_in_a_later_trial() {
    let lines = [
        "1 put r/0 a _ 1 2 ok _",
        "1 cas r/0 b a 3 9 unknown _",
        "2 get r/0 a _ 1 2 ok true",
        "2 get r/0 b _ 3 4 ok true",
    ];
    let script = || Script::default().cluster().trial(1).trial(2);
    assert!(checked(script(), &lines).passed);
    let back = [&lines[..], &["2 get r/0 a _ 5 6 ok true"]].concat();
    assert!(!checked(script(), &back).passed);
}

#[test]
fn failed_write_must_not_be_seen() {
    let lines = ["1 put r/0 a _ 1 2 failed _", "1 get r/0 a _ 3 4 ok true"];
    assert!(!checked(Script::default().cluster().trial(1), &lines).passed);
}

#[test]
fn value_of_a_warm_up_is_not_held_against_the_trial() {
    let lines = [
        "1 get r/0 0.7 _ 1 2 ok true",
        "1 put r/0 1.1 _ 3 4 ok _",
        // It was of unknown outcome in the warm-up, and nobody has kept that.
        "1 get r/0 0.9 _ 5 6 ok true",
    ];
    let script = |warm: Script| warm.trial(1);
    assert!(checked(script(Script::default().cluster().trial(0)), &lines).passed);
    assert!(!checked(script(Script::default().cluster()), &lines).passed);
    let stale = [
        &lines[..2],
        &[
            "1 get r/0 0.7 _ 5 6 ok true",
            "1 get r/0 1.1 _ 7 8 ok true",
            "1 get r/0 0.7 _ 9 10 ok true",
        ],
    ]
    .concat();
    assert!(!checked(script(Script::default().cluster().trial(0)), &stale).passed);
}

#[test]
fn probe_that_was_ended_may_have_written_what_is_not_recorded() {
    let lines = [
        "1 put r/0 a _ 1 2 ok _",
        "1 put r/0 f _ 1 2 failed _",
        "1 get r/0 a _ 3 4 ok true",
        "2 get r/0 z _ 1 2 ok true",
        "2 audit _ 0 _ _ 9 ok _",
    ];
    let script = || Script::default().cluster().trial(1).trial(2);
    let judge = |rows: &[Row]| check(&script().0, Some(rows), &Budget::default()).passed;
    assert!(judge(&as_they_are(&lines)));
    assert!(!judge(&rows(&lines)));
    // What had certainly failed is not among it.
    let failed = lines.map(|line| line.replace("z", "f"));
    assert!(!judge(&as_they_are(&failed.each_ref().map(String::as_str))));
}

#[test]
fn trial_whose_operations_are_missing_divides_the_history() {
    let lines =
        ["1 put r/0 a _ 1 2 ok _", "1 get r/0 a _ 3 4 ok true", "3 get r/0 z _ 1 2 ok true"];
    let script = Script::default().cluster().trial(1).trial(2).trial(3);
    let found = checked(script, &lines);
    assert!(found.passed);
    let expected = [(1, 1, Judgement::Linearizable), (3, 3, Judgement::Linearizable)];
    assert_eq!(verdicts(&found), expected);
}

#[test]
fn trials_after_a_violation_are_checked_anew() {
    let lines = [
        "1 put r/0 a _ 1 2 ok _",
        "1 get r/0 z _ 3 4 ok true",
        "2 get r/0 a _ 1 2 ok true",
        "3 get r/0 y _ 1 2 ok true",
    ];
    let found = checked(Script::default().cluster().trial(1).trial(2).trial(3), &lines);
    let bad = Judgement::NotLinearizable;
    assert_eq!(verdicts(&found), [(1, 1, bad), (2, 3, bad)]);
    assert_eq!(found.drawings.len(), 2);
}

#[test]
fn keys_that_are_only_written_need_no_history() {
    let found = checked(Script::default().cluster().trial(1), &["1 put r/0 a _ 1 2 ok _"]);
    assert_eq!((found.histories.unwrap(), found.passed), (vec![], true));
}

#[test]
fn budget_leaves_histories_undecided_and_that_does_not_fail_the_run() {
    let mut lines = vec!["1 put r/0 0 _ 1 2 ok _".to_owned()];
    for n in 0..60 {
        lines.push(format!("1 cas r/0 {} {} 3 1000 ok true", n * n % 3, n % 3));
    }
    lines.push("1 get r/0 none _ 2000 2001 ok true".to_owned());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let script = Script::default().cluster().trial(1);
    let none = Budget { bytes: 1 << 16, ..Budget::default() };
    let found = check(&script.0, Some(&rows(&lines)), &none);
    assert_eq!(verdicts(&found), [(1, 1, Judgement::Undecided)]);
    assert!(found.passed && found.count(Judgement::Undecided) == 1);
}
