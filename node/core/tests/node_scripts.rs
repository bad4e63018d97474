//! Scripts about a single node: it is given inputs by hand, and its outputs are written down.
//! One behaviour a script, in `tests/node/`. Regenerate with `UPDATE_GOLDENFILES=1`.

mod script;

use std::{error::Error, path::Path};

use goldenscript::{Argument, Command, Context};
use script::Failure;
use sraft_core::{
    AppendEntries, AppendReply, Appended, Conflict, Designation, HardState, Input, InstallReply,
    InstallSnapshot, Message, Node, NodeId, ReadReply, RequestVote, Restored, Time, VoteReply,
};

test_each_file::test_each_path! { in "node/core/tests/node" => run }

fn run(path: &Path) {
    goldenscript::run(&mut Bench::default(), path).expect("the script runs");
}

/// One node on the bench.
#[derive(Default)]
struct Bench {
    node: Option<Node>,
    now: Time,
    /// Whether every write is reported durable before the output is shown.
    instant_disk: bool,
}

type Args = std::collections::BTreeMap<String, String>;

fn get<'a>(args: &'a Args, key: &str) -> Option<&'a str> {
    args.get(key).map(String::as_str)
}

fn number(args: &Args, key: &str, default: u64) -> Result<u64, Failure> {
    get(args, key).map_or(Ok(default), |value| Ok(value.parse()?))
}

fn position(args: &Args, key: &str) -> Result<(u64, u64), Failure> {
    let entry = script::parse_entry(get(args, key).unwrap_or("0@0"))?;
    Ok((entry.index, entry.term))
}

impl Bench {
    fn node(&mut self) -> Result<&mut Node, Failure> {
        self.node.as_mut().ok_or_else(|| "start the node first".into())
    }

    fn handle(&mut self, input: Input) -> Result<String, Failure> {
        let (now, instant) = (self.now, self.instant_disk);
        let node = self.node()?;
        node.handle(now, input);
        let mut text = String::new();
        loop {
            let output = node.take_output();
            if output.is_empty() {
                return Ok(text);
            }
            if let Some(persist) = &output.persist {
                text += &format!("{}\n", script::persist(persist));
                if instant {
                    node.handle(now, Input::Persisted { ticket: persist.ticket });
                }
            }
            for (_, event) in &output.events {
                text += &format!("{}\n", script::event(event));
            }
            for envelope in &output.messages {
                text += &format!("-> {}: {}\n", envelope.to, script::message(&envelope.message));
            }
            if let Some(snapshot) = &output.install {
                text += &format!("install {}\n", script::snapshot(snapshot));
            }
            if !output.committed.is_empty() {
                text += &format!("committed {}\n", script::entries(&output.committed));
            }
            for ReadReply { id, index } in &output.reads {
                let at = index.map_or("unknown".to_owned(), |index| format!("at {index}"));
                text += &format!("read {id} {at}\n");
            }
        }
    }

    /// `start id=1 size=5 term=3 vote=2 log=1@1,2@3 disk=instant|manual seed=1 KNOB=VALUE...`, and
    /// `snapshot=2@1:data chunk=4 retained=0`
    fn start(&mut self, mut args: Args) -> Result<String, Failure> {
        let id = number(&args, "id", 1)?;
        let size = number(&args, "size", 5)?;
        let voted_for = get(&args, "vote").map(str::parse).transpose()?;
        let restored = Restored {
            hard_state: HardState { term: number(&args, "term", 0)?, voted_for },
            snapshot: get(&args, "snapshot").map(script::parse_snapshot).transpose()?,
            entries: script::parse_entries(get(&args, "log").unwrap_or(""))?,
        };
        let seed = number(&args, "seed", 1)?;
        self.instant_disk = get(&args, "disk") != Some("manual");
        let chunk = number(&args, "chunk", 4)?;
        let retained = number(&args, "retained", 0)?;
        let keys = ["id", "size", "term", "vote", "log", "seed", "disk"];
        for key in keys.into_iter().chain(["snapshot", "chunk", "retained"]) {
            args.remove(key);
        }
        let knobs: Vec<_> = args.into_iter().collect();
        self.now = Time::ZERO;
        let mut config = script::config(id, size, &knobs)?;
        (config.snapshot_chunk_bytes, config.retained_entries) =
            (usize::try_from(chunk)?, retained);
        self.node = Some(Node::new(config, restored, seed, self.now));
        (1..=size).filter(|&peer| peer != id).try_fold(String::new(), |text, peer| {
            Ok(text + &self.handle(Input::PeerBack { peer, same_process: false })?)
        })
    }

    /// `receive FROM KIND key=value...`
    fn receive(&mut self, from: NodeId, kind: &str, args: &Args) -> Result<String, Failure> {
        let term = number(args, "term", self.node()?.status().term)?;
        let rank = get(args, "rank").map(str::parse).transpose()?;
        let campaign = serde_json::from_value(get(args, "campaign").unwrap_or("election").into());
        let refusal = get(args, "refused").map(|why| serde_json::from_value(why.into()));
        let message = match kind {
            "vote" | "pre-vote" => {
                let (last_index, last_term) = position(args, "last")?;
                let (pre_vote, campaign) = (kind == "pre-vote", campaign?);
                Message::RequestVote(RequestVote {
                    term,
                    pre_vote,
                    campaign,
                    rank,
                    last_index,
                    last_term,
                })
            }
            "voted" | "pre-voted" => Message::VoteReply(VoteReply {
                term,
                for_term: number(args, "for", term)?,
                pre_vote: kind == "pre-voted",
                refusal: refusal.transpose()?,
            }),
            "append" => {
                let (prev_index, prev_term) = position(args, "prev")?;
                let designation = match get(args, "ranks") {
                    None => None,
                    Some(ranks) => Some(Designation {
                        term,
                        epoch: number(args, "epoch", 1)?,
                        ranks: ranks.split(',').map(str::parse).collect::<Result<_, _>>()?,
                        largest_rtt_us: number(args, "rtt", 0)?,
                    }),
                };
                Message::AppendEntries(AppendEntries {
                    term,
                    seq: number(args, "seq", 1)?,
                    prev_index,
                    prev_term,
                    entries: script::parse_entries(get(args, "entries").unwrap_or(""))?,
                    commit: number(args, "commit", 0)?,
                    designation,
                })
            }
            "appended" => {
                let seq = number(args, "seq", 1)?;
                let result = match get(args, "conflict") {
                    None => Ok(Appended { match_index: number(args, "match", 0)? }),
                    Some(at) => Err(Conflict {
                        prev_index: at.parse()?,
                        term: get(args, "conflict_term").map(str::parse).transpose()?,
                        first_index: number(args, "first", 1)?,
                    }),
                };
                let for_term = number(args, "for", term)?;
                Message::AppendReply(AppendReply { term, for_term, seq, result })
            }
            "install" => {
                let (last_index, last_term) = position(args, "last")?;
                Message::InstallSnapshot(InstallSnapshot {
                    term,
                    seq: number(args, "seq", 1)?,
                    last_index,
                    last_term,
                    size: number(args, "size", 0)?,
                    offset: number(args, "offset", 0)?,
                    data: get(args, "data").unwrap_or("").into(),
                })
            }
            "installed" => Message::InstallReply(InstallReply {
                term,
                for_term: number(args, "for", term)?,
                seq: number(args, "seq", 1)?,
                last_index: number(args, "last", 0)?,
                received: number(args, "received", 0)?,
            }),
            "read" => Message::ReadIndex { id: number(args, "id", 1)? },
            "read-index" => Message::ReadIndexReply {
                id: number(args, "id", 1)?,
                index: get(args, "index").map(str::parse).transpose()?,
            },
            "timeout-now" => Message::TimeoutNow { term },
            "forward" => Message::Forward { command: get(args, "command").unwrap_or("x").into() },
            other => return Err(format!("no message is called {other}").into()),
        };
        self.handle(Input::Message { from, message })
    }
}

impl goldenscript::Runner for Bench {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut words = Vec::new();
        let mut args = Args::new();
        for argument in &command.args {
            match argument {
                Argument::KeyValue(key, value) => _ = args.insert(key.clone(), value.clone()),
                Argument::Positional(word) => words.push(word.as_str()),
                other => return Err(format!("cannot read `{other}`").into()),
            }
        }
        match (command.name.as_str(), words.as_slice()) {
            ("start", []) => self.start(args),
            ("receive", [from, kind]) => self.receive(from.parse()?, kind, &args),
            // Lets time pass; nothing happens unless the deadline passes with it.
            ("wait", [span]) => {
                self.now = self.now + script::parse_millis(span)?;
                match self.node()?.next_deadline() {
                    Some(deadline) if deadline <= self.now => self.handle(Input::Timeout),
                    _ => Ok(String::new()),
                }
            }
            // Goes to the deadline, whenever that is.
            ("timeout", []) => {
                let deadline = self.node()?.next_deadline().ok_or("there is no deadline")?;
                self.now = self.now.max(deadline);
                self.handle(Input::Timeout)
            }
            // The range in which the deadline must lie, relative to now.
            ("deadline", [within]) => {
                let range: sraft_core::TimeoutRange = within.parse()?;
                let now = self.now;
                let deadline = self.node()?.next_deadline().ok_or("there is no deadline")?;
                let wait = deadline.since(now);
                if (range.min..=range.max).contains(&wait) {
                    Ok(String::new())
                } else {
                    Err(format!("the deadline is in {wait:?}").into())
                }
            }
            ("persisted", [ticket]) => {
                let ticket = ticket.parse()?;
                self.handle(Input::Persisted { ticket })
            }
            ("lost", [peer, cause]) => {
                let peer = peer.parse()?;
                let cause = serde_json::from_value((*cause).into())?;
                self.handle(Input::PeerLost { peer, cause })
            }
            ("back", [peer]) => {
                let (peer, same_process) = (peer.parse()?, args.contains_key("same_process"));
                self.handle(Input::PeerBack { peer, same_process })
            }
            ("propose", [command]) => {
                let command = command.as_bytes().to_vec();
                self.handle(Input::Propose { command })
            }
            ("transfer", []) => self.handle(Input::Transfer),
            // Reads that arrive together are handled before their output is taken.
            ("read", [ids @ .., last]) => {
                let now = self.now;
                for id in ids {
                    let id = id.parse()?;
                    self.node()?.handle(now, Input::Read { id });
                }
                self.handle(Input::Read { id: last.parse()? })
            }
            ("snapshot", [index, data]) => {
                let (index, data) = (index.parse()?, data.as_bytes().into());
                self.handle(Input::Snapshot { index, data })
            }
            ("status", []) => {
                let node = self.node()?;
                let status = node.status();
                let ranks = match node.designation() {
                    Some(designation) => format!("{:?}#{}", designation.ranks, designation.epoch),
                    None => "none".to_owned(),
                };
                Ok(format!(
                    "{:?} term={} leader={} rank={} commit={} last={} ready={} ranks={ranks}{}\n",
                    status.role,
                    status.term,
                    status.leader.map_or("none".into(), |leader| leader.to_string()),
                    status.rank.map_or("none".into(), |rank| rank.to_string()),
                    status.commit,
                    status.last_index,
                    status.ready,
                    match status.first_index {
                        1 => String::new(),
                        first => format!(" first={first}"),
                    }
                ))
            }
            (name, _) => Err(format!("cannot do `{name}` with these arguments").into()),
        }
    }
}
