//! etcd's log (zap's JSON, etcd 3.4 and 3.5) as records.
//!
//! etcd stamps its lines with the wall clock and cuts them off at the millisecond, so what happened
//! did so within the millisecond after the stamp. Records carry the middle of it, on the monotonic
//! clock: the host's two clocks are read together with the lines, a few milliseconds later, and what
//! the wall clock has gone since then, the monotonic one has gone too. A wall clock that is *set* in
//! those milliseconds would be wrong by that step; one that is slewed, by less than 0.01 of the
//! bound.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha1::{Digest, Sha1};
use sraft_agent::protocol::Clocks;
use sraft_events::{CampaignKind, Event, Evidence, NodeId, Record, Source, StepDownReason, Term};

use crate::system::{Endpoint, Membership, Reader};

/// Half a millisecond: how far the middle may be from what happened.
pub(super) const BOUND_NS: u64 = 500_000;

/// One line. There are other fields, and lines that are none at all.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    ts: &'a str,
    #[serde(borrow)]
    msg: std::borrow::Cow<'a, str>,
    #[serde(rename = "etcd-version", default)]
    version: Option<String>,
    #[serde(rename = "peer-id", default)]
    peer: Option<String>,
}

/// What has been read of a cluster's logs.
#[derive(Debug)]
pub(super) struct Log {
    cluster: String,
    /// The nodes by the ids that etcd gives them, as the log writes these.
    ids: BTreeMap<String, NodeId>,
    nodes: BTreeMap<NodeId, Node>,
}

/// What is known of one process.
#[derive(Debug, Default)]
struct Node {
    seq: u64,
    version: String,
    /// The leader that it follows or is, and the term in which it leads.
    leader: Option<NodeId>,
    leads: Option<Term>,
    /// Why it stands, and why it steps down, once that has been said.
    told_to_stand: bool,
    no_quorum: bool,
    /// Its last campaign and the votes counted in it.
    campaign: Option<CampaignKind>,
    votes: u32,
}

impl Log {
    pub(super) fn new(membership: &Membership) -> Log {
        let cluster = membership.cluster.clone();
        let nodes = (1..).zip(&membership.nodes);
        let id = |at: &Endpoint| member_id(&format!("http://{}:{}", at.host, at.peer), &cluster);
        let ids = nodes.map(|(node, at)| (id(at), node)).collect();
        Log { cluster, ids, nodes: BTreeMap::new() }
    }
}

/// The id of a member with one peer URL in a cluster that begins with this token, as the log writes
/// it: the first eight bytes of a SHA-1 of both (`NewMember` in etcd's package `membership`). The log
/// tells ids too, but at times only after it has named a peer by its id.
fn member_id(peer_url: &str, token: &str) -> String {
    let digest = Sha1::digest(format!("{peer_url}{token}"));
    let first = digest.iter().take(8).fold(0_u64, |id, byte| id << 8 | u64::from(*byte));
    format!("{first:x}")
}

impl Reader for Log {
    fn read(&mut self, node: NodeId, pid: u32, clocks: Clocks, lines: &[String]) -> Vec<Record> {
        let mut records = Vec::new();
        for line in lines {
            let Ok(line) = serde_json::from_str::<Line<'_>>(line) else { continue };
            let Some(stamp) = nanoseconds(line.ts) else { continue };
            let wall_ns = stamp + BOUND_NS;
            let since = i128::from(clocks.wall_ns) - i128::from(wall_ns);
            let mono_ns = u64::try_from(i128::from(clocks.mono_ns) - since).unwrap_or(0);
            if line.msg == "starting an etcd server" {
                // Whatever was known of the node is of another process.
                self.nodes.insert(node, Node::default());
            }
            for event in self.events(node, pid, wall_ns, &line) {
                let node_state = self.nodes.entry(node).or_default();
                let (source, seq) = (Source::Node(node), node_state.seq);
                node_state.seq += 1;
                records.push(Record { source, seq, mono_ns, wall_ns, event });
            }
        }
        records
    }
}

impl Log {
    fn events(&mut self, id: NodeId, pid: u32, wall_ns: u64, line: &Line<'_>) -> Vec<Event> {
        let of = |id: &str| self.ids.get(id).copied();
        let node = self.nodes.entry(id).or_default();
        if let Some(version) = &line.version {
            node.version.clone_from(version);
            return Vec::new();
        }
        if let Some(peer) = line.peer.as_deref().and_then(of) {
            return match &*line.msg {
                // Which process of the peer that is, the log does not tell.
                "peer became active" => vec![Event::PeerConnected { peer, boot_id: 0 }],
                msg if msg.starts_with("peer became inactive") => {
                    vec![Event::PeerLost { peer, cause: sraft_events::LossCause::Closed }]
                }
                _ => Vec::new(),
            };
        }
        let words: Vec<&str> = line.msg.split(' ').collect();
        let number = |text: &str| text.trim_end_matches([',', ']']).parse::<u64>().ok();
        match words[..] {
            ["newRaft", _, "[peers:", ..] => {
                let after = |name: &str| {
                    let at = words.iter().position(|word| *word == name)?;
                    words.get(at + 1).and_then(|word| number(word))
                };
                vec![Event::NodeStarted {
                    node: id,
                    schema: sraft_events::SCHEMA,
                    version: format!("etcd {}", node.version),
                    cluster: self.cluster.clone(),
                    boot_id: wall_ns,
                    pid,
                    members: (1..=self.ids.len() as NodeId).collect(),
                    sub_leaders: 0,
                    term: after("term:").unwrap_or(0),
                    last_index: after("lastindex:").unwrap_or(0),
                }]
            }
            [_, "is", "starting", "a", "new", "election", "at", "term", term] => {
                let Some(term) = number(term) else { return Vec::new() };
                let (leader, evidence) = (node.leader, node.evidence());
                vec![Event::Suspected { leader, term, evidence }]
            }
            [_, "[term", _, "received", "MsgTimeoutNow", "from", ..] => {
                node.told_to_stand = true;
                Vec::new()
            }
            [_, "[term", term, "starts", "to", "transfer", "leadership", "to", to] => {
                match (number(term), of(to)) {
                    (Some(term), Some(to)) => vec![Event::HandoverStarted { to, term }],
                    _ => Vec::new(),
                }
            }
            [_, "stepped", "down", "to", "follower", ..] => {
                node.no_quorum = true;
                Vec::new()
            }
            [_, "has", "received", votes, "MsgVoteResp", "votes", ..] => {
                // Its own included.
                node.votes = number(votes).and_then(|votes| votes.try_into().ok()).unwrap_or(0);
                Vec::new()
            }
            [_, "became", what, "at", "term", term] => {
                number(term).and_then(|term| node.became(what, term)).into_iter().collect()
            }
            ["raft.node:", _, "elected", "leader", leader, "at", "term", term]
            | ["raft.node:", _, "changed", "leader", "from", _, "to", leader, "at", "term", term] =>
            {
                let (Some(leader), Some(term)) = (of(leader), number(term)) else {
                    return Vec::new();
                };
                node.leader = Some(leader);
                // Of itself it has said so before.
                let other = leader != id;
                other.then_some(Event::LeaderAccepted { leader, term }).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Node {
    fn evidence(&self) -> Evidence {
        if self.told_to_stand { Evidence::Handover } else { Evidence::Silence }
    }

    fn became(&mut self, what: &str, term: Term) -> Option<Event> {
        let kind = if self.told_to_stand { CampaignKind::Transfer } else { CampaignKind::Election };
        match what {
            "pre-candidate" => {
                let (term, campaign) = (term + 1, kind);
                Some(Event::PreVoteStarted { term, campaign, rank: None })
            }
            "candidate" => {
                let evidence = self.evidence();
                self.told_to_stand = false;
                self.campaign = Some(kind);
                Some(Event::CampaignStarted { term, campaign: kind, rank: None, evidence })
            }
            "leader" => {
                self.leads = Some(term);
                let campaign = self.campaign.take().unwrap_or(CampaignKind::Election);
                Some(Event::Elected { term, campaign, rank: None, votes: self.votes })
            }
            "follower" => {
                let no_quorum = std::mem::take(&mut self.no_quorum);
                let term = self.leads.take()?;
                let reason = match no_quorum {
                    true => StepDownReason::NoQuorum,
                    false => StepDownReason::HigherTerm,
                };
                Some(Event::SteppedDown { term, reason })
            }
            _ => None,
        }
    }
}

/// Nanoseconds since 1970 of a stamp such as `2026-11-22T23:26:05.149Z`; zap writes other zones than
/// UTC as `+0100`.
fn nanoseconds(stamp: &str) -> Option<u64> {
    let (local, ahead) = match stamp.strip_suffix('Z') {
        Some(local) => (local, 0),
        None => {
            let (local, zone) = stamp.split_at_checked(stamp.len().checked_sub(5)?)?;
            let (sign, digits) = zone.split_at_checked(1)?;
            let digits: i64 = digits.parse().ok()?;
            let minutes = digits / 100 * 60 + digits % 100;
            (local, if sign == "-" { -minutes } else { minutes })
        }
    };
    let at = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let at = at.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos();
    u64::try_from(i128::try_from(at).ok()? - i128::from(ahead) * 60_000_000_000).ok()
}

#[cfg(test)]
mod tests;
