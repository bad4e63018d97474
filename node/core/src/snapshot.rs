//! Snapshots: what stands in for the log's beginning (Raft paper, section 7).

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use sraft_events::{Event, NodeId};

use crate::{
    AppendReply, Appended, Index, InstallReply, InstallSnapshot, Message, Node, Term,
    message::MAX_INDEX, mutation::Mutation,
};

/// A state machine's state, and where in the log it stands.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last log entry that had been applied.
    pub last_index: Index,
    /// That entry's term.
    pub last_term: Term,
    /// The state, as the driver has serialised it.
    pub data: Arc<[u8]>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} ({} bytes)", self.last_index, self.last_term, self.data.len())
    }
}

impl Hash for Snapshot {
    /// Without the data, of which there may be a lot: what is committed up to an index is the same
    /// everywhere.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.last_index, self.last_term, self.data.len()).hash(state);
    }
}

/// A snapshot to be made durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PersistSnapshot {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Entries before this index may be removed from the durable log once the snapshot is durable.
    pub first_index: Index,
    /// Whether the snapshot comes from a leader: the whole durable log is replaced by it.
    pub reset: bool,
}

/// A snapshot that a leader is sending.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Incoming {
    /// The leader's term. Another leader may have serialised the same state in another way.
    term: Term,
    last_index: Index,
    last_term: Term,
    size: u64,
    /// What has arrived, from the beginning and without gaps.
    data: Vec<u8>,
}

impl Incoming {
    fn begins(install: &InstallSnapshot) -> Incoming {
        let &InstallSnapshot { term, last_index, last_term, size, .. } = install;
        Incoming { term, last_index, last_term, size, data: Vec::new() }
    }

    fn is_of(&self, install: &InstallSnapshot) -> bool {
        (self.term, self.last_index, self.last_term, self.size)
            == (install.term, install.last_index, install.last_term, install.size)
    }

    fn is_later_than(&self, install: &InstallSnapshot) -> bool {
        self.term == install.term && self.last_index > install.last_index
    }

    fn received(&self) -> u64 {
        self.data.len() as u64
    }
}

impl Node {
    /// The newest snapshot of the state machine that the node has: what it would send a follower
    /// that is too far behind.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// The driver has serialised its state machine.
    pub(crate) fn snapshot_taken(&mut self, index: Index, data: Arc<[u8]>) {
        assert!(index <= self.commit, "entry {index} was applied before it was committed");
        let durable = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.last_index);
        let written = self.disk.snapshots.back().map_or(0, |(_, own)| own.snapshot.last_index);
        let next = self.disk.next_snapshot.as_ref().map_or(0, |next| next.snapshot.last_index);
        if index <= durable.max(written).max(next) {
            return;
        }
        let last_term = self.log.term_at(index).expect("what no snapshot covers is in the log");
        let first_index = self.first_to_keep(index, data.len());
        self.keep_snapshot(Snapshot { last_index: index, last_term, data }, first_index);
    }

    /// Where the log will begin once a snapshot up to `index` is durable.
    fn first_to_keep(&self, index: Index, snapshot_bytes: usize) -> Index {
        let most = usize::try_from(self.config.retained_entries).unwrap_or(usize::MAX);
        let budget = snapshot_bytes.max(self.config.max_append_bytes);
        let newest_first = self.log.range(self.log.first_index(), index).iter().rev();
        let kept = newest_first.take(most).scan(0, |bytes: &mut usize, entry| {
            *bytes += entry.command.len();
            (*bytes <= budget).then_some(())
        });
        index + 1 - kept.count() as Index
    }

    /// A piece of a snapshot has come.
    pub(crate) fn install_requested(&mut self, from: NodeId, install: InstallSnapshot) {
        if install.term < self.hard_state.term {
            return self.reply_install(from, &install, 0);
        }
        if !well_formed(&install) {
            return;
        }
        self.accept_leader(from, install.term);
        self.take_designation(from, None);
        let InstallSnapshot { last_index, last_term, size, .. } = install;
        if last_index <= self.commit || self.log.term_at(last_index) == Some(last_term) {
            // It has all that the snapshot covers, and keeps what follows it.
            self.incoming = None;
            self.commit_to(last_index);
            if self.durable_index() < last_index {
                return self.reply_install(from, &install, size);
            }
            let reply = self.installed(&install);
            return self.send_when_term_durable(from, reply);
        }
        if self.incoming.as_ref().is_some_and(|incoming| incoming.is_later_than(&install)) {
            return; // overtaken on the way
        }
        let mut incoming = match self.incoming.take() {
            Some(incoming) if incoming.is_of(&install) => incoming,
            _ => Incoming::begins(&install),
        };
        if install.offset == incoming.received() {
            incoming.data.extend_from_slice(&install.data);
        }
        self.reply_install(from, &install, incoming.received());
        if incoming.received() < size {
            self.incoming = Some(incoming);
            return;
        }
        self.replace_by(Snapshot { last_index, last_term, data: incoming.data.into() });
        self.emit(Event::SnapshotInstalled { index: last_index, term: last_term, bytes: size });
        let reply = self.installed(&install);
        if self.config.flawed(Mutation::InstallNotDurable) {
            self.send(from, reply);
        } else {
            self.send_when_durable(from, reply);
        }
    }

    fn reply_install(&mut self, to: NodeId, install: &InstallSnapshot, received: u64) {
        let &InstallSnapshot { term: for_term, seq, last_index, .. } = install;
        let term = self.hard_state.term;
        let reply = InstallReply { term, for_term, seq, last_index, received };
        self.send_when_term_durable(to, Message::InstallReply(reply));
    }

    /// Acknowledges all that a snapshot covers, as if its entries had been appended.
    fn installed(&self, install: &InstallSnapshot) -> Message {
        let (term, for_term, seq) = (self.hard_state.term, install.term, install.seq);
        let result = Ok(Appended { match_index: install.last_index });
        Message::AppendReply(AppendReply { term, for_term, seq, result })
    }
}

/// Whether a leader could have sent it.
fn well_formed(install: &InstallSnapshot) -> bool {
    let end = install.offset.checked_add(install.data.len() as u64);
    (1..=MAX_INDEX).contains(&install.last_index)
        && (1..=install.term).contains(&install.last_term)
        && end.is_some_and(|end| end <= install.size)
}
