//! A cluster that somebody else has started and that stays up.

use std::time::Duration;

use sraft_agent::protocol::Call;
use sraft_events::{NodeId, Source};

use super::{Cluster, Halt};
use crate::{
    host::Reach,
    keeper::{EVENT_LOG, PROCESS},
};

/// How long a node may take until it answers again. Less than an agent may take to answer.
const REVIVED_WITHIN: Duration = Duration::from_secs(12);

impl Cluster {
    /// From now on nodes are not started, but adopted.
    pub(crate) fn attach(&mut self) {
        self.attached = true;
    }

    /// Looks after nodes that run already.
    pub(super) fn adopt(&mut self, nodes: &[NodeId]) -> Result<(), Halt> {
        let mut calls = Vec::new();
        for node in nodes {
            let host = self.host_of(*node);
            let Reach::Ssh(target) = &self.hosts[host].reach else {
                return Err(self.lost(host, "nobody keeps a node on this machine".to_owned()));
            };
            let dir = target.survey.dir.clone();
            let within = REVIVED_WITHIN.as_millis().to_string();
            let revive = ["keeper", "revive", "--dir", &dir, "--within-ms", &within];
            let call = Call::Adopt {
                node: *node,
                dir: format!("{dir}/cluster"),
                process_file: PROCESS.to_owned(),
                log_file: EVENT_LOG.to_owned(),
                revive: revive.map(str::to_owned).to_vec(),
            };
            calls.push((host, call));
        }
        self.ask_all(calls)?;
        // The view has taken up what the nodes are. What made them so was before, and is no part of
        // what is measured.
        self.records.retain(|record| !matches!(record.source, Source::Node(_)));
        Ok(())
    }

    /// Has nodes started again that were ended.
    pub(super) fn revive(&mut self, nodes: &[NodeId]) -> Result<(), Halt> {
        let calls = nodes.iter().map(|node| (self.host_of(*node), Call::Revive { node: *node }));
        self.ask_all(calls.collect()).map(drop)
    }
}
