//! The probe: operations at a set rate from a process of its own, one row each. What a client feels
//! of a failover is what these rows show.
//!
//! * **Open loop.** Operation `n` is meant to start at `begin + n / rate`, whatever became of those
//!   before it. There are as many slots as operations start within one deadline (at most
//!   [`MOST_SLOTS`]), so one is free when it is needed; beyond that an operation starts late, and
//!   its row shows by how much.
//! * **Sent once.** An operation is never repeated; [`crate::outcome`] says what is known of it.
//! * **Own keys.** `w/TRIAL/N` is written once, with a value of its own, so that an acknowledged
//!   write that was lost can be named. Reads and compare-and-sets go to the registers `r/0` ...
//!   `r/KEYS-1`; if there are any, so does a quarter of the writes. A register keeps what the trial
//!   before has left in it.
//! * **Values** are `TRIAL.N`, filled up with `-` to the size that was asked for. The file holds them
//!   without the filling.
//!
//! The file is begun anew. A line `# ready` follows the row of the first acknowledged write. SIGTERM or
//! SIGINT ends it: nothing new starts, what is under way is waited for, the audit is made, and the
//! trial's keys are removed.

mod audit;
pub mod config;
pub mod ops;
mod workload;

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

pub use self::config::{BadConfig, Config, MOST_SLOTS};
use self::{
    ops::{Ops, READY, Row, Unwritable},
    workload::{Draw, Workload},
};
use crate::{
    client::{Client, Done, Settings, Trouble},
    clock::{self, Alarm},
    operation::Operation,
    outcome::Outcome,
    process,
    schedule::Schedule,
};

/// How long an endpoint may say nothing before the probe gives its operations to another: well above
/// a slow disk write, well below the time-outs that are measured.
pub const SILENT_AFTER: Duration = Duration::from_millis(20);

/// How long the first connections and the leader's name are waited for before the schedule begins.
const SETTLED_WITHIN: Duration = Duration::from_secs(1);

/// Why a probe ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// It was told what cannot be.
    #[error(transparent)]
    Config(#[from] BadConfig),
    /// Its rows cannot be written.
    #[error(transparent)]
    Ops(#[from] Unwritable),
    /// The process cannot be set up.
    #[error("the probe cannot {what}: {source}")]
    SetUp {
        /// What it could not do.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration's file.
    pub config: PathBuf,
    /// The file for the rows.
    pub ops: PathBuf,
    /// Whom to die with.
    pub die_with_parent: Option<u32>,
}

/// Runs the probe until SIGTERM or SIGINT.
///
/// # Errors
/// See [`ProbeError`].
pub fn run(options: &Options) -> Result<(), ProbeError> {
    let set_up = |what| move |source| ProbeError::SetUp { what, source };
    if let Some(parent) = options.die_with_parent {
        process::die_with_parent(parent).map_err(set_up("be tied to its parent"))?;
    }
    let config = Config::read(&options.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(set_up("start its runtime"))?;
    let result = runtime.block_on(async {
        let watch = |kind| signal(kind).map_err(set_up("watch for signals"));
        let (mut term, mut interrupt) =
            (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        probe(&config, &options.ops, stop).await
    });
    // A name that is still being looked up must not hold up the end.
    runtime.shutdown_background();
    result
}

/// An operation that is over.
struct Over {
    draw: Draw,
    intended_ns: u64,
    done: Done,
}

/// The same until `stop` is over. To be called within a tokio runtime.
///
/// # Errors
/// See [`ProbeError`].
pub async fn probe(
    config: &Config,
    ops: &Path,
    stop: impl Future<Output = ()>,
) -> Result<(), ProbeError> {
    let set_up = |what| move |source| ProbeError::SetUp { what, source };
    let mut ops = Ops::create(ops)?;
    let settings = Settings { connections: 1, silent_after: SILENT_AFTER };
    let client = Arc::new(Client::new(&config.endpoints, settings));
    let mut alarm = Alarm::new().map_err(set_up("make a timer"))?;
    let mut workload = Workload::new(config);
    let mut under_way = JoinSet::new();
    let (mut stopping, mut ready) = (false, false);
    let slots = config.slots();
    tokio::pin!(stop);
    tokio::select! {
        biased;
        () = &mut stop => stopping = true,
        // Who cannot be reached yet shows in the rows.
        _ = client.settle(SETTLED_WITHIN) => {}
    }
    let mut schedule = Schedule::new(clock::now(), config.rate);
    loop {
        while !stopping && under_way.len() < slots {
            let Some(intended_ns) = schedule.take(clock::now()) else { break };
            let (draw, client, deadline) = (workload.draw(), client.clone(), config.deadline);
            under_way.spawn(async move {
                let done = client.perform(&draw.operation, deadline).await;
                Over { draw, intended_ns, done }
            });
        }
        if stopping && under_way.is_empty() {
            break;
        }
        let issuing = !stopping && under_way.len() < slots;
        let mut next = tokio::select! {
            biased;
            () = &mut stop, if !stopping => {
                stopping = true;
                continue;
            }
            Some(over) = under_way.join_next(), if !under_way.is_empty() => Some(over),
            rang = alarm.wait_until(schedule.next_ns()), if issuing => {
                rang.map_err(set_up("read a timer"))?;
                continue;
            }
        };
        let mut readied = false;
        while let Some(over) = next {
            let over = over.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            let write = matches!(over.draw.operation, Operation::Put { .. });
            readied |= write && over.done.outcome == Outcome::Ok;
            ops.write(&row(config, &mut workload, over))?;
            next = under_way.try_join_next();
        }
        ops.flush()?;
        if readied && !ready {
            ready = true;
            ops.note(READY)?;
        }
    }
    audit::audit(&client, config.trial, workload.written(), config.deadline, &mut ops).await?;
    audit::remove(&client, config.trial, config.deadline).await;
    Ok(())
}

/// Who follows the file reads lines.
fn one_line(trouble: &Trouble) -> String {
    let text = format!("{}: {}", trouble.kind, trouble.text);
    text.replace(|c: char| c.is_control(), " ")
}

fn row(config: &Config, workload: &mut Workload, over: Over) -> Row {
    let Over { draw, intended_ns, done } = over;
    let read = done.answer.as_ref().and_then(|answer| workload.learn(&draw, answer));
    let (op, key) = match &draw.operation {
        Operation::Put { key, .. } => ("put", key),
        Operation::Get { key } => ("get", key),
        Operation::Swap { key, .. } => ("cas", key),
    };
    Row {
        trial: config.trial,
        op,
        key: String::from_utf8_lossy(key).into_owned(),
        value: draw.value.or(read),
        expected: draw.expected,
        intended_ns: Some(intended_ns),
        start_ns: done.start_ns,
        end_ns: done.end_ns,
        outcome: done.outcome,
        found: done.answer.as_ref().and_then(|answer| answer.found),
        revision: done.answer.as_ref().map(|answer| answer.revision),
        endpoint: done.endpoint.map(|at| config.endpoints[at].to_string()),
        error: done.trouble.map(|trouble| one_line(&trouble)),
    }
}
