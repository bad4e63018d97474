//! What the two script runners share: how inputs are read and outputs are written.

use std::{error::Error, time::Duration};

use sraft_core::{
    AppendEntries, AppendReply, Config, Conflict, Entry, Event, InstallReply, InstallSnapshot,
    Message, NodeId, Persist, Protocol, RequestVote, Snapshot, TimingKnobs, VoteReply,
};

pub(crate) type Failure = Box<dyn Error>;

/// Lowers `size`, `protocol` and any timing knob, given as `key=value`, for node `id`.
pub(crate) fn config(id: NodeId, size: u64, pairs: &[(String, String)]) -> Result<Config, Failure> {
    let mut protocol = Protocol::SRaft;
    let mut knobs = serde_json::Map::new();
    for (key, value) in pairs {
        if key == "protocol" {
            protocol = serde_json::from_value(value.as_str().into())?;
        } else {
            let number = value.parse::<f64>().ok().map(serde_json::Value::from);
            let switch = value.parse::<bool>().ok().map(serde_json::Value::from);
            knobs.insert(key.clone(), number.or(switch).unwrap_or_else(|| value.as_str().into()));
        }
    }
    let knobs: TimingKnobs = serde_json::from_value(knobs.into())?;
    let members: Vec<NodeId> = (1..=size).collect();
    Ok(knobs.resolve().lower(protocol, id, &members)?)
}

/// `index@term` with an optional command: `4@2` is a no-op, `4@2:x` the command `x`.
pub(crate) fn parse_entry(text: &str) -> Result<Entry, Failure> {
    let (position, command) = text.split_once(':').unwrap_or((text, ""));
    let (index, term) = position.split_once('@').ok_or("an entry is written index@term")?;
    Ok(Entry { index: index.parse()?, term: term.parse()?, command: command.into() })
}

/// As an entry: `4@2:data`.
pub(crate) fn parse_snapshot(text: &str) -> Result<Snapshot, Failure> {
    let Entry { index, term, command } = parse_entry(text)?;
    Ok(Snapshot { last_index: index, last_term: term, data: command.into() })
}

pub(crate) fn parse_entries(text: &str) -> Result<Vec<Entry>, Failure> {
    text.split(',').filter(|part| !part.is_empty()).map(parse_entry).collect()
}

pub(crate) fn parse_millis(text: &str) -> Result<Duration, Failure> {
    Ok(text.parse::<sraft_core::Span>()?.0)
}

pub(crate) fn event(event: &Event) -> String {
    let serde_json::Value::Object(fields) = serde_json::to_value(event).expect("events are JSON")
    else {
        unreachable!("an event is an object")
    };
    let name = fields["event"].as_str().expect("a name").to_owned();
    let rest = fields.iter().filter(|(key, value)| *key != "event" && !value.is_null());
    rest.fold(name, |text, (key, value)| match value {
        serde_json::Value::String(word) => format!("{text} {key}={word}"),
        other => format!("{text} {key}={other}"),
    })
}

pub(crate) fn persist(persist: &Persist) -> String {
    let mut text = format!("persist #{}:", persist.ticket);
    if let Some(hard) = persist.hard_state {
        let vote = hard.voted_for.map_or("none".to_owned(), |vote| vote.to_string());
        text += &format!(" term={} vote={vote}", hard.term);
    }
    if let Some(new) = &persist.snapshot {
        let how = if new.reset { " for the whole log" } else { "" };
        text +=
            &format!(" snapshot {}, log from {}{how}", snapshot(&new.snapshot), new.first_index);
    }
    if !persist.entries.is_empty() {
        text += &format!(" entries {}", entries(&persist.entries));
    }
    text
}

pub(crate) fn snapshot(snapshot: &Snapshot) -> String {
    let Snapshot { last_index, last_term, data } = snapshot;
    format!("{last_index}@{last_term}:{}", String::from_utf8_lossy(data))
}

pub(crate) fn entries(entries: &[Entry]) -> String {
    let texts = entries.iter().map(|entry| {
        let command = String::from_utf8_lossy(&entry.command);
        let colon = if command.is_empty() { "" } else { ":" };
        format!("{}@{}{colon}{command}", entry.index, entry.term)
    });
    format!("[{}]", texts.collect::<Vec<_>>().join(" "))
}

pub(crate) fn message(message: &Message) -> String {
    match message {
        Message::RequestVote(RequestVote {
            term,
            pre_vote,
            campaign,
            rank,
            last_index,
            last_term,
        }) => {
            let pre = if *pre_vote { "pre-vote" } else { "vote" };
            let rank = rank.map_or(String::new(), |rank| format!("/{rank}"));
            format!("{pre}? {campaign}{rank} term={term} last={last_index}@{last_term}")
        }
        Message::VoteReply(VoteReply { term, for_term, pre_vote, refusal }) => {
            let pre = if *pre_vote { "pre-vote" } else { "vote" };
            let answer = refusal.map_or("granted".to_owned(), |why| format!("refused: {why}"));
            format!("{pre}! for={for_term} {answer} (term {term})")
        }
        Message::AppendEntries(AppendEntries {
            term,
            seq,
            prev_index,
            prev_term,
            entries: new,
            commit,
            designation,
        }) => {
            let ranks = designation.as_ref().map_or(String::new(), |d| {
                let ranks: Vec<_> = d.ranks.iter().map(u64::to_string).collect();
                format!(" ranks={}#{}", ranks.join(","), d.epoch)
            });
            let new = entries(new);
            format!(
                "append? term={term} seq={seq} prev={prev_index}@{prev_term} {new} \
                 commit={commit}{ranks}"
            )
        }
        Message::AppendReply(AppendReply { term, for_term: _, seq, result }) => match result {
            Ok(appended) => {
                format!("append! seq={seq} match={} (term {term})", appended.match_index)
            }
            Err(Conflict { prev_index, term: conflicting, first_index }) => {
                let conflicting = conflicting.map_or("none".to_owned(), |t| t.to_string());
                format!(
                    "append! seq={seq} conflict at {prev_index}: term {conflicting} from \
                     {first_index} (term {term})"
                )
            }
        },
        Message::TimeoutNow { term } => format!("timeout-now term={term}"),
        Message::Forward { command } => format!("forward {}", String::from_utf8_lossy(command)),
        Message::InstallSnapshot(InstallSnapshot {
            term,
            seq,
            last_index,
            last_term,
            size,
            offset,
            data,
        }) => {
            let data = String::from_utf8_lossy(data);
            format!(
                "install? term={term} seq={seq} last={last_index}@{last_term} {offset}/{size}:{data}"
            )
        }
        Message::InstallReply(InstallReply { term, for_term: _, seq, last_index, received }) => {
            format!("install! seq={seq} last={last_index} received={received} (term {term})")
        }
        Message::ReadIndex { id } => format!("read? #{id}"),
        Message::ReadIndexReply { id, index } => match index {
            Some(index) => format!("read! #{id} at {index}"),
            None => format!("read! #{id} unknown"),
        },
    }
}
