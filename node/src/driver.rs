//! The loop: input -> core -> persist -> journal -> send -> apply -> reply.
//!
//! One task owns the core and the store. Everything else, the connections, the storage thread and
//! the desk at which clients are served, talks to it through channels, so the order of the contract
//! in [`sraft_core`] is the order of the statements here. Whatever has arrived by the time the loop
//! comes round is taken in together: its writes share a sync and its messages a packet.

mod machine;
mod reads;
mod writes;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Context;
use sraft_core::{Entry, Event, Input, Node, NodeId, Role, Term, Time};
use sraft_events::SCHEMA;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::{
    api,
    clock::{self, Deadline},
    console::Console,
    desk::{Answers, Ask, NodeStatus, PeerStatus, Unserved},
    journal::Journal,
    metrics::{Counts, MetricsFile},
    peers::Address,
    process::{self, PidFile},
    settings::{Clients, ENTRY_OVERHEAD, Settings},
    storage::{Disk, Identity, Report, Storage},
    transport::{self, Incoming, Transport, handshake::Introduction, link},
};
use machine::{Finished, Machine};
use reads::Reads;
use writes::Writes;

/// Inputs of one kind that are taken in before their outputs are carried out.
const BATCH: usize = 256;

/// Requests that wait at the desk; what does not fit waits in the API.
const DESK: usize = 1024;

/// Writes to the log that may be under way while commands are proposed. What comes in beyond them
/// goes out together as soon as one of them is durable: under load, a few large entries cost all
/// nodes less than many small ones.
const PIPELINE: u64 = 2;

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
    process::allow_many_files();
    let listener = transport::listen(&settings.listen).await?;
    let doors = match &settings.clients {
        Some(clients) => Some(doors(clients).await?),
        None => None,
    };
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
    let covered = restored.snapshot.as_ref().map_or(0, |snapshot| snapshot.last_index);
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
        last_index: restored.entries.last().map_or(covered, |entry| entry.index),
    };
    let seed = match settings.seed {
        Some(seed) => seed,
        None => process::random()?,
    };
    let (finisher, mut finished) = mpsc::unbounded_channel();
    let machine = Machine::new(restored.snapshot.as_ref(), settings.snapshot_bytes, finisher)?;
    let (reporter, mut reports) = mpsc::unbounded_channel();
    let storage = Storage::start(disk, reporter)?;
    let me = Introduction {
        cluster: settings.cluster.clone(),
        node: id,
        boot_id,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        members: members.clone(),
        client_port: settings.clients.as_ref().map(|clients| clients.client.port),
    };
    let handover = settings.core.handover;
    let mut output = Outlet { journal, console: settings.debug.then(|| Console::new(id)) };
    output.record(clock::now(), started)?;
    let (transport, mut incoming) = Transport::start(me, listener, &settings.peers);
    let (desk, mut asks) = mpsc::channel(DESK);
    let server = doors
        .map(|doors| {
            api::Server::start(doors, reception(&settings, &members), desk.clone())
                .context("cannot start to serve clients")
        })
        .transpose()?;
    let mut driver = Driver {
        id,
        cluster: settings.cluster,
        boot_id,
        started: clock::now(),
        node: Node::new(settings.core, restored, seed, clock::now()),
        links: settings.peers.keys().map(|peer| (*peer, link::Link::default())).collect(),
        hosts: settings.peers.iter().map(|(id, at)| (*id, at.host.clone())).collect(),
        transport,
        storage,
        in_flight: 0,
        outlet: output,
        machine,
        writes: Writes::new(boot_id, settings.max_request_bytes + ENTRY_OVERHEAD),
        reads: Reads::default(),
        answers: Answers::default(),
        post: server.as_ref().map(api::Server::post),
        led: None,
        counts: Counts::default(),
        refusals: BTreeSet::new(),
        handover,
        stop_by: None,
    };

    let mut deadline = Deadline::new()?;
    let mut inbox = Vec::with_capacity(BATCH);
    let mut requests = Vec::with_capacity(BATCH);
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Skip);
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
            finished = finished.recv() => driver.finished(finished),
            asked = asks.recv_many(&mut requests, BATCH) => {
                assert!(asked > 0, "the desk stays open as long as the node runs");
                requests.drain(..).for_each(|ask| driver.asked(ask));
                Ok(())
            }
            _ = second.tick(), if metrics_file.is_some() => {
                driver.write_metrics(metrics_file.as_ref())
            }
        };
        let taken = taken.and_then(|()| driver.take_in(&mut reports, &mut incoming, BATCH));
        if let Err(error) = taken {
            break Err(error);
        }
        for _ in 0..BATCH {
            let Ok(ask) = asks.try_recv() else { break };
            driver.asked(ask);
        }
    };
    let (reason, result) = match result {
        Ok(reason) => (reason, Ok(())),
        Err(error) => (format!("{error:#}"), Err(error)),
    };
    driver.writes.refuse_all();
    driver.reads.refuse_all();
    drop((desk, server));
    let recorded = driver.outlet.record(clock::now(), Event::NodeStopped { reason });
    let counted = driver.write_metrics(metrics_file.as_ref());
    drop(pid_file);
    // The first thing that went wrong is the one to report.
    result.and(recorded).and(counted)
}

/// Binds the ports for clients.
async fn doors(clients: &Clients) -> anyhow::Result<api::Listeners> {
    let client = transport::bind(&clients.client, "--client-port").await?;
    let admin = transport::bind(&clients.admin, "--admin-port").await?;
    Ok(api::Listeners { client: client.into_std()?, admin: admin.into_std()? })
}

/// What clients are told of the cluster, and how many of them there may be.
fn reception(settings: &Settings, members: &[NodeId]) -> api::Settings {
    let limits = api::Limits::default();
    let most = settings.clients.as_ref().and_then(|clients| clients.most);
    let member = |id: &NodeId| {
        let own = *id == settings.core.id;
        let at = |port| Address { host: settings.host.clone(), port };
        let peer = match settings.peers.get(id) {
            Some(peer) => peer.clone(),
            None => at(settings.listen.port),
        };
        let clients = settings.clients.as_ref().filter(|_| own);
        api::Member {
            id: *id,
            name: format!("node-{id}"),
            peer_url: format!("http://{peer}"),
            client_url: clients.map(|clients| format!("http://{}", at(clients.client.port))),
        }
    };
    api::Settings {
        id: settings.core.id,
        cluster: settings.cluster.clone(),
        members: members.iter().map(member).collect(),
        limits: api::Limits {
            connections: most.map_or(limits.connections, |most| most as usize),
            request_bytes: settings.max_request_bytes,
            ..limits
        },
    }
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
    cluster: String,
    boot_id: u64,
    started: Time,
    node: Node,
    links: BTreeMap<NodeId, link::Link>,
    /// Where the others are.
    hosts: BTreeMap<NodeId, String>,
    transport: Transport,
    storage: Storage,
    /// Writes to the log that are not durable yet.
    in_flight: u64,
    outlet: Outlet,
    machine: Machine,
    writes: Writes,
    reads: Reads,
    answers: Answers,
    /// To those who wait for answers.
    post: Option<api::Post>,
    /// The leader that has been told of what is pending, and its term.
    led: Option<(Term, NodeId)>,
    counts: Counts,
    refusals: BTreeSet<(IpAddr, String)>,
    handover: bool,
    /// When a node that was told to stop stops waiting for its successor.
    stop_by: Option<(Time, &'static str)>,
}

impl Driver {
    /// Carries out what the core wants, in the order of its contract.
    fn carry_out(&mut self) -> anyhow::Result<()> {
        self.pass_on();
        let output = self.node.take_output();
        if let Some(persist) = output.persist {
            self.in_flight += 1;
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
        if let Some(snapshot) = output.install {
            self.machine.install(snapshot)?;
        }
        self.apply(output.committed)?;
        let now = clock::now();
        for read in output.reads {
            self.reads.answered(now, read.id, read.index);
        }
        self.serve();
        Ok(())
    }

    /// Gives the core what clients want, as soon as there is a leader to see to it.
    fn pass_on(&mut self) {
        let status = self.node.status();
        let led = status.leader.map(|leader| (status.term, leader));
        if led != self.led {
            self.led = led;
            if led.is_some() {
                self.writes.leader_changed();
                self.reads.leader_changed();
            }
        }
        if led.is_none() {
            return;
        }
        let now = clock::now();
        if self.in_flight < PIPELINE {
            while let Some(command) = self.writes.propose() {
                self.counts.proposed += 1;
                self.node.handle(now, Input::Propose { command });
            }
        }
        if let Some(id) = self.reads.ask(now) {
            self.node.handle(now, Input::Read { id });
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> anyhow::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let (writes, term) = (&mut self.writes, self.node.status().term);
        let answers = &mut self.answers;
        self.machine.apply(entries, |id, outcome| writes.applied(id, outcome, term, answers));
        self.machine.take_snapshot()
    }

    fn serve(&mut self) {
        let (store, term) = (self.machine.store(), self.node.status().term);
        self.reads.serve(store.applied(), term, || store.view(), &mut self.answers);
        if !self.answers.is_empty() {
            let answers = std::mem::take(&mut self.answers);
            match &self.post {
                Some(post) => post.send(answers),
                None => answers.send(),
            }
        }
    }

    fn record(&mut self, at: Time, event: Event) -> anyhow::Result<()> {
        let start = clock::now();
        let recorded = self.outlet.record(at, event);
        self.counts.event(clock::now().since(start));
        recorded
    }

    fn next_deadline(&self) -> Option<Time> {
        let stop_by = self.stop_by.map(|(at, _)| at);
        let clients = [self.writes.next_deadline(), self.reads.next_deadline(self.led.is_some())];
        [self.node.next_deadline(), stop_by].into_iter().chain(clients).flatten().min()
    }

    fn due(&self, now: Time) -> bool {
        self.next_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// A deadline has passed: takes in everything that has arrived, and only then, if it still
    /// stands, tells the core.
    fn timeout(
        &mut self,
        reports: &mut mpsc::UnboundedReceiver<Report>,
        incoming: &mut mpsc::Receiver<Incoming>,
    ) -> anyhow::Result<()> {
        let arrived = incoming.len();
        self.take_in(reports, incoming, arrived)?;
        let now = clock::now();
        if self.node.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.node.handle(now, Input::Timeout);
        }
        self.writes.look(now);
        self.reads.look(now);
        Ok(())
    }

    /// Takes in what has arrived, up to so many messages.
    fn take_in(
        &mut self,
        reports: &mut mpsc::UnboundedReceiver<Report>,
        incoming: &mut mpsc::Receiver<Incoming>,
        most: usize,
    ) -> anyhow::Result<()> {
        while let Ok(report) = reports.try_recv() {
            self.reported(Some(report))?;
        }
        for _ in 0..most {
            let Ok(next) = incoming.try_recv() else { break };
            self.received(next)?;
        }
        Ok(())
    }

    fn reported(&mut self, report: Option<Report>) -> anyhow::Result<()> {
        match report.context("the storage thread has ended without a report")? {
            Report::Durable { ticket, tickets, took } => {
                self.in_flight -= tickets;
                self.counts.group(tickets, took);
                self.node.handle(clock::now(), Input::Persisted { ticket });
                Ok(())
            }
            Report::Snapshot { took, .. } => {
                self.counts.snapshot(took);
                Ok(())
            }
            Report::Failed(error) => Err(error.into()),
        }
    }

    fn finished(&mut self, finished: Option<Finished>) -> anyhow::Result<()> {
        match finished.expect("the machine keeps a sender") {
            Finished::Encoded { index, data } => {
                if let Some((index, data)) = self.machine.encoded(index, data) {
                    self.node.handle(clock::now(), Input::Snapshot { index, data });
                }
                Ok(())
            }
            Finished::Decoded { index, store } => {
                let committed = self.machine.decoded(index, store)?;
                self.apply(committed)
            }
        }
    }

    /// Somebody asks at the desk.
    fn asked(&mut self, ask: Ask) {
        let now = clock::now();
        let stops = self.stop_by.is_some();
        // Nobody may be there any more to hear an answer.
        match ask {
            Ask::Write { reply, .. } if stops => drop(reply.send(Err(Unserved::Stopping))),
            Ask::Read { reply, .. } if stops => drop(reply.send(Err(Unserved::Stopping))),
            Ask::Write { op, reply } => self.writes.take(now, op, reply),
            Ask::Read { linearizable: true, reply } => self.reads.take(now, reply),
            Ask::Read { linearizable: false, reply } => {
                let (view, term) = (self.machine.store().view(), self.node.status().term);
                self.answers.add(reply, Ok((view, term)));
            }
            Ask::Status { reply } => drop(reply.send(self.status(now))),
        }
    }

    fn client_url(&self, peer: NodeId) -> Option<String> {
        let (port, host) = (self.transport.client_port(peer)?, self.hosts.get(&peer)?.clone());
        Some(format!("http://{}", Address { host, port }))
    }

    fn status(&self, now: Time) -> NodeStatus {
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

    fn write_metrics(&mut self, file: Option<&MetricsFile>) -> anyhow::Result<()> {
        let Some(file) = file else { return Ok(()) };
        file.write(&self.status(clock::now())).with_context(|| {
            format!("cannot write the metrics file {}; name a writable file", file.path().display())
        })
    }
}
