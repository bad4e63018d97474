//! Disks that are slow or full: real nodes, real limits, real file systems.
//!
//! Without root, or where the kernel cannot do it, these tests are skipped; where the variable CI is
//! set, that is a failure.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sraft_agent::{needs, protocol::Needs};
use sraft_events::{Event, FaultAction, Record};

/// Nothing here may take longer than this.
const LIMIT: Duration = Duration::from_secs(90);

/// Whether the tests can run here.
fn able(needs: Needs) -> bool {
    let root = rustix::process::geteuid().is_root();
    let able = match root {
        true => needs::able(needs, Path::new("/var/tmp")),
        false => Err("not root".to_owned()),
    };
    let Err(why) = able else { return true };
    assert!(std::env::var_os("CI").is_none(), "cannot run ({why}), and CI is set");
    #[expect(clippy::print_stderr, reason = "a test that is skipped has to show")]
    {
        eprintln!("skipped: {why}");
    }
    false
}

/// A folder with an experiment, for results, and for the nodes; on a disk.
struct Place {
    folder: tempfile::TempDir,
    /// Clusters on a busy machine change leaders unasked, and disks are shared.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Place {
    fn new(fault: &str, workload: &str, variants: &[&str]) -> Place {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let variants: String = variants
            .iter()
            .map(|name| format!("[[variant]]\nname = \"{name}\"\nprotocol = \"{name}\"\n"))
            .collect();
        let experiment = format!(
            "name = \"disks\"\n[cluster]\nsize = 3\n[timing]\npreset = \"reference\"\n\
             [workload]\n{workload}\n[fault]\ntarget = \"leader\"\n{fault}\n\
             [trials]\ncount = 2\nblock = 2\ntimeout = \"30s\"\n{variants}"
        );
        fs::write(folder.path().join("disks.toml"), experiment).unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        Place { folder, _alone: alone }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn start(&self) -> Child {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sraft"));
        command.args(["run", "disks.toml"]).current_dir(self.path());
        command.env("TMPDIR", self.path().join("tmp"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// A run to its end.
    fn run(&self) -> Output {
        let output = self.start().wait_with_output().unwrap();
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        output
    }

    fn results(&self) -> PathBuf {
        let mut runs = fs::read_dir(self.path().join("results/disks")).unwrap();
        runs.next().unwrap().unwrap().path()
    }

    fn records(&self) -> Vec<Record> {
        let text = fs::read_to_string(self.results().join("events.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Rows of a table of the results: the cells of these columns.
    fn table(&self, name: &str, columns: &[&str]) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.results().join(name)).unwrap();
        let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let header = lines.next().unwrap();
        let at = columns.iter().map(|c| header.iter().position(|name| name == c).unwrap());
        let at: Vec<usize> = at.collect();
        lines.map(|row| at.iter().map(|at| row[*at].to_owned()).collect()).collect()
    }

    /// Agents and nodes: whatever works in the folder for the nodes.
    fn processes(&self, command: &str) -> Vec<u32> {
        let tmp = self.path().join("tmp");
        let all = fs::read_dir("/proc").unwrap().flatten();
        let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        all.filter(|pid: &u32| {
            let named = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let works = fs::read_link(format!("/proc/{pid}/cwd"));
            text(&named).contains(command) && works.is_ok_and(|cwd| cwd.starts_with(&tmp))
        })
        .collect()
    }

    /// Loop devices and mounts that have to do with the folder, whoever sees them.
    fn disks(&self) -> Vec<String> {
        let ours = |text: &String| text.contains(self.path().to_str().unwrap());
        let blocks = fs::read_dir("/sys/block").unwrap().flatten();
        let files = blocks.map(|block| block.path().join("loop/backing_file"));
        let mut found: Vec<String> =
            files.filter_map(|file| fs::read_to_string(file).ok()).filter(ours).collect();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let mounts = fs::read_to_string(process.path().join("mounts")).unwrap_or_default();
            found.extend(mounts.lines().map(str::to_owned).filter(ours));
        }
        found
    }

    /// Waits until no process, no mount and no working file is left.
    fn wait_until_clean(&self) {
        wait_until("everything to go", || {
            let files = fs::read_dir(self.path().join("tmp")).unwrap().count();
            files == 0 && self.processes("").is_empty() && self.disks().is_empty()
        });
    }

    /// The agent of a run that is under way. It is not the run's first child: that is what the disk
    /// is tried with.
    fn agent(harness: &Child) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", harness.id());
        let is_agent = |pid: &u32| {
            let named = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            named.split(|byte| *byte == 0).nth(1) == Some(b"agent".as_slice())
        };
        let mut found = None;
        wait_until("the agent", || {
            let all = fs::read_to_string(&children).unwrap_or_default();
            found = all.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_agent);
            found.is_some()
        });
        found.unwrap()
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

/// When something was done to a node, and when it was in force.
fn stamps(records: &[Record], wanted: FaultAction) -> Vec<(u64, u64)> {
    let applied = records.iter().filter_map(|record| match record.event {
        Event::FaultApplied { action, .. } if action == wanted => Some(record.mono_ns),
        _ => None,
    });
    let in_force = records.iter().filter_map(|record| match record.event {
        Event::FaultInForce { action, .. } if action == wanted => Some(record.mono_ns),
        _ => None,
    });
    applied.zip(in_force).collect()
}

#[test]
fn a_leader_whose_disk_is_full_ends_is_replaced_and_comes_back_with_everything() {
    if !able(Needs { own_disk: true, ..Needs::default() }) {
        return;
    }
    let workload = "rate = 200\nreads = 0.2\nbefore = \"200ms\"\nafter = \"300ms\"\ncheck = true";
    let place = Place::new("kind = \"disk-full\"", workload, &["raft", "s-raft"]);
    let output = place.run();
    assert!(text(&output.stdout).contains("lost writes          ok"), "{}", text(&output.stdout));
    place.wait_until_clean();

    let columns = ["verdict", "reason", "lost_writes", "spurious_failovers", "dead_us"];
    let rows = place.table("trials.csv", &columns);
    assert_eq!(rows.len(), 4);
    for row in &rows {
        assert_eq!(row[..4], ["ok", "", "0", "0"], "{row:?}");
        assert!(row[4].parse::<f64>().unwrap() > 0.0, "{row:?}");
    }
    let columns = ["leaderless_us", "dead_us", "outage_us", "restored_us"];
    for row in place.table("trials.csv", &columns) {
        let cells: Vec<f64> = row.iter().map(|cell| cell.parse().unwrap()).collect();
        assert!(cells[0] > cells[1] && cells[3] > cells[0], "{row:?}");
        // Felt from the end of the node on, not from when its disk was filled.
        assert!(cells[2] > cells[0] - cells[1] - 50_000.0, "{row:?}");
    }
    let records = place.records();
    let stamps = stamps(&records, FaultAction::DiskFull);
    assert!(stamps.len() == 4 && stamps.iter().all(|(before, after)| before < after), "{stamps:?}");
    let failed = |r: &&Record| matches!(r.event, Event::ProcessExited { code: Some(1), .. });
    assert_eq!(records.iter().filter(failed).count(), 4, "each ends by itself, and says so");
}

#[test]
fn disks_of_nodes_go_with_whoever_is_killed() {
    if !able(Needs { own_disk: true, ..Needs::default() }) {
        return;
    }
    let place = Place::new("kind = \"disk-full\"", "rate = 50\nbefore = \"60s\"", &["raft"]);
    let nodes = || place.processes("node").len() == 3 && place.disks().len() >= 6;
    let mut harness = place.start();
    wait_until("disks of nodes", nodes);
    harness.kill().unwrap();
    harness.wait().unwrap();
    place.wait_until_clean();

    // An agent that is killed leaves files, and nothing but files.
    let harness = place.start();
    wait_until("disks of nodes", nodes);
    kill(Place::agent(&harness));
    let output = harness.wait_with_output().unwrap();
    assert!(text(&output.stderr).contains("the agent on host local"), "{}", text(&output.stderr));
    wait_until("mounts and nodes to go", || {
        place.processes("").is_empty() && place.disks().is_empty()
    });
}

/// Control groups of an agent.
fn groups(agent: u32) -> Vec<PathBuf> {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/blkio", "/sys/fs/cgroup/unified"];
    let entries = roots.iter().flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
    let ours = format!("sraft_agent_{agent}_");
    let ours = entries.filter(|entry| entry.file_name().to_str().unwrap().starts_with(&ours));
    ours.map(|entry| entry.path()).collect()
}

/// What a group's process may write in a second, if that is limited, in either version.
fn limit(group: &Path) -> Option<u32> {
    let read = |file| fs::read_to_string(group.join(file)).unwrap_or_default();
    let one = read("blkio.throttle.write_iops_device");
    let two = read("io.max");
    let two = two.split_whitespace().find_map(|word| word.strip_prefix("wiops="));
    one.split_whitespace().nth(1).or(two)?.parse().ok()
}

/// How many writes of a group's process the kernel has counted so far, in either version.
fn writes(group: &Path) -> u64 {
    let read = |file| fs::read_to_string(group.join(file)).unwrap_or_default();
    let one = read("blkio.throttle.io_serviced");
    let one = one.lines().filter_map(|line| line.split_once(" Write ")?.1.parse::<u64>().ok());
    let two = read("io.stat");
    let two = two.split_whitespace().filter_map(|word| word.strip_prefix("wios=")?.parse().ok());
    one.chain(two).sum()
}

#[test]
fn a_leader_whose_disk_is_slow_writes_less_until_it_is_quick_again() {
    if !able(Needs { slow_disk: true, ..Needs::default() }) {
        return;
    }
    let workload = "rate = 50\nbefore = \"1s\"\nafter = \"3s\"\ndeadline = \"5s\"";
    let fault = "kind = \"slow-disk\"\niops = 8\nduration = \"2s\"";
    let place = Place::new(fault, workload, &["raft", "s-raft"]);
    let mut harness = place.start();
    let agent = Place::agent(&harness);
    // What the kernel has counted whenever a limit came or went, and in between.
    let mut seen: BTreeMap<PathBuf, Vec<(Instant, Option<u32>, u64)>> = BTreeMap::new();
    while harness.try_wait().unwrap().is_none() {
        for group in groups(agent) {
            let now = (Instant::now(), limit(&group), writes(&group));
            seen.entry(group).or_default().push(now);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = harness.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    place.wait_until_clean();

    let rows = place.table("trials.csv", &["verdict", "reason", "lost_writes", "leaderless_us"]);
    assert_eq!(rows.len(), 4);
    for row in &rows {
        assert_eq!(row[..], ["ok", "", "0", ""], "nobody has to be replaced: {row:?}");
    }
    let records = place.records();
    let pid = records.iter().find_map(|record| match record.event {
        Event::FaultApplied { pid, .. } => Some(pid),
        _ => None,
    });
    assert!(pid.is_some_and(|pid| pid > 0), "the node's process is named");
    let (slow, healed) =
        (stamps(&records, FaultAction::SlowDisk), stamps(&records, FaultAction::Heal));
    assert_eq!((slow.len(), healed.len()), (4, 4));
    for ((begun, in_force), (heals, healed)) in slow.into_iter().zip(healed) {
        assert!(begun < in_force && in_force < heals && heals < healed);
    }

    // While the limit is there, it is kept, and less is written than before.
    let mut limited = 0;
    for samples in seen.values() {
        let stretches: Vec<_> = samples.chunk_by(|one, next| one.1 == next.1).collect();
        for pair in stretches.windows(2).filter(|pair| pair[1][0].1 == Some(8)) {
            let (free, slow) = (pair[0], pair[1]);
            let begun = slow[0].0;
            let free = free.iter().filter(|sample| begun - sample.0 < Duration::from_millis(900));
            let free: Vec<_> = free.copied().collect();
            let rate = |samples: &[(Instant, Option<u32>, u64)]| {
                let (first, last) = (samples[0], samples[samples.len() - 1]);
                (last.2 - first.2) as f64 / (last.0 - first.0).as_secs_f64()
            };
            let (free, slow) = (rate(&free), rate(slow));
            assert!(slow < 16.0 && free > 2.0 * slow, "{free} writes/s, then {slow}");
            limited += 1;
        }
    }
    assert_eq!(limited, 4, "every trial has its limit");
}

#[test]
fn limits_go_with_whoever_is_killed() {
    if !able(Needs { slow_disk: true, ..Needs::default() }) {
        return;
    }
    let fault = "kind = \"slow-disk\"\niops = 5\nduration = \"20s\"";
    let place = Place::new(fault, "rate = 50\nbefore = \"100ms\"", &["raft"]);
    let mut harness = place.start();
    let agent = Place::agent(&harness);
    wait_until("a slow disk", || groups(agent).iter().any(|group| limit(group) == Some(5)));
    harness.kill().unwrap();
    harness.wait().unwrap();
    place.wait_until_clean();
    assert_eq!(groups(agent), Vec::<PathBuf>::new());

    // An agent that is killed leaves its nodes' groups, which nobody is in, and the next one finds them.
    let harness = place.start();
    let agent = Place::agent(&harness);
    wait_until("a slow disk", || groups(agent).iter().any(|group| limit(group) == Some(5)));
    kill(agent);
    harness.wait_with_output().unwrap();
    wait_until("nodes to end", || place.processes("").is_empty());
    let name = format!("control group sraft_agent_{agent}_");
    let ours = |found: Vec<String>| found.iter().filter(|what| what.starts_with(&name)).count();
    assert_eq!(ours(needs::leftovers(false).unwrap()), 3);
    assert_eq!(groups(agent).len(), 3, "looking removes nothing");
    assert_eq!(ours(needs::leftovers(true).unwrap()), 3);
    assert_eq!(groups(agent), Vec::<PathBuf>::new());
}
