//! Counters of a node's life, for `--metrics-file`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use sraft_core::{Index, NodeId, Role, Term};

use crate::{desk::NodeStatus, store::Revision};

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
    /// Commands of this node's clients that were proposed, those included that were proposed again.
    pub proposed: u64,
    /// Groups of writes that became durable, each with one sync.
    pub storage_groups: u64,
    /// Writes in these groups.
    pub storage_writes: u64,
    /// Microseconds that writing and syncing all groups took together.
    pub storage_total_us: u64,
    /// Microseconds that the slowest group took.
    pub storage_slowest_us: u64,
    /// Snapshots of this node's own that became durable.
    pub snapshots: u64,
    /// Microseconds that writing the slowest of them took.
    pub snapshots_slowest_us: u64,
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

    /// Counts a snapshot.
    pub fn snapshot(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.snapshots += 1;
        self.snapshots_slowest_us = self.snapshots_slowest_us.max(us);
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
    first_index: Index,
    snapshot_index: Index,
    revision: Revision,
    keys: u64,
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
    pub fn write(&self, status: &NodeStatus) -> io::Result<()> {
        let snapshot = Snapshot {
            node: status.id,
            cluster: &self.cluster,
            pid: std::process::id(),
            role: role_name(status.role),
            term: status.term,
            leader: status.leader,
            rank: status.rank,
            ready: status.ready,
            commit_index: status.commit,
            last_index: status.last_index,
            applied_index: status.applied,
            first_index: status.first_index,
            snapshot_index: status.snapshot_index,
            revision: status.revision,
            keys: status.keys,
            counts: &status.counts,
        };
        let mut text = serde_json::to_vec_pretty(&snapshot)?;
        text.push(b'\n');
        let mut staged = self.path.clone().into_os_string();
        staged.push(".new");
        fs::write(&staged, text)?;
        fs::rename(&staged, &self.path)
    }
}

/// The name of a role, as it stands in records.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_one_json_object() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.json");
        let mut counts = Counts::default();
        counts.group(3, Duration::from_micros(250));
        counts.group(1, Duration::from_micros(150));
        counts.snapshot(Duration::from_millis(2));
        counts.snapshot(Duration::from_millis(1));
        let status = NodeStatus {
            id: 2,
            cluster: "c".to_owned(),
            boot_id: 7,
            uptime: Duration::from_secs(1),
            role: Role::Leader,
            rank: None,
            ready: true,
            stopping: false,
            term: 3,
            leader: Some(2),
            commit: 9,
            applied: 9,
            first_index: 5,
            last_index: 10,
            log_bytes: 100,
            snapshot_index: 4,
            snapshot_bytes: 50,
            snapshots_taken: 2,
            snapshots_installed: 0,
            revision: 8,
            keys: 3,
            store_bytes: 30,
            pending_writes: 0,
            pending_reads: 0,
            peers: Vec::new(),
            counts,
        };
        MetricsFile::new(&path, "c").write(&status).unwrap();
        let json: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(json["role"], "leader");
        assert_eq!(json["revision"], 8);
        assert_eq!(json["snapshot_index"], 4);
        assert_eq!(json["snapshots"], 2);
        assert_eq!(json["snapshots_slowest_us"], 2000);
        assert_eq!(json["storage_writes"], 4);
        assert_eq!(json["storage_total_us"], 400);
        assert_eq!(json["storage_slowest_us"], 250);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
