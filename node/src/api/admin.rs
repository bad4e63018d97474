//! HTTP for administrators, load balancers and Prometheus. One request per connection, so that
//! nobody can keep one of the few that there are.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::Serialize;
use sraft_core::{NodeId, Role};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

use super::{
    Limits, cluster_id, connections::accept, exposition::Exposition, member::Desk, traffic::Traffic,
};
use crate::desk::NodeStatus;

/// Longest time for a connection, from its beginning to its end.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// Longest time that the driver may take to say how it is.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// The server for administrators.
#[derive(Debug)]
pub(super) struct Admin {
    router: Router,
    connections: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
struct Source {
    desk: Desk,
    traffic: Arc<Traffic>,
}

impl Admin {
    pub(super) fn new(limits: &Limits, desk: &Desk, traffic: &Arc<Traffic>) -> Admin {
        let router = Router::new()
            .route("/status", get(status))
            .route("/metrics", get(metrics))
            .route("/healthz", get(healthz))
            .route("/leader", get(leader))
            .fallback(|| async {
                (StatusCode::NOT_FOUND, "there are /status, /metrics, /healthz and /leader\n")
            })
            .with_state(Source { desk: desk.clone(), traffic: traffic.clone() });
        let most = limits.admin_connections.min(Semaphore::MAX_PERMITS);
        Admin { router, connections: Arc::new(Semaphore::new(most)) }
    }

    pub(super) async fn run(self, listener: TcpListener) {
        loop {
            let stream = accept(&listener).await;
            let Ok(permit) = self.connections.clone().try_acquire_owned() else { continue };
            let service = TowerToHyperService::new(self.router.clone());
            tokio::spawn(async move {
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).keep_alive(false).max_buf_size(16 << 10);
                // What goes wrong on a connection ends it, and its client knows.
                let served = http.serve_connection(TokioIo::new(stream), service);
                let _ = timeout(CONNECTION_TIME, served).await;
                drop(permit);
            });
        }
    }
}

impl Source {
    async fn status(&self) -> Result<NodeStatus, Response> {
        let reason = match timeout(ANSWER_TIME, self.desk.status()).await {
            Ok(Ok(status)) => return Ok(status),
            Ok(Err(_)) => "the node has stopped\n",
            Err(_) => "the node does not answer\n",
        };
        Err((StatusCode::SERVICE_UNAVAILABLE, reason).into_response())
    }
}

/// Whether the node can be of use: it knows a leader and is not about to stop.
async fn healthz(State(source): State<Source>) -> Result<Response, Response> {
    let status = source.status().await?;
    Ok(if status.stopping {
        (StatusCode::SERVICE_UNAVAILABLE, "the node is stopping\n").into_response()
    } else if status.leader.is_none() {
        (StatusCode::SERVICE_UNAVAILABLE, "no leader\n").into_response()
    } else {
        "ok\n".into_response()
    })
}

/// Whether the node is the leader and can be given work.
async fn leader(State(source): State<Source>) -> Result<Response, Response> {
    let status = source.status().await?;
    let elsewhere = |text: String| (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    Ok(match (status.role, status.leader) {
        _ if status.stopping => elsewhere("the node is stopping\n".to_owned()),
        (Role::Leader, _) if status.ready => format!("node {} leads\n", status.id).into_response(),
        (Role::Leader, _) => elsewhere(format!("node {} is about to lead\n", status.id)),
        (_, Some(leader)) => elsewhere(format!("node {leader} leads\n")),
        (_, None) => elsewhere("no leader\n".to_owned()),
    })
}

/// What `/status` says. Sizes are in bytes, times in seconds.
#[derive(Serialize)]
struct Report {
    id: NodeId,
    cluster: String,
    /// As a string: JSON's numbers do not hold 64 bits everywhere.
    cluster_id: String,
    boot_id: String,
    version: &'static str,
    uptime_seconds: f64,
    role: &'static str,
    rank: Option<u32>,
    ready: bool,
    stopping: bool,
    term: u64,
    leader: Option<NodeId>,
    commit_index: u64,
    applied_index: u64,
    first_index: u64,
    last_index: u64,
    log_bytes: u64,
    snapshot_index: u64,
    snapshot_bytes: u64,
    revision: i64,
    keys: u64,
    store_bytes: u64,
    pending_writes: u64,
    pending_reads: u64,
    peers: Vec<Peer>,
}

#[derive(Serialize)]
struct Peer {
    id: NodeId,
    connected: bool,
}

async fn status(State(source): State<Source>) -> Result<Response, Response> {
    let status = source.status().await?;
    let peers = status.peers.iter().map(|peer| Peer { id: peer.id, connected: peer.connected });
    Ok(Json(Report {
        id: status.id,
        cluster_id: format!("{:016x}", cluster_id(&status.cluster)),
        boot_id: format!("{:016x}", status.boot_id),
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: status.uptime.as_secs_f64(),
        role: role_name(status.role),
        rank: status.rank,
        ready: status.ready,
        stopping: status.stopping,
        term: status.term,
        leader: status.leader,
        commit_index: status.commit,
        applied_index: status.applied,
        first_index: status.first_index,
        last_index: status.last_index,
        log_bytes: status.log_bytes,
        snapshot_index: status.snapshot_index,
        snapshot_bytes: status.snapshot_bytes,
        revision: status.revision,
        keys: status.keys,
        store_bytes: status.store_bytes,
        pending_writes: status.pending_writes,
        pending_reads: status.pending_reads,
        peers: peers.collect(),
        cluster: status.cluster,
    })
    .into_response())
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

async fn metrics(State(source): State<Source>) -> Result<Response, Response> {
    let status = source.status().await?;
    let mut out = Exposition::default();
    expose(&status, &mut out);
    source.traffic.expose(&mut out);
    let format = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((format, out.finish()).into_response())
}

fn expose(status: &NodeStatus, out: &mut Exposition) {
    out.family("sraft_node_info", "gauge", "Who the node is; always 1.");
    let id = status.id.to_string();
    let labels =
        [("node", &*id), ("cluster", &*status.cluster), ("version", env!("CARGO_PKG_VERSION"))];
    out.sample("sraft_node_info", &labels, 1.0);
    out.family("sraft_role", "gauge", "1 for the role that the node has, 0 for the others.");
    for role in [Role::Follower, Role::PreCandidate, Role::Candidate, Role::Leader] {
        let is = f64::from(u8::from(role == status.role));
        out.sample("sraft_role", &[("role", role_name(role))], is);
    }
    out.family("sraft_peer_connected", "gauge", "Whether there is a connection to the peer.");
    for peer in &status.peers {
        let id = peer.id.to_string();
        let connected = f64::from(u8::from(peer.connected));
        out.sample("sraft_peer_connected", &[("peer", &*id)], connected);
    }
    let truth = |is: bool| f64::from(u8::from(is));
    let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
    let counts = &status.counts;
    // A metric without a value is left out, not 0.
    if let Some(rank) = status.rank {
        out.gauge("sraft_rank", "Rank among the sub-leaders.", f64::from(rank));
    }
    for (name, help, value) in [
        ("sraft_uptime_seconds", "Time since the node started.", status.uptime.as_secs_f64()),
        ("sraft_has_leader", "Whether a leader is known.", truth(status.leader.is_some())),
        ("sraft_leader_ready", "Whether the node leads and may serve.", truth(status.ready)),
        ("sraft_stopping", "Whether the node is stopping.", truth(status.stopping)),
        ("sraft_term", "Term of the node.", status.term as f64),
        ("sraft_commit_index", "Commit index.", status.commit as f64),
        ("sraft_applied_index", "Last entry applied.", status.applied as f64),
        ("sraft_log_first_index", "Oldest entry of the log.", status.first_index as f64),
        ("sraft_log_last_index", "Last entry of the log.", status.last_index as f64),
        ("sraft_log_bytes", "Bytes of commands in the log.", status.log_bytes as f64),
        ("sraft_snapshot_index", "Last entry in the snapshot.", status.snapshot_index as f64),
        ("sraft_snapshot_bytes", "Size of the snapshot.", status.snapshot_bytes as f64),
        ("sraft_store_revision", "Revision of the store.", status.revision as f64),
        ("sraft_store_keys", "Keys in the store.", status.keys as f64),
        ("sraft_store_bytes", "Bytes of keys and values.", status.store_bytes as f64),
        ("sraft_pending_writes", "Writes that clients wait for.", status.pending_writes as f64),
        ("sraft_pending_reads", "Reads that clients wait for.", status.pending_reads as f64),
    ] {
        out.gauge(name, help, value);
    }
    for (name, help, value) in [
        ("sraft_snapshots_taken_total", "Snapshots taken.", status.snapshots_taken as f64),
        (
            "sraft_snapshots_installed_total",
            "Snapshots received from a leader.",
            status.snapshots_installed as f64,
        ),
        (
            "sraft_peer_messages_received_total",
            "Messages from peers.",
            counts.messages_received as f64,
        ),
        (
            "sraft_peer_messages_sent_total",
            "Messages queued for peers.",
            counts.messages_sent as f64,
        ),
        (
            "sraft_peer_messages_dropped_total",
            "Messages dropped because a peer's queue was full.",
            counts.messages_dropped as f64,
        ),
        (
            "sraft_peer_connections_refused_total",
            "Connections with peers refused by either side.",
            counts.connections_refused as f64,
        ),
        ("sraft_events_total", "Records in the event log.", counts.events as f64),
        (
            "sraft_events_seconds_total",
            "Time that writing them took.",
            seconds(counts.events_total_us),
        ),
        (
            "sraft_storage_syncs_total",
            "Groups of writes made durable, each with one sync.",
            counts.storage_groups as f64,
        ),
        ("sraft_storage_writes_total", "Writes in these groups.", counts.storage_writes as f64),
        (
            "sraft_storage_seconds_total",
            "Time that writing and syncing them took.",
            seconds(counts.storage_total_us),
        ),
    ] {
        out.counter(name, help, value);
    }
}
