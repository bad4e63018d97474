//! What the agent tells: records, lines of logs, rows, ends and answers, in the order in which they
//! make sense to the harness.

use std::{os::fd::AsFd, os::unix::process::ExitStatusExt, time::Instant};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, retry_on_intr, write},
};
use sraft_events::{Event, NodeId, Record, Source};

use super::Supervisor;
use crate::{
    AgentError, clock,
    process::how,
    protocol::{Clocks, LogFormat, MAX_LINE, Said},
};

/// How much may wait for a harness that does not read, in bytes, before nothing more is taken up.
pub(super) const MOST_WAITING: usize = 8 << 20;

/// What a pipe or a socket takes at once if it is ready at all: PIPE_BUF (pipe(7)), and less than the
/// smallest buffer of a socket. The descriptor may be one that others use too, so it is not made
/// non-blocking.
const AT_ONCE: usize = 4 << 10;

/// Lines of another system's log.
#[derive(Debug)]
pub(super) struct Text {
    node: NodeId,
    pid: u32,
    clocks: Clocks,
    lines: Vec<String>,
    /// How many of the records come before them.
    before: usize,
}

impl<W: AsFd> Supervisor<W> {
    pub(super) fn record(&mut self, at: Clocks, event: Event) {
        let seq = self.seq;
        self.seq += 1;
        self.record_as(seq, at, event);
    }

    fn record_as(&mut self, seq: u64, at: Clocks, event: Event) {
        let Some(host) = &self.host else { return };
        let source = Source::Agent(host.name.clone());
        let record = Record { source, seq, mono_ns: at.mono_ns, wall_ns: at.wall_ns, event };
        self.records.push(serde_json::to_string(&record).expect("a record is plain data"));
    }

    /// Reads the logs, reaps who has ended, and announces it after the last line of its log.
    pub(super) fn gather(&mut self) {
        let mut events = [0_u8; 4 << 10];
        // What changed does not matter: all logs are looked at, they are few.
        while rustix::io::read(&self.inotify, &mut events).is_ok_and(|n| n > 0) {}
        self.look_at_probe();
        let mut died = Vec::new();
        for (&node, process) in &mut self.processes {
            let drained = match process.log.format() {
                LogFormat::Records => process.log.drain(&mut self.records),
                LogFormat::Text => {
                    let mut lines = Vec::new();
                    let drained = process.log.drain(&mut lines);
                    let (before, clocks) = (self.records.len(), clock::read());
                    let pid = process.pid();
                    self.texts.push(Text { node, pid, clocks, lines, before });
                    drained
                }
            };
            if let Err(error) = drained
                && !process.told
            {
                // A node whose log cannot be read is of no use. Its death brings the reason along.
                let what = if process.is_adopted() { "is lost from sight" } else { "was killed" };
                died.push((node, format!("{what}, because its event log cannot be read: {error}")));
                process.kill();
            }
        }
        for (node, why) in died {
            let stderr = self.processes[&node].errors.text();
            self.pending.push(Said::Died { node, how: why, stderr });
        }
        let mut over: Vec<_> =
            self.processes.iter().filter_map(|(&node, p)| Some((p.ended?, node))).collect();
        over.sort_by_key(|((_, seq), _)| *seq);
        for ((at, seq), node) in over {
            let Some(mut process) = self.processes.remove(&node) else { continue };
            process.errors.drain();
            // Whatever the node may have started must not outlive it.
            let told = process.told;
            process.kill();
            let pid = process.pid();
            let status = process.reap();
            let (code, signal) = match &status {
                Ok(status) => (status.code(), status.signal()),
                Err(_) => (None, None),
            };
            self.record_as(seq, at, Event::ProcessExited { node, pid, code, signal });
            if !told {
                let how = status.map_or_else(|error| error.to_string(), how);
                self.pending.push(Said::Died { node, how, stderr: process.errors.text() });
            }
        }
    }

    pub(super) fn deliver(&mut self) -> Result<(), AgentError> {
        self.due = None;
        self.gather();
        let ops = std::mem::take(&mut self.ops);
        let mut records = std::mem::take(&mut self.records);
        let mut later = Vec::new();
        for text in std::mem::take(&mut self.texts).into_iter().rev() {
            // Whose process has just started, or ended, is told before, or after, its lines.
            let after = records.split_off(text.before);
            later.push((text, after));
        }
        self.say_lines(records, |lines| Said::Records { lines });
        for (Text { node, pid, clocks, lines, .. }, records) in later.into_iter().rev() {
            let text = |lines| Said::Text { node, pid, clocks, lines };
            self.say_lines(lines, text);
            self.say_lines(records, |lines| Said::Records { lines });
        }
        self.say_lines(ops, |lines| Said::Ops { lines });
        for said in std::mem::take(&mut self.pending) {
            self.say(&said);
        }
        self.write_out()
    }

    /// Writes what can be written without waiting: an agent that waits for its harness could not
    /// notice that this is gone.
    pub(super) fn write_out(&mut self) -> Result<(), AgentError> {
        self.write_until(Instant::now()).map(drop)
    }

    /// Writes what is to be written, and waits for that until then. Returns whether all is.
    pub(super) fn write_until(&mut self, deadline: Instant) -> Result<bool, AgentError> {
        let broke = |source: Errno| AgentError::Pipe { end: "output", source: source.into() };
        while !self.outgoing.is_empty() {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
            let mut output = [PollFd::new(&self.output, PollFlags::OUT)];
            match poll(&mut output, left.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(AgentError::Poll(errno.into())),
            }
            let (head, _) = self.outgoing.as_slices();
            let piece = &head[..head.len().min(AT_ONCE)];
            match retry_on_intr(|| write(&self.output, piece)) {
                Ok(n) => drop(self.outgoing.drain(..n)),
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(broke(errno)),
            }
        }
        Ok(true)
    }

    /// Says lines in bounded messages: the harness refuses those beyond `MAX_LINE`.
    fn say_lines(&mut self, lines: Vec<String>, said: impl Fn(Vec<String>) -> Said) {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for line in lines {
            bytes += line.len();
            batch.push(line);
            if bytes > MAX_LINE / 16 {
                bytes = 0;
                self.say(&said(std::mem::take(&mut batch)));
            }
        }
        if !batch.is_empty() {
            self.say(&said(batch));
        }
    }

    fn say(&mut self, said: &Said) {
        self.outgoing.extend(serde_json::to_vec(said).expect("what is said is plain data"));
        self.outgoing.push_back(b'\n');
    }
}
