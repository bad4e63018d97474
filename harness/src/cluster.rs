//! The cluster of the moment: its processes, by way of the agent, and what is known of it.

use std::{
    io,
    net::TcpListener,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
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
use sraft_events::{Event, FaultAction, NodeId, Record, Source};

use crate::{
    host::{self, Agent, Input},
    plan::Launch,
    system::sraft::{self, Membership},
    view::View,
};

/// Name of this machine in records.
pub(crate) const HOST: &str = "local";

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
    /// There is no agent any more.
    #[error("the agent on this machine: {0}")]
    Agent(String),
}

/// The cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    agent: Agent,
    inbox: Receiver<Input>,
    launch: Option<Launch>,
    membership: Membership,
    view: View,
    records: Vec<Record>,
    seq: u64,
    rng: ChaCha8Rng,
}

/// How long an agent may take to answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// How many lines of a dead node's standard error go into a trial's reason.
const LAST_WORDS: usize = 3;

impl Cluster {
    /// Starts the agent, without a cluster yet. Its nodes write into `dir`.
    pub(crate) fn open(dir: &Path, keep: bool, seed: u64) -> Result<(Self, HostFacts), Halt> {
        let failed = |what: &str, error: io::Error| Halt::Agent(format!("cannot {what}: {error}"));
        let (sender, inbox) = channel();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
            .map_err(|error| failed("watch for signals", error))?;
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
            .map_err(|error| failed("start a thread", error))?;
        let agent = host::start_local(sender).map_err(|error| failed("be started", error))?;
        let mut cluster = Cluster {
            agent,
            inbox,
            launch: None,
            membership: Membership { cluster: String::new(), ports: Vec::new() },
            view: View::default(),
            records: Vec::new(),
            seq: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
        };
        let dir = dir.to_string_lossy().into_owned();
        let hello = Call::Hello { version: VERSION, host: HOST.to_owned(), dir, keep };
        match cluster.ask(hello)? {
            Answer::Hello(facts) => Ok((cluster, *facts)),
            other => Err(Halt::Agent(format!("it answered a greeting with {other:?}"))),
        }
    }

    /// Replaces the cluster by a fresh one, with empty directories and new ports.
    pub(crate) fn start(&mut self, launch: &Launch, name: String) -> Result<(), Halt> {
        self.stop()?;
        let ports = free_ports(launch.size as usize, &mut self.rng)
            .map_err(|error| Halt::Agent(format!("cannot find free ports: {error}")))?;
        self.membership = Membership { cluster: name, ports };
        self.launch = Some(launch.clone());
        let nodes: Vec<NodeId> = (1..=u64::from(launch.size)).collect();
        self.launch(&nodes, true)
    }

    /// Starts nodes again in their directories.
    pub(crate) fn restart(&mut self, nodes: &[NodeId]) -> Result<(), Halt> {
        self.launch(nodes, false)
    }

    fn launch(&mut self, nodes: &[NodeId], fresh: bool) -> Result<(), Halt> {
        let Some(launch) = self.launch.clone() else { return Ok(()) };
        let calls: Vec<Call> = nodes
            .iter()
            .map(|node| sraft::start(&launch, &self.membership, *node, self.rng.random(), fresh))
            .collect();
        self.ask_all(calls).map(drop)
    }

    /// Ends every node. What their logs still held has been taken up afterwards.
    pub(crate) fn stop(&mut self) -> Result<(), Halt> {
        loop {
            match self.ask(Call::StopAll {}) {
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
        let actions = nodes.iter().map(|node| (*node, action)).collect();
        self.ask(Call::Fault { actions }).map(drop)
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

    /// What has been recorded since the last call of [`Cluster::take_records`].
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    /// Hands out what has been recorded, in the order of time.
    pub(crate) fn take_records(&mut self) -> Vec<Record> {
        let mut records = std::mem::take(&mut self.records);
        records.sort_by(|a, b| (a.mono_ns, &a.source, a.seq).cmp(&(b.mono_ns, &b.source, b.seq)));
        records
    }

    fn ask(&mut self, call: Call) -> Result<Answer, Halt> {
        let answers = self.ask_all(vec![call])?;
        answers.into_iter().next().ok_or_else(|| Halt::Agent("it gave no answer".to_owned()))
    }

    /// Sends requests one after the other and then waits for all answers.
    fn ask_all(&mut self, calls: Vec<Call>) -> Result<Vec<Answer>, Halt> {
        let mut ids = Vec::new();
        for call in calls {
            let sent = self.agent.send(call);
            ids.push(sent.map_err(|error| Halt::Agent(format!("it does not listen: {error}")))?);
        }
        let deadline = Instant::now() + ANSWERED_WITHIN;
        let mut answers = Vec::new();
        while answers.len() < ids.len() {
            match self.next(deadline)? {
                None => {
                    let seconds = ANSWERED_WITHIN.as_secs();
                    return Err(Halt::Agent(format!("it has not answered for {seconds} s")));
                }
                Some(Said::Done { id, answer }) if ids.contains(&id) => answers.push(answer),
                Some(Said::Failed { id, error }) if id == 0 || ids.contains(&id) => {
                    return Err(Halt::Stuck(error));
                }
                Some(_) => {} // the answer to a request that nobody waits for any more
            }
        }
        Ok(answers)
    }

    /// The next reply of the agent; everything else is taken up on the way. Empty at the deadline.
    fn next(&mut self, deadline: Instant) -> Result<Option<Said>, Halt> {
        let left = deadline.saturating_duration_since(Instant::now());
        let input = match self.inbox.recv_timeout(left) {
            Ok(input) => input,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => Input::Lost("it has ended".to_owned()),
        };
        match input {
            Input::Interrupted => Err(Halt::Interrupted),
            Input::Lost(why) => Err(Halt::Agent(why)),
            Input::Said(Said::Died { node, how, stderr }) => {
                let lines: Vec<&str> = stderr.lines().rev().take(LAST_WORDS).collect();
                let words: Vec<&str> = lines.into_iter().rev().collect();
                let words = if words.is_empty() { "none".to_owned() } else { words.join(" | ") };
                Err(Halt::Died(format!("node {node} {how}; its last words: {words}")))
            }
            Input::Said(Said::Records { lines }) => {
                for line in &lines {
                    let record: Record = serde_json::from_str(line).map_err(|error| {
                        Halt::Stuck(format!("an event log holds `{line}`, no record: {error}"))
                    })?;
                    self.view.fold(&record);
                    self.records.push(record);
                }
                Ok(Some(Said::Records { lines: Vec::new() }))
            }
            Input::Said(said) => Ok(Some(said)),
        }
    }
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
