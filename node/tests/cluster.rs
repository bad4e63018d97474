//! Whole clusters of real processes on the loopback interface.
//!
//! The tests wait for records of the nodes' event logs; time only bounds how long.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sraft_events::{CampaignKind, Event, NodeId, Record, Source};

/// Far longer than anything here takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A port that nobody listens on, below those that the kernel hands out to clients: one of those
/// could be gone again before the node listens on it.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let place = std::process::id() * 64 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (place % 20_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

struct Cluster {
    dir: tempfile::TempDir,
    ports: Vec<u16>,
    options: Vec<String>,
    nodes: Vec<Option<Child>>,
}

impl Cluster {
    fn start(size: usize, options: &[&str]) -> Cluster {
        let ports = (0..size).map(|_| free_port()).collect();
        let mut cluster = Cluster {
            dir: tempfile::tempdir().unwrap(),
            ports,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            nodes: (0..size).map(|_| None).collect(),
        };
        for node in 1..=size as NodeId {
            cluster.start_node(node);
        }
        cluster
    }

    fn command(&self, node: NodeId) -> Command {
        let peers: Vec<String> =
            self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sraft-node"));
        command
            .args(["--peers", &peers.join(",")])
            .args(["--port", &self.ports[node as usize - 1].to_string()])
            .args(["--data-dir".into(), self.path(node, "data")])
            .args(["--log-file".into(), self.path(node, "log")])
            .args(&self.options)
            .env_remove("RAFT_NODE_ID")
            .env_remove("RAFT_PORT")
            .env_remove("RAFT_PEERS")
            .env_remove("ENABLE_SUBLEADER")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn path(&self, node: NodeId, what: &str) -> PathBuf {
        self.dir.path().join(format!("{node}.{what}"))
    }

    fn start_node(&mut self, node: NodeId) {
        let child = self.command(node).spawn().unwrap();
        assert!(self.nodes[node as usize - 1].replace(child).is_none());
    }

    fn signal(&mut self, node: NodeId, signal: Signal) -> ExitStatus {
        let mut child = self.nodes[node as usize - 1].take().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() >= until {
                child.kill().unwrap();
                panic!("node {node} ignores {signal:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Every whole record so far, in the order of the clock that all nodes share.
    fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for node in 1..=self.nodes.len() as NodeId {
            let text = fs::read_to_string(self.path(node, "log")).unwrap_or_default();
            let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            records.extend(whole.map(|line| serde_json::from_str::<Record>(line).unwrap()));
        }
        records.sort_by_key(|record| record.mono_ns);
        records
    }

    /// Waits until the records yield something.
    fn until<T>(&self, what: &str, find: impl Fn(&[Record]) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            let records = self.records();
            if let Some(found) = find(&records) {
                return found;
            }
            if Instant::now() >= until {
                let lines: Vec<String> =
                    records.iter().map(|r| format!("{} {:?}", r.source, r.event)).collect();
                panic!("{what} did not happen:\n{}", lines.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for a leader of a term above `above` that serves; returns it and its term.
    fn leader(&self, above: u64) -> (NodeId, u64) {
        self.until("a leader that serves", |records| {
            records.iter().rev().find_map(|record| match (&record.source, &record.event) {
                (Source::Node(node), Event::Ready { term, .. }) if *term > above => {
                    Some((*node, *term))
                }
                _ => None,
            })
        })
    }

    /// Waits until the leader of `term` has designated and every one of `peers` follows it.
    fn settled(&self, leader: NodeId, term: u64, peers: usize) -> Vec<NodeId> {
        self.until("a settled cluster", |records| {
            let of_leader = records.iter().filter(|record| record.source == Source::Node(leader));
            let (mut synced, mut ranks) = (Vec::new(), Vec::new());
            for record in of_leader {
                match &record.event {
                    Event::FollowerSynced { peer, term: t, .. } if *t == term => synced.push(*peer),
                    Event::FollowerLost { peer, term: t, .. } if *t == term => {
                        synced.retain(|synced| synced != peer);
                    }
                    Event::Designated { term: t, ranks: r, .. } if *t == term => {
                        ranks.clone_from(r);
                    }
                    _ => {}
                }
            }
            (synced.len() == peers && !ranks.is_empty()).then_some(ranks)
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn elected(records: &[Record], term: u64) -> (NodeId, CampaignKind) {
    let all: Vec<(NodeId, CampaignKind)> = records
        .iter()
        .filter_map(|record| match (&record.source, &record.event) {
            (Source::Node(node), Event::Elected { term: t, campaign, .. }) if *t == term => {
                Some((*node, *campaign))
            }
            _ => None,
        })
        .collect();
    assert_eq!(all.len(), 1, "one leader per term: {all:?}");
    all[0]
}

#[test]
fn a_killed_leader_is_replaced_by_its_primary_and_comes_back_with_its_state() {
    let mut cluster = Cluster::start(3, &["--preset", "lan", "--workload-rate", "200"]);
    let (leader, term) = cluster.leader(0);
    let ranks = cluster.settled(leader, term, 2);
    assert_eq!(ranks.len(), 1);

    cluster.signal(leader, Signal::KILL);
    let (successor, next) = cluster.leader(term);
    let records = cluster.records();
    if elected(&records, next) == (successor, CampaignKind::Promotion) {
        // Anything else is possible on a starved machine, but a promotion is the Primary's.
        assert_eq!(successor, ranks[0]);
        assert_eq!(next, term + 1, "the term reserved for rank 0");
    }
    assert!(records.iter().any(|record| matches!(
        &record.event,
        Event::PeerLost { peer, cause: sraft_events::LossCause::Refused } if *peer == leader
    )));

    cluster.start_node(leader);
    cluster.settled(successor, next, 2);
    let starts: Vec<(u64, u64)> = cluster
        .records()
        .iter()
        .filter(|record| record.source == Source::Node(leader))
        .filter_map(|record| match record.event {
            Event::NodeStarted { term, last_index, .. } => Some((term, last_index)),
            _ => None,
        })
        .collect();
    assert_eq!(starts[0], (0, 0));
    assert!(starts[1].0 >= term && starts[1].1 > 0, "{starts:?}");
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over_first() {
    let mut cluster = Cluster::start(3, &["--preset", "reference"]);
    let (leader, term) = cluster.leader(0);
    cluster.settled(leader, term, 2);
    assert!(cluster.signal(leader, Signal::TERM).success());
    let (successor, next) = cluster.leader(term);
    assert_ne!(successor, leader);
    let records = cluster.records();
    assert_eq!(elected(&records, next).1, CampaignKind::Transfer);
    assert!(records.iter().any(|record| record.source == Source::Node(leader)
        && matches!(&record.event, Event::NodeStopped { reason } if reason.contains("SIGTERM"))));
}

#[test]
fn a_node_killed_at_any_moment_of_its_first_start_starts_again() {
    // The storage engine makes a dozen files in a few milliseconds. A kill in the middle must not
    // leave a directory that it cannot open.
    let mut cluster = Cluster::start(0, &["--preset", "lan"]);
    for sign in ["lock", "identity.toml", "watermark", "log.new", "log"] {
        cluster.ports = vec![free_port()];
        cluster.nodes = vec![None];
        let data = cluster.path(1, "data");
        let killed_at = data.join(sign);
        cluster.start_node(1);
        let until = Instant::now() + PATIENCE;
        while !killed_at.exists() && !data.join("log").exists() {
            assert!(Instant::now() < until, "{sign} does not come");
        }
        cluster.signal(1, Signal::KILL);
        cluster.start_node(1);
        cluster.leader(0);
        cluster.signal(1, Signal::KILL);
        fs::remove_dir_all(&data).unwrap();
        fs::remove_file(cluster.path(1, "log")).unwrap();
    }
}

#[test]
fn original_raft_elects_without_sub_leaders() {
    let cluster = Cluster::start(3, &["--original-raft", "--preset", "lan"]);
    let (leader, term) = cluster.leader(0);
    cluster.until("followers in step", |records| {
        let synced = |r: &&Record| matches!(r.event, Event::FollowerSynced { .. });
        (records.iter().filter(synced).count() >= 2).then_some(())
    });
    let records = cluster.records();
    assert_eq!(elected(&records, term), (leader, CampaignKind::Election));
    assert!(!records.iter().any(|record| matches!(record.event, Event::Designated { .. })));
}

#[test]
fn garbage_on_the_peer_port_is_recorded_and_the_cluster_goes_on() {
    let mut cluster = Cluster::start(3, &["--preset", "lan"]);
    let (leader, term) = cluster.leader(0);
    cluster.settled(leader, term, 2);
    let port = cluster.ports[leader as usize - 1];
    let garbage: [&[u8]; 3] =
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[0xff; 64], b"\0\0\0\x10SRFT\xff\xff0123456789"];
    for bytes in garbage {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        // The node closes it, with or without an answer.
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
    let refused = |records: &[Record], part: &str| {
        records.iter().any(|record| {
            record.source == Source::Node(leader)
                && matches!(&record.event, Event::ConnectionRefused { reason, .. } if reason.contains(part))
        })
    };
    for part in ["no sraft node", "version 65535"] {
        cluster.until(part, |records| refused(records, part).then_some(()));
    }
    // It is still the leader, and its cluster still replaces it when it ends.
    assert!(!cluster.records().iter().any(|r| matches!(r.event, Event::SteppedDown { .. })));
    cluster.signal(leader, Signal::KILL);
    assert_ne!(cluster.leader(term).0, leader);
}

#[test]
fn a_node_of_another_cluster_is_refused_on_both_sides() {
    let mut cluster = Cluster::start(3, &["--preset", "lan"]);
    let (leader, term) = cluster.leader(0);
    let other = leader % 3 + 1;
    cluster.settled(leader, term, 2);
    cluster.signal(other, Signal::KILL);
    fs::remove_dir_all(cluster.path(other, "data")).unwrap();
    cluster.options.extend(["--cluster".to_owned(), "elsewhere".to_owned()]);
    cluster.start_node(other);
    for (node, part) in [(leader, "cluster `elsewhere`"), (other, "the other side refuses")] {
        cluster.until(part, |records| {
            let refused = |record: &Record| {
                record.source == Source::Node(node)
                    && matches!(&record.event, Event::ConnectionRefused { reason, .. } if reason.contains(part))
            };
            records.iter().any(refused).then_some(())
        });
    }
}

#[test]
fn a_single_node_says_what_it_does_and_cleans_up() {
    let mut cluster = Cluster::start(0, &["--debug", "--preset", "lan"]);
    cluster.ports.push(free_port());
    let (pid_file, metrics) = (cluster.path(1, "pid"), cluster.path(1, "metrics"));
    let mut child = cluster
        .command(1)
        .args(["--pid-file".as_ref(), pid_file.as_os_str()])
        .args(["--metrics-file".as_ref(), metrics.as_os_str()])
        .args(["--die-with-parent", &std::process::id().to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    cluster.nodes.push(Some(child));
    cluster.leader(0);
    let pid = fs::read_to_string(&pid_file).unwrap();
    assert_eq!(pid.trim(), cluster.nodes[0].as_ref().unwrap().id().to_string());
    assert!(cluster.signal(1, Signal::TERM).success());
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    for part in ["[Node 1] Started", "[ELECTION SUCCESS] Node 1 -> LEADER", "SIGTERM"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!pid_file.exists());
    let metrics: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&metrics).unwrap()).unwrap();
    assert_eq!(metrics["role"], "leader");
    assert!(metrics["storage_groups"].as_u64().unwrap() > 0);
}
