use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use crate::{history::Operation, model::Model};

/// No operation.
pub(super) const NONE: u32 = u32::MAX;

/// One key's history, made ready for the search. Operations are numbered in the order of their
/// calls.
pub(super) struct Course<M: Model> {
    pub(super) ops: Vec<Op<M>>,
    /// In the order of time.
    pub(super) returns: Vec<Return>,
    /// Bits that a configuration needs.
    pub(super) width: usize,
}

/// An operation.
pub(super) struct Op<M: Model> {
    /// As [`Model::merge`] has left it.
    pub(super) op: M::Op,
    /// Its position in the history.
    pub(super) position: usize,
    pub(super) kind: Kind,
    /// Whether it hides writes that are placed just before it.
    pub(super) overwrites: bool,
    /// Its bit in configurations: no other operation has it while this one is under way. What it
    /// says depends on the kind.
    pub(super) slot: u32,
    /// The bit that says whether a write still has to be placed or hidden.
    pub(super) owed: u32,
    /// The operation of unknown outcome, called before, that is equal to this one.
    pub(super) twin: u32,
}

/// What has to be known of an operation under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only reads. Its bit: it has no place yet.
    Read,
    /// It overwrites. Its bit: it has been placed; another bit: it has neither been placed nor
    /// could it have been hidden.
    Write,
    /// It changes something in another way. Its bit: it has been placed.
    Change,
    /// Its outcome is unknown. Its bit: it has been placed.
    Unknown,
}

/// The end of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Return {
    pub(super) op: u32,
    /// All operations before this number had been called by then.
    pub(super) called: u32,
}

impl<M: Model> Course<M> {
    /// `positions` are the operations of the key.
    pub(super) fn new(model: &M, history: &[Operation<M::Op>], mut positions: Vec<usize>) -> Self {
        // A read without an answer says nothing.
        positions.retain(|at| history[*at].back.is_some() || !model.only_reads(&history[*at].op));
        positions.sort_by_key(|at| history[*at].call);
        let mut ops: Vec<Op<M>> = positions
            .iter()
            .map(|at| Op {
                op: history[*at].op.clone(),
                position: *at,
                kind: kind(model, &history[*at]),
                overwrites: model.overwrites(&history[*at].op),
                slot: NONE,
                owed: NONE,
                twin: NONE,
            })
            .collect();
        model.merge(&mut ops.iter_mut().map(|op| &mut op.op).collect::<Vec<_>>());
        let call = |op: usize| history[positions[op]].call;
        let mut order: Vec<(u64, u32)> = (0..ops.len())
            .filter_map(|op| {
                history[positions[op]].back.map(|back| (back.max(call(op)), op as u32))
            })
            .collect();
        order.sort_unstable();
        let mut called = 0;
        let returns: Vec<Return> = order
            .into_iter()
            .map(|(back, op)| {
                // A call in the same instant comes first, so the two overlap.
                while called < ops.len() && call(called) <= back {
                    called += 1;
                }
                Return { op, called: called as u32 }
            })
            .collect();
        let width = give_slots(&mut ops, &returns);
        pair_twins(&mut ops);
        Course { ops, returns, width }
    }

    /// The operations that are called between the return before `at` and that one.
    pub(super) fn calls(&self, at: usize) -> std::ops::Range<u32> {
        let from = at.checked_sub(1).map_or(0, |before| self.returns[before].called);
        from..self.returns[at].called
    }
}

fn kind<M: Model>(model: &M, operation: &Operation<M::Op>) -> Kind {
    match &operation.op {
        _ if operation.back.is_none() => Kind::Unknown,
        op if model.only_reads(op) => Kind::Read,
        op if model.overwrites(op) => Kind::Write,
        _ => Kind::Change,
    }
}

/// Gives every operation the lowest bits that are free; returns how many are needed.
fn give_slots<M: Model>(ops: &mut [Op<M>], returns: &[Return]) -> usize {
    let (mut free, mut width, mut given) = (BinaryHeap::<Reverse<u32>>::new(), 0, 0);
    for end in returns {
        let mut lowest = || {
            let slot = free.pop().map_or(width, |Reverse(slot)| slot);
            width = width.max(slot + 1);
            slot
        };
        for op in &mut ops[given..end.called as usize] {
            op.slot = lowest();
            if op.kind == Kind::Write {
                op.owed = lowest();
            }
        }
        given = end.called as usize;
        let op = &ops[end.op as usize];
        free.push(Reverse(op.slot));
        free.extend(Some(op.owed).filter(|owed| *owed != NONE).map(Reverse));
    }
    // What is called after the last return plays no part.
    width as usize
}

fn pair_twins<M: Model>(ops: &mut [Op<M>]) {
    let mut last: HashMap<M::Op, u32> = HashMap::new();
    for (number, op) in ops.iter_mut().enumerate().filter(|(_, op)| op.kind == Kind::Unknown) {
        if let Some(twin) = last.insert(op.op.clone(), number as u32) {
            op.twin = twin;
        }
    }
}
