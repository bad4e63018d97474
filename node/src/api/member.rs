//! This member as clients see it: the way to the driver, headers, and the services about members.

use sraft_core::{NodeId, Term};
use sraft_rpc::etcdserverpb::{
    self as pb, cluster_server::Cluster, maintenance_server::Maintenance,
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

use super::{Member, Settings, cluster_id, status};
use crate::{
    desk::{Ask, NodeStatus, Unserved},
    store::{Op, Outcome, Revision, View},
};

/// The API's side of the desk.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    id: NodeId,
    cluster_id: u64,
    ask: mpsc::Sender<Ask>,
}

impl Desk {
    pub(super) fn new(settings: &Settings, ask: mpsc::Sender<Ask>) -> Desk {
        Desk { id: settings.id, cluster_id: cluster_id(&settings.cluster), ask }
    }

    pub(super) fn header(&self, revision: Revision, term: Term) -> pb::ResponseHeader {
        let (cluster_id, member_id) = (self.cluster_id, self.id);
        pb::ResponseHeader { cluster_id, member_id, revision, raft_term: term }
    }

    pub(super) async fn write(&self, op: Op) -> Result<(Outcome, Term), Status> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Write { op, reply }, answer).await?.map_err(unserved)
    }

    pub(super) async fn read(&self, linearizable: bool) -> Result<(View, Term), Status> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Read { linearizable, reply }, answer).await?.map_err(unserved)
    }

    pub(super) async fn status(&self) -> Result<NodeStatus, Status> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Status { reply }, answer).await
    }

    async fn ask<T>(&self, ask: Ask, answer: oneshot::Receiver<T>) -> Result<T, Status> {
        // Either end is dropped only by a driver that has ended.
        self.ask.send(ask).await.map_err(|_| status::stopped())?;
        answer.await.map_err(|_| status::stopped())
    }
}

fn unserved(reason: Unserved) -> Status {
    status::unserved(&reason)
}

/// The services about members: Maintenance and Cluster.
#[derive(Clone, Debug)]
pub(super) struct About {
    desk: Desk,
    members: Vec<Member>,
}

impl About {
    pub(super) fn new(settings: &Settings, desk: Desk) -> About {
        About { desk, members: settings.members.clone() }
    }
}

#[tonic::async_trait]
impl Maintenance for About {
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        if request.get_ref().action != pb::alarm_request::AlarmAction::Get as i32 {
            return Err(Status::unimplemented(
                "alarms are never raised here, so they can only be listed",
            ));
        }
        let status = self.desk.status().await?;
        let header = Some(self.desk.header(status.revision, status.term));
        Ok(Response::new(pb::AlarmResponse { header, alarms: Vec::new() }))
    }

    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let status = self.desk.status().await?;
        let no_leader = status.leader.is_none().then(|| "etcdserver: no leader".to_owned());
        Ok(Response::new(pb::StatusResponse {
            header: Some(self.desk.header(status.revision, status.term)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            db_size: bytes(status.log_bytes.saturating_add(status.snapshot_bytes)),
            leader: status.leader.unwrap_or(0),
            raft_index: status.last_index,
            raft_term: status.term,
            raft_applied_index: status.applied,
            errors: no_leader.into_iter().collect(),
            db_size_in_use: bytes(status.store_bytes),
            is_learner: false,
        }))
    }

    async fn move_leader(
        &self,
        _: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        Err(Status::unimplemented(
            "the leader names its successors itself: stop it with SIGTERM and it hands over to the \
             first of them",
        ))
    }
}

#[tonic::async_trait]
impl Cluster for About {
    async fn member_list(
        &self,
        _: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let status = self.desk.status().await?;
        // Members tell each other where they serve clients.
        let told = |id| status.peers.iter().find(|peer| peer.id == id)?.client_url.clone();
        let members = self.members.iter().map(|member| pb::Member {
            id: member.id,
            name: member.name.clone(),
            peer_ur_ls: vec![member.peer_url.clone()],
            client_ur_ls: told(member.id)
                .or_else(|| member.client_url.clone())
                .into_iter()
                .collect(),
            is_learner: false,
        });
        Ok(Response::new(pb::MemberListResponse {
            header: Some(self.desk.header(status.revision, status.term)),
            members: members.collect(),
        }))
    }
}

fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
