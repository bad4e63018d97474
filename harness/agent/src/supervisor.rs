//! The agent's loop.
//!
//! # Staying out of the way
//! Agent and harness run on the machine whose failover they observe, often on two cores that five
//! nodes share. What wakes them up in the few hundred microseconds that matter takes a core away
//! from a node. So only two things happen at once: signals are sent, and the end of a process is
//! stamped. Everything else (reading event logs, announcing ends, answering a fault) waits
//! [`QUIET`] after the first thing that calls for it, and is then done in one go. No figure depends
//! on when the agent reads: every record carries the time at which its writer made it.

mod adopted;
mod links;
mod outbox;
mod probe;
mod reboot;
mod strikes;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
    io::Errno,
};
use sraft_events::{Event, NodeId};

use crate::{
    AgentError, clock,
    directory::{Directory, plain_names, write_files},
    facts,
    input::{Line, Lines},
    needs, own_disk, own_executable,
    ports::{self, Ports},
    probe::Probe,
    process::Process,
    protocol::{self, Answer, Call, Disk, LogFormat, MAX_LINE, Request, Said},
    reboot::Reset,
    skew::{self, Answering},
    tail::EventLog,
    throttle::Groups,
};

/// How long the agent lets events gather before it looks at them.
pub const QUIET: Duration = Duration::from_millis(10);

/// Longest wait for killed processes to end: a process in an uninterruptible sleep may take long.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// Everything an agent owns.
#[derive(Debug)]
pub(crate) struct Supervisor<W> {
    output: W,
    inotify: OwnedFd,
    lines: Lines,
    program: PathBuf,
    host: Option<Host>,
    processes: BTreeMap<NodeId, Process>,
    /// Nodes that somebody else has started.
    adopted: BTreeMap<NodeId, adopted::Adopted>,
    /// Every node that ever got a directory.
    nodes: BTreeSet<NodeId>,
    probe: Option<Probe>,
    /// Whether there ever was one.
    probed: bool,
    /// Rows of the probe.
    ops: Vec<String>,
    links: links::Links,
    /// Control groups of nodes whose disks can be slowed down.
    groups: Groups,
    /// A reset of this host that waits for its word.
    reset: Option<Reset>,
    seq: u64,
    records: Vec<String>,
    texts: Vec<outbox::Text>,
    pending: Vec<Said>,
    /// What has been said and is still to be written.
    outgoing: VecDeque<u8>,
    due: Option<Instant>,
    /// When anything was last heard.
    heard: Instant,
    /// After so much silence the harness is gone, whatever its connection looks like.
    lease: Option<Duration>,
    answering: Option<Answering>,
    ports: Ports,
}

#[derive(Debug)]
struct Host {
    name: String,
    directory: Directory,
    keep: bool,
}

/// What a descriptor that became ready belongs to.
#[derive(Clone, Copy)]
enum Ready {
    Stop,
    Input,
    Output,
    Logs,
    Errors(NodeId),
    Ended(NodeId),
    ProbeErrors,
    ProbeEnded,
}

impl<W: AsFd> Supervisor<W> {
    pub(crate) fn new(output: W) -> Result<Self, AgentError> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let inotify = inotify::init(flags).map_err(|error| AgentError::SetUp {
            what: "watch files (too many inotify instances? see fs.inotify.max_user_instances)",
            source: error.into(),
        })?;
        Ok(Supervisor {
            output,
            inotify,
            lines: Lines::default(),
            program: own_executable(),
            host: None,
            processes: BTreeMap::new(),
            adopted: BTreeMap::new(),
            nodes: BTreeSet::new(),
            probe: None,
            probed: false,
            ops: Vec::new(),
            links: links::Links::default(),
            groups: Groups::default(),
            reset: None,
            seq: 0,
            records: Vec::new(),
            texts: Vec::new(),
            pending: Vec::new(),
            outgoing: VecDeque::new(),
            due: None,
            heard: Instant::now(),
            lease: None,
            answering: None,
            ports: Ports::default(),
        })
    }

    /// Serves until the input closes or `stop` becomes readable.
    pub(crate) fn turn(
        &mut self,
        input: BorrowedFd<'_>,
        stop: BorrowedFd<'_>,
    ) -> Result<(), AgentError> {
        loop {
            let ready = self.wait(Some(input), Some(stop))?;
            // What has been sent while something else took long has not been heard, but it is there.
            let silent = !ready.iter().any(|what| matches!(what, Ready::Input));
            if silent && self.lease_ends().is_some_and(|end| end <= Instant::now()) {
                self.lease = None; // what is left to be done has its own time
                return Ok(());
            }
            for what in ready {
                match what {
                    Ready::Stop => return Ok(()),
                    Ready::Input => {
                        let lines = self
                            .lines
                            .read(input)
                            .map_err(|source| AgentError::Pipe { end: "input", source })?;
                        let Some(lines) = lines else {
                            let _ = self.write_out(); // to whoever may still read
                            return Ok(());
                        };
                        self.heard = Instant::now();
                        for line in lines {
                            self.answer(line)?;
                        }
                    }
                    Ready::Output => self.write_out()?,
                    Ready::Logs | Ready::Ended(_) | Ready::ProbeEnded => self.soon(QUIET),
                    Ready::Errors(node) => self.drain_errors(node),
                    Ready::ProbeErrors => self.drain_probe_errors(),
                }
            }
            if self.next_due().is_some_and(|due| due <= Instant::now()) {
                self.deliver()?;
            }
        }
    }

    fn lease_ends(&self) -> Option<Instant> {
        self.lease.map(|lease| self.heard + lease)
    }

    /// Waits for something to happen, or for what is due. The end of a process is stamped here,
    /// before anything else is looked at.
    fn wait(
        &mut self,
        input: Option<BorrowedFd<'_>>,
        stop: Option<BorrowedFd<'_>>,
    ) -> Result<Vec<Ready>, AgentError> {
        // Without an input, everything is about to end, and nobody reads rows any more.
        let due = if input.is_some() { self.next_due() } else { self.due };
        let until = due.into_iter().chain(self.lease_ends()).min();
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut what = Vec::new();
        let mut descriptors = Vec::new();
        if input.is_some() && !self.outgoing.is_empty() {
            what.push(Ready::Output);
            descriptors.push(PollFd::new(&self.output, PollFlags::OUT));
        }
        let mut watch = |ready, descriptor| {
            what.push(ready);
            descriptors.push(PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
        };
        for (&node, process) in &self.processes {
            if process.ended.is_none() {
                watch(Ready::Ended(node), process.pidfd());
            }
            if let Some(pipe) = process.errors.pipe() {
                watch(Ready::Errors(node), pipe);
            }
        }
        if let Some(probe) = &self.probe {
            if probe.process.ended.is_none() {
                watch(Ready::ProbeEnded, probe.process.pidfd());
            }
            if let Some(pipe) = probe.process.errors.pipe() {
                watch(Ready::ProbeErrors, pipe);
            }
        }
        if self.due.is_none() {
            watch(Ready::Logs, self.inotify.as_fd());
        }
        if let Some(stop) = stop {
            watch(Ready::Stop, stop);
        }
        if let Some(input) = input {
            watch(Ready::Input, input);
        }
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(AgentError::Poll(error.into())),
        }
        let now = clock::read();
        let ready: Vec<Ready> = what
            .into_iter()
            .zip(&descriptors)
            .filter(|(_, descriptor)| !descriptor.revents().is_empty())
            .map(|(what, _)| what)
            .collect();
        for what in &ready {
            if let Ready::Ended(node) = what
                && let Some(process) = self.processes.get_mut(node)
            {
                // Numbered now, so that numbers and stamps of the agent's records rise together.
                process.ended = Some((now, self.seq));
                self.seq += 1;
            }
            if let (Ready::ProbeEnded, Some(probe)) = (what, &mut self.probe) {
                // There is no record of it; the request to stop it is answered.
                probe.process.ended = Some((now, self.seq));
            }
        }
        Ok(ready)
    }

    fn soon(&mut self, delay: Duration) {
        let due = Instant::now() + delay;
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// When something has to be told. Not before there is room for it: till then it is in files.
    fn next_due(&self) -> Option<Instant> {
        if self.outgoing.len() > outbox::MOST_WAITING {
            return None;
        }
        let probe = self.probe.as_ref().filter(|probe| !probe.is_over()).map(|probe| probe.due);
        self.due.into_iter().chain(probe).min()
    }

    fn drain_errors(&mut self, node: NodeId) {
        if let Some(process) = self.processes.get_mut(&node) {
            process.errors.drain();
        }
    }

    // ---- requests --------------------------------------------------------------------------

    fn answer(&mut self, line: Line) -> Result<(), AgentError> {
        let failed = |id, error| Said::Failed { id, error };
        let said = match line {
            // Only to say that the harness lives.
            Line::Whole(line) if line.is_empty() => return Ok(()),
            Line::TooLong => failed(0, format!("a request was longer than {MAX_LINE} bytes")),
            Line::Whole(line) => match serde_json::from_slice::<Request>(&line) {
                Err(error) => failed(id_of(&line), format!("the request makes no sense: {error}")),
                Ok(Request { id, call }) => {
                    // The answer to a fault would wake the harness up in the failover's midst.
                    let delay = match call {
                        Call::Fault { .. } | Call::Strike { .. } => QUIET,
                        _ => Duration::ZERO,
                    };
                    let result = match call {
                        // These are answered later, if they can be carried out.
                        Call::StartProbe { .. } | Call::StopProbe {} => {
                            let Err(error) = self.order_probe(id, call) else { return Ok(()) };
                            Err(error)
                        }
                        // This is answered before it happens.
                        Call::Reboot { nodes } => Err(self.reboot(id, &nodes)?),
                        call => self.carry_out(call),
                    };
                    self.soon(delay);
                    match result {
                        Ok(answer) => Said::Done { id, answer },
                        Err(error) => failed(id, error),
                    }
                }
            },
        };
        if matches!(said, Said::Failed { .. }) {
            self.soon(Duration::ZERO);
        }
        self.pending.push(said);
        Ok(())
    }

    fn carry_out(&mut self, call: Call) -> Result<Answer, String> {
        match call {
            Call::Hello { version, host, dir, keep } => self.hello(version, host, &dir, keep),
            Call::Ping {} => Ok(Answer::Clocks(clock::read())),
            Call::Start { node, program, args, files, fresh, log_file, log_format, disk } => {
                let program = program.filter(|program| !program.is_empty()).map(PathBuf::from);
                let log = (log_file.as_str(), log_format);
                self.start(node, (program, args), &files, fresh, log, disk)
            }
            Call::Adopt { node, dir, process_file, log_file, revive } => {
                self.adopt(node, &dir, &process_file, &log_file, revive)
            }
            Call::Revive { node } => self.revive(node),
            Call::Fault { actions } => self.fault(&actions),
            Call::CheckFaults { needs } => {
                needs::check(needs, self.host()?.directory.path()).map(|()| Answer::Ok)
            }
            Call::Leftovers { remove } => {
                needs::leftovers(remove).map(|found| Answer::Leftovers { found })
            }
            Call::Arm { flows, effect, lease_ms } => self.arm(&flows, effect, lease_ms),
            Call::ArmDisks { nodes, iops } => self.arm_disks(&nodes, iops),
            Call::Strike { strikes } => self.strike(&strikes),
            Call::Heal { nodes } => self.heal(&nodes),
            Call::StopAll {} => self.stop_all(),
            Call::ArmReboot { spared } => self.arm_reboot(&spared),
            Call::StartProbe { .. } | Call::StopProbe {} | Call::Reboot { .. } => {
                unreachable!("answered at another time")
            }
            Call::Lease { silence_ms } => {
                self.lease = Some(Duration::from_millis(silence_ms));
                Ok(Answer::Ok)
            }
            Call::AnswerClocks { at } => {
                if self.answering.as_ref().is_none_or(|answering| answering.at != at) {
                    self.answering = None; // before the next one wants its port
                    self.answering = Some(Answering::start(&at)?);
                }
                Ok(Answer::Ok)
            }
            Call::Listen { at } => Ok(Answer::Listening { refused: self.ports.hold(&at) }),
            Call::Knock { at, within_ms } => {
                let found = ports::knock(&at, Duration::from_millis(within_ms));
                Ok(Answer::Knocked { found })
            }
            Call::CompareClocks { with } => skew::compare(&with).map(Answer::Compared),
        }
    }

    fn hello(
        &mut self,
        version: u32,
        name: String,
        dir: &str,
        keep: bool,
    ) -> Result<Answer, String> {
        if version != protocol::VERSION {
            return Err(format!(
                "the agent speaks version {} of the protocol and the harness version {version}; \
                 put the same program on every host",
                protocol::VERSION
            ));
        }
        if self.host.is_some() {
            return Err("the agent has been greeted already".to_owned());
        }
        if name.is_empty() {
            return Err("the host needs a name".to_owned());
        }
        let directory = Directory::take(dir)?;
        let facts = facts::gather(directory.path());
        self.host = Some(Host { name, directory, keep });
        Ok(Answer::Hello(Box::new(facts)))
    }

    fn host(&self) -> Result<&Host, String> {
        self.host.as_ref().ok_or_else(|| "the first request has to be hello".to_owned())
    }

    fn start(
        &mut self,
        node: NodeId,
        (program, args): (Option<PathBuf>, Vec<String>),
        files: &[(String, String)],
        fresh: bool,
        (log_file, log_format): (&str, LogFormat),
        disk: Disk,
    ) -> Result<Answer, String> {
        plain_names(files, log_file)?;
        self.host()?;
        if disk == Disk::Limitable {
            self.groups.make(node)?;
        }
        let directory = &self.host()?.directory;
        if let Some(process) = self.processes.get(&node) {
            return Err(format!("node {node} still runs as process {}", process.pid()));
        }
        let dir = directory.node(node, fresh)?;
        self.nodes.insert(node);
        write_files(&dir, files)?;
        let log = dir.join(log_file);
        let log = EventLog::open(&log, log_format, self.inotify.as_fd())
            .map_err(|error| format!("cannot follow {}: {error}", log.display()))?;
        let program = program.unwrap_or_else(|| self.program.clone());
        let (program, args) = match disk {
            Disk::Shared => (program, args),
            Disk::Limitable => self.groups.wrap(node, &program, &args)?,
            Disk::Own { bytes } => {
                own_disk::make(&dir, bytes)?;
                own_disk::wrap(&program, &args)?
            }
        };
        let process = self.spawn(&program, &args, &dir, log)?;
        let pid = process.pid();
        self.record(clock::read(), Event::ProcessStarted { node, pid });
        self.processes.insert(node, process);
        Ok(Answer::Started { pid })
    }

    fn spawn(
        &self,
        program: &Path,
        args: &[String],
        dir: &Path,
        log: EventLog,
    ) -> Result<Process, String> {
        let here = dir.to_string_lossy();
        let agent = std::process::id().to_string();
        let args: Vec<String> = args
            .iter()
            .map(|arg| arg.replace("{dir}", &here).replace("{agent_pid}", &agent))
            .collect();
        Process::start(program, &args, dir, log)
            .map_err(|error| format!("cannot start {}: {error}", program.display()))
    }

    fn stop_all(&mut self) -> Result<Answer, String> {
        self.host()?;
        self.reset = None;
        // What a trial could not undo must not stay into the next. A process whose disk is slow takes
        // long to end, so this comes first.
        let mended = self.links.mend();
        self.let_go();
        self.kill_all().map_err(|error| error.to_string())?;
        self.gather();
        mended?;
        // Its rows have been read, and whoever waited for it is answered.
        self.probe = self.probe.take().filter(|probe| !probe.is_over());
        match self.processes.keys().next() {
            None => self.put_back().map(|()| Answer::Ok),
            Some(node) => Err(format!(
                "node {node} has not ended {} s after SIGKILL; look at its disk",
                KILLED_WITHIN.as_secs()
            )),
        }
    }

    /// Kills every process and waits for the ends.
    fn kill_all(&mut self) -> Result<(), AgentError> {
        if let Some(probe) = &mut self.probe {
            probe.kill("everything is stopped");
        }
        for process in self.processes.values_mut().filter(|process| process.ended.is_none()) {
            process.kill();
        }
        let deadline = Instant::now() + KILLED_WITHIN;
        let lives = |supervisor: &Self| {
            let probe = supervisor.probe.as_ref().map(|probe| &probe.process);
            supervisor.processes.values().chain(probe).any(|process| process.ended.is_none())
        };
        while lives(self) && Instant::now() < deadline {
            self.due = Some(deadline);
            for what in self.wait(None, None)? {
                match what {
                    Ready::Errors(node) => self.drain_errors(node),
                    Ready::ProbeErrors => self.drain_probe_errors(),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Leaves nothing behind: no process and, unless it was told to keep them, no files.
    pub(crate) fn clean_up(mut self) {
        // Should it fail, the kernel's lease on the rules ends soon, and the next agent finds them.
        // Before anything else: a process whose disk is slow takes long to end.
        let _ = self.links.mend();
        self.reset = None;
        self.let_go();
        // Even if waiting failed, every process has its SIGKILL and only the files remain.
        let _ = self.kill_all();
        let _ = self.links.mend();
        let _ = self.groups.remove();
        for process in self.processes.values_mut().filter(|process| process.ended.is_some()) {
            let _ = process.reap();
        }
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.process.ended.is_some()) {
            let _ = probe.process.reap();
        }
        // Nobody can be told any more; whoever looks at the cluster sees it.
        let _ = self.put_back();
        if let Some(host) = self.host {
            if host.keep {
                host.directory.unlock();
            } else {
                host.directory.remove(self.nodes.into_iter(), self.probed);
            }
        }
    }
}

/// The id of a request that makes no sense otherwise, so that somebody can be answered.
fn id_of(line: &[u8]) -> u64 {
    serde_json::from_slice::<serde_json::Value>(line)
        .ok()
        .and_then(|value| value.get("id")?.as_u64())
        .unwrap_or(0)
}
