//! What clients of the simulated nodes see: one register, written by every command that is proposed
//! and read by every read.
//!
//! The register is kept beside the application of each node, entry by entry, and goes with its
//! snapshots. Instants are counted in steps, one for each question and each answer, so that no two
//! are simultaneous.

use std::collections::HashMap;

use sraft_core::{Entry, Index, NodeId, ReadReply};

/// What a client asked a node, and what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOp {
    /// The node that it asked.
    pub node: NodeId,
    /// When, in steps of the run.
    pub asked: u64,
    /// When the answer came; without one, the outcome is unknown for ever.
    pub answered: Option<u64>,
    /// What was asked, and what was answered.
    pub action: ClientAction,
}

/// An operation on the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAction {
    /// This value, which no other operation writes, was to be written.
    Write(u64),
    /// This was read, or that nothing has been written yet.
    Read(Option<u64>),
}

/// The replicated register, and what a state machine must remember to apply a command only once:
/// a command that travels may arrive twice.
#[derive(Clone, Debug, Default)]
struct Register {
    value: Option<u64>,
    /// The last command of each node that was applied; older ones that come after it are not.
    last: HashMap<usize, u64>,
}

/// A read that may be served once enough has been applied.
#[derive(Debug)]
struct Granted {
    op: usize,
    index: Index,
}

#[derive(Debug, Default)]
pub(crate) struct Clients {
    step: u64,
    ops: Vec<ClientOp>,
    registers: Vec<Register>,
    /// The register in a state of the application, which its digest names. Only of snapshots.
    snapshots: HashMap<u64, Register>,
    /// Operations that have not been answered. They die with their node.
    writes: Vec<HashMap<u64, usize>>,
    reads: Vec<HashMap<u64, usize>>,
    granted: Vec<Vec<Granted>>,
}

impl Clients {
    pub(crate) fn new(size: usize) -> Clients {
        Clients {
            registers: vec![Register::default(); size],
            writes: vec![HashMap::new(); size],
            reads: vec![HashMap::new(); size],
            granted: (0..size).map(|_| Vec::new()).collect(),
            ..Clients::default()
        }
    }

    /// Writes without an answer, and reads with one: others say nothing about the register.
    pub(crate) fn history(&self) -> Vec<ClientOp> {
        let says =
            |op: &&ClientOp| op.answered.is_some() || matches!(op.action, ClientAction::Write(_));
        self.ops.iter().filter(says).cloned().collect()
    }

    /// A client of the node wants to write; the command for it.
    pub(crate) fn write(&mut self, index: usize) -> Vec<u8> {
        let op = self.ask(index, ClientAction::Write);
        let value = op as u64;
        self.writes[index].insert(value, op);
        value.to_le_bytes().to_vec()
    }

    pub(crate) fn read(&mut self, index: usize, id: u64) {
        let op = self.ask(index, |_| ClientAction::Read(None));
        self.reads[index].insert(id, op);
    }

    fn ask(&mut self, index: usize, action: impl FnOnce(u64) -> ClientAction) -> usize {
        self.step += 1;
        let op = self.ops.len();
        let (node, action) = (index as NodeId + 1, action(op as u64));
        self.ops.push(ClientOp { node, asked: self.step, answered: None, action });
        op
    }

    /// A process begins, with the state of a snapshot or none.
    pub(crate) fn started(&mut self, index: usize, digest: Option<u64>) {
        self.writes[index].clear();
        self.reads[index].clear();
        self.granted[index].clear();
        self.registers[index] = Register::default();
        if let Some(digest) = digest {
            self.installed(index, digest);
        }
    }

    pub(crate) fn serialised(&mut self, index: usize, digest: u64) {
        self.snapshots.insert(digest, self.registers[index].clone());
    }

    pub(crate) fn installed(&mut self, index: usize, digest: u64) {
        self.registers[index] = self.snapshots[&digest].clone();
    }

    /// The node applies an entry. Whose client wrote it is told.
    pub(crate) fn applied(&mut self, index: usize, entry: &Entry) {
        let Ok(value) = <[u8; 8]>::try_from(entry.command.as_slice()) else { return };
        let value = u64::from_le_bytes(value);
        let asked_at = self.ops[value as usize].node as usize - 1;
        let register = &mut self.registers[index];
        if register.last.get(&asked_at).is_some_and(|last| *last >= value) {
            return;
        }
        register.last.insert(asked_at, value);
        register.value = Some(value);
        if let Some(op) = self.writes[index].remove(&value) {
            self.step += 1;
            self.ops[op].answered = Some(self.step);
        }
    }

    /// The core has answered reads. Those that have to be asked again tell nothing.
    pub(crate) fn answered(&mut self, index: usize, replies: &[ReadReply], applied: Index) {
        for reply in replies {
            let op = self.reads[index].remove(&reply.id);
            if let (Some(op), Some(index_served)) = (op, reply.index) {
                self.granted[index].push(Granted { op, index: index_served });
            }
        }
        let value = self.registers[index].value;
        for read in self.granted[index].extract_if(.., |read| read.index <= applied) {
            self.step += 1;
            self.ops[read.op].answered = Some(self.step);
            self.ops[read.op].action = ClientAction::Read(value);
        }
    }
}
