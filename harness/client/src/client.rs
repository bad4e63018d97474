//! A client of a whole system: which endpoint gets the next operation, and what came of it.
//!
//! # Which endpoint
//! The leader's, if it is known, connected and not silent; else, in turn, those that are connected
//! and not silent; else the connected one that was heard last. Without any connection an operation
//! fails at once, so that a client that keeps to its schedule sees an outage with the resolution of
//! its rate.
//!
//! An endpoint is *silent* once it has been given a request and has said nothing at all for
//! [`Settings::silent_after`]: a paused process accepts connections and requests and answers
//! nothing. What it has been given stays there, new operations go elsewhere. It is then asked for
//! its status, which a member that merely waits for a leader answers at once, so that such a member
//! counts as silent for no longer than a round trip.
//!
//! # Who leads
//! Each endpoint is asked for its `Maintenance.Status`: when it gets connected, when any other is
//! lost, when an answer carries a newer term or speaks of trouble, when it is silent, and in any
//! case every [`LOOK_EVERY`]. Any member's word is taken, if its term is not an older one.

use std::{
    cmp::Reverse,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sraft_rpc::etcdserverpb::{
    StatusRequest, StatusResponse, maintenance_client::MaintenanceClient,
};
use tokio::task::JoinSet;

use crate::{
    address::Address,
    clock,
    member::Member,
    operation::{Answer, Kv, Operation},
    outcome::{Outcome, Verdict, judge},
};

/// How often each endpoint is asked who leads, if nothing else calls for it.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The same while no leader is known.
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Least time between two such questions to the same endpoint: an outage yields a reason to ask with
/// every operation.
const LOOK_APART: Duration = Duration::from_millis(10);

/// How long an answer to such a question is waited for.
const STATUS_WITHIN: Duration = Duration::from_secs(1);

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Connections to each endpoint, at least one.
    pub connections: usize,
    /// How long an endpoint may say nothing at all before new operations go elsewhere.
    pub silent_after: Duration,
}

/// What came of an operation.
#[derive(Clone, Debug)]
pub struct Done {
    /// Just before it was handed to the connection; nanoseconds of the monotonic clock.
    pub start_ns: u64,
    /// When its answer had been read, good or bad; empty if there was none.
    pub end_ns: Option<u64>,
    /// What is known of it.
    pub outcome: Outcome,
    /// What it was answered with, if `outcome` is ok.
    pub answer: Option<Answer>,
    /// Place of the endpoint in the list that the client was given; empty if there was none to send
    /// it to.
    pub endpoint: Option<usize>,
    /// What went wrong, if `outcome` is not ok.
    pub trouble: Option<Trouble>,
}

/// What went wrong with an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// A few words that are the same for all of its kind: a gRPC code, `deadline`, ...
    pub kind: &'static str,
    /// The whole of it.
    pub text: String,
}

/// A client; see the module.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    /// Ended with the client.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    members: Vec<Member>,
    lead: Mutex<Lead>,
    turn: AtomicUsize,
    silent_after: u64,
}

/// Who leads, as the member with the newest term says.
#[derive(Clone, Copy, Debug, Default)]
struct Lead {
    /// 0: nobody, as far as is known.
    id: u64,
    term: u64,
}

impl Client {
    /// A client of these endpoints. It begins to connect at once and keeps trying. To be called
    /// within a tokio runtime.
    pub fn new(endpoints: &[Address], settings: Settings) -> Client {
        let connections = settings.connections.max(1);
        let members =
            endpoints.iter().map(|address| Member::new(address.clone(), connections)).collect();
        let shared = Arc::new(Shared {
            members,
            lead: Mutex::default(),
            turn: AtomicUsize::new(0),
            silent_after: settings.silent_after.as_nanos() as u64,
        });
        let mut tasks = JoinSet::new();
        for at in 0..endpoints.len() {
            for connection in 0..connections {
                let shared = shared.clone();
                tasks.spawn(async move {
                    shared.members[at].keep(connection, || shared.look()).await;
                });
            }
            let shared = shared.clone();
            tasks.spawn(async move { shared.scout(at).await });
        }
        Client { shared, _tasks: tasks }
    }

    /// Waits until every endpoint has been tried and, if any could be reached, the leader is known;
    /// or until the time is over.
    ///
    /// # Errors
    /// No endpoint can be reached: the reasons, for a human.
    pub async fn settle(&self, within: Duration) -> Result<(), String> {
        let settled = async {
            let members = &self.shared.members;
            while !members.iter().all(Member::is_tried)
                || (members.iter().any(Member::is_connected) && self.leader().is_none())
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        // Running out of time is not the end: the schedule shows what is missing.
        let _ = tokio::time::timeout(within, settled).await;
        match self.shared.members.iter().any(Member::is_connected) {
            true => Ok(()),
            false => Err(self.shared.refusals()),
        }
    }

    /// Place of the leader's endpoint in the list that the client was given, if it is known.
    pub fn leader(&self) -> Option<usize> {
        self.shared.leader()
    }

    /// Carries out one operation. It is sent once; only when it could not be put into a connection
    /// at all, it is given to the next endpoint.
    pub async fn perform(&self, operation: &Operation, deadline: Duration) -> Done {
        let shared = &*self.shared;
        let mut lost = Vec::new();
        loop {
            let start_ns = clock::now();
            let Some((at, mut kv)) = shared.choose(start_ns, &lost) else {
                let trouble = Trouble { kind: "no connection", text: shared.refusals() };
                return Done::without_answer(start_ns, Outcome::Failed, None, trouble);
            };
            let member = &shared.members[at];
            member.told(start_ns);
            let result = tokio::time::timeout(deadline, operation.send(&mut kv)).await;
            let end_ns = clock::now();
            let Ok(result) = result else {
                shared.look();
                let text = format!("no answer within {}", humantime::format_duration(deadline));
                let trouble = Trouble { kind: "deadline", text };
                return Done::without_answer(start_ns, Outcome::Unknown, Some(at), trouble);
            };
            let status = match result {
                Ok(answer) => {
                    member.heard();
                    shared.saw_term(answer.term);
                    return Done {
                        start_ns,
                        end_ns: Some(end_ns),
                        outcome: Outcome::Ok,
                        answer: Some(answer),
                        endpoint: Some(at),
                        trouble: None,
                    };
                }
                Err(status) => status,
            };
            match judge(&status) {
                Verdict::Unsent => lost.push(at),
                Verdict::Over { outcome, answered, kind } => {
                    shared.look();
                    let trouble = Trouble { kind, text: status.message().to_owned() };
                    let mut done = Done::without_answer(start_ns, outcome, Some(at), trouble);
                    if answered {
                        member.heard();
                        done.end_ns = Some(end_ns);
                    }
                    return done;
                }
            }
        }
    }

    /// A client of the endpoint that the next operation would go to.
    pub(crate) fn any(&self) -> Option<Kv> {
        self.shared.choose(clock::now(), &[]).map(|(_, kv)| kv)
    }
}

impl Done {
    fn without_answer(
        start_ns: u64,
        outcome: Outcome,
        endpoint: Option<usize>,
        trouble: Trouble,
    ) -> Done {
        let trouble = Some(trouble);
        Done { start_ns, end_ns: None, outcome, answer: None, endpoint, trouble }
    }
}

impl Shared {
    /// Where the next operation goes; not where a connection has just turned out to be lost.
    fn choose(&self, now: u64, lost: &[usize]) -> Option<(usize, Kv)> {
        let client = |at: usize| Some((at, self.members[at].client()?));
        let silent = |at: usize| {
            let silent = self.members[at].is_silent(now, self.silent_after);
            if silent {
                self.members[at].ask.notify_one();
            }
            silent
        };
        let usable = |at: &usize| !lost.contains(at);
        if let Some(leader) = self.leader().filter(usable)
            && !silent(leader)
            && let Some(chosen) = client(leader)
        {
            return Some(chosen);
        }
        let count = self.members.len();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..count).map(|step| (first.wrapping_add(step)) % count).filter(usable);
        in_turn().filter(|at| !silent(*at)).find_map(client).or_else(|| {
            // The one that was heard last: a member that waits for a leader answers now and then, a
            // paused one does not.
            let mut silent: Vec<usize> = in_turn().collect();
            silent.sort_by_key(|at| Reverse(self.members[*at].unheard_since()));
            silent.into_iter().find_map(client)
        })
    }

    fn leader(&self) -> Option<usize> {
        let id = self.lead.lock().unwrap_or_else(PoisonError::into_inner).id;
        if id == 0 {
            return None;
        }
        self.members.iter().position(|member| member.id() == id)
    }

    /// Has every endpoint asked who leads, soon.
    fn look(&self) {
        for member in &self.members {
            member.ask.notify_one();
        }
    }

    fn saw_term(&self, term: u64) {
        let mut lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
        if term > lead.term {
            *lead = Lead { id: 0, term };
            drop(lead);
            self.look();
        }
    }

    /// Asks one endpoint who leads, whenever there is a reason to.
    async fn scout(&self, at: usize) {
        let member = &self.members[at];
        loop {
            let pause = if self.leader().is_some() { LOOK_EVERY } else { LOOK_AGAIN };
            // With or without a reason.
            let _ = tokio::time::timeout(pause, member.ask.notified()).await;
            let Some(wire) = member.wire() else { continue };
            let mut client = MaintenanceClient::with_origin(wire, member.address.origin().clone());
            member.told(clock::now());
            let status = client.status(StatusRequest {});
            if let Ok(Ok(status)) = tokio::time::timeout(STATUS_WITHIN, status).await {
                member.heard();
                self.learn(member, &status.into_inner());
            }
            tokio::time::sleep(LOOK_APART).await;
        }
    }

    fn learn(&self, member: &Member, status: &StatusResponse) {
        let (id, term) = status.header.as_ref().map_or((0, 0), |h| (h.member_id, h.raft_term));
        member.set_id(id);
        let term = term.max(status.raft_term);
        let mut lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has not heard of a leader yet does not contradict one that has.
        if term > lead.term || (term == lead.term && status.leader != 0) {
            *lead = Lead { id: status.leader, term };
        }
    }

    /// Why there is no connection.
    fn refusals(&self) -> String {
        let reason = |member: &Member| {
            let why = member.refusal().unwrap_or_else(|| "the connection was lost".to_owned());
            format!("{}: {why}", member.address)
        };
        self.members.iter().map(reason).collect::<Vec<_>>().join("; ")
    }
}
