//! What must hold, whatever happens: Raft's safety properties (paper, figure 3), what S-Raft adds,
//! and that no message promises what its sender's disk could forget.
//!
//! The checker looks at states and at steps. Every entry that a log takes up is compared with what
//! is known of its index and term (Log Matching by induction over single entries), so one event
//! costs what it changes and not the length of the logs.

mod promise;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher},
};

use sraft_core::{
    Entry, Event, HardState, Index, Node, NodeId, Output, ReadReply, Role, Snapshot, Term, Time,
};
use sraft_events::CampaignKind;

use crate::{application::Application, disk::Disk, world::Host};

/// An invariant that does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "seed {seed}, event {event}, {at}: {invariant} is broken: {detail}\n{}",
    nodes.join("\n")
)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
    /// The run.
    pub seed: u64,
    /// The event after which it was seen, from 1.
    pub event: u64,
    /// When.
    pub at: Time,
    /// Every node's state then.
    pub nodes: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Breach {
    pub invariant: &'static str,
    pub detail: String,
}

type Verdict = Result<(), Breach>;

fn ensure(holds: bool, invariant: &'static str, detail: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Breach { invariant, detail: detail() }) }
}

const ELECTION_SAFETY: &str = "Election Safety";
const APPEND_ONLY: &str = "Leader Append-Only";
const LOG_MATCHING: &str = "Log Matching";
const COMPLETENESS: &str = "Leader Completeness";
const MACHINE_SAFETY: &str = "State Machine Safety";
const COMMIT_RULE: &str = "a leader commits up to an entry of its own term";
const DURABILITY: &str = "Durability";
const ONE_VOTE: &str = "one vote per term";
const MONOTONY: &str = "terms and commits only grow";
const RESERVED: &str = "reserved terms belong to their ranks";
const READS: &str = "reads are linearizable";
const COVERED: &str = "messages are covered by what is durable";

/// A hash map whose order does not matter and whose hashes are the same in every run.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

#[derive(Debug)]
struct Committed {
    term: Term,
    command: u64,
    /// The term in which it was first known to be committed.
    known_in: Term,
    /// The state of whoever has applied everything up to it.
    state: Application,
}

/// What a node looked like after its last event.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    term: Term,
    commit: Index,
    applied: Index,
    /// If it led: in which term, and the end of its log.
    led: Option<(Term, Index, Term)>,
    /// The highest term whose leader it has accepted in this life.
    leader_term: Term,
}

#[derive(Debug)]
pub(crate) struct Checker {
    majority: usize,
    leaders: BTreeMap<Term, NodeId>,
    committed: Vec<Committed>,
    /// Of each index and term: the term of the entry before it, and the command.
    entries: Map<(Index, Term), (Term, u64)>,
    /// Whom each node has promised its vote to, over all its lives.
    votes: Map<(NodeId, Term), NodeId>,
    /// Every rank that a leader of a term has ever given to a node.
    ranks: Map<(Term, u32, NodeId), ()>,
    seen: Vec<Seen>,
    /// The reads that each node has not answered: when they were asked, and up to where the log had
    /// been applied by any node, and perhaps acknowledged to a client, by then.
    reads: Vec<BTreeMap<u64, (u64, Index)>>,
}

impl Checker {
    pub(crate) fn new(size: usize) -> Checker {
        Checker {
            majority: size / 2 + 1,
            leaders: BTreeMap::new(),
            committed: Vec::new(),
            entries: Map::default(),
            votes: Map::default(),
            ranks: Map::default(),
            seen: vec![Seen::default(); size],
            reads: vec![BTreeMap::new(); size],
        }
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    /// A node starts, with a state machine from its snapshot.
    pub(crate) fn started(&mut self, index: usize, hard_state: HardState, applied: Index) {
        let term = hard_state.term;
        self.seen[index] = Seen { term, commit: applied, applied, ..Seen::default() };
        self.reads[index].clear();
    }

    /// A client of the node wants to read.
    pub(crate) fn asked(&mut self, index: usize, id: u64, now: u64) {
        let floor = self.committed();
        self.reads[index].insert(id, (now, floor));
    }

    /// When the oldest read was asked that has not been answered.
    pub(crate) fn unanswered_since(&self) -> Option<Time> {
        let all = self.reads.iter().flat_map(BTreeMap::values);
        all.map(|(asked, _)| Time::from_nanos(*asked)).min()
    }

    /// After a node's event, before its output is carried out.
    pub(crate) fn after(&mut self, hosts: &[Host], index: usize, output: &Output) -> Verdict {
        let host = &hosts[index];
        let Some(node) = &host.node else { return Ok(()) };
        let id = index as NodeId + 1;
        if let Some(persist) = &output.persist {
            self.new_entries(id, node, &persist.entries)?;
        }
        for (_, event) in &output.events {
            self.event(index, node, event)?;
        }
        if let (Some(last), Some((term, _, _))) = (output.committed.last(), self.seen[index].led)
            && node.status().role == Role::Leader
            && node.status().term == term
        {
            ensure(last.term == term, COMMIT_RULE, || {
                format!("node {id} leads in term {term} and commits {}@{}", last.index, last.term)
            })?;
        }
        self.step(index, node)?;
        if let Some(snapshot) = &output.install {
            self.install(index, snapshot)?;
        }
        if !output.committed.is_empty() {
            self.commit(hosts, index, node, &output.committed)?;
        }
        for read in &output.reads {
            self.answered(index, *read)?;
        }
        for envelope in &output.messages {
            self.promise(id, node, &host.disk, envelope)?;
        }
        Ok(())
    }

    /// Log Matching: an index and a term name one entry, and one entry before it.
    fn new_entries(&mut self, id: NodeId, node: &Node, new: &[Entry]) -> Verdict {
        let Some(first) = new.first() else { return Ok(()) };
        // In one batch the log may have been cut back below entries that were to be written.
        let Some(mut before) = node.log().term_at(first.index - 1) else { return Ok(()) };
        for entry in new {
            let command = digest(&entry.command);
            let known = self.entries.entry((entry.index, entry.term)).or_insert((before, command));
            ensure(*known == (before, command), LOG_MATCHING, || {
                format!(
                    "node {id} holds another entry {}@{} than a node before it, or another one \
                     before it (of term {before}, not {})",
                    entry.index, entry.term, known.0
                )
            })?;
            before = entry.term;
        }
        Ok(())
    }

    fn event(&mut self, index: usize, node: &Node, event: &Event) -> Verdict {
        let id = index as NodeId + 1;
        match event {
            Event::Elected { term, .. } => {
                let leader = *self.leaders.entry(*term).or_insert(id);
                ensure(leader == id, ELECTION_SAFETY, || {
                    format!("nodes {leader} and {id} were both elected in term {term}")
                })?;
                // Of what its snapshot covers the last entry stands for all of it.
                let covered = node.log().first_index() as usize - 1;
                let known = self.committed.iter().enumerate().skip(covered.saturating_sub(1));
                let lacking = known.into_iter().find(|(position, entry)| {
                    entry.known_in < *term
                        && node.log().term_at(*position as Index + 1) != Some(entry.term)
                });
                ensure(lacking.is_none(), COMPLETENESS, || {
                    let (position, entry) = lacking.expect("it was found");
                    format!(
                        "node {id}, elected in term {term}, lacks entry {}@{}, known to be \
                         committed in term {}",
                        position + 1,
                        entry.term,
                        entry.known_in
                    )
                })?;
            }
            Event::Designated { term, ranks, .. } => {
                for (rank, holder) in ranks.iter().enumerate() {
                    self.ranks.insert((*term, rank as u32, *holder), ());
                }
            }
            Event::LeaderAccepted { leader, term } => {
                let seen = &mut self.seen[index];
                seen.leader_term = seen.leader_term.max(*term);
                let known = self.leaders.get(term);
                ensure(known == Some(leader), ELECTION_SAFETY, || {
                    format!("node {id} follows {leader} in term {term}, but {known:?} was elected")
                })?;
            }
            Event::CampaignStarted { term, campaign, rank, .. } => {
                self.campaign(index, node, *term, *campaign, *rank)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn campaign(
        &self,
        index: usize,
        node: &Node,
        term: Term,
        kind: CampaignKind,
        rank: Option<u32>,
    ) -> Verdict {
        let id = index as NodeId + 1;
        let Some(rank) = rank else {
            let lowest = match self.seen[index].leader_term {
                0 => 0,
                known => known + 1 + node.config().sub_leaders() as Term,
            };
            return ensure(kind != CampaignKind::Promotion && term >= lowest, RESERVED, || {
                format!(
                    "node {id} has no rank but stands in term {term}; the terms below {lowest} \
                     belong to the sub-leaders it knows of"
                )
            });
        };
        // Not the node's own designation: in one batch it may have got another one since.
        let given = term
            .checked_sub(1 + Term::from(rank))
            .is_some_and(|designated_in| self.ranks.contains_key(&(designated_in, rank, id)));
        ensure(given, RESERVED, || {
            format!("node {id} stands in term {term} as rank {rank}, which nobody gave it")
        })
    }

    /// What must hold between a node's state before the event and after it.
    fn step(&mut self, index: usize, node: &Node) -> Verdict {
        let status = node.status();
        let id = status.id;
        let before = self.seen[index];
        ensure(status.term >= before.term && status.commit >= before.commit, MONOTONY, || {
            format!(
                "node {id} went from term {} commit {} to term {} commit {}",
                before.term, before.commit, status.term, status.commit
            )
        })?;
        let led = (status.role == Role::Leader).then(|| {
            let log = node.log();
            (status.term, log.last_index(), log.last_term())
        });
        if let Some((term, last, last_term)) = before.led
            && led.is_some_and(|(now, _, _)| now == term)
        {
            ensure(node.log().term_at(last) == Some(last_term), APPEND_ONLY, || {
                format!("node {id} led in term {term} and has removed its entry {last}@{last_term}")
            })?;
        }
        let after = &mut self.seen[index];
        (after.term, after.commit, after.led) = (status.term, status.commit, led);
        Ok(())
    }

    fn commit(&mut self, hosts: &[Host], index: usize, node: &Node, new: &[Entry]) -> Verdict {
        let id = index as NodeId + 1;
        for entry in new {
            let seen = &mut self.seen[index];
            ensure(entry.index == seen.applied + 1, MACHINE_SAFETY, || {
                format!("node {id} applies entry {} after {}", entry.index, seen.applied)
            })?;
            seen.applied = entry.index;
            let command = digest(&entry.command);
            if let Some(known) = self.committed.get(entry.index as usize - 1) {
                ensure(
                    (known.term, known.command) == (entry.term, command),
                    MACHINE_SAFETY,
                    || {
                        format!(
                            "node {id} applies {}@{}, but the entry committed there is of term {}",
                            entry.index, entry.term, known.term
                        )
                    },
                )?;
                continue;
            }
            let known_in = node.status().term;
            let mut state = self.committed.last().map_or(Application::default(), |last| last.state);
            state.apply(entry);
            self.committed.push(Committed { term: entry.term, command, known_in, state });
            let holders = holders(hosts, entry);
            ensure(holders >= self.majority, DURABILITY, || {
                format!(
                    "node {id} committed {}@{}, which is durable on {holders} nodes only",
                    entry.index, entry.term
                )
            })?;
            let lacking = hosts.iter().filter_map(|host| host.node.as_ref()).find(|other| {
                other.status().role == Role::Leader
                    && other.status().term > known_in
                    && other.log().term_at(entry.index) != Some(entry.term)
            });
            ensure(lacking.is_none(), COMPLETENESS, || {
                let leader = lacking.expect("it was found").status();
                format!(
                    "node {id} committed {}@{} in term {known_in}; node {} leads in term {} \
                     without it",
                    entry.index, entry.term, leader.id, leader.term
                )
            })?;
        }
        Ok(())
    }

    /// A node puts a snapshot in the place of its state: one of a state that the cluster has been
    /// in, and of a later one than it is in itself.
    fn install(&mut self, index: usize, snapshot: &Snapshot) -> Verdict {
        let id = index as NodeId + 1;
        let position = (snapshot.last_index as usize).wrapping_sub(1);
        let known = self.committed.get(position).map(|entry| (entry.term, entry.state));
        let found = Application::decode(&snapshot.data).map(|state| (snapshot.last_term, state));
        ensure(found.is_some() && found == known, MACHINE_SAFETY, || {
            format!("node {id} installs {snapshot:?}, which holds {found:?} and not {known:?}")
        })?;
        let seen = &mut self.seen[index];
        ensure(snapshot.last_index > seen.applied, MACHINE_SAFETY, || {
            format!("node {id} installs {snapshot:?} after it has applied entry {}", seen.applied)
        })?;
        seen.applied = snapshot.last_index;
        Ok(())
    }

    /// Linearizability by construction: whatever any node had applied when the read was asked may
    /// have been acknowledged to a client, and so must be seen by the read.
    fn answered(&mut self, index: usize, read: ReadReply) -> Verdict {
        let id = index as NodeId + 1;
        let asked = self.reads[index].remove(&read.id);
        ensure(asked.is_some(), READS, || {
            format!("node {id} answers read {}, which is none of its own or was answered", read.id)
        })?;
        let (Some(served_at), Some((_, floor))) = (read.index, asked) else { return Ok(()) };
        ensure((floor..=self.committed()).contains(&served_at), READS, || {
            format!(
                "node {id} serves read {} at {served_at}, but {floor} entries were committed when \
                 it was asked, and {} are by now",
                read.id,
                self.committed()
            )
        })
    }

    /// Before a disk makes its group durable: what is committed stays durable on a majority, terms
    /// grow, and a vote is not changed. A node may well remove an entry that is committed, if it
    /// got it from a leader of an older term than the one under which it has been committed.
    pub(crate) fn writing(&mut self, hosts: &[Host], index: usize) -> Verdict {
        let (id, disk) = (index as NodeId + 1, &hosts[index].disk);
        let mut before = disk.hard_state;
        for persist in disk.writing() {
            if let Some(after) = persist.hard_state {
                ensure(after.term >= before.term, MONOTONY, || {
                    format!("node {id}'s durable term falls from {} to {}", before.term, after.term)
                })?;
                let changed = after.term == before.term
                    && before.voted_for.is_some()
                    && before.voted_for != after.voted_for;
                ensure(!changed, ONE_VOTE, || {
                    format!("node {id}'s durable vote changes from {before:?} to {after:?}")
                })?;
                before = after;
            }
            let own = persist.snapshot.as_ref().map(|new| (new.snapshot.last_index, new.reset));
            let first = persist.entries.first().map(|first| first.index);
            // The snapshot stands for what it covers, and another node's for the whole log.
            let from = match own {
                Some((last_index, true)) => last_index + 1,
                _ => first.unwrap_or(Index::MAX),
            };
            let kept = from.saturating_sub(disk.first_index());
            let replaced = disk.entries.iter().skip(kept as usize).find(|old| {
                let place = first.and_then(|first| old.index.checked_sub(first));
                let new = place.and_then(|place| persist.entries.get(place as usize));
                self.committed.get(old.index as usize - 1).is_some_and(|c| c.term == old.term)
                    && new.map(|new| new.term) != Some(old.term)
                    && holders(hosts, old) <= self.majority
            });
            ensure(replaced.is_none(), DURABILITY, || {
                let old = replaced.expect("it was found");
                let (index, term) = (old.index, old.term);
                format!("node {id} removes {index}@{term}, committed; too few others have it")
            })?;
        }
        Ok(())
    }
}

/// On how many disks an entry is durable.
fn holders(hosts: &[Host], entry: &Entry) -> usize {
    let holds = |disk: &Disk| {
        disk.covered() >= entry.index || disk.term_at(entry.index) == Some(entry.term)
    };
    hosts.iter().filter(|host| holds(&host.disk)).count()
}

fn digest(command: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    command.hash(&mut hasher);
    hasher.finish()
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}
