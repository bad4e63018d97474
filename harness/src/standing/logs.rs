//! `sraft cluster logs`: what nodes have recorded, as they wrote it or in words.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::ExitCode,
    sync::mpsc::{Sender, channel},
    thread::ScopedJoinHandle,
    time::{Duration, UNIX_EPOCH},
};

use clap::Args;
use sraft_core::Time;
use sraft_events::{Record, Source};
use sraft_node::console::Console;

use super::hosts::{At, HostsArgs};

/// How many records of each node are shown in words if it is not said.
const LINES: u64 = 100;

#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    hosts: HostsArgs,
    /// The last so many records of each node [default: 100, with --raw all]
    #[arg(long, value_name = "N")]
    lines: Option<u64>,
    /// Write the records as they are, one JSON object per line
    #[arg(long)]
    raw: bool,
    /// Go on with what the nodes record from now on
    #[arg(long, short)]
    follow: bool,
}

/// Lines of a host's log.
struct Lines {
    host: usize,
    lines: Vec<String>,
}

pub(super) fn run(args: &LogsArgs) -> anyhow::Result<ExitCode> {
    let hosts = args.hosts.read()?;
    let reached = hosts.reach_all();
    let names: Vec<&str> = reached.iter().map(|(host, _)| host.name.as_str()).collect();
    let lines = args.lines.or((!args.raw).then_some(LINES));
    let (sender, arrived) = channel::<Lines>();
    let outcomes = std::thread::scope(|scope| {
        let names = &names;
        let show = scope.spawn(move || {
            let mut scribe = Scribe { raw: args.raw, consoles: BTreeMap::new() };
            if args.follow {
                while let Ok(Lines { host, lines }) = arrived.recv() {
                    if !scribe.write(lines.iter().map(|line| (names[host], line))) {
                        return; // and with it goes the channel, which the others notice
                    }
                }
                return;
            }
            let mut all: Vec<Lines> = arrived.iter().collect();
            all.sort_by_key(|lines| lines.host); // stable: each host's stay in order
            let mut all: Vec<(&str, &String)> = all
                .iter()
                .flat_map(|of| of.lines.iter().map(|line| (names[of.host], line)))
                .collect();
            if !args.raw {
                all.sort_by_cached_key(|(_, line)| wall(line));
            }
            scribe.write(all.into_iter());
        });
        // What is followed has no end: each host has a thread of its own, however many there are.
        let followed: Vec<_> = reached
            .iter()
            .enumerate()
            .map(|(nth, (host, target))| {
                let sender = sender.clone();
                scope.spawn(move || {
                    let fetched = target.as_ref().map_err(String::clone).and_then(|target| {
                        fetch(&At { host, target }, nth, lines, args.follow, &sender)
                    });
                    if let (true, Err(why)) = (args.follow, &fetched) {
                        // The others may go on for ever, and the end is not the time to say it.
                        let _ = writeln!(io::stderr(), "warning: {}: {why}", host.name);
                    }
                    fetched
                })
            })
            .collect();
        drop(sender);
        let ended = |thread: ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err("following it failed".to_owned()))
        };
        let outcomes: Vec<Result<(), String>> = followed.into_iter().map(ended).collect();
        let _ = show.join();
        outcomes
    });
    let failed: Vec<String> = names
        .iter()
        .zip(&outcomes)
        .filter_map(|(name, outcome)| Some(format!("{name}: {}", outcome.as_ref().err()?)))
        .collect();
    match failed.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(anyhow::anyhow!("{}", failed.join("; "))),
    }
}

/// Fetches a host's log.
fn fetch(
    at: &At<'_>,
    host: usize,
    lines: Option<u64>,
    follow: bool,
    to: &Sender<Lines>,
) -> Result<(), String> {
    let connection = at.target.connect().map_err(|error| error.kind.to_string())?;
    let dir = &at.target.survey.dir;
    let lines = lines.map_or(String::new(), |lines| lines.to_string());
    let script = r#"exec "$1" keeper log --dir "$2" ${3:+--lines "$3"} ${4:+"$4"}"#;
    let follow = if follow { "--follow" } else { "" };
    let mut partial = Vec::new();
    let mut take = |bytes: &[u8]| {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                lines.push(String::from_utf8_lossy(&partial).trim_end().to_owned());
                partial.clear();
            }
        }
        lines.is_empty() || to.send(Lines { host, lines }).is_ok()
    };
    let arguments = [at.target.program.as_str(), dir, &lines, follow];
    connection
        .stream("reading the event log", script, &arguments, &mut take)
        .map_err(|error| error.kind.to_string())
}

/// When a record was made, by its host's wall clock.
fn wall(line: &str) -> u64 {
    serde_json::from_str::<Record>(line).map_or(0, |record| record.wall_ns)
}

/// Writes records for the user.
struct Scribe {
    raw: bool,
    /// A console remembers what it has said of its node.
    consoles: BTreeMap<String, Console>,
}

impl Scribe {
    /// False if nobody reads any more.
    fn write<'a>(&mut self, lines: impl Iterator<Item = (&'a str, &'a String)>) -> bool {
        let mut out = io::stdout().lock();
        for (host, line) in lines {
            let written = match self.raw {
                true => writeln!(out, "{line}"),
                false => self.words(host, line).map_or(Ok(()), |words| writeln!(out, "{words}")),
            };
            if written.is_err() {
                return false;
            }
        }
        out.flush().is_ok()
    }

    /// A record in words, if it is of interest to humans.
    fn words(&mut self, host: &str, line: &str) -> Option<String> {
        let Ok(record) = serde_json::from_str::<Record>(line) else {
            return Some(format!("{host}: {line}"));
        };
        let Source::Node(node) = record.source else { return None };
        let console = self.consoles.entry(host.to_owned()).or_insert_with(|| Console::new(node));
        let words = console.line(Time::from_nanos(record.mono_ns), &record.event)?;
        let at = UNIX_EPOCH + Duration::from_nanos(record.wall_ns);
        let at = humantime::format_rfc3339_millis(at).to_string();
        Some(words.lines().map(|line| format!("{at} {line}")).collect::<Vec<_>>().join("\n"))
    }
}
