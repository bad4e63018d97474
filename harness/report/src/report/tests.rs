use std::{collections::BTreeMap, fs, path::Path};

use super::*;
use crate::{
    script::Course,
    synthetic::{Left, Model, Synthetic, calm, fast, figure_16, raft, restless, rough, s_raft},
};

fn synthetic(name: &'static str) -> Synthetic {
    Synthetic {
        name,
        variants: vec![("raft", raft), ("s-raft", s_raft)],
        cells: vec![""],
        count: 100,
        block: 10,
        stop_after: usize::MAX,
        wish: None,
        messages: false,
        probe: 0,
    }
}

fn built(run: &Synthetic) -> (Left, Summary) {
    let left = run.write();
    let summary = build(&left.run).unwrap();
    (left, summary)
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

/// The text without the lines that name folders.
fn without_paths(summary: &Summary) -> String {
    let text = summary.to_string();
    text.split("\nreport ").next().unwrap().to_owned()
}

#[test]
fn closing_text_of_a_plain_run() {
    let (_left, summary) = built(&synthetic("plain"));
    insta::assert_snapshot!(without_paths(&summary));
}

#[test]
fn closing_text_of_detectors_with_flagged_trials() {
    let variants: Vec<(&'static str, Model)> = vec![
        ("raft-silence", raft),
        ("raft-connection", rough),
        ("s-raft-silence", s_raft),
        ("s-raft-connection", fast),
    ];
    let (_left, summary) = built(&Synthetic { variants, ..synthetic("detectors-report") });
    let text = without_paths(&summary);
    insta::assert_snapshot!(text);
    assert!(text.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn a_fault_that_leaves_the_leader_in_place_asks_whether_it_stays() {
    let cells = vec!["fault.direction=both", "fault.direction=out"];
    let variants: Vec<(&'static str, Model)> = vec![("raft", restless), ("s-raft", calm)];
    let (left, summary) = built(&Synthetic { cells, variants, count: 20, ..synthetic("spared") });
    insta::assert_snapshot!(without_paths(&summary));
    assert!(summary.comparisons.iter().all(|c| c.finding == Finding::LeaderSpared));
    let text = fs::read_to_string(left.run.results().join("summary.md")).unwrap();
    insta::assert_snapshot!("spared_md", text);
    // What was drawn before it was known that the leader stays does not stay.
    fs::write(left.run.plots().join("phases.fault.direction-both.png"), "old").unwrap();
    fs::write(left.run.plots().join("my own.png"), "kept").unwrap();
    build(&left.run).unwrap();
    let figures = files(left.run.plots());
    let names: Vec<&String> = figures.keys().collect();
    assert_eq!(names, ["my own.png", "stability.png", "stability.svg"]);
}

#[test]
fn summary_csv_and_markdown_of_a_small_matrix() {
    let cells = vec!["cluster.size=3", "cluster.size=5"];
    let (left, _) = built(&Synthetic { cells, count: 10, ..synthetic("matrix-report") });
    let results = files(left.run.results());
    let text = |name: &str| String::from_utf8(results[name].clone()).unwrap();
    insta::assert_snapshot!("summary_csv", text("summary.csv"));
    insta::assert_snapshot!("summary_md", text("summary.md"));
}

#[test]
fn published_lines_stand_beside_the_variants_of_their_names() {
    let (left, summary) = built(&figure_16("published"));
    let names: Vec<&str> = summary.published.iter().map(|line| line.variant.as_str()).collect();
    assert_eq!(names, ["150-155", "150-300", "12-24", "100-200"]);
    insta::assert_snapshot!("published_terminal", without_paths(&summary));
    let text = fs::read_to_string(left.run.results().join("summary.md")).unwrap();
    let section = text.split("\n## ").nth(1).unwrap();
    insta::assert_snapshot!("published_md", section);
    let html = fs::read(left.run.results().join("report.html")).unwrap();
    assert!(html.len() < 3_000_000, "{}", html.len());
}

#[test]
fn page_of_a_large_matrix_names_what_it_cannot_hold() {
    let cells = ["a", "b", "c", "d", "e", "f"].map(|name| &*format!("site={name}").leak()).to_vec();
    let (left, _) = built(&Synthetic { cells, count: 4, block: 2, ..synthetic("heavy") });
    let html = fs::read_to_string(left.run.results().join("report.html")).unwrap();
    assert!(html.len() < 3_000_000, "{}", html.len());
    // Those across cells come first, so they are never what is left out.
    assert!(html.contains("<code>by_cell.png</code>") && html.contains("<code>ecdf_by_cell.png"));
    assert!(html.contains("Too much for one page") && html.contains("trials_over_time.site-f.svg"));
    assert!(left.run.plots().join("trials_over_time.site-f.svg").is_file());
}

#[test]
fn takeovers_name_the_regions_of_the_nodes() {
    let run = Synthetic { count: 10, ..synthetic("regions") };
    let left = run.write();
    let mut plan = run.plan();
    plan.settings[1].node["sim"] =
        serde_json::json!({ "regions": { "eu-west-1": [1, 4], "us-east-1": [2, 3, 5] } });
    left.run.write_plan(&plan).unwrap();
    build(&left.run).unwrap();
    let text = fs::read_to_string(left.run.results().join("summary.md")).unwrap();
    assert!(text.contains("| raft | node 1 × 10 | node 2 E × 10 |"), "{text}");
    let named = "| s-raft | node 1 (eu-west-1) × 10 | node 2 (us-east-1) P0 × 10 |";
    assert!(text.contains(named), "{text}");
}

#[test]
fn messages_are_reported_where_they_were_counted() {
    let cells = vec!["cluster.size=3", "cluster.size=5"];
    let run = Synthetic { cells, count: 6, block: 3, messages: true, ..synthetic("messages") };
    let (left, summary) = built(&run);
    assert!(summary.groups.iter().all(|group| group.messages.is_some()));
    let trials = fs::read_to_string(left.run.results().join("trials.csv")).unwrap();
    assert!(trials.lines().next().unwrap().ends_with(",messages,step_down_us"));
    assert!(trials.lines().skip(1).all(|line| !line.ends_with(",,")));
    let text = fs::read_to_string(left.run.results().join("summary.md")).unwrap();
    assert!(text.contains("| messages (median) |"));
}

#[test]
fn wish_for_an_unknown_variant_is_refused() {
    let run = figure_16("wish");
    let left = run.write();
    let mut plan = run.plan();
    plan.variants.truncate(3);
    left.run.write_plan(&plan).unwrap();
    let error = build(&left.run).unwrap_err().to_string();
    assert!(error.contains("names the variant `150-175`, which the experiment does not have"));
}

#[test]
fn everything_is_rebuilt_to_the_byte() {
    let (left, summary) = built(&Synthetic { count: 20, ..synthetic("bytes") });
    let before = (files(left.run.results()), files(left.run.plots()));
    for name in
        before.0.keys().filter(|name| !["plan.json", "events.jsonl"].contains(&name.as_str()))
    {
        fs::remove_file(left.run.results().join(name)).unwrap();
    }
    fs::remove_dir_all(left.run.plots()).unwrap();
    let again = RunDir::open(left.run.results()).unwrap();
    let second = build(&again).unwrap();
    assert_eq!(without_paths(&second), without_paths(&summary));
    let after = (files(again.results()), files(again.plots()));
    assert!(before == after, "a rebuilt file differs");
    assert!(before.0.contains_key("leaderless.s-raft.hgrm"));
    assert!(before.0.contains_key("leaderless.s-raft.hlog"));
    assert_eq!(before.1.len(), 8);
}

#[test]
fn probed_run_is_reported_and_rebuilt_to_the_byte() {
    let wish = crate::results::Wish {
        figure: Some(crate::results::WishedFigure::Outage),
        ..Default::default()
    };
    for (name, wish) in [("probed_leaderless", None), ("probed_outage", Some(wish))] {
        let run = Synthetic { probe: 100, count: 20, wish, ..synthetic(name) };
        let (left, summary) = built(&run);
        insta::assert_snapshot!(name, without_paths(&summary));
        let before = (files(left.run.results()), files(left.run.plots()));
        assert!(before.0.contains_key("latency.s-raft.hgrm"), "{:?}", before.0.keys());
        assert!(before.0.contains_key("outage.raft.hlog"));
        assert_eq!(before.1.len(), 2 * 7);
        let raw = ["plan.json", "events.jsonl", "ops.csv"];
        for name in before.0.keys().filter(|name| !raw.contains(&name.as_str())) {
            fs::remove_file(left.run.results().join(name)).unwrap();
        }
        build(&left.run).unwrap();
        let after = (files(left.run.results()), files(left.run.plots()));
        assert!(before == after, "a rebuilt file differs");
        let text = String::from_utf8(after.0["summary.md"].clone()).unwrap();
        assert!(text.contains("## What became of the probe's writes"), "{text}");
    }
}

#[test]
fn operations_of_a_torn_trial_are_set_aside() {
    let run = Synthetic { probe: 50, count: 4, block: 2, ..synthetic("torn-ops") };
    let (left, _) = built(&run);
    let path = |name: &str| left.run.results().join(name);
    let trials = fs::read(path("trials.csv")).unwrap();
    let (events, ops) =
        (fs::read(path("events.jsonl")).unwrap(), fs::read(path("ops.csv")).unwrap());
    // The harness was killed while it wrote the last trial: its operations are there, its end not.
    fs::write(path("events.jsonl"), &events[..events.len() - 40]).unwrap();
    fs::write(path("ops.csv"), &ops[..ops.len() - 5]).unwrap();
    let summary = build(&left.run).unwrap();
    assert!(summary.notes.iter().any(|note| note.starts_with("ops.csv cannot be read from line")));
    let lock = left.run.lock().unwrap();
    let resumed = left.run.resume(&lock).unwrap();
    assert!(resumed.set_aside > 0);
    let (kept, torn) =
        (fs::read(path("ops.csv")).unwrap(), fs::read(path("ops.torn.csv")).unwrap());
    assert_eq!([kept, torn].concat(), &ops[..ops.len() - 5]);
    assert_eq!(left.run.resume(&lock).unwrap().set_aside, 0);
    // The last trial runs again, and everything is as if nothing had happened.
    let last: Vec<String> = run.ops().into_iter().filter(|line| line.starts_with("8,")).collect();
    let text = String::from_utf8(events).unwrap();
    let begun = text.rfind("\"event\":\"trial_started\"").unwrap();
    let begun = text[..begun].rfind('\n').unwrap() + 1;
    let lines: Vec<String> = text[begun..].lines().map(str::to_owned).collect();
    left.run.append_trial(&lines, &last, None).unwrap();
    build(&left.run).unwrap();
    assert!(
        fs::read(path("ops.csv")).unwrap() == ops
            && fs::read(path("trials.csv")).unwrap() == trials
    );
}

#[test]
fn lost_writes_are_shouted_and_stay_in_the_statistics() {
    let run = Synthetic { probe: 50, count: 4, block: 2, ..synthetic("lost") };
    let left = run.write();
    let path = left.run.results().join("ops.csv");
    let text = fs::read_to_string(&path).unwrap();
    let lost = "1,audit,w/1/3,,,,,,,false,,x:1,\n";
    let close = text.find("1,audit,,").unwrap();
    fs::write(&path, format!("{}{lost}{}", &text[..close], &text[close..])).unwrap();
    let summary = build(&left.run).unwrap();
    let shouted = |note: &String| note.starts_with("1 ACKNOWLEDGED WRITES WERE LOST in ");
    assert!(summary.notes.iter().any(shouted), "{:?}", summary.notes);
    let trials = fs::read_to_string(left.run.results().join("trials.csv")).unwrap();
    let first = trials.lines().find(|line| line.starts_with("1,")).unwrap();
    assert!(first.contains(",ok,1 acknowledged writes were lost,"), "{first}");
}

#[test]
fn same_model_twice_is_an_aa_pair_that_holds() {
    let variants: Vec<(&'static str, Model)> = vec![("s-raft-a", s_raft), ("s-raft-b", s_raft)];
    let (_left, summary) = built(&Synthetic { variants, ..synthetic("aa") });
    assert_eq!(summary.comparisons[0].finding, Finding::AaHolds);
    assert!(summary.comparisons[0].sentence.starts_with("A/A holds: s-raft-b and s-raft-a"));
}

#[test]
fn failed_aa_pair_withholds_every_winner() {
    let run = Synthetic {
        variants: vec![("raft", raft), ("s-raft-a", s_raft), ("s-raft-b", fast)],
        ..synthetic("drift")
    };
    let left = run.write();
    let mut plan = run.plan();
    // The two were meant to be alike; something made one of them fast.
    plan.settings[2].node = plan.settings[1].node.clone();
    left.run.write_plan(&plan).unwrap();
    let summary = build(&left.run).unwrap();
    let findings: Vec<Finding> = summary.comparisons.iter().map(|c| c.finding).collect();
    assert_eq!(findings, [Finding::Withheld, Finding::Withheld, Finding::AaFailed]);
    assert!(summary.to_string().contains("A/A FAILED"));
}

#[test]
fn runs_that_ended_early_are_reported_without_panic() {
    for stop_after in [0, 1, 11, 12] {
        let (_left, summary) = built(&Synthetic { stop_after, ..synthetic("early") });
        assert!(summary.notes[0].starts_with(&format!("{stop_after} of 200 trials have run")));
        let finding = summary.comparisons[0].finding;
        let expected = if stop_after < 12 { Finding::TooFew } else { finding };
        assert_eq!(finding, expected, "after {stop_after}");
    }
    let spoiled: Model = |_| Course::Spoiled;
    let late: Model = |_| Course::TimedOut;
    let variants = vec![("raft", spoiled), ("s-raft", late)];
    let (_left, summary) = built(&Synthetic { variants, count: 10, ..synthetic("spoiled-report") });
    assert_eq!(summary.groups[0].flagged(), 10);
    assert_eq!(summary.comparisons[0].finding, Finding::TooFew);
    assert!(!summary.groups[1].figures[0].quantiles[0].unwrap().seen);
}

#[test]
fn torn_tail_is_reported_and_resume_sets_it_aside() {
    let (left, _) = built(&Synthetic { count: 10, ..synthetic("torn") });
    let path = left.run.results().join("events.jsonl");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 40]).unwrap();
    let summary = build(&left.run).unwrap();
    assert!(summary.notes[0].starts_with("19 of 20 trials"), "{:?}", summary.notes);
    assert!(summary.notes[1].starts_with("events.jsonl cannot be read from line"));

    let lock = left.run.lock().unwrap();
    assert!(matches!(left.run.lock(), Err(ResultsError::Locked { .. })));
    let resumed = left.run.resume(&lock).unwrap();
    assert_eq!(resumed.events.completed().len(), 19);
    let kept = fs::read(&path).unwrap();
    let torn = fs::read(left.run.results().join("events.torn.jsonl")).unwrap();
    assert_eq!([kept, torn].concat(), whole[..whole.len() - 40]);
    let trials = fs::read_to_string(left.run.results().join("trials.csv")).unwrap();
    assert_eq!(trials.lines().count(), 20);
    assert_eq!(left.run.resume(&lock).unwrap().set_aside, 0);
}

#[test]
fn appended_rows_are_the_rebuilt_ones() {
    let run = Synthetic { count: 10, ..synthetic("appended") };
    let (left, _) = built(&run);
    let rebuilt = fs::read(left.run.results().join("trials.csv")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let live = RunDir::create(dir.path(), "leader-kill", "live").unwrap();
    let plan = run.plan();
    live.write_plan(&plan).unwrap();
    for trial in crate::timeline::trials(run.script().records()) {
        let row = measure::row(&plan, &trial.records, &[]).unwrap();
        let lines: Vec<String> =
            trial.records.iter().map(|r| serde_json::to_string(r).unwrap()).collect();
        live.append_trial(&lines, &[], Some(&row)).unwrap();
    }
    assert!(fs::read(live.results().join("trials.csv")).unwrap() == rebuilt);
}

#[test]
fn folders_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    RunDir::create(dir.path(), "e", "r").unwrap();
    let again = RunDir::create(dir.path(), "e", "r").unwrap_err();
    assert!(again.to_string().contains("runs are never overwritten"), "{again}");
    for name in ["", "..", "a/b", ".hidden"] {
        let error = RunDir::create(dir.path(), "e", name).unwrap_err();
        assert!(matches!(error, ResultsError::BadName { .. }), "{name}");
    }
    let error = RunDir::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("is no run: it has no plan.json"), "{error}");
    let error = RunDir::open(&dir.path().join("absent")).unwrap_err();
    assert!(error.to_string().contains("cannot open the run"), "{error}");
    fs::write(dir.path().join("results/e/r/plan.json"), "{").unwrap();
    let error = build(&RunDir::open(&dir.path().join("results/e/r")).unwrap()).unwrap_err();
    assert!(error.to_string().contains("plan.json is damaged"), "{error}");
}

#[test]
fn report_escapes_what_it_is_given() {
    let run = Synthetic { count: 2, block: 2, ..synthetic("escape") };
    let left = run.write();
    let mut plan = run.plan();
    plan.question = "<script>alert(1)</script> & more".into();
    left.run.write_plan(&plan).unwrap();
    build(&left.run).unwrap();
    let html = fs::read_to_string(left.run.results().join("report.html")).unwrap();
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; more"));
    assert!(!html.contains("<script") && !html.contains("src=") && !html.contains("href=\"http"));
}
