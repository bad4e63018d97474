//! Whole runs with etcd beside our own nodes, and the probe at work. Skipped where there is no etcd,
//! except in CI.

#![allow(clippy::print_stderr, reason = "who reads a test run is to see what was skipped")]

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Nothing here may take longer than this.
const LIMIT: Duration = Duration::from_secs(120);

const EXPERIMENT: &str = r#"
name = "small"
timings = "quick"
[cluster]
size = 3
[timing]
preset = "lan"
[workload]
rate = 100
before = "100ms"
after = "300ms"
[fault]
kind = "kill"
target = "leader"
[trials]
count = 2
warmup = 1
block = 2
seed = 3
[report]
figure = "outage"
[[variant]]
name = "s-raft"
protocol = "s-raft"
[[variant]]
name = "etcd"
system = "etcd"
baseline = true
timings.quick = { heartbeat = "20ms", election_timeout = "200ms-400ms" }
"#;

/// Whether there is no etcd, which CI must have.
fn no_etcd() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join("etcd").is_file()) {
        return false;
    }
    assert!(std::env::var_os("CI").is_none(), "CI needs etcd: apt-get install etcd-server");
    eprintln!("skipped: there is no etcd in PATH (apt-get install etcd-server)");
    true
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("small.toml"), EXPERIMENT).unwrap();
    fs::create_dir(folder.path().join("tmp")).unwrap();
    folder
}

fn sraft(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sraft"));
    command.args(args).current_dir(folder).env("TMPDIR", folder.join("tmp"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end, which must come in time.
fn run(folder: &Path, args: &[&str]) -> Output {
    let mut child = sraft(folder, args).spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("not ended in time: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn results(folder: &Path) -> PathBuf {
    let mut runs = fs::read_dir(folder.join("results/small")).unwrap();
    runs.next().unwrap().unwrap().path()
}

/// The command lines of the processes that work in the folder.
fn processes(folder: &Path) -> Vec<String> {
    let tmp = folder.join("tmp");
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path();
        let here = fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&tmp));
        here.then(|| fs::read_to_string(path.join("cmdline")).unwrap_or_default())
    });
    all.collect()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn etcd_is_killed_and_felt_like_our_own_nodes() {
    if no_etcd() {
        return;
    }
    let folder = folder();
    let out = folder.path().to_str().unwrap();
    let output = run(folder.path(), &["run", "small.toml", "--out", out]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    let results = results(folder.path());
    let text = fs::read_to_string(results.join("trials.csv")).unwrap();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 4, "{text}");
    let cell = |row: &Vec<&str>, column: &str| {
        row[header.iter().position(|name| *name == column).unwrap()].to_owned()
    };
    let number = |row: &Vec<&str>, column: &str| cell(row, column).parse::<f64>().unwrap();
    for row in &rows {
        assert_eq!(cell(row, "verdict"), "ok", "{text}");
        let (etcd, bound) = (cell(row, "variant") == "etcd", number(row, "clock_bound_us"));
        assert_eq!((bound > 0.0, cell(row, "commit_us").is_empty()), (etcd, etcd), "{text}");
        assert!(!etcd || (cell(row, "passed_by") == "election" && cell(row, "rank").is_empty()));
        assert!(number(row, "outage_us") + bound >= number(row, "leaderless_us"), "{text}");
        assert!(number(row, "acked_writes") >= 10.0, "{text}");
        assert_eq!(cell(row, "lost_writes"), "0", "{text}");
        assert_eq!(cell(row, "max_leaders_per_term"), "1");
    }
    // The rows of warm-ups are nowhere.
    let ops = fs::read_to_string(results.join("ops.csv")).unwrap();
    let trials: std::collections::BTreeSet<&str> =
        ops.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    assert!(trials.into_iter().eq(["1", "2", "3", "4"]));

    let plots = folder.path().join("plots/small").join(results.file_name().unwrap());
    assert!(plots.join("around_fault.png").is_file() && plots.join("outage_ecdf.svg").is_file());
    let again = run(folder.path(), &["report", results.to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), String::from_utf8_lossy(&output.stdout));
    assert_eq!(fs::read_to_string(results.join("trials.csv")).unwrap(), text);
    assert_eq!(processes(folder.path()), [""; 0]);
    assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_killed_agent_takes_etcd_along() {
    if no_etcd() {
        return;
    }
    let folder = folder();
    let mut harness = sraft(folder.path(), &["run", "small.toml"]).spawn().unwrap();
    let is_etcd = |line: &String| line.starts_with("etcd\0");
    wait_until("etcd to run", || {
        if harness.try_wait().unwrap().is_some() {
            let (mut said, mut errors) = (String::new(), harness.stderr.take().unwrap());
            errors.read_to_string(&mut said).unwrap();
            panic!("the harness ended before etcd was seen:\n{said}");
        }
        processes(folder.path()).iter().any(is_etcd)
    });
    let manifest = fs::read(results(folder.path()).join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let agent = manifest["hosts"][0]["facts"]["pid"].as_u64().unwrap() as i32;
    kill_process(Pid::from_raw(agent).unwrap(), Signal::KILL).unwrap();
    wait_until("the harness to end", || harness.try_wait().unwrap().is_some());
    wait_until("etcd to end", || processes(folder.path()).is_empty());
}

#[test]
fn etcd_that_is_not_there_is_asked_for_before_anything_starts() {
    let folder = folder();
    let mut command = sraft(folder.path(), &["run", "small.toml"]);
    let output = command.env("PATH", folder.path()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("no `etcd` in PATH; install it"), "{stderr}");
    assert!(stderr.contains("apt-get install etcd-server"), "{stderr}");
    assert!(!folder.path().join("results").exists());
    // What would run can be looked at without it.
    let mut plan = sraft(folder.path(), &["plan", "small.toml"]);
    assert!(plan.env("PATH", folder.path()).output().unwrap().status.success());
}
