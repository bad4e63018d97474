//! What must hold in every state and at every step, and what must be reachable.

use std::hash::{DefaultHasher, Hash, Hasher};

use sraft_core::{
    Entry, Envelope, Event, HardState, Index, Log, Message, Node, ReadReply, Role, Snapshot, Term,
};
use sraft_events::CampaignKind;
use stateright::Property;

use crate::cluster::{Bounds, Budget, Disk, Start, State};

/// A promise that a step has broken. What can be seen in a state is checked there instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Broken {
    /// A term was won twice, be it by two nodes or by one that came back from a crash.
    ElectionSafety,
    /// A vote or a term on the disk was taken back.
    OneDurableVote,
    /// A message said more than what is durable at its sender.
    Covered,
    /// Two nodes took different entries for committed.
    StateMachineSafety,
    /// A leader changed its log other than by appending.
    LeaderAppendOnly,
    /// A term or a commit index fell.
    Monotonic,
    /// A snapshot holds another state than the one that the cluster was in.
    WrongSnapshot,
    /// A read was served without what had been committed when it was asked.
    StaleRead,
    /// A promotion took a term that is not reserved for it.
    ReservedTerm,
    /// The core found its own invariants broken.
    CoreStopped,
}

/// Whether a node may come from one term and vote to the other.
fn follows(old: HardState, new: HardState) -> bool {
    let kept = old.voted_for.is_none() || new.voted_for == old.voted_for;
    new.term > old.term || (new.term == old.term && kept)
}

/// What a disk knows of term and vote may only go on.
pub(crate) fn hard_state_goes_on(old: HardState, new: HardState) -> Result<(), Broken> {
    hold(follows(old, new), Broken::OneDurableVote)
}

/// What one input may not undo.
pub(crate) fn steps_forward(before: &Node, after: &Node) -> Result<(), Broken> {
    let (old, new) = (before.status(), after.status());
    hold(new.term >= old.term && new.commit >= old.commit, Broken::Monotonic)?;
    let still_leads = old.role == Role::Leader && new.role == Role::Leader && old.term == new.term;
    let log = before.log().range(new.first_index, old.last_index);
    let kept = after.log().range(new.first_index, old.last_index) == log;
    hold(!still_leads || kept, Broken::LeaderAppendOnly)
}

/// Elections and promotions, as the node itself reports them.
pub(crate) fn event(state: &mut State, node: &Node, event: &Event) -> Result<(), Broken> {
    match event {
        Event::Elected { term, campaign, .. } => {
            let winner = (node.config().id, *campaign);
            hold(state.elected.insert(*term, winner).is_none(), Broken::ElectionSafety)
        }
        Event::CampaignStarted { term, campaign: CampaignKind::Promotion, rank, .. } => {
            let reserved = node.designation().zip(*rank).is_some_and(|(designation, rank)| {
                designation.ranks.get(rank as usize) == Some(&node.config().id)
                    && *term == designation.term + 1 + Term::from(rank)
            });
            hold(reserved, Broken::ReservedTerm)
        }
        _ => Ok(()),
    }
}

/// Whether what a message says is on its sender's disk: votes given, entries acknowledged or
/// boasted of, the term itself.
pub(crate) fn covered(disk: &Disk, Envelope { to, message }: &Envelope) -> Result<(), Broken> {
    let HardState { term, voted_for } = disk.hard_state;
    let last = disk.last();
    let covered = match message {
        Message::VoteReply(reply) if reply.refusal.is_none() && !reply.pre_vote => {
            term == reply.for_term && voted_for == Some(*to)
        }
        Message::VoteReply(reply) => term >= reply.term,
        Message::AppendReply(reply) => {
            let beyond = reply.result.is_ok_and(|ok| ok.match_index > last.1);
            term >= reply.term && !beyond
        }
        Message::RequestVote(request) => last >= (request.last_term, request.last_index),
        Message::AppendEntries(append) => term >= append.term,
        Message::InstallSnapshot(install) => term >= install.term,
        Message::InstallReply(reply) => term >= reply.term,
        Message::TimeoutNow { .. }
        | Message::Forward { .. }
        | Message::ReadIndex { .. }
        | Message::ReadIndexReply { .. } => true,
    };
    hold(covered, Broken::Covered)
}

/// Entries that a node takes for committed.
pub(crate) fn applied(state: &mut State, node: &Node, entries: &[Entry]) -> Result<(), Broken> {
    for entry in entries {
        match state.committed.get(entry.index as usize - 1) {
            Some((known, _)) => hold(known == entry, Broken::StateMachineSafety)?,
            // Entries are applied in order, so nothing lies between the last one and this.
            None => state.committed.push((entry.clone(), node.hard_state().term)),
        }
    }
    Ok(())
}

/// What a state machine is in after everything up to `index`.
pub(crate) fn machine(state: &State, index: Index) -> Option<Vec<u8>> {
    let mut hasher = DefaultHasher::new();
    let entries = state.committed.get(..index as usize)?;
    entries.iter().for_each(|(entry, _)| entry.hash(&mut hasher));
    Some(hasher.finish().to_le_bytes().to_vec())
}

/// A snapshot that takes the place of a node's state and log.
pub(crate) fn installed(state: &mut State, snapshot: &Snapshot) -> Result<(), Broken> {
    state.installed = true;
    let known = machine(state, snapshot.last_index);
    hold(known.as_deref() == Some(&snapshot.data[..]), Broken::WrongSnapshot)
}

/// A read that a node answers.
pub(crate) fn read(state: &mut State, node: &Node, reply: ReadReply) -> Result<(), Broken> {
    let asked = state.reads.remove(&(node.config().id, reply.id));
    let Some(index) = reply.index else { return Ok(()) };
    state.served = true;
    let fresh =
        asked.is_some_and(|floor| (floor..=state.committed.len()).contains(&(index as usize)));
    hold(fresh, Broken::StaleRead)
}

fn hold(holds: bool, otherwise: Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// Two logs that agree on an entry's term agree on everything up to it, as far as both have it.
fn log_matching(_: &Bounds, state: &State) -> bool {
    let logs: Vec<&[Entry]> = state
        .members
        .iter()
        .flat_map(|m| [m.node.log().range(1, m.node.log().last_index()), &m.disk.entries])
        .collect();
    let first = |log: &[Entry]| log.first().map_or(1, |entry| entry.index);
    logs.iter().enumerate().all(|(place, a)| {
        logs[place + 1..].iter().all(|b| {
            let from = first(a).max(first(b));
            let common = |log: &[Entry]| -> Vec<Entry> {
                log.iter().filter(|entry| entry.index >= from).cloned().collect()
            };
            let (a, b) = (common(a), common(b));
            let agree = a.iter().zip(&b).rposition(|(x, y)| x.term == y.term);
            agree.is_none_or(|last| a[..=last] == b[..=last])
        })
    })
}

/// Whether a committed entry is in a log or covered by the snapshot before it.
fn has(log: &Log, entry: &Entry) -> bool {
    entry.index < log.first_index() || log.get(entry.index) == Some(entry)
}

/// A leader's log holds whatever was committed in an earlier term.
fn leader_completeness(_: &Bounds, state: &State) -> bool {
    let leaders = state.members.iter().filter(|m| m.node.status().role == Role::Leader);
    leaders.into_iter().all(|leader| {
        let term = leader.node.hard_state().term;
        let earlier = state.committed.iter().filter(|(_, committed_in)| *committed_in < term);
        earlier.into_iter().all(|(entry, _)| has(leader.node.log(), entry))
    })
}

/// What was committed is on the disks of a majority, whoever has crashed since.
fn durability(_: &Bounds, state: &State) -> bool {
    state.committed.iter().all(|(entry, _)| {
        state.members.iter().filter(|member| member.disk.holds(entry)).count() >= 2
    })
}

/// No node that lacks a committed entry could win an election now, whoever crashes first: leader
/// completeness an election ahead, which spares the check that election's steps.
fn no_usurper(_: &Bounds, state: &State) -> bool {
    state.members.iter().enumerate().all(|(own, candidate)| {
        let log = candidate.node.log();
        let others = state.members.iter().enumerate().filter(|(voter, _)| *voter != own);
        let electable = others
            .into_iter()
            .any(|(_, voter)| (log.last_term(), log.last_index()) >= voter.disk.last());
        !electable || state.committed.iter().all(|(entry, _)| has(log, entry))
    })
}

/// A node knows the term and the vote on its disk, be it after a crash.
fn disk_remembered(_: &Bounds, state: &State) -> bool {
    let members = state.members.iter();
    members.into_iter().all(|m| follows(m.disk.hard_state, m.node.hard_state()))
}

type Condition = fn(&Bounds, &State) -> bool;

fn won(bounds: &Bounds, state: &State, kind: CampaignKind) -> bool {
    let wins = state.elected.values().filter(|(_, how)| *how == kind).count();
    wins > if kind == CampaignKind::Election { bounds.start.elections() } else { 0 }
}

/// The properties of a check. What must be reachable depends on what its budget allows.
pub(crate) fn properties(bounds: &Bounds) -> Vec<Property<Bounds>> {
    macro_rules! never {
        ($name:literal, $broken:ident) => {
            Property::always($name, |_, state: &State| state.broken != Some(Broken::$broken))
        };
    }
    let mut properties = vec![
        never!("election safety", ElectionSafety),
        never!("one vote per term, durable", OneDurableVote),
        never!("messages are covered by what is durable", Covered),
        never!("state machine safety", StateMachineSafety),
        never!("leader append-only", LeaderAppendOnly),
        never!("terms and commits never fall", Monotonic),
        never!("snapshots of the cluster's own states", WrongSnapshot),
        never!("linearizable reads", StaleRead),
        never!("reserved terms", ReservedTerm),
        never!("the core does not stop itself", CoreStopped),
        Property::always("what is durable is remembered", disk_remembered),
        Property::always("log matching", log_matching),
        Property::always("leader completeness", leader_completeness),
        Property::always("no usurper", no_usurper),
        Property::always("committed entries stay durable on a majority", durability),
    ];
    let Budget { suspicions, heartbeats, proposals, handovers, crashes, snapshots, reads, .. } =
        bounds.budget;
    let commits: Condition =
        |bounds, state| state.committed.len() > usize::from(bounds.start != Start::Empty);
    let reachable: [(bool, &'static str, Condition); 8] = [
        (true, "something commits", commits),
        (suspicions > 0, "an election wins", |b, s| won(b, s, CampaignKind::Election)),
        (
            suspicions > 0 && bounds.ranks > 0 && bounds.start == Start::Settled,
            "a promotion wins",
            |b, s| won(b, s, CampaignKind::Promotion),
        ),
        (reads > 0, "a read is served", |_, s| s.served),
        (snapshots > 0 && proposals > 0 && heartbeats > 0, "a snapshot is installed", |_, s| {
            s.installed
        }),
        (handovers > 0, "a handover wins", |b, s| won(b, s, CampaignKind::Transfer)),
        (crashes > 0 && suspicions > 0, "a leader is elected after a crash", |b, s| {
            s.left.crashes < b.budget.crashes && s.elected.len() > b.start.elections()
        }),
        (
            (proposals > 0 && suspicions > 0) || bounds.start == Start::Figure8,
            "a conflict is cut off",
            |_, s| s.truncated,
        ),
    ];
    let reachable = reachable.into_iter().filter(|(expected, ..)| *expected);
    properties.extend(reachable.map(|(_, name, condition)| Property::sometimes(name, condition)));
    properties
}
