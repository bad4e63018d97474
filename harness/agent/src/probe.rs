//! The probe that watches a system as a client: one process, whose rows go to the harness.
//!
//! The probe writes hundreds of rows a second, and none of them is urgent. So its file is not
//! watched but looked at every [`EVERY`], which wakes the agent ten times a second instead.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::process::{Process, how};
use sraft_events::FaultAction;

/// How often the probe's file is looked at.
pub const EVERY: Duration = Duration::from_millis(100);

/// The same until the probe is ready, which somebody waits for.
const EVERY_AT_FIRST: Duration = Duration::from_millis(10);

/// How long the probe may take to end when it is told to: it waits for what is under way and looks
/// for what it has written.
pub const STOPPED_WITHIN: Duration = Duration::from_secs(15);

/// The probe's line that says that a first write was acknowledged.
const READY: &str = "# ready";

/// A probe, from its start until somebody has been told of its end.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) process: Process,
    /// When its file is to be looked at again.
    pub(crate) due: Instant,
    /// Whether the header has been read.
    begun: bool,
    ready: bool,
    /// The request that is answered once it is ready.
    starting: Option<u64>,
    /// The request that is answered once it has ended, and until when.
    stopping: Option<(u64, Instant)>,
    /// Why it was killed, if it was.
    killed: Option<String>,
    /// How it ended.
    over: Option<Result<(), String>>,
}

/// The answer to a request that had to wait.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) request: u64,
    /// What it asked for.
    pub(crate) of: Of,
    pub(crate) result: Result<(), String>,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Start,
    Stop,
}

impl Probe {
    /// A probe that has just been started for `request`.
    pub(crate) fn new(process: Process, request: u64) -> Probe {
        Probe {
            process,
            due: Instant::now() + EVERY_AT_FIRST,
            begun: false,
            ready: false,
            starting: Some(request),
            stopping: None,
            killed: None,
            over: None,
        }
    }

    /// Whether nothing is to be heard of it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Tells it to end, for `request`, which is answered when it has.
    pub(crate) fn stop(&mut self, request: u64) -> Result<(), String> {
        if let Some((earlier, _)) = self.stopping {
            return Err(format!("the probe is being stopped already, by request {earlier}"));
        }
        self.stopping = Some((request, Instant::now() + STOPPED_WITHIN));
        self.due = Instant::now();
        self.process.told = true;
        if self.process.ended.is_none() {
            // One that has ended a moment ago needs no signal.
            let _ = self.process.act(FaultAction::Stop);
        }
        Ok(())
    }

    /// Kills it and says why to whoever waits for it.
    pub(crate) fn kill(&mut self, why: &str) {
        if self.process.ended.is_none() {
            self.killed.get_or_insert(why.to_owned());
            self.process.kill();
        }
    }

    /// Reads on in its file: rows go to `lines`, answers to `replies`.
    pub(crate) fn look(&mut self, lines: &mut Vec<String>, replies: &mut Vec<Reply>) {
        // Rows that it wrote before its end are in the file by then.
        let ended = self.process.ended.is_some();
        if self.over.is_none() {
            if let Err(error) = self.read(lines) {
                self.kill(&format!("its file cannot be read: {error}"));
            }
            if let Some((_, until)) = self.stopping
                && Instant::now() >= until
            {
                let seconds = STOPPED_WITHIN.as_secs();
                self.kill(&format!("it had not ended {seconds} s after it was told to"));
            }
            if ended {
                self.over = Some(self.bury());
            }
        }
        let mut reply = |of, request: Option<u64>, result| {
            replies.extend(request.map(|request| Reply { request, of, result }));
        };
        if self.ready {
            reply(Of::Start, self.starting.take(), Ok(()));
        }
        if let Some(over) = &self.over {
            let early = match over {
                Ok(()) => "the probe ended before a write was acknowledged".to_owned(),
                Err(why) => format!("before a write was acknowledged, {why}"),
            };
            reply(Of::Start, self.starting.take(), Err(early));
            let stopping = self.stopping.take().map(|(request, _)| request);
            reply(Of::Stop, stopping, over.clone());
        }
        self.due = Instant::now() + if self.ready { EVERY } else { EVERY_AT_FIRST };
    }

    fn read(&mut self, lines: &mut Vec<String>) -> io::Result<()> {
        let mut read = Vec::new();
        let result = self.process.log.drain(&mut read);
        for line in read {
            match line {
                line if line == READY => self.ready = true,
                line if line.starts_with('#') => {}
                // The first line names the columns.
                _ if !self.begun => self.begun = true,
                line => lines.push(line),
            }
        }
        result
    }

    /// Reaps it and says how it ended.
    fn bury(&mut self) -> Result<(), String> {
        self.process.errors.drain();
        let told = self.stopping.is_some();
        let killed = self.killed.take();
        // Whatever it may have started must not outlive it.
        self.process.kill();
        let status = self.process.reap().map_err(|error| error.to_string())?;
        if told && killed.is_none() && status.success() {
            return Ok(());
        }
        let words = self.process.errors.text().replace('\n', " | ");
        let words = if words.is_empty() { "none".to_owned() } else { words };
        let why = killed.map(|why| format!(" because {why}")).unwrap_or_default();
        Err(format!("the probe {}{why}; its last words: {words}", how(status)))
    }
}
