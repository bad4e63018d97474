//! Clusters of real processes on the loopback interface, and clients of theirs.

#![allow(dead_code, reason = "each of the tests' programs uses a part of it")]
#![allow(missing_docs, unreachable_pub, reason = "it is part of tests")]

pub mod client;

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sraft_events::{Event, NodeId, Record, Source};

/// Far longer than anything here takes; only a test that fails waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A port that nobody listens on, below those that the kernel hands out to clients: one of those
/// could be gone again before the node listens on it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let place = std::process::id() * 64 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (place % 20_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

pub struct Cluster {
    pub dir: tempfile::TempDir,
    /// For peers.
    pub ports: Vec<u16>,
    /// For clients.
    pub client_ports: Vec<u16>,
    /// Of every node.
    pub options: Vec<String>,
    pub nodes: Vec<Option<Child>>,
}

impl Cluster {
    pub fn start(size: usize, options: &[&str]) -> Cluster {
        let mut cluster = Cluster {
            dir: directory(),
            ports: (0..size).map(|_| free_port()).collect(),
            client_ports: (0..size).map(|_| free_port()).collect(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            nodes: (0..size).map(|_| None).collect(),
        };
        for node in 1..=size as NodeId {
            cluster.start_node(node);
        }
        cluster
    }

    pub fn command(&self, node: NodeId) -> Command {
        let peers: Vec<String> =
            self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sraft-node"));
        command
            .args(["--peers", &peers.join(",")])
            .args(["--port", &self.ports[node as usize - 1].to_string()])
            .args(["--client-port", &self.client_ports[node as usize - 1].to_string()])
            .args(["--admin-port", &free_port().to_string()])
            .args(["--data-dir".into(), self.path(node, "data")])
            .args(["--log-file".into(), self.path(node, "log")])
            .args(&self.options)
            .env_remove("RAFT_NODE_ID")
            .env_remove("RAFT_PORT")
            .env_remove("RAFT_PEERS")
            .env_remove("ENABLE_SUBLEADER")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.path(node, "err")).unwrap());
        command
    }

    pub fn path(&self, node: NodeId, what: &str) -> PathBuf {
        self.dir.path().join(format!("{node}.{what}"))
    }

    pub fn start_node(&mut self, node: NodeId) {
        let child = self.command(node).spawn().unwrap();
        assert!(self.nodes[node as usize - 1].replace(child).is_none());
    }

    /// Where a node serves clients.
    pub fn endpoint(&self, node: NodeId) -> String {
        format!("http://127.0.0.1:{}", self.client_ports[node as usize - 1])
    }

    pub fn endpoints(&self) -> Vec<String> {
        (1..=self.nodes.len() as NodeId).map(|node| self.endpoint(node)).collect()
    }

    /// What a node has written to its standard error since its last start.
    pub fn complaints(&self, node: NodeId) -> String {
        fs::read_to_string(self.path(node, "err")).unwrap_or_default()
    }

    /// Waits for a node that ends by itself.
    pub fn ended(&mut self, node: NodeId) -> ExitStatus {
        let mut child = self.nodes[node as usize - 1].take().unwrap();
        wait(&mut child, "goes on")
    }

    pub fn signal(&mut self, node: NodeId, signal: Signal) -> ExitStatus {
        let mut child = self.nodes[node as usize - 1].take().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        wait(&mut child, "ignores its signal")
    }

    /// Every whole record so far, in the order of the clock that all nodes share.
    pub fn records(&self) -> Vec<Record> {
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
    pub fn until<T>(&self, what: &str, find: impl Fn(&[Record]) -> Option<T>) -> T {
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
    pub fn leader(&self, above: u64) -> (NodeId, u64) {
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
    pub fn settled(&self, leader: NodeId, term: u64, peers: usize) -> Vec<NodeId> {
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

/// Where nodes keep their data: on a disk if there is one, for what is in memory is never slow.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").or_else(|_| tempfile::tempdir()).unwrap()
}

fn wait(child: &mut Child, what: &str) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() >= until {
            child.kill().unwrap();
            panic!("process {} {what}", child.id());
        }
        std::thread::sleep(Duration::from_millis(2));
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
