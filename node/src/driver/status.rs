//! What a node says of itself.

use sraft_core::{NodeId, Time};

use super::Driver;
use crate::{
    desk::{NodeStatus, PeerStatus},
    peers::Address,
};

impl Driver {
    fn client_url(&self, peer: NodeId) -> Option<String> {
        let (port, host) = (self.transport.client_port(peer)?, self.hosts.get(&peer)?.clone());
        Some(format!("http://{}", Address { host, port }))
    }

    pub(super) fn status(&self, now: Time) -> NodeStatus {
        let status = self.node.status();
        let view = self.machine.store().view();
        NodeStatus {
            id: self.id,
            cluster: self.cluster.clone(),
            boot_id: self.boot_id,
            uptime: now.since(self.started),
            role: status.role,
            rank: status.rank,
            ready: status.ready,
            stopping: self.stop_by.is_some(),
            term: status.term,
            leader: status.leader,
            commit: status.commit,
            applied: self.machine.store().applied(),
            first_index: status.first_index,
            last_index: status.last_index,
            log_bytes: self.machine.log_bytes(),
            snapshot_index: self.machine.snapshot_index,
            snapshot_bytes: self.machine.snapshot_bytes,
            snapshots_taken: self.counts.snapshots,
            snapshots_installed: self.machine.installed,
            revision: view.revision(),
            keys: view.len() as u64,
            store_bytes: view.bytes(),
            pending_writes: self.writes.len() as u64,
            pending_reads: self.reads.len() as u64,
            peers: self
                .links
                .iter()
                .map(|(id, link)| PeerStatus {
                    id: *id,
                    connected: link.is_up(),
                    client_url: self.client_url(*id),
                })
                .collect(),
            counts: self.counts,
        }
    }
}
