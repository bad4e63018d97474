//! The loop: input -> core -> persist -> journal -> send -> apply.
//!
//! One task owns the core. Everything else, the connections and the storage thread, talks to it
//! through channels, so the order of the contract in [`sraft_core`] is the order of the
//! statements here.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Context;
use sraft_core::{Event, Input, Node, NodeId, Role, Time};
use sraft_events::SCHEMA;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::{
    clock::{self, Deadline},
    console::Console,
    counter::{Command, Counter},
    journal::Journal,
    metrics::{Counts, MetricsFile},
    process::{self, PidFile},
    settings::Settings,
    storage::{Disk, Identity, Report, Storage},
    transport::{self, Incoming, Transport, handshake::Introduction, link},
    workload::Workload,
};

/// Inputs that are taken in before their outputs are carried out.
const BATCH: usize = 256;

/// How long a leader that was told to stop waits for its successor.
const HANDOVER_WAIT: Duration = Duration::from_secs(1);

/// Refused connections that are remembered so that each reason is told once.
const MAX_REFUSALS: usize = 256;

/// Runs a node until it is told to stop.
///
/// # Errors
/// Why it could not start, or had to stop.
pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = transport::listen(&settings.listen).await?;
    let id = settings.core.id;
    let identity = Identity { cluster: settings.cluster.clone(), node: id };
    let (disk, restored) = Disk::open(&settings.data_dir, &identity)?;
    let journal = Journal::open(settings.log_file.as_deref(), id)?;
    let metrics_file =
        settings.metrics_file.as_deref().map(|path| MetricsFile::new(path, &settings.cluster));
    let pid_file = settings
        .pid_file
        .as_deref()
        .map(|path| {
            PidFile::write(path).with_context(|| {
                format!("cannot write the pid file {}; name a writable file", path.display())
            })
        })
        .transpose()?;

    let boot_id = process::random()?.max(1);
    let mut members = settings.core.members.clone();
    members.sort_unstable();
    let started = Event::NodeStarted {
        node: id,
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: settings.cluster.clone(),
        boot_id,
        pid: std::process::id(),
        members: members.clone(),
        sub_leaders: settings.core.sub_leaders() as u32,
        term: restored.hard_state.term,
        last_index: restored.entries.last().map_or(0, |entry| entry.index),
    };
    let seed = match settings.seed {
        Some(seed) => seed,
        None => process::random()?,
    };
    let (reporter, mut reports) = mpsc::unbounded_channel();
    let storage = Storage::start(disk, reporter)?;
    let me = Introduction {
        cluster: settings.cluster,
        node: id,
        boot_id,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        members,
    };
    let handover = settings.core.handover;
    let mut output = Outlet { journal, console: settings.debug.then(|| Console::new(id)) };
    output.record(clock::now(), started)?;
    let (transport, mut incoming) = Transport::start(me, listener, &settings.peers);
    let mut driver = Driver {
        id,
        node: Node::new(settings.core, restored, seed, clock::now()),
        links: settings.peers.keys().map(|peer| (*peer, link::Link::default())).collect(),
        transport,
        storage,
        outlet: output,
        counter: Counter::default(),
        counts: Counts::default(),
        refusals: BTreeSet::new(),
        workload: Workload::new(settings.workload_rate),
        handover,
        stop_by: None,
    };

    let mut deadline = Deadline::new()?;
    let mut inbox = Vec::with_capacity(BATCH);
    let mut snapshots = interval(Duration::from_secs(1));
    snapshots.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let result = loop {
        if let Err(error) = driver.carry_out() {
            break Err(error);
        }
        if let Some(reason) = driver.may_stop() {
            break Ok(reason);
        }
        if driver.due(clock::now()) {
            // The contract: what has already arrived comes before the timeout. The first yield
            // lets the sockets be polled, the second lets the tasks run that read them.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            if let Err(error) = driver.timeout(&mut reports, &mut incoming) {
                break Err(error);
            }
            continue;
        }
        deadline.set(driver.next_deadline())?;
        let taken = tokio::select! {
            biased;
            _ = terminate.recv() => driver.told_to_stop("SIGTERM"),
            _ = interrupt.recv() => driver.told_to_stop("SIGINT"),
            report = reports.recv() => driver.reported(report),
            received = incoming.recv_many(&mut inbox, BATCH) => {
                assert!(received > 0, "the acceptor lives as long as the node");
                inbox.drain(..).try_for_each(|incoming| driver.received(incoming))
            }
            passed = deadline.passed() => passed.map_err(Into::into),
            _ = snapshots.tick(), if metrics_file.is_some() => driver.snapshot(metrics_file.as_ref()),
        };
        if let Err(error) = taken {
            break Err(error);
        }
    };
    let (reason, result) = match result {
        Ok(reason) => (reason, Ok(())),
        Err(error) => (format!("{error:#}"), Err(error)),
    };
    let recorded = driver.outlet.record(clock::now(), Event::NodeStopped { reason });
    let counted = driver.snapshot(metrics_file.as_ref());
    drop(pid_file);
    // The first thing that went wrong is the one to report.
    result.and(recorded).and(counted)
}

/// Where events go.
struct Outlet {
    journal: Journal,
    console: Option<Console>,
}

impl Outlet {
    fn record(&mut self, at: Time, event: Event) -> anyhow::Result<()> {
        let line = self.console.as_mut().and_then(|console| console.line(at, &event));
        self.journal.record(at, event)?;
        if let Some(line) = line {
            // Somebody who stops reading does not stop the node.
            let _ = writeln!(io::stdout(), "{line}");
        }
        Ok(())
    }
}

struct Driver {
    id: NodeId,
    node: Node,
    links: BTreeMap<NodeId, link::Link>,
    transport: Transport,
    storage: Storage,
    outlet: Outlet,
    counter: Counter,
    counts: Counts,
    refusals: BTreeSet<(IpAddr, String)>,
    workload: Workload,
    handover: bool,
    /// When a node that was told to stop stops waiting for its successor.
    stop_by: Option<(Time, &'static str)>,
}

impl Driver {
    /// Carries out what the core wants, in the order of its contract.
    fn carry_out(&mut self) -> anyhow::Result<()> {
        let output = self.node.take_output();
        if let Some(persist) = output.persist {
            self.storage.persist(persist);
        }
        for (at, event) in output.events {
            self.record(at, event)?;
        }
        for envelope in output.messages {
            if self.transport.send(envelope.to, envelope.message) {
                self.counts.messages_sent += 1;
            } else {
                self.counts.messages_dropped += 1;
            }
        }
        for entry in &output.committed {
            self.counter.apply(entry);
        }
        Ok(())
    }

    fn record(&mut self, at: Time, event: Event) -> anyhow::Result<()> {
        let start = clock::now();
        let recorded = self.outlet.record(at, event);
        self.counts.event(clock::now().since(start));
        recorded
    }

    fn next_deadline(&self) -> Option<Time> {
        let stop_by = self.stop_by.map(|(at, _)| at);
        let all = [self.node.next_deadline(), self.workload.next(), stop_by];
        all.into_iter().flatten().min()
    }

    fn due(&mut self, now: Time) -> bool {
        let works = self.stop_by.is_none() && self.workload.is_on() && self.node.status().ready;
        self.workload.run(works, now);
        self.next_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// A deadline has passed: takes in everything that has arrived, and only then, if it still
    /// stands, tells the core.
    fn timeout(
        &mut self,
        reports: &mut mpsc::UnboundedReceiver<Report>,
        incoming: &mut mpsc::Receiver<Incoming>,
    ) -> anyhow::Result<()> {
        while let Ok(report) = reports.try_recv() {
            self.reported(Some(report))?;
        }
        for _ in 0..incoming.len() {
            let Ok(next) = incoming.try_recv() else { break };
            self.received(next)?;
        }
        let now = clock::now();
        if self.node.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.node.handle(now, Input::Timeout);
        }
        for _ in 0..self.workload.take(now) {
            self.counts.proposed += 1;
            let command = Command::Increment(1).encode();
            self.node.handle(now, Input::Propose { command });
        }
        Ok(())
    }

    fn reported(&mut self, report: Option<Report>) -> anyhow::Result<()> {
        match report.context("the storage thread has ended without a report")? {
            Report::Durable { ticket, tickets, took } => {
                self.counts.group(tickets, took);
                self.node.handle(clock::now(), Input::Persisted { ticket });
                Ok(())
            }
            Report::Failed(error) => Err(error.into()),
        }
    }

    fn received(&mut self, incoming: Incoming) -> anyhow::Result<()> {
        match incoming {
            Incoming::Message { from, message } => {
                self.counts.messages_received += 1;
                self.node.handle(clock::now(), Input::Message { from, message });
                Ok(())
            }
            Incoming::Link { peer, change } => self.changed(peer, change),
            Incoming::Refused { remote, reason } => self.refused(remote, reason),
        }
    }

    fn changed(&mut self, peer: NodeId, change: link::Change) -> anyhow::Result<()> {
        let link = self.links.get_mut(&peer).expect("the transport knows the same peers");
        let inputs = link.change(peer, change);
        let back = inputs.iter().any(|input| matches!(input, Input::PeerBack { .. }));
        for input in inputs {
            self.node.handle(clock::now(), input);
        }
        if let (true, link::Change::Dialled { boot_id }) = (back, change) {
            self.refusals.clear();
            // What the core has to say of it was earlier.
            self.carry_out()?;
            self.record(clock::now(), Event::PeerConnected { peer, boot_id })?;
        }
        Ok(())
    }

    fn refused(&mut self, remote: SocketAddr, reason: String) -> anyhow::Result<()> {
        self.counts.connections_refused += 1;
        if self.refusals.len() >= MAX_REFUSALS
            || !self.refusals.insert((remote.ip(), reason.clone()))
        {
            return Ok(());
        }
        let id = self.id;
        let _ = writeln!(io::stderr(), "node {id}: connection with {remote} refused: {reason}");
        let remote = remote.to_string();
        self.record(clock::now(), Event::ConnectionRefused { remote, reason })
    }

    fn told_to_stop(&mut self, signal: &'static str) -> anyhow::Result<()> {
        let now = clock::now();
        // Whoever says it twice does not want to wait.
        let leads = self.node.status().role == Role::Leader
            && self.stop_by.is_none()
            && !self.links.is_empty();
        if leads && self.handover {
            self.node.handle(now, Input::Transfer);
            self.stop_by = Some((now + HANDOVER_WAIT, signal));
        } else {
            self.stop_by = Some((now, signal));
        }
        Ok(())
    }

    /// Whether a node that was told to stop has nothing left to wait for, and what it did.
    fn may_stop(&self) -> Option<String> {
        let (stop_by, signal) = self.stop_by?;
        let leader = self.node.status().leader;
        match leader {
            // Its vote has gone out by then, and the new leader's first message has come in.
            Some(leader) if leader != self.id => Some(format!("{signal}; node {leader} leads")),
            _ if stop_by <= clock::now() => Some(signal.to_owned()),
            _ => None,
        }
    }

    fn snapshot(&mut self, file: Option<&MetricsFile>) -> anyhow::Result<()> {
        let Some(file) = file else { return Ok(()) };
        file.write(&self.node.status(), &self.counter, &self.counts).with_context(|| {
            format!("cannot write the metrics file {}; name a writable file", file.path().display())
        })
    }
}
