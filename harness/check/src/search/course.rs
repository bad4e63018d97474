use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
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
    /// `positions` are the operations of the key. After the first `keep` returns the history is cut
    /// off: of operations under way then, the outcome is unknown.
    pub(super) fn new(
        model: &M,
        history: &[Operation<M::Op>],
        positions: &[usize],
        keep: usize,
    ) -> Self {
        let end = |at: usize| history[at].back.map(|back| back.max(history[at].call));
        let mut ends: Vec<(u64, usize)> =
            positions.iter().filter_map(|at| end(*at).map(|end| (end, *at))).collect();
        ends.sort_unstable();
        ends.truncate(keep);
        let returning: HashSet<usize> = ends.iter().map(|(_, at)| *at).collect();
        // A read without an answer says nothing.
        let says = |at: &&usize| returning.contains(*at) || !model.only_reads(&history[**at].op);
        let mut positions: Vec<usize> = positions.iter().filter(says).copied().collect();
        positions.sort_by_key(|at| history[*at].call);
        let numbers: HashMap<usize, u32> =
            positions.iter().enumerate().map(|(number, at)| (*at, number as u32)).collect();
        let mut ops: Vec<Op<M>> = positions
            .iter()
            .map(|at| Op {
                op: history[*at].op.clone(),
                position: *at,
                kind: kind(model, &history[*at].op, returning.contains(at)),
                overwrites: model.overwrites(&history[*at].op),
                slot: NONE,
                owed: NONE,
                twin: NONE,
            })
            .collect();
        model.merge(&mut ops.iter_mut().map(|op| &mut op.op).collect::<Vec<_>>());
        let mut called = 0;
        let returns: Vec<Return> = ends
            .into_iter()
            .map(|(end, at)| {
                // A call in the same instant comes first, so the two overlap.
                while positions.get(called).is_some_and(|at| history[*at].call <= end) {
                    called += 1;
                }
                Return { op: numbers[&at], called: called as u32 }
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

fn kind<M: Model>(model: &M, op: &M::Op, returns: bool) -> Kind {
    match returns {
        false => Kind::Unknown,
        true if model.only_reads(op) => Kind::Read,
        true if model.overwrites(op) => Kind::Write,
        true => Kind::Change,
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
