//! Counters of a node's life, for `--metrics-file`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use sraft_core::{Index, NodeId, Role, Status, Term};

use crate::counter::Counter;

/// What is counted since the process started.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    /// Messages from peers.
    pub messages_received: u64,
    /// Messages queued for peers.
    pub messages_sent: u64,
    /// Messages dropped because a peer's queue was full.
    pub messages_dropped: u64,
    /// Connections that were refused, by either side.
    pub connections_refused: u64,
    /// Records in the event log.
    pub events: u64,
    /// Microseconds that writing all records took together.
    pub events_total_us: u64,
    /// Microseconds that the slowest record took.
    pub events_slowest_us: u64,
    /// Commands proposed by the node itself (`--workload-rate`).
    pub proposed: u64,
    /// Groups of writes that became durable, each with one sync.
    pub storage_groups: u64,
    /// Writes in these groups.
    pub storage_writes: u64,
    /// Microseconds that writing and syncing all groups took together.
    pub storage_total_us: u64,
    /// Microseconds that the slowest group took.
    pub storage_slowest_us: u64,
}

impl Counts {
    /// Counts a record of the event log.
    pub fn event(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.events += 1;
        self.events_total_us = self.events_total_us.saturating_add(us);
        self.events_slowest_us = self.events_slowest_us.max(us);
    }

    /// Counts a group of writes.
    pub fn group(&mut self, tickets: u64, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.storage_groups += 1;
        self.storage_writes += tickets;
        self.storage_total_us = self.storage_total_us.saturating_add(us);
        self.storage_slowest_us = self.storage_slowest_us.max(us);
    }
}

#[derive(Serialize)]
struct Snapshot<'a> {
    node: NodeId,
    cluster: &'a str,
    pid: u32,
    role: &'static str,
    term: Term,
    leader: Option<NodeId>,
    rank: Option<u32>,
    ready: bool,
    commit_index: Index,
    last_index: Index,
    applied_index: Index,
    counter: i64,
    #[serde(flatten)]
    counts: &'a Counts,
}

/// The file that the counters are written to.
#[derive(Clone, Debug)]
pub struct MetricsFile {
    path: PathBuf,
    cluster: String,
}

impl MetricsFile {
    /// At this path; nothing is written yet.
    pub fn new(path: &Path, cluster: &str) -> MetricsFile {
        MetricsFile { path: path.to_owned(), cluster: cluster.to_owned() }
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file's content; a reader sees the old one or the new one, whole.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, status: &Status, counter: &Counter, counts: &Counts) -> io::Result<()> {
        let snapshot = Snapshot {
            node: status.id,
            cluster: &self.cluster,
            pid: std::process::id(),
            role: match status.role {
                Role::Follower => "follower",
                Role::PreCandidate => "pre-candidate",
                Role::Candidate => "candidate",
                Role::Leader => "leader",
            },
            term: status.term,
            leader: status.leader,
            rank: status.rank,
            ready: status.ready,
            commit_index: status.commit,
            last_index: status.last_index,
            applied_index: counter.applied,
            counter: counter.value,
            counts,
        };
        let mut text = serde_json::to_vec_pretty(&snapshot)?;
        text.push(b'\n');
        let mut staged = self.path.clone().into_os_string();
        staged.push(".new");
        fs::write(&staged, text)?;
        fs::rename(&staged, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_one_json_object() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.json");
        let status = Status {
            id: 2,
            role: Role::Leader,
            term: 3,
            leader: Some(2),
            rank: None,
            commit: 9,
            first_index: 1,
            last_index: 10,
            ready: true,
        };
        let mut counts = Counts::default();
        counts.group(3, Duration::from_micros(250));
        counts.group(1, Duration::from_micros(150));
        let counter = Counter { value: -4, applied: 9 };
        MetricsFile::new(&path, "c").write(&status, &counter, &counts).unwrap();
        let json: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(json["role"], "leader");
        assert_eq!(json["counter"], -4);
        assert_eq!(json["storage_writes"], 4);
        assert_eq!(json["storage_total_us"], 400);
        assert_eq!(json["storage_slowest_us"], 250);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
