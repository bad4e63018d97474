//! Nodes that somebody else has started: they are there before the agent and after it.

use std::{
    fs,
    os::fd::AsFd,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use serde::Deserialize;
use sraft_events::{Event, FaultAction, NodeId, Record};

use super::Supervisor;
use crate::{
    boot_id, clock,
    process::{INHERITED, Process},
    protocol::{Answer, LogFormat},
    tail::EventLog,
};

/// Such a node.
#[derive(Clone, Debug)]
pub(super) struct Adopted {
    process_file: PathBuf,
    log: PathBuf,
    revive: Vec<String>,
    /// Whether a fault has ended it and it has not been started again since.
    pub(super) ended_by_us: bool,
}

/// What a node writes down of its process.
#[derive(Deserialize)]
struct Written {
    pid: u32,
    start: u64,
    boot: String,
}

impl Adopted {
    /// Opens the process that the node is now.
    fn open(&self, node: NodeId, log: EventLog) -> Result<Process, String> {
        let down = || format!("node {node} does not run; start it with `sraft cluster start`");
        let text = fs::read_to_string(&self.process_file).map_err(|_| down())?;
        let written: Written = serde_json::from_str(&text)
            .map_err(|error| format!("{} makes no sense: {error}", self.process_file.display()))?;
        let boot = boot_id()
            .map_err(|error| format!("cannot tell which life of the machine this is: {error}"))?;
        if boot != written.boot {
            return Err(down());
        }
        Process::adopt(written.pid, written.start, log).map_err(|_| down())
    }
}

impl<W: AsFd> Supervisor<W> {
    pub(super) fn adopt(
        &mut self,
        node: NodeId,
        dir: &str,
        process_file: &str,
        log_file: &str,
        revive: Vec<String>,
    ) -> Result<Answer, String> {
        self.host()?;
        if let Some(process) = self.processes.get(&node) {
            return Err(format!("node {node} is looked after already, as {}", process.pid()));
        }
        let dir = Path::new(dir);
        let (process_file, log) = (dir.join(process_file), dir.join(log_file));
        let adopted = Adopted { process_file, log, revive, ended_by_us: false };
        let failed = |error| format!("cannot follow {}: {error}", adopted.log.display());
        let mut log = EventLog::whole(&adopted.log, self.inotify.as_fd()).map_err(failed)?;
        let mut before = Vec::new();
        log.drain(&mut before).map_err(failed)?;
        let process = adopted.open(node, log)?;
        let pid = process.pid();
        // Its own records say what it is now; whoever asked has to know first that it is there.
        self.record(clock::read(), Event::ProcessStarted { node, pid });
        self.records.extend(since_its_start(before));
        self.processes.insert(node, process);
        self.adopted.insert(node, adopted);
        Ok(Answer::Started { pid })
    }

    pub(super) fn revive(&mut self, node: NodeId) -> Result<Answer, String> {
        if let Some(process) = self.processes.get(&node) {
            return Err(format!("node {node} still runs as process {}", process.pid()));
        }
        let adopted = self.adopted.get(&node).cloned();
        let adopted = adopted.ok_or_else(|| format!("node {node} has not been adopted"))?;
        let log = EventLog::open(&adopted.log, LogFormat::Records, self.inotify.as_fd())
            .map_err(|error| format!("cannot follow {}: {error}", adopted.log.display()))?;
        let begun = clock::read();
        self.start_again(node)?;
        let process = adopted.open(node, log)?;
        let pid = process.pid();
        self.record(begun, Event::ProcessStarted { node, pid });
        self.processes.insert(node, process);
        Ok(Answer::Started { pid })
    }

    /// Starts a node again that was adopted. It has not been heard of by then.
    fn start_again(&mut self, node: NodeId) -> Result<(), String> {
        let Some(adopted) = self.adopted.get(&node) else { return Ok(()) };
        let failed =
            |why: &str| format!("cannot start node {node} again: {why}; try `sraft cluster start`");
        let mut command = Command::new(&self.program);
        command.args(&adopted.revive).process_group(0).env_clear();
        command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let output = command.output().map_err(|error| failed(&error.to_string()))?;
        // The harness may have spoken meanwhile; nobody could listen.
        self.heard = Instant::now();
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim()));
        }
        if let Some(adopted) = self.adopted.get_mut(&node) {
            adopted.ended_by_us = false;
        }
        Ok(())
    }

    /// Undoes what was done to adopted nodes, and looks after them no longer. Those that were ended
    /// are not started again yet: [`Supervisor::put_back`].
    pub(super) fn let_go(&mut self) {
        if self.adopted.is_empty() {
            return;
        }
        // Tried again at the end, and the kernel's lease on the rules ends in any case.
        let _ = self.links.mend();
        self.processes.retain(|node, process| {
            let Some(adopted) = self.adopted.get(node) else { return true };
            if process.paused && process.ended.is_none() {
                // Fails only if it has ended meanwhile.
                let _ = process.act(FaultAction::Resume);
            }
            // The end of one that was told to end is waited for.
            adopted.ended_by_us || process.ended.is_some()
        });
    }

    /// Starts adopted nodes again that were ended, and forgets them all.
    pub(super) fn put_back(&mut self) -> Result<(), String> {
        let ended = self.adopted.iter().filter(|(_, adopted)| adopted.ended_by_us);
        let ended: Vec<NodeId> = ended.map(|(node, _)| *node).collect();
        // Each is tried, whatever becomes of the others.
        let tried: Vec<_> = ended.into_iter().map(|node| self.start_again(node)).collect();
        tried.into_iter().collect::<Result<(), String>>()?;
        self.adopted.clear();
        Ok(())
    }
}

/// The lines of a log from the start of the node's present process on.
fn since_its_start(mut lines: Vec<String>) -> Vec<String> {
    let started = |(nth, line): (usize, &String)| {
        // What an earlier process was killed over while it wrote it may stand before it.
        let begin = line.contains("node_started").then(|| line.rfind(r#"{"source""#))??;
        let record: Record = serde_json::from_str(&line[begin..]).ok()?;
        matches!(record.event, Event::NodeStarted { .. }).then_some((nth, begin))
    };
    if let Some((nth, begin)) = lines.iter().enumerate().rev().find_map(started) {
        lines.drain(..nth);
        lines[0].drain(..begin);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_present_process_has_recorded_is_of_interest() {
        let line = |seq: u64, event: Event| {
            let source = sraft_events::Source::Node(1);
            serde_json::to_string(&Record { source, seq, mono_ns: 1, wall_ns: 1, event }).unwrap()
        };
        let other = |seq| line(seq, Event::FalseAlarm { peer: 2 });
        let started = Event::NodeStarted {
            node: 1,
            schema: sraft_events::SCHEMA,
            version: "1".to_owned(),
            cluster: "c".to_owned(),
            boot_id: 1,
            pid: 1,
            members: vec![1, 2],
            sub_leaders: 0,
            term: 1,
            last_index: 0,
        };
        let start = |seq| line(seq, started.clone());
        let whole = vec![start(0), other(1), start(0), other(2), other(3)];
        assert_eq!(since_its_start(whole), [start(0), other(2), other(3)]);
        let torn = vec![start(0), format!("{}{}", &other(1)[..20], start(0)), other(4)];
        assert_eq!(since_its_start(torn), [start(0), other(4)]);
        assert_eq!(since_its_start(vec![other(5)]), [other(5)]);
    }
}
