//! The cluster of the moment: its processes, by way of the agents, and what is known of it.

mod attached;
mod links;
mod probe;
mod reboot;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::TcpListener,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use sraft_agent::{
    clock,
    protocol::{Answer, Call, HostFacts, Said, VERSION},
};
use sraft_events::{Boot, Event, FaultAction, NodeId, Record, Source};
use sraft_report::clocks::Clocks;

use self::probe::Felt;
use crate::{
    host::{Agent, Host, Input, Ports, Reach, ssh},
    plan::Launch,
    system::{Endpoint, Membership, Reader, Start},
    view::View,
};

mod clocks;

/// Why something could not be awaited to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Halt {
    /// Somebody wants the run to end.
    #[error("interrupted")]
    Interrupted,
    /// A node has died that nobody had killed. Another cluster can be started.
    #[error("{0}")]
    Died(String),
    /// The cluster did not get where it should. Another one can be started.
    #[error("{0}")]
    Stuck(String),
    /// There is no agent on a host any more.
    #[error("the agent on host {host}: {why}")]
    Agent {
        /// The host's name.
        host: String,
        /// Why.
        why: String,
    },
    /// This machine does not let the harness do its work.
    #[error("cannot {doing}: {source}")]
    Here {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    hosts: Vec<Host>,
    /// One on each host.
    agents: Vec<Agent>,
    /// Agents that are gone, and why.
    gone: BTreeMap<usize, String>,
    /// Whether agents leave the nodes' directories when they end.
    keep: bool,
    sender: Sender<Input>,
    inbox: Receiver<Input>,
    /// The boot that each host is up by, as far as it is known.
    boots: Vec<Option<Boot>>,
    /// Hosts that have been reset, and whose agents are gone for that reason.
    rebooting: BTreeSet<usize>,
    /// The host whose clock is everybody's, and that the probe runs on.
    reference: usize,
    /// How the hosts' clocks stand to one another, as far as there are several.
    clocks: Option<Clocks>,
    /// What the current trial has found of that.
    compared: Vec<Event>,
    launch: Option<Launch>,
    /// Whether the nodes are there before us and after us.
    attached: bool,
    membership: Membership,
    reader: Option<Box<dyn Reader>>,
    view: View,
    records: Vec<Record>,
    felt: Felt,
    /// Whether a probe has been started and not been stopped.
    probing: bool,
    seq: u64,
    rng: ChaCha8Rng,
    /// Draws the ports of nodes on this machine, and differs from run to run: two runs of one
    /// experiment at once, seeded alike, would otherwise find the same ports free.
    ports: ChaCha8Rng,
}

/// How long an agent may take to answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// How long lost agents may take to be replaced: the lease of the lost ones, and a reboot at most.
const ENGAGED_AGAIN_WITHIN: Duration = Duration::from_secs(180);

/// How often that is tried.
const ENGAGED_AGAIN_EVERY: Duration = Duration::from_secs(1);

/// How many lines of a dead node's standard error go into a trial's reason.
const LAST_WORDS: usize = 3;

impl Cluster {
    /// Starts an agent on each host, without a cluster yet, and returns what they say of their
    /// hosts.
    pub(crate) fn open(
        hosts: Vec<Host>,
        keep: bool,
        seed: u64,
    ) -> Result<(Self, Vec<HostFacts>), Halt> {
        let here = |doing| move |source| Halt::Here { doing, source };
        let (sender, inbox) = channel();
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(here("watch for signals"))?;
        let interrupted = sender.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for (count, _) in signals.forever().enumerate() {
                    // Who asks twice does not want to wait for the report.
                    if count > 0 || interrupted.send(Input::Interrupted).is_err() {
                        std::process::exit(130);
                    }
                }
            })
            .map_err(here("start a thread"))?;
        let mut cluster = Cluster {
            hosts,
            agents: Vec::new(),
            gone: BTreeMap::new(),
            keep,
            sender,
            inbox,
            boots: Vec::new(),
            rebooting: BTreeSet::new(),
            reference: 0,
            clocks: None,
            compared: Vec::new(),
            launch: None,
            attached: false,
            membership: Membership::default(),
            reader: None,
            view: View::default(),
            records: Vec::new(),
            felt: Felt::default(),
            probing: false,
            seq: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            ports: ChaCha8Rng::seed_from_u64(u64::from(std::process::id())),
        };
        let facts = cluster.engage()?;
        Ok((cluster, facts))
    }

    /// Starts an agent on each host and returns what they say of their hosts.
    fn engage(&mut self) -> Result<Vec<HostFacts>, Halt> {
        let places: Vec<(usize, &Host)> = self.hosts.iter().enumerate().collect();
        let started = ssh::for_all(&places, |(index, host)| {
            host.start_agent(*index, self.sender.clone()).map_err(|error| Halt::Agent {
                host: host.name.clone(),
                why: format!("cannot be started: {error}"),
            })
        });
        self.agents = started.into_iter().collect::<Result<_, _>>()?;
        let all: Vec<usize> = (0..self.agents.len()).collect();
        let facts = self.greet(&all)?;
        self.boots = facts.iter().map(boot).collect();
        self.rebooting.clear();
        if self.is_remote() {
            self.engage_clocks()?;
        }
        Ok(facts)
    }

    /// Tells new agents what they have to know, and returns what they say of their hosts.
    fn greet(&mut self, agents: &[usize]) -> Result<Vec<HostFacts>, Halt> {
        let hello = |agent: &usize| {
            let Host { name, dir, .. } = &self.hosts[*agent];
            let (version, host, dir, keep) = (VERSION, name.clone(), dir.clone(), self.keep);
            (*agent, Call::Hello { version, host, dir, keep })
        };
        let greetings = agents.iter().map(hello).collect();
        let mut facts = Vec::new();
        for (agent, answer) in agents.iter().zip(self.ask_all(greetings)?) {
            match answer {
                Answer::Hello(host) => facts.push(*host),
                other => {
                    let why = format!("it answered a greeting with {other:?}");
                    return Err(self.lost(*agent, why));
                }
            }
        }
        if self.is_remote() {
            // Connections that drop packets do not close.
            let lease = Call::Lease { silence_ms: ssh::SILENCE.as_millis() as u64 };
            self.ask_all(agents.iter().map(|agent| (*agent, lease.clone())).collect())?;
        }
        Ok(facts)
    }

    /// Whether an agent that is lost can be replaced.
    pub(crate) fn is_remote(&self) -> bool {
        self.hosts.iter().any(Host::is_remote)
    }

    /// Replaces all agents after one was lost. They have ended everything that they had started:
    /// what the lost one has left ends with its lease, for which this waits.
    pub(crate) fn engage_again(&mut self) -> Result<(), Halt> {
        let deadline = Instant::now() + ENGAGED_AGAIN_WITHIN;
        loop {
            self.agents.clear(); // each waits for its end
            self.gone.clear();
            self.view = View::default();
            // What they said last is of no interest, unless somebody wants to end it all.
            while let Ok(input) = self.inbox.try_recv() {
                if matches!(input, Input::Interrupted) {
                    return Err(Halt::Interrupted);
                }
            }
            match self.engage() {
                Ok(_) => return Ok(()),
                Err(Halt::Interrupted) => return Err(Halt::Interrupted),
                Err(halt) if Instant::now() > deadline => return Err(halt),
                Err(_) => {}
            }
            // A host that boots, or a lease that ends: neither can be waited for otherwise.
            if let Ok(Input::Interrupted) = self.inbox.recv_timeout(ENGAGED_AGAIN_EVERY) {
                return Err(Halt::Interrupted);
            }
        }
    }

    /// The hosts, in the order of the facts that [`Cluster::open`] returns.
    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host that a node runs on: nodes are dealt out in turn.
    fn host_of(&self, node: NodeId) -> usize {
        (node as usize - 1) % self.hosts.len()
    }

    fn lost(&self, agent: usize, why: String) -> Halt {
        Halt::Agent { host: self.hosts[agent].name.clone(), why }
    }

    /// Replaces the cluster by a fresh one, with empty directories and new ports.
    pub(crate) fn start(&mut self, launch: &Launch, name: String) -> Result<(), Halt> {
        self.stop()?;
        let size = launch.size as usize;
        let ports = free_ports(3 * size, &mut self.ports)
            .map_err(|source| Halt::Here { doing: "find free ports", source })?;
        let nodes = (1..=u64::from(launch.size)).zip(ports.chunks(3));
        // Packet filters tell nodes apart by their addresses. All of 127/8 is this machine.
        let apart = launch.fault.links.is_some();
        let nodes = nodes.map(|(node, free)| {
            let Host { address, ports, reach, .. } = &self.hosts[self.host_of(node)];
            let host = match reach {
                Reach::Local if apart => format!("127.0.0.{node}"),
                _ => address.clone(),
            };
            match ports {
                Some(Ports { peer, client, admin, .. }) => {
                    Endpoint { host, peer: *peer, client: *client, admin: *admin }
                }
                None => Endpoint { host, peer: free[0], client: free[1], admin: free[2] },
            }
        });
        self.membership = Membership { cluster: name, nodes: nodes.collect() };
        self.reader = launch.system.reader(&self.membership);
        self.view = View::of(launch.system.log());
        self.launch = Some(launch.clone());
        let nodes: Vec<NodeId> = (1..=u64::from(launch.size)).collect();
        match self.attached {
            true => self.adopt(&nodes),
            false => self.launch(&nodes, true),
        }
    }

    /// Starts nodes again in their directories.
    pub(crate) fn restart(&mut self, nodes: &[NodeId]) -> Result<(), Halt> {
        match self.attached {
            true => self.revive(nodes),
            false => self.launch(nodes, false),
        }
    }

    fn launch(&mut self, nodes: &[NodeId], fresh: bool) -> Result<(), Halt> {
        let Some(launch) = self.launch.clone() else { return Ok(()) };
        let mut calls = Vec::new();
        for node in nodes {
            let start = Start { seed: self.rng.random(), fresh };
            let call = launch.system.start(&launch, &self.membership, *node, start);
            calls.push((self.host_of(*node), call));
        }
        self.ask_all(calls).map(drop)
    }

    /// Ends every node, or lets it go. What their logs still held has been taken up afterwards.
    pub(crate) fn stop(&mut self) -> Result<(), Halt> {
        loop {
            let all = (0..self.agents.len()).map(|agent| (agent, Call::StopAll {})).collect();
            match self.ask_all(all) {
                Ok(_) => break,
                // The cluster is coming to its end anyway.
                Err(Halt::Died(_)) => {}
                Err(other) => return Err(other),
            }
        }
        self.view = View::default();
        Ok(())
    }

    /// Does something to nodes, all at once.
    pub(crate) fn fault(&mut self, nodes: &[NodeId], action: FaultAction) -> Result<(), Halt> {
        let mut calls: Vec<(usize, Vec<(NodeId, FaultAction)>)> = Vec::new();
        for node in nodes {
            let agent = self.host_of(*node);
            match calls.iter_mut().find(|(of, _)| *of == agent) {
                Some((_, actions)) => actions.push((*node, action)),
                None => calls.push((agent, vec![(*node, action)])),
            }
        }
        let calls = calls.into_iter().map(|(agent, actions)| (agent, Call::Fault { actions }));
        self.ask_all(calls.collect()).map(drop)
    }

    /// Waits until `done` says something, or until `deadline`.
    pub(crate) fn wait<T>(
        &mut self,
        deadline: Instant,
        mut done: impl FnMut(&View) -> Option<T>,
    ) -> Result<Option<T>, Halt> {
        loop {
            // What has arrived already is looked at first: an old view is no answer.
            while self.next(Instant::now())?.is_some() {}
            if let Some(value) = done(&self.view) {
                return Ok(Some(value));
            }
            if self.next(deadline)?.is_none() {
                return Ok(None);
            }
        }
    }

    /// Lets time pass, on purpose.
    pub(crate) fn pass(&mut self, time: Duration) -> Result<(), Halt> {
        self.wait(Instant::now() + time, |_| None::<()>).map(drop)
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Adds a record of the harness itself.
    pub(crate) fn record(&mut self, event: Event) {
        let now = clock::read();
        let (mono_ns, wall_ns) = (now.mono_ns, now.wall_ns);
        let source = Source::Harness;
        self.records.push(Record { source, seq: self.seq, mono_ns, wall_ns, event });
        self.seq += 1;
    }

    /// Hands out what has been recorded, in the order of time. Every stamp is still that of its
    /// writer's own clock.
    pub(crate) fn take_records(&mut self) -> Vec<Record> {
        let mut records = std::mem::take(&mut self.records);
        records.sort_by_cached_key(|record| {
            (self.order_ns(record), record.source.clone(), record.seq)
        });
        records
    }

    /// Sends requests to agents, one after the other, and then waits for all answers, which come
    /// back in the order of the requests.
    fn ask_all(&mut self, calls: Vec<(usize, Call)>) -> Result<Vec<Answer>, Halt> {
        let asked = self.send_all(calls)?;
        match self.answers(&asked, Instant::now() + ANSWERED_WITHIN)? {
            Ok(answers) => Ok(answers),
            Err(silent) => {
                let why = format!("it has not answered for {} s", ANSWERED_WITHIN.as_secs());
                Err(self.lost(silent, why))
            }
        }
    }

    /// Sends requests to agents and returns by what their answers will be known.
    fn send_all(&mut self, calls: Vec<(usize, Call)>) -> Result<Vec<(usize, u64)>, Halt> {
        let mut asked = Vec::new();
        for (agent, call) in calls {
            let id = self.agents[agent].send(call).map_err(|error| {
                let known = self.gone.get(&agent).cloned();
                let why = known.unwrap_or_else(|| format!("it does not listen: {error}"));
                self.lost(agent, why)
            })?;
            asked.push((agent, id));
        }
        Ok(asked)
    }

    /// Waits for the answers to requests; if one is missing at the deadline, its agent's number.
    fn answers(
        &mut self,
        asked: &[(usize, u64)],
        deadline: Instant,
    ) -> Result<Result<Vec<Answer>, usize>, Halt> {
        let mut answers: Vec<Option<Answer>> = asked.iter().map(|_| None).collect();
        while let Some(waiting) = answers.iter().position(Option::is_none) {
            let place = |agent: usize, id: u64| asked.iter().position(|of| *of == (agent, id));
            match self.next(deadline)? {
                None => return Ok(Err(asked[waiting].0)),
                Some((agent, Said::Done { id, answer })) => {
                    // Else it is the answer to a request that nobody waits for any more.
                    if let Some(place) = place(agent, id) {
                        answers[place] = Some(answer);
                    }
                }
                Some((agent, Said::Failed { id, error }))
                    if id == 0 || place(agent, id).is_some() =>
                {
                    let error = match self.is_remote() {
                        true => format!("host {}: {error}", self.hosts[agent].name),
                        false => error,
                    };
                    return Err(Halt::Stuck(error));
                }
                Some(_) => {}
            }
        }
        Ok(Ok(answers.into_iter().flatten().collect()))
    }

    fn take(&mut self, record: Record) {
        self.view.fold(&self.placed(&record));
        self.records.push(record);
    }

    /// The next reply of an agent; everything else is taken up on the way. Empty at the deadline.
    fn next(&mut self, deadline: Instant) -> Result<Option<(usize, Said)>, Halt> {
        let left = deadline.saturating_duration_since(Instant::now());
        let input = match self.inbox.recv_timeout(left) {
            Ok(input) => input,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Input::Lost { agent: 0, why: "it has ended".to_owned() }
            }
        };
        match input {
            Input::Interrupted => Err(Halt::Interrupted),
            // That was to be.
            Input::Lost { agent, .. } if self.rebooting.contains(&agent) => {
                Ok(Some((agent, Said::Records { lines: Vec::new() })))
            }
            Input::Said { agent, said: Said::Failed { error, .. } }
                if self.rebooting.contains(&agent) =>
            {
                Err(Halt::Stuck(format!("host {}: {error}", self.hosts[agent].name)))
            }
            Input::Lost { agent, why } => {
                self.gone.insert(agent, why.clone());
                Err(self.lost(agent, why))
            }
            Input::Said { said: Said::Died { node, how, stderr }, .. } => {
                let lines: Vec<&str> = stderr.lines().rev().take(LAST_WORDS).collect();
                let words: Vec<&str> = lines.into_iter().rev().collect();
                let words = if words.is_empty() { "none".to_owned() } else { words.join(" | ") };
                Err(Halt::Died(format!("node {node} {how}; its last words: {words}")))
            }
            Input::Said { agent, said: Said::Records { lines } } => {
                for line in &lines {
                    let record: Record = serde_json::from_str(line).map_err(|error| {
                        Halt::Stuck(format!("an event log holds `{line}`, no record: {error}"))
                    })?;
                    self.take(record);
                }
                Ok(Some((agent, Said::Records { lines: Vec::new() })))
            }
            Input::Said { agent, said: Said::Ops { lines } } => {
                self.felt.take(lines)?;
                Ok(Some((agent, Said::Ops { lines: Vec::new() })))
            }
            Input::Said { agent, said: Said::Text { node, pid, clocks, lines } } => {
                let read = self.reader.as_mut().map(|r| r.read(node, pid, clocks, &lines));
                read.into_iter().flatten().for_each(|record| self.take(record));
                Ok(Some((agent, Said::Records { lines: Vec::new() })))
            }
            Input::Said { agent, said } => Ok(Some((agent, said))),
        }
    }
}

/// The boot that a host is up by.
fn boot(facts: &HostFacts) -> Option<Boot> {
    let zero_wall_ns = facts.clocks.wall_ns.saturating_sub(facts.clocks.mono_ns);
    facts.boot.clone().map(|id| Boot { id, zero_wall_ns })
}

/// Ports that nobody listens on, below those that the kernel gives to outgoing connections. While
/// a node is dead, its peers knock at its port all the time; from the kernel's own range, one of
/// those knocks would sooner or later be given that very port and connect to itself.
fn free_ports(count: usize, rng: &mut ChaCha8Rng) -> io::Result<Vec<u16>> {
    let range =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first: u16 =
        range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32768);
    let mut held: Vec<(u16, TcpListener)> = Vec::new();
    for _ in 0..count * 200 {
        if held.len() == count {
            break;
        }
        // Without room below, there is nothing for it but to ask the kernel.
        let port = if first > 12_000 { rng.random_range(10_000..first) } else { 0 };
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push((listener.local_addr()?.port(), listener));
        }
    }
    // All are held until all are found, so that none is found twice.
    match held.len() == count {
        true => Ok(held.into_iter().map(|(port, _)| port).collect()),
        false => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_all_different() {
        let ports = free_ports(20, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        let different: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(different.len(), 20);
        assert!(ports.iter().all(|port| *port >= 1024));
    }
}
