//! Probe and load generator against etcd itself. Skipped where there is none, except in CI.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sraft_client::{
    address::Address,
    client::{Client, Settings},
    load::{Pace, Plan, load},
    operation::Operation,
    outcome::Outcome,
    probe::{Config, probe},
};
use tempfile::TempDir;

/// Three members on loopback, killed when this is dropped.
struct Etcd {
    members: Vec<Child>,
    endpoints: Vec<Address>,
    dir: TempDir,
}

/// Whether there is an etcd to test against.
#[expect(clippy::print_stderr, reason = "a test that is skipped has to say so")]
fn etcd_is_there() -> bool {
    let found = Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "no etcd in PATH: install etcd-server");
    if !found {
        eprintln!("skipped: there is no etcd in PATH; install etcd-server");
    }
    found
}

impl Etcd {
    async fn start() -> Option<Etcd> {
        if !etcd_is_there() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        // All are held until all are found, so that none is found twice.
        let listeners: Vec<TcpListener> =
            (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> =
            listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        drop(listeners);
        let (client, peer) = ports.split_at(3);
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<String> =
            peer.iter().enumerate().map(|(n, port)| format!("n{n}={}", url(port))).collect();
        let mut etcd = Etcd { members: Vec::new(), endpoints: Vec::new(), dir };
        for n in 0..3 {
            let log = fs::File::create(etcd.dir.path().join(format!("n{n}.log"))).unwrap();
            let member = Command::new("etcd")
                .args(["--name", &format!("n{n}"), "--initial-cluster", &cluster.join(",")])
                .args(["--data-dir", etcd.dir.path().join(format!("n{n}")).to_str().unwrap()])
                .args(["--listen-client-urls", &url(&client[n])])
                .args(["--advertise-client-urls", &url(&client[n])])
                .args(["--listen-peer-urls", &url(&peer[n])])
                .args(["--initial-advertise-peer-urls", &url(&peer[n])])
                .env_remove("ETCDCTL_API")
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap();
            etcd.members.push(member);
            etcd.endpoints.push(format!("127.0.0.1:{}", client[n]).parse().unwrap());
        }
        etcd.leader().await;
        Some(etcd)
    }

    /// Place of the leader, once there is one that answers a write.
    async fn leader(&self) -> usize {
        let settings = Settings { connections: 1, silent_after: Duration::from_secs(1) };
        let client = Client::new(&self.endpoints, settings);
        let give_up = Instant::now() + Duration::from_secs(60);
        let write = Operation::Put { key: "first".into(), value: "1".into() };
        loop {
            let _ = client.settle(Duration::from_secs(5)).await;
            let done = client.perform(&write, Duration::from_secs(5)).await;
            if let (Outcome::Ok, Some(leader)) = (done.outcome, client.leader()) {
                return leader;
            }
            assert!(Instant::now() < give_up, "no leader: {done:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn signal(&self, member: usize, signal: Signal) {
        kill_process(Pid::from_child(&self.members[member]), signal).unwrap();
    }

    /// Runs a probe through a fault of the leader: rows by column.
    async fn probed(&self, signal: Signal) -> Vec<Vec<String>> {
        let endpoints: Vec<String> =
            self.endpoints.iter().map(|address| format!("\"{address}\"")).collect();
        let text = format!(
            "trial = 1\nendpoints = [{}]\nrate = 200\nreads = 0.2\ncas = 0.2\n",
            endpoints.join(", ")
        );
        let (config, ops) = (self.dir.path().join("probe.toml"), self.dir.path().join("ops.csv"));
        fs::write(&config, text).unwrap();
        let leader = self.leader().await;
        let config = Config::read(&config).unwrap();
        let struck = async {
            wait_for_rows(&ops, 200, |_| true).await;
            self.signal(leader, signal);
            // Service is back: writes are acknowledged elsewhere.
            let address = self.endpoints[leader].to_string();
            wait_for_rows(&ops, 100, |row| row[8] == "ok" && row[11] != address).await;
            if signal == Signal::STOP {
                self.signal(leader, Signal::CONT);
            }
        };
        tokio::time::timeout(Duration::from_secs(90), probe(&config, &ops, struck))
            .await
            .unwrap()
            .unwrap();
        rows(&ops)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

fn rows(ops: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(ops).unwrap_or_default();
    // The last line may still be being written.
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(whole.as_bytes());
    let rows = reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect());
    rows.collect()
}

async fn wait_for_rows(ops: &Path, count: usize, wanted: impl Fn(&[String]) -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while rows(ops).iter().filter(|row| wanted(row)).count() < count {
        assert!(Instant::now() < give_up, "{} rows", rows(ops).len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The audit came to its end, and what it misses was not promised to anybody.
fn nothing_is_lost(rows: &[Vec<String>]) {
    let closing = rows.last().unwrap();
    assert_eq!((&*closing[1], &*closing[2], &*closing[8]), ("audit", "", "ok"));
    let missing: BTreeSet<&str> = rows
        .iter()
        .filter(|row| row[9] == "false" && row[1] == "audit")
        .map(|row| &*row[2])
        .collect();
    for row in rows.iter().filter(|row| row[1] == "put" && row[8] == "ok") {
        assert!(!missing.contains(&*row[2]), "{row:?} is lost");
    }
    let own = rows.iter().filter(|row| row[2].starts_with("w/") && row[1] == "put").count();
    assert_eq!(closing[3].parse::<usize>().unwrap() + missing.len(), own);
}

#[tokio::test]
async fn the_death_of_a_leader_is_an_outage_in_which_nothing_is_lost() {
    let Some(etcd) = Etcd::start().await else { return };
    nothing_is_lost(&etcd.probed(Signal::KILL).await);
}

#[tokio::test]
async fn a_paused_leader_takes_few_operations_with_it() {
    let Some(etcd) = Etcd::start().await else { return };
    let rows = etcd.probed(Signal::STOP).await;
    nothing_is_lost(&rows);
    let unanswered = rows.iter().filter(|row| row[8] == "unknown").count();
    assert!(unanswered > 0, "an election takes longer than the deadline");
}

#[tokio::test]
async fn every_kind_of_operation_and_load_of_both_kinds() {
    let Some(etcd) = Etcd::start().await else { return };
    let settings = Settings { connections: 2, silent_after: Duration::from_secs(1) };
    let client = Client::new(&etcd.endpoints, settings);
    client.settle(Duration::from_secs(5)).await.unwrap();
    let swap = |expected: Option<&'static str>, value: &'static str| Operation::Swap {
        key: "k".into(),
        expected: expected.map(Into::into),
        value: value.into(),
    };
    for (operation, found, value) in [
        (Operation::Get { key: "k".into() }, Some(false), None),
        (swap(None, "1"), Some(true), None),
        (swap(None, "2"), Some(false), Some("1")),
        (swap(Some("1"), "3"), Some(true), None),
        (swap(Some("1"), "4"), Some(false), Some("3")),
        (Operation::Put { key: "k".into(), value: "5".into() }, None, None),
        (Operation::Get { key: "k".into() }, Some(true), Some("5")),
    ] {
        let done = client.perform(&operation, Duration::from_secs(10)).await;
        let answer = done.answer.unwrap_or_else(|| panic!("{:?}", done.trouble));
        let value: Option<&[u8]> = value.map(str::as_bytes);
        assert_eq!((answer.found, answer.value.as_deref()), (found, value), "{operation:?}");
    }
    // Refused by validation.
    let empty = Operation::Put { key: "".into(), value: "5".into() };
    let done = client.perform(&empty, Duration::from_secs(10)).await;
    assert_eq!((done.outcome, done.end_ns.is_some()), (Outcome::Failed, true), "{done:?}");

    let plan = Plan {
        endpoints: etcd.endpoints.clone(),
        pace: Pace::Rate(100),
        clients: 500,
        duration: Duration::from_millis(500),
        warmup: Duration::from_millis(100),
        value_size: 32,
        keys: 100,
        reads: 0.3,
        seed: 1,
        csv: None,
        hgrm: None,
    };
    let report = load(&plan, std::future::pending()).await.unwrap();
    assert_eq!((report.acknowledged, report.errors.len()), (50, 0), "{report}");
    let plan = Plan { pace: Pace::Max, clients: 20, ..plan };
    let report = load(&plan, std::future::pending()).await.unwrap();
    assert!(report.acknowledged > 0 && report.errors.is_empty(), "{report}");
}
