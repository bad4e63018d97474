//! Whole runs, with real processes on the loopback interface.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sraft_events::{Event, Record};

/// Nothing here may take longer than this.
const LIMIT: Duration = Duration::from_secs(60);

/// A folder with an experiment, for results, and for the nodes.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(count: u32) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let experiment = format!(
            r#"
name = "small"
question = "Does it work from end to end?"
[cluster]
size = 3
[timing]
preset = "reference"
[workload]
rate = 50
before = "20ms"
after = "100ms"
[fault]
kind = "kill"
target = "leader"
[trials]
count = {count}
warmup = 1
block = 2
seed = 3
[[variant]]
name = "raft"
protocol = "raft"
baseline = true
[[variant]]
name = "s-raft"
protocol = "s-raft"
"#
        );
        fs::write(folder.path().join("small.toml"), experiment).unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        Place { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn sraft(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sraft"));
        command.args(args).current_dir(self.path()).env("TMPDIR", self.path().join("tmp"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    fn run(&self, args: &[&str]) -> Output {
        finish(self.sraft(args).spawn().unwrap())
    }

    /// The results folder of the only run.
    fn results(&self) -> Option<PathBuf> {
        let mut runs = fs::read_dir(self.path().join("results/small")).ok()?;
        let run = runs.next()?.ok()?.path();
        assert!(runs.next().is_none(), "one run only");
        Some(run)
    }

    fn records(&self) -> Vec<Record> {
        let Some(results) = self.results() else { return Vec::new() };
        let text = fs::read_to_string(results.join("events.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn trials_ended(&self) -> usize {
        let ended = |r: &Record| matches!(r.event, Event::TrialEnded { trial, .. } if trial > 0);
        self.records().into_iter().filter(ended).count()
    }

    /// Starts a run and waits until so many trials are on the disk.
    fn under_way(&self, trials: usize) -> Child {
        let child = self.sraft(&["run", "small.toml"]).spawn().unwrap();
        wait_until("trials to end", || self.trials_ended() >= trials);
        child
    }

    /// Rows of trials.csv: number, variant, verdict.
    fn rows(&self) -> Vec<(u64, String, String)> {
        let text = fs::read_to_string(self.results().unwrap().join("trials.csv")).unwrap();
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with("trial,cell,variant,verdict,"));
        lines
            .map(|line| {
                let fields: Vec<&str> = line.split(',').collect();
                (fields[0].parse().unwrap(), fields[2].to_owned(), fields[3].to_owned())
            })
            .collect()
    }

    fn manifest(&self) -> serde_json::Value {
        let text = fs::read(self.results().unwrap().join("manifest.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Agents and nodes: whatever works in the folder for the nodes, or is recorded as started.
    fn processes(&self) -> Vec<u32> {
        let tmp = self.path().join("tmp");
        let works_here = |pid: &u32| {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&tmp))
        };
        let all = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        all.filter(works_here).collect()
    }

    /// Waits until no process and no working file is left.
    fn wait_until_clean(&self) {
        wait_until("every process to end and every working file to go", || {
            let files = fs::read_dir(self.path().join("tmp")).unwrap().count();
            self.processes().is_empty() && files == 0
        });
        let started = self.records().into_iter().filter_map(|record| match record.event {
            Event::ProcessStarted { pid, .. } => Some(pid),
            _ => None,
        });
        let agent = self.manifest()["hosts"][0]["facts"]["pid"].as_u64().unwrap() as u32;
        let recorded: Vec<u32> = started.chain([agent]).collect();
        assert!(recorded.len() > 3, "the agent and its nodes are recorded");
        // A number may belong to somebody else by now, but not to one of ours.
        let ours = |pid: &u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            name.contains("sraft\0")
        };
        wait_until("every recorded process to end", || !recorded.iter().any(ours));
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for a process that has to end by itself.
fn finish(mut child: Child) -> Output {
    let deadline = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("not ended in time: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_run_leaves_a_row_per_trial_and_nothing_else_behind() {
    let place = Place::new(2);
    let output = place.run(&["run", "small.toml", "--out", place.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows = place.rows();
    assert!(rows.iter().map(|row| row.0).eq(1..=4), "{rows:?}");
    for variant in ["raft", "s-raft"] {
        assert_eq!(rows.iter().filter(|row| row.1 == variant).count(), 2);
    }
    assert!(rows.iter().all(|row| row.2 == "ok"), "{rows:?}");
    place.wait_until_clean();

    // Every kill of a trial, and nothing but these, is in the records.
    let records = place.records();
    let kills = records.iter().filter(|r| matches!(r.event, Event::FaultApplied { .. }));
    assert_eq!(kills.count(), 6, "two kills and a warm-up for each variant");
    let manifest = place.manifest();
    assert_eq!(manifest["sessions"][0]["end"], "complete");
    assert_eq!(manifest["binary_sha256"].as_str().unwrap().len(), 64);

    // The report can be made again, and gives the same.
    let results = place.results().unwrap();
    let before = fs::read(results.join("trials.csv")).unwrap();
    let again = place.run(&["report", results.to_str().unwrap()]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(text(&again.stdout), text(&output.stdout));
    assert_eq!(fs::read(results.join("trials.csv")).unwrap(), before);
}

#[test]
fn a_run_that_is_to_be_checked_fails_if_a_promise_was_broken() {
    let place = Place::new(2);
    let file = place.path().join("small.toml");
    let checked = "rate = 50\nreads = 0.3\ncas = 0.3\ncheck = true\n";
    let text_of = fs::read_to_string(&file).unwrap().replace("rate = 50\n", checked);
    fs::write(&file, text_of).unwrap();
    let mut harness = place.under_way(1);
    signal(&harness, Signal::KILL);
    harness.wait().unwrap();
    let results = place.results().unwrap();
    wait_until("every process to end", || place.processes().is_empty());
    assert!(!results.join("check.json").exists(), "half a run is not judged");
    let kept = place.path().join("kept");
    fs::create_dir(&kept).unwrap();
    for file in ["events.jsonl", "ops.csv"] {
        fs::copy(results.join(file), kept.join(file)).unwrap();
    }

    // The audit of the first trial misses a write that had been acknowledged.
    let ops = fs::read_to_string(results.join("ops.csv")).unwrap();
    let cells = |line: &str| -> Vec<String> { line.split(',').map(str::to_owned).collect() };
    let acknowledged = ops.lines().map(cells).find(|cells| {
        cells[0] != "trial" && cells[1] == "put" && cells[2].starts_with("w/") && cells[8] == "ok"
    });
    let acknowledged = acknowledged.expect("writes were acknowledged");
    let (trial, key) = (&acknowledged[0], &acknowledged[2]);
    let end = format!("{trial},audit,,");
    let missing = format!("{trial},audit,{key},,,,,,ok,false,,,\n{end}");
    assert!(ops.contains(&end), "the audit has come to its end");
    fs::write(results.join("ops.csv"), ops.replacen(&end, &missing, 1)).unwrap();
    let run = ["run", "--resume", results.to_str().unwrap()];
    let output = place.run(&run);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}{}", text(&output.stderr));
    assert!(said.contains("lost writes          VIOLATED   1 of "), "{said}");
    assert_eq!(place.manifest()["sessions"][1]["end"], "complete");

    // As it was, it passes. A program that wants JSON gets one document.
    for file in ["events.jsonl", "ops.csv"] {
        fs::copy(kept.join(file), results.join(file)).unwrap();
    }
    let output = place.run(&[&run[..], &["--json"]].concat());
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
    let told = text(&output.stderr);
    assert!(told.contains("leaders per term     ok         at most 1 in 4 trials"), "{told}");
    assert!(told.contains("lost writes          ok         0 of "), "{told}");
    let json = fs::read(results.join("check.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["passed"], true);
    place.wait_until_clean();
}

#[test]
fn a_killed_harness_leaves_no_process_and_its_run_can_be_finished() {
    let place = Place::new(4);
    let mut harness = place.under_way(2);
    let results = place.results().unwrap();
    let run = results.to_str().unwrap();
    wait_until("nodes to run", || !place.processes().is_empty());
    let meanwhile = place.run(&["run", "--resume", run]);
    assert_eq!(meanwhile.status.code(), Some(1));
    assert!(text(&meanwhile.stderr).contains("another harness"), "{}", text(&meanwhile.stderr));

    signal(&harness, Signal::KILL);
    harness.wait().unwrap();
    place.wait_until_clean();
    let ended = place.trials_ended();
    assert!((2..8).contains(&ended), "{ended} trials had ended");
    let mut events =
        fs::OpenOptions::new().append(true).open(results.join("events.jsonl")).unwrap();
    std::io::Write::write_all(&mut events, b"{\"source\":\"harn").unwrap();

    let other = place.run(&["run", "--resume", run, "--trials", "5"]);
    assert!(text(&other.stderr).contains("start a new run"), "{}", text(&other.stderr));
    let output = place.run(&["run", "small.toml", "--resume", run]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows = place.rows();
    assert_eq!(rows.len(), 8);
    let mut numbers: Vec<u64> = rows.iter().map(|row| row.0).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=8), "{rows:?}");
    assert!(results.join("events.torn.jsonl").exists());
    let manifest = place.manifest();
    assert!(manifest["sessions"][0]["end"].is_null());
    assert_eq!(manifest["sessions"][1]["end"], "complete");
    place.wait_until_clean();

    let complete = place.run(&["run", "--resume", run]);
    assert_eq!(complete.status.code(), Some(1));
    assert!(text(&complete.stderr).contains("is complete"), "{}", text(&complete.stderr));
}

#[test]
fn ctrl_c_keeps_what_was_measured_and_says_how_to_go_on() {
    let place = Place::new(20);
    let harness = place.under_way(1);
    signal(&harness, Signal::INT);
    let output = finish(harness);
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("sraft run --resume"), "{}", text(&output.stderr));
    place.wait_until_clean();
    assert_eq!(place.rows().len(), place.trials_ended());
    assert_eq!(place.manifest()["sessions"][0]["end"], "interrupted");
}

#[test]
fn a_killed_agent_takes_its_nodes_along_and_the_run_says_so() {
    let place = Place::new(20);
    let harness = place.under_way(1);
    let agent = place.manifest()["hosts"][0]["facts"]["pid"].as_u64().unwrap();
    kill_process(Pid::from_raw(agent as i32).unwrap(), Signal::KILL).unwrap();
    let output = finish(harness);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the agent on host local") && stderr.contains("--resume"), "{stderr}");
    wait_until("the nodes to end", || place.processes().is_empty());
    assert_eq!(fs::read_dir(place.path().join("tmp")).unwrap().count(), 0, "files are left");
    assert_eq!(place.manifest()["sessions"][0]["end"], "failed");
    assert_eq!(place.rows().len(), place.trials_ended());
}

#[test]
fn nodes_that_die_unasked_do_not_end_the_run() {
    let place = Place::new(3);
    let harness = place.under_way(1);
    wait_until("nodes to run", || !place.processes().is_empty());
    for pid in place.processes() {
        // Some may have been killed by the trial in the same moment.
        let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
    }
    let output = finish(harness);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows = place.rows();
    assert!(rows.iter().map(|row| row.0).eq(1..=6), "{rows:?}");
    place.wait_until_clean();
}
