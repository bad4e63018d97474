//! A driver of one node without a log on disk: what is asked is applied at once, or not at all.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use sraft_core::{Entry, Role};
use sraft_node::{
    api::{Limits, Listeners, Member, Server, Settings},
    desk::{Ask, NodeStatus, PeerStatus, Unserved},
    metrics::Counts,
    store::{Command, RequestId, Store},
};
use sraft_rpc::etcdserverpb::{
    cluster_client::ClusterClient, kv_client::KvClient, maintenance_client::MaintenanceClient,
};
use tokio::sync::{mpsc, oneshot};
use tonic::transport::{Channel, Endpoint};

/// Longer than anything here takes; only a test that fails waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const TERM: u64 = 7;
pub(crate) const MEMBER: u64 = 2;

/// What the driver does with what it is asked.
#[derive(Clone, Debug, Default)]
pub(crate) enum Mood {
    #[default]
    Serves,
    Refuses(Unserved),
    /// Keeps requests, and says when the asker has lost patience.
    Keeps,
}

/// How the driver describes the node.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) mood: Mood,
    pub(crate) role: Role,
    pub(crate) ready: bool,
    pub(crate) stopping: bool,
    pub(crate) leader: Option<u64>,
    /// What it was asked so far: writes, linearizable and other reads.
    pub(crate) asked: BTreeMap<&'static str, usize>,
}

pub(crate) struct Double {
    pub(crate) client: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) about: Arc<Mutex<About>>,
    /// One message for each kept request whose asker has gone.
    pub(crate) gone: mpsc::UnboundedReceiver<()>,
    server: Option<Server>,
    driver: Option<thread::JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Double {
    pub(crate) fn start() -> Double {
        Double::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Double {
        let listener = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (client, admin) = (listener(), listener());
        let addresses = (client.local_addr().unwrap(), admin.local_addr().unwrap());
        let members = (1..=3).map(|id| Member {
            id,
            name: format!("node-{id}"),
            peer_url: format!("http://10.0.0.{id}:5000"),
            client_url: Some(format!("http://{}", addresses.0)),
        });
        let settings =
            Settings { id: MEMBER, cluster: "c".to_owned(), members: members.collect(), limits };
        let (ask, asked) = mpsc::channel(1024);
        let about = Arc::new(Mutex::new(About {
            mood: Mood::Serves,
            role: Role::Leader,
            ready: true,
            stopping: false,
            leader: Some(MEMBER),
            asked: BTreeMap::new(),
        }));
        let (leaves, gone) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let driver = {
            let about = about.clone();
            thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    tokio::select! {
                        () = drive(asked, about, leaves) => {}
                        _ = stopped => {}
                    }
                });
            })
        };
        let server = Server::start(Listeners { client, admin }, settings, ask).unwrap();
        Double {
            client: addresses.0,
            admin: addresses.1,
            about,
            gone,
            server: Some(server),
            driver: Some(driver),
            stop: Some(stop),
        }
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.about.lock().unwrap().mood = mood;
    }

    pub(crate) fn asked(&self, what: &'static str) -> usize {
        self.about.lock().unwrap().asked.get(what).copied().unwrap_or(0)
    }

    /// Ends the driver; the server goes on.
    pub(crate) fn end_driver(&mut self) {
        drop(self.stop.take());
        self.driver.take().unwrap().join().unwrap();
    }

    /// Ends the server.
    pub(crate) fn end_server(&mut self) {
        drop(self.server.take());
    }

    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.client)).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub(crate) async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await)
    }

    pub(crate) async fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel().await)
    }

    pub(crate) async fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel().await)
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.end_server();
        drop(self.stop.take());
        if let Some(driver) = self.driver.take() {
            let _ = driver.join();
        }
    }
}

async fn drive(
    mut asked: mpsc::Receiver<Ask>,
    about: Arc<Mutex<About>>,
    leaves: mpsc::UnboundedSender<()>,
) {
    let mut store = Store::default();
    let mut seq = 0;
    while let Some(ask) = asked.recv().await {
        let mood = about.lock().unwrap().mood.clone();
        let what = match &ask {
            Ask::Write { .. } => "write",
            Ask::Read { linearizable: true, .. } => "linearizable read",
            Ask::Read { linearizable: false, .. } => "serializable read",
            Ask::Status { .. } => "status",
        };
        *about.lock().unwrap().asked.entry(what).or_default() += 1;
        match (ask, mood) {
            (Ask::Status { reply }, _) => {
                let about = about.lock().unwrap().clone();
                let _ = reply.send(status(&store, &about));
            }
            (Ask::Write { op, reply }, Mood::Serves) => {
                seq += 1;
                let id = RequestId { session: 1, seq };
                let command = Command { id, oldest: seq, op }.encode();
                let entry = Entry { index: store.applied() + 1, term: TERM, command };
                let (_, outcome) = store.apply(&entry).unwrap();
                let _ = reply.send(Ok((outcome, TERM)));
            }
            (Ask::Read { reply, .. }, Mood::Serves) => {
                let _ = reply.send(Ok((store.view(), TERM)));
            }
            (Ask::Write { reply, .. }, Mood::Refuses(reason)) => {
                let _ = reply.send(Err(reason));
            }
            (Ask::Read { reply, .. }, Mood::Refuses(reason)) => {
                let _ = reply.send(Err(reason));
            }
            (Ask::Write { mut reply, .. }, Mood::Keeps) => {
                let leaves = leaves.clone();
                tokio::spawn(async move {
                    reply.closed().await;
                    let _ = leaves.send(());
                });
            }
            (Ask::Read { mut reply, .. }, Mood::Keeps) => {
                let leaves = leaves.clone();
                tokio::spawn(async move {
                    reply.closed().await;
                    let _ = leaves.send(());
                });
            }
        }
    }
}

fn status(store: &Store, about: &About) -> NodeStatus {
    let view = store.view();
    NodeStatus {
        id: MEMBER,
        cluster: "c".to_owned(),
        boot_id: 0xabc,
        uptime: Duration::from_millis(1500),
        role: about.role,
        rank: (about.role == Role::Follower).then_some(0),
        ready: about.ready,
        stopping: about.stopping,
        term: TERM,
        leader: about.leader,
        commit: store.applied(),
        applied: store.applied(),
        first_index: 1,
        last_index: store.applied(),
        log_bytes: 1000,
        snapshot_index: 0,
        snapshot_bytes: 24,
        snapshots_taken: 3,
        snapshots_installed: 4,
        revision: view.revision(),
        keys: view.len() as u64,
        store_bytes: view.bytes(),
        pending_writes: 5,
        pending_reads: 6,
        peers: [(1, true), (3, false)]
            .map(|(id, connected)| PeerStatus { id, connected, client_url: None })
            .into(),
        counts: Counts { messages_sent: 11, events_total_us: 2_500_000, ..Counts::default() },
    }
}
