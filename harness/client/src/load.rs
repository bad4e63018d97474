//! The load generator: throughput and latencies of any endpoint of etcd v3's API.
//!
//! * **Open loop** ([`Pace::Rate`]): operation `n` is meant to start at `begin + n / rate`, and its
//!   latency counts from then, whether it could start then or not. A system that stalls cannot hide
//!   its stall from the operations that it kept from starting (coordinated omission).
//! * **Closed loop** ([`Pace::Max`]): each client has one operation under way at a time. This
//!   shows what a system can do, but its latencies are service times.
//!
//! # Connections
//! To each endpoint one connection for every [`CLIENTS_PER_CONNECTION`] operations that may be under
//! way, at most [`MOST_CONNECTIONS`]: the same for every system. Operations go to the leader while it
//! answers (see [`crate::client`]), so no system spends time on forwarding. The generator is one
//! thread, and reports how much of a processor it used.

mod report;
mod tally;

use std::{
    fs::File,
    future::Future,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;

pub use self::report::{Errors, Latencies, Report};
use self::tally::{Seconds, Tally};
use crate::{
    address::Address,
    client::{Client, Done, Settings},
    clock::{self, Alarm},
    operation::Operation,
    schedule::Schedule,
};

/// Operations under way for which there is one connection.
pub const CLIENTS_PER_CONNECTION: u32 = 64;

/// Most connections to one endpoint.
pub const MOST_CONNECTIONS: u32 = 16;

/// How long an operation is waited for: longer than etcd's own time-out for a request, 7 s with its
/// default settings, so that it is the system that gives up.
pub const DEADLINE: Duration = Duration::from_secs(8);

/// How long an endpoint may say nothing before operations go to another one.
pub const SILENT_AFTER: Duration = Duration::from_millis(500);

/// How long the first connections and the leader's name are waited for.
const SETTLED_WITHIN: Duration = Duration::from_secs(3);

/// Length of the random bytes that values are cut from, beside the longest value.
const POOL: usize = 64 << 10;

/// When operations start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At set times, so many a second.
    Rate(u32),
    /// Whenever a client has its answer.
    Max,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the system is reached.
    pub endpoints: Vec<Address>,
    /// When operations start.
    pub pace: Pace,
    /// [`Pace::Max`]: clients. [`Pace::Rate`]: operations under way at once, at most; memory is
    /// bounded by it.
    pub clients: u32,
    /// Measured time.
    pub duration: Duration,
    /// Time before, in which the same happens without being counted.
    pub warmup: Duration,
    /// Bytes of a value.
    pub value_size: usize,
    /// Keys, drawn evenly: `load/0` ... .
    pub keys: u32,
    /// Share of linearizable reads, from 0 to 1.
    pub reads: f64,
    /// Seed of keys, kinds and values.
    pub seed: u64,
    /// File for one row per second.
    pub csv: Option<PathBuf>,
    /// File for the percentiles, in HdrHistogram's format.
    pub hgrm: Option<PathBuf>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Nobody is there.
    #[error("no endpoint can be reached; is the system running, and is this its client port? {0}")]
    Unreachable(String),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The rows per second cannot be written.
    #[error("cannot write the rows per second: {0}")]
    Seconds(csv::Error),
    /// The process cannot be set up.
    #[error("the load generator cannot {what}: {source}")]
    SetUp {
        /// What it could not do.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl LoadError {
    fn seconds(error: csv::Error) -> LoadError {
        LoadError::Seconds(error)
    }
}

/// Runs the load generator to its end, or until SIGINT or SIGTERM: then the report is of what has
/// been measured so far.
///
/// # Errors
/// See [`LoadError`]. Operations that fail are no error: they are counted.
pub fn run(plan: &Plan) -> Result<Report, LoadError> {
    use tokio::signal::unix::{SignalKind, signal};
    let set_up = |what| move |source| LoadError::SetUp { what, source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(set_up("start its runtime"))?;
    let result = runtime.block_on(async {
        let watch = |kind| signal(kind).map_err(set_up("watch for signals"));
        let (mut interrupt, mut term) =
            (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?);
        let stop = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = term.recv() => {}
            }
        };
        load(plan, stop).await
    });
    // A name that is still being looked up must not hold up the end.
    runtime.shutdown_background();
    result
}

/// The same until `stop` is over. To be called within a tokio runtime.
///
/// # Errors
/// See [`LoadError`].
pub async fn load(plan: &Plan, stop: impl Future<Output = ()>) -> Result<Report, LoadError> {
    // A file that cannot be written is better known before than after.
    let create = |path: &Path| {
        File::create(path).map_err(|source| LoadError::Unwritable { path: path.to_owned(), source })
    };
    let seconds = plan.csv.as_deref().map(create).transpose()?;
    let seconds = Seconds(seconds.map(csv::Writer::from_writer));
    let mut hgrm = plan.hgrm.as_deref().map(create).transpose()?;

    let connections = plan.clients.div_ceil(CLIENTS_PER_CONNECTION).clamp(1, MOST_CONNECTIONS);
    let settings = Settings { connections: connections as usize, silent_after: SILENT_AFTER };
    let client = Arc::new(Client::new(&plan.endpoints, settings));
    client.settle(SETTLED_WITHIN).await.map_err(LoadError::Unreachable)?;

    let began_ns = clock::now();
    let from_ns = began_ns.saturating_add(plan.warmup.as_nanos() as u64);
    let until_ns = from_ns.saturating_add(plan.duration.as_nanos() as u64);
    let tally = Arc::new(Mutex::new(Tally::new(from_ns, until_ns, seconds)?));
    let used = clock::used();
    let run = Run { plan, client, tally, began_ns, until_ns };
    let end = match plan.pace {
        Pace::Rate(rate) => run.open(rate, stop).await?,
        Pace::Max => run.closed(stop).await?,
    };
    let used = clock::used() - used;
    let ended_ns = clock::now();

    let Run { client, tally, .. } = run;
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    let measured_ns = end.at_ns.min(until_ns).saturating_sub(from_ns);
    tally.conclude(end.at_ns)?;
    let errors = tally.errors.iter().map(|((kind, outcome), count)| Errors {
        kind,
        outcome: *outcome,
        count: *count,
        example: tally.examples.get(kind).cloned().unwrap_or_default(),
    });
    let per_second = |count: u64| match measured_ns {
        0 => 0.0,
        ns => count as f64 / (ns as f64 / 1e9),
    };
    let report = Report {
        schedule: if plan.pace == Pace::Max { "closed" } else { "open" },
        rate: match plan.pace {
            Pace::Rate(rate) => Some(rate),
            Pace::Max => None,
        },
        clients: plan.clients,
        connections: connections as usize,
        endpoints: plan.endpoints.iter().map(ToString::to_string).collect(),
        leader: client.leader().map(|at| plan.endpoints[at].to_string()),
        value_size: plan.value_size,
        keys: plan.keys,
        reads: plan.reads,
        seed: plan.seed,
        warmup_s: plan.warmup.as_secs_f64(),
        measured_s: measured_ns as f64 / 1e9,
        interrupted: end.interrupted,
        operations: tally.finished,
        acknowledged: tally.acknowledged,
        throughput: per_second(tally.acknowledged_in_time),
        not_started: end.not_started,
        abandoned: end.abandoned,
        errors: errors.collect(),
        latency_us: Latencies::of(&tally.latencies),
        processors: used as f64 / ended_ns.saturating_sub(began_ns).max(1) as f64,
        histogram: tally.latencies.clone(),
    };
    if let (Some(file), Some(path)) = (&mut hgrm, &plan.hgrm) {
        file.write_all(report.hgrm().as_bytes())
            .map_err(|source| LoadError::Unwritable { path: path.clone(), source })?;
    }
    Ok(report)
}

/// How the issuing of operations came to its end.
struct End {
    at_ns: u64,
    interrupted: bool,
    not_started: u64,
    abandoned: u64,
}

struct Run<'a> {
    plan: &'a Plan,
    client: Arc<Client>,
    tally: Arc<Mutex<Tally>>,
    began_ns: u64,
    until_ns: u64,
}

fn count(tally: &Mutex<Tally>, intended_ns: u64, done: &Done) -> Result<(), LoadError> {
    // A panic while it is held ends the run anyway.
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    tally.count(intended_ns, done, clock::now())
}

impl Run<'_> {
    async fn open(&self, rate: u32, stop: impl Future<Output = ()>) -> Result<End, LoadError> {
        let set_up = |what| move |source| LoadError::SetUp { what, source };
        let mut alarm = Alarm::new().map_err(set_up("make a timer"))?;
        let mut draws = Draws::new(self.plan, &pool(self.plan), 0);
        let mut under_way = JoinSet::new();
        let mut schedule = Schedule::new(self.began_ns, rate);
        tokio::pin!(stop);
        let (mut issuing, mut interrupted) = (true, false);
        loop {
            let now = clock::now();
            while issuing && under_way.len() < self.plan.clients as usize {
                // What is meant to start at the end is not part of it.
                let due = now.min(self.until_ns - 1);
                let Some(intended_ns) = schedule.take(due) else { break };
                let (operation, client, tally) =
                    (draws.draw(), self.client.clone(), self.tally.clone());
                under_way.spawn(async move {
                    let done = client.perform(&operation, DEADLINE).await;
                    count(&tally, intended_ns, &done)
                });
            }
            // Only after the above, so that a late awakening does not cut the schedule's end off.
            issuing &= now < self.until_ns;
            if !issuing && under_way.is_empty() {
                break;
            }
            let next = match under_way.len() < self.plan.clients as usize {
                true => schedule.next_ns().min(self.until_ns),
                false => self.until_ns,
            };
            tokio::select! {
                biased;
                () = &mut stop => {
                    interrupted = true;
                    break;
                }
                Some(over) = under_way.join_next(), if !under_way.is_empty() => finish(over)?,
                rang = alarm.wait_until(next), if issuing => rang.map_err(set_up("read a timer"))?,
            }
        }
        let at_ns = clock::now();
        // Interrupted with a free slot, only what became due a moment ago is left.
        let kept_up = interrupted && under_way.len() < self.plan.clients as usize;
        let not_started = match kept_up {
            true => 0,
            false => schedule.left_before(at_ns.min(self.until_ns)),
        };
        Ok(End { at_ns, interrupted, not_started, abandoned: under_way.len() as u64 })
    }

    async fn closed(&self, stop: impl Future<Output = ()>) -> Result<End, LoadError> {
        let mut clients = JoinSet::new();
        let pool = pool(self.plan);
        for number in 0..self.plan.clients {
            let mut draws = Draws::new(self.plan, &pool, u64::from(number));
            let (client, tally, until_ns) =
                (self.client.clone(), self.tally.clone(), self.until_ns);
            clients.spawn(async move {
                loop {
                    let intended_ns = clock::now();
                    if intended_ns >= until_ns {
                        return Ok(());
                    }
                    let done = client.perform(&draws.draw(), DEADLINE).await;
                    count(&tally, intended_ns, &done)?;
                    if done.endpoint.is_none() {
                        // Nobody is there, and asking again at once would only burn a processor.
                        tokio::time::sleep(NOBODY_THERE).await;
                    }
                }
            });
        }
        tokio::pin!(stop);
        let mut interrupted = false;
        while !clients.is_empty() {
            tokio::select! {
                biased;
                () = &mut stop => {
                    interrupted = true;
                    break;
                }
                Some(over) = clients.join_next() => finish(over)?,
            }
        }
        let abandoned = clients.len() as u64;
        Ok(End { at_ns: clock::now(), interrupted, not_started: 0, abandoned })
    }
}

/// Pause of a client of a closed loop that has found no connection at all.
const NOBODY_THERE: Duration = Duration::from_millis(10);

fn finish(over: Result<Result<(), LoadError>, tokio::task::JoinError>) -> Result<(), LoadError> {
    over.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// What values are cut from: values that compress would flatter a store that compresses.
fn pool(plan: &Plan) -> Bytes {
    let mut pool = vec![0; POOL + plan.value_size];
    ChaCha8Rng::seed_from_u64(plan.seed).fill_bytes(&mut pool);
    pool.into()
}

/// The operations of one client.
struct Draws {
    rng: ChaCha8Rng,
    keys: u32,
    reads: f64,
    value_size: usize,
    pool: Bytes,
}

impl Draws {
    fn new(plan: &Plan, pool: &Bytes, client: u64) -> Draws {
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        rng.set_stream(client + 1);
        let Plan { keys, reads, value_size, .. } = *plan;
        Draws { rng, keys, reads, value_size, pool: pool.clone() }
    }

    fn draw(&mut self) -> Operation {
        let key = format!("load/{}", self.rng.random_range(0..self.keys)).into();
        if self.rng.random_bool(self.reads) {
            return Operation::Get { key };
        }
        let from = self.rng.random_range(0..POOL);
        Operation::Put { key, value: self.pool.slice(from..from + self.value_size) }
    }
}
