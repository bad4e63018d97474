//! A system of one member, in this process, that can be told to misbehave.

#![allow(dead_code, unreachable_pub)] // every test file uses a part of it

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use sraft_client::address::Address;
use sraft_rpc::{
    etcdserverpb::{
        AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
        DeleteRangeResponse, MoveLeaderRequest, MoveLeaderResponse, PutRequest, PutResponse,
        RangeRequest, RangeResponse, ResponseHeader, ResponseOp, StatusRequest, StatusResponse,
        TxnRequest, TxnResponse,
        compare::TargetUnion,
        kv_server::{Kv, KvServer},
        maintenance_server::{Maintenance, MaintenanceServer},
        request_op, response_op,
    },
    mvccpb::KeyValue,
};
use tokio::sync::{oneshot, watch};
use tonic::{
    Code, Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// How the member treats requests.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// As it should.
    Serve,
    /// Answers reads and writes with this, without doing anything.
    Refuse(Code, String),
    /// Does what it is asked and answers with this all the same.
    ServeAndSay(Code, String),
    /// Holds reads and writes back until the mode changes; says who leads.
    Hold,
    /// Holds everything back, as a paused process does.
    HoldAll,
}

#[derive(Clone, Debug, Default)]
struct Store {
    revision: i64,
    pairs: BTreeMap<Bytes, Bytes>,
}

struct State {
    id: u64,
    mode: watch::Sender<Mode>,
    /// Reads and writes that have arrived.
    seen: watch::Sender<u64>,
    /// Leader and term.
    lead: Mutex<(u64, u64)>,
    store: Mutex<Store>,
}

/// The member. It dies, connections and all, when it is dropped.
pub struct Fake {
    pub address: Address,
    state: Arc<State>,
    life: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

#[derive(Clone)]
struct Service(Arc<State>);

impl Fake {
    /// Member `id` of a cluster in which `leader` leads in term 1.
    pub fn start(id: u64, leader: u64) -> Fake {
        let state = Arc::new(State {
            id,
            mode: watch::Sender::new(Mode::Serve),
            seen: watch::Sender::new(0),
            lead: Mutex::new((leader, 1)),
            store: Mutex::default(),
        });
        let mut fake = Fake { address: "127.0.0.1:1".parse().unwrap(), state, life: None };
        fake.listen("127.0.0.1:0");
        fake
    }

    fn listen(&mut self, at: &str) {
        let listener = TcpListener::bind(at).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let service = Service(self.state.clone());
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let serve = Server::builder()
                    .add_service(KvServer::new(service.clone()))
                    .add_service(MaintenanceServer::new(service))
                    .serve_with_incoming(TcpIncoming::from(listener));
                tokio::select! {
                    result = serve => result.unwrap(),
                    _ = ended => {}
                }
            });
            // Connections are tasks of the runtime, and are closed with it.
            drop(runtime);
        });
        self.address = address.to_string().parse().unwrap();
        self.life = Some((end, thread));
    }

    /// Closes everything, as the kernel does for a process that was killed.
    pub fn kill(&mut self) {
        if let Some((end, thread)) = self.life.take() {
            end.send(()).unwrap();
            thread.join().unwrap();
        }
    }

    /// Listens at its address again, with what it had stored.
    pub fn restart(&mut self) {
        let address = self.address.to_string();
        self.listen(&address);
    }

    pub fn set(&self, mode: Mode) {
        self.state.mode.send_replace(mode);
    }

    pub fn lead(&self, leader: u64, term: u64) {
        *self.state.lead.lock().unwrap() = (leader, term);
    }

    /// How many reads and writes have arrived.
    pub fn seen(&self) -> u64 {
        *self.state.seen.borrow()
    }

    /// Waits until so many have arrived.
    pub async fn wait_for(&self, count: u64) {
        let mut seen = self.state.seen.subscribe();
        let arrived = seen.wait_for(|seen| *seen >= count);
        tokio::time::timeout(Duration::from_secs(20), arrived).await.unwrap().unwrap();
    }

    pub fn keys(&self) -> Vec<String> {
        let store = self.state.store.lock().unwrap();
        store.pairs.keys().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect()
    }

    /// Forgets a key, as no system should.
    pub fn lose(&self, key: &str) -> bool {
        self.state.store.lock().unwrap().pairs.remove(key.as_bytes()).is_some()
    }

    pub fn insert(&self, key: &str, value: &str) {
        let pair = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
        self.state.store.lock().unwrap().pairs.extend([pair]);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        // Without waiting: a test may be on its way out of a panic.
        let _ = self.life.take().map(|(end, _)| end.send(()));
    }
}

impl State {
    fn header(&self, store: &Store) -> Option<ResponseHeader> {
        let raft_term = self.lead.lock().unwrap().1;
        let revision = store.revision;
        Some(ResponseHeader { cluster_id: 1, member_id: self.id, revision, raft_term })
    }

    /// Treats a request as the mode says.
    async fn serve<T>(&self, act: impl FnOnce(&mut Store) -> T) -> Result<Response<T>, Status> {
        self.seen.send_modify(|seen| *seen += 1);
        let mut mode = self.mode.subscribe();
        let held = |mode: &Mode| matches!(mode, Mode::Hold | Mode::HoldAll);
        let mode = mode.wait_for(|mode| !held(mode)).await.unwrap().clone();
        match mode {
            Mode::Refuse(code, text) => Err(Status::new(code, text)),
            Mode::ServeAndSay(code, text) => {
                act(&mut self.store.lock().unwrap());
                Err(Status::new(code, text))
            }
            _ => Ok(Response::new(act(&mut self.store.lock().unwrap()))),
        }
    }
}

fn put(store: &mut Store, put: PutRequest) {
    store.revision += 1;
    store.pairs.insert(put.key, put.value);
}

fn range(store: &Store, request: &RangeRequest) -> RangeResponse {
    let inside = |key: &Bytes| match request.range_end.is_empty() {
        true => *key == request.key,
        false => *key >= request.key && *key < request.range_end,
    };
    let all: Vec<_> = store.pairs.iter().filter(|(key, _)| inside(key)).collect();
    let limit = match request.limit {
        0 => all.len(),
        limit => limit as usize,
    };
    let kvs = all.iter().take(limit).map(|(key, value)| KeyValue {
        key: (*key).clone(),
        value: if request.keys_only { Bytes::new() } else { (*value).clone() },
        ..Default::default()
    });
    RangeResponse {
        header: None,
        kvs: kvs.collect(),
        more: all.len() > limit,
        count: all.len() as i64,
    }
}

fn transact(store: &mut Store, txn: TxnRequest) -> TxnResponse {
    let holds = txn.compare.iter().all(|compare| {
        let value = store.pairs.get(&compare.key);
        match &compare.target_union {
            Some(TargetUnion::Value(expected)) => value == Some(expected),
            Some(TargetUnion::CreateRevision(0)) => value.is_none(),
            other => panic!("no test compares {other:?}"),
        }
    });
    let ops = if holds { txn.success } else { txn.failure };
    let mut responses = Vec::new();
    for op in ops {
        let response = match op.request.unwrap() {
            request_op::Request::RequestPut(request) => {
                put(store, request);
                response_op::Response::ResponsePut(PutResponse::default())
            }
            request_op::Request::RequestRange(request) => {
                response_op::Response::ResponseRange(range(store, &request))
            }
            other => panic!("no test asks for {other:?}"),
        };
        responses.push(ResponseOp { response: Some(response) });
    }
    TxnResponse { header: None, succeeded: holds, responses }
}

#[tonic::async_trait]
impl Kv for Service {
    async fn range(&self, r: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let state = &self.0;
        let act = |store: &mut Store| RangeResponse {
            header: state.header(store),
            ..range(store, r.get_ref())
        };
        state.serve(act).await
    }

    async fn put(&self, r: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let state = &self.0;
        let act = |store: &mut Store| {
            put(store, r.into_inner());
            PutResponse { header: state.header(store), prev_kv: None }
        };
        state.serve(act).await
    }

    async fn delete_range(
        &self,
        r: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let state = &self.0;
        let act = |store: &mut Store| {
            let r = r.into_inner();
            let before = store.pairs.len();
            store.pairs.retain(|key, _| *key < r.key || *key >= r.range_end);
            let deleted = (before - store.pairs.len()) as i64;
            DeleteRangeResponse { header: state.header(store), deleted, prev_kvs: Vec::new() }
        };
        state.serve(act).await
    }

    async fn txn(&self, r: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let state = &self.0;
        let act = |store: &mut Store| {
            let answer = transact(store, r.into_inner());
            TxnResponse { header: state.header(store), ..answer }
        };
        state.serve(act).await
    }

    async fn compact(
        &self,
        _: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[tonic::async_trait]
impl Maintenance for Service {
    async fn alarm(&self, _: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let state = &self.0;
        let mut mode = state.mode.subscribe();
        mode.wait_for(|mode| *mode != Mode::HoldAll).await.unwrap();
        let (leader, raft_term) = *state.lead.lock().unwrap();
        let header = state.header(&state.store.lock().unwrap());
        Ok(Response::new(StatusResponse { header, leader, raft_term, ..Default::default() }))
    }

    async fn move_leader(
        &self,
        _: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}
