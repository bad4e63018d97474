//! Runs whose cluster is simulated.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sraft_events::{Event, Record};

const EXPERIMENT: &str = r#"
name = "tiny"
[cluster]
size = 5
backend = "sim"
[sim]
latency = { median = "1ms", sigma = 0.3 }
loss = 0.01
clock_error = 100
[fault]
kind = "kill"
target = "leader"
[trials]
count = 30
warmup = 1
block = 10
seed = 7
[[variant]]
name = "raft"
protocol = "raft"
[[variant]]
name = "s-raft"
protocol = "s-raft"
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn new(experiment: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.toml"), experiment).unwrap();
        Place(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn sraft(&self, args: &[&str]) -> Output {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sraft"));
        command.args(args).current_dir(self.path()).output().unwrap()
    }

    fn run(&self, name: &str, args: &[&str]) -> PathBuf {
        let output = self.sraft(&[&["run", "x.toml", "--name", name], args].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        self.path().join("results/tiny").join(name)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn records(run: &Path) -> Vec<Record> {
    let events = fs::read_to_string(run.join("events.jsonl")).unwrap();
    events.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Columns of `trials.csv`: by name, row by row.
fn column(run: &Path, name: &str) -> Vec<String> {
    let table = fs::read_to_string(run.join("trials.csv")).unwrap();
    let mut lines = table.lines();
    let at = lines.next().unwrap().split(',').position(|field| field == name).unwrap();
    lines.map(|line| line.split(',').nth(at).unwrap().to_owned()).collect()
}

#[test]
fn the_same_seed_gives_the_same_files_and_another_seed_others() {
    let place = Place::new(EXPERIMENT);
    let runs = [
        place.run("first", &[]),
        place.run("second", &["--json"]),
        place.run("other", &["--seed", "8"]),
    ];
    for file in ["events.jsonl", "trials.csv", "plan.json"] {
        let [first, second, other] =
            [0, 1, 2].map(|n: usize| fs::read(runs[n].join(file)).unwrap());
        assert!(first == second, "{file} differs");
        assert!(first != other, "{file} does not depend on the seed");
    }
    let run = &runs[0];
    let numbers: Vec<u64> = column(run, "trial").iter().map(|n| n.parse().unwrap()).collect();
    assert!(numbers.into_iter().eq(1..=60));
    assert!(column(run, "verdict").iter().all(|verdict| verdict == "ok"));
    for figure in ["detect_us", "leaderless_us", "announced_us", "commit_us"] {
        let values = column(run, figure);
        assert!(values.iter().all(|us| us.parse::<f64>().unwrap() > 0.0), "{figure}: {values:?}");
    }
    let counted = records(run).into_iter().filter_map(|record| match record.event {
        Event::TrialEnded { messages, .. } => messages,
        _ => None,
    });
    let counted: Vec<u64> = counted.collect();
    assert_eq!(counted.len(), 62, "60 trials and two warm-ups");
    assert!(counted.iter().all(|messages| (8..500).contains(messages)), "{counted:?}");
    let manifest = fs::read_to_string(run.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["hosts"].as_array().unwrap().len(), 1);
    assert_eq!(manifest["hosts"][0]["name"], "sim");
    assert_eq!(manifest["hosts"][0]["facts"]["kind"], "simulated");
    assert_eq!(manifest["sessions"][0]["end"], "complete");
}

#[test]
fn a_run_that_was_cut_off_is_finished_as_it_would_have_been() {
    let place = Place::new(EXPERIMENT);
    let whole = place.run("whole", &[]);
    let cut = place.run("cut", &[]);
    // As if the program had been killed in the middle of writing.
    let events = fs::read(cut.join("events.jsonl")).unwrap();
    fs::write(cut.join("events.jsonl"), &events[..events.len() / 2]).unwrap();
    let resumed = place.sraft(&["run", "--resume", cut.to_str().unwrap()]);
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    for figure in ["trial", "variant", "verdict", "leaderless_us", "announced_us", "campaigns"] {
        assert_eq!(column(&cut, figure), column(&whole, figure), "{figure}");
    }
    assert!(records(&cut).is_sorted_by_key(|record| record.mono_ns), "one clock");
    let again = place.sraft(&["run", "--resume", cut.to_str().unwrap()]);
    assert!(text(&again.stderr).contains("is complete"), "{}", text(&again.stderr));
}

#[test]
fn ctrl_c_keeps_what_was_simulated_and_says_how_to_go_on() {
    let place = Place::new(EXPERIMENT);
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sraft"));
    command.args(["run", "x.toml", "--name", "long", "--trials", "400000"]);
    command.current_dir(place.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let run = place.path().join("results/tiny/long");
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::metadata(run.join("trials.csv")).map_or(0, |file| file.len()) == 0 {
        assert!(Instant::now() < deadline, "waited in vain for trials");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("sraft run --resume"), "{}", text(&output.stderr));
    let ended =
        |record: &&Record| matches!(record.event, Event::TrialEnded { trial, .. } if trial > 0);
    let trials = records(&run).iter().filter(ended).count();
    assert_eq!(column(&run, "trial").len(), trials);
    assert!(fs::read_to_string(run.join("manifest.json")).unwrap().contains("\"interrupted\""));
}

#[test]
fn every_fault_that_is_offered_passes_leadership_on() {
    for (kind, more) in [("pause", ""), ("isolate", ""), ("kill", "leader = 4")] {
        let text = EXPERIMENT
            .replace("kind = \"kill\"", &format!("kind = \"{kind}\""))
            .replace("[sim]\n", &format!("[sim]\n{more}\n"));
        let place = Place::new(&text);
        let run = place.run("x", &["--trials", "5"]);
        assert_eq!(column(&run, "verdict"), ["ok"; 10], "{kind}");
        let (old, new) = (column(&run, "old_leader"), column(&run, "new_leader"));
        assert!(old.iter().zip(&new).all(|(old, new)| old != new && !new.is_empty()), "{kind}");
        if kind == "kill" {
            assert_eq!(old, ["4"; 10], "the leader that was asked for");
        }
    }
}

#[test]
fn laggards_never_win_and_a_broken_link_keeps_votes_back() {
    // Three of four survivors lag, so the fourth wins. With links cut so that no three of them can
    // talk to one another, nobody does.
    let text = EXPERIMENT
        .replace("loss = 0.01", "laggards = 3")
        .replace("count = 30", "count = 5\ntimeout = \"3s\"");
    let place = Place::new(&text);
    assert_eq!(column(&place.run("fair", &[]), "verdict"), ["ok"; 10]);
    let cut = "leader = 1\n[[sim.cut]]\nfrom = [2, 3, 4]\nto = [5]\nboth_ways = true\n\
               [[sim.cut]]\nfrom = [2]\nto = [3, 4]\nboth_ways = true\n[fault]";
    let place = Place::new(&text.replace("[fault]", cut).replace("laggards = 3", ""));
    let run = place.run("cut", &[]);
    assert_eq!(column(&run, "verdict"), ["censored"; 10]);
}

#[test]
fn seeds_can_be_run_and_replayed() {
    let place = Place::new("");
    let swarm = place.sraft(&["sim", "swarm", "--seeds", "5", "--first", "3"]);
    assert!(swarm.status.success(), "{}", text(&swarm.stderr));
    assert!(text(&swarm.stdout).starts_with("5 seeds without a violation"));
    let replay = place.sraft(&["sim", "replay", "--seed", "3"]);
    assert!(replay.status.success());
    let said = text(&replay.stdout);
    assert!(said.starts_with('#') && said.contains("seed 3: nothing is wrong"), "{said}");
}
