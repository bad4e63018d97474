use std::collections::HashMap;

use super::{
    course::{Course, Kind, NONE},
    seen::Bits,
};
use crate::model::{Makes, Model};

/// Which states are needed by whom, and who can make them (rule 5).
pub(super) struct Needs<M: Model> {
    numbers: HashMap<M::State, u32, foldhash::fast::FixedState>,
    states: Vec<Named>,
    /// Of each operation, the number of the state that it needs and of the one that it makes.
    ops: Vec<(u32, u32)>,
    /// The return before which each operation is called, and its own, as positions.
    spans: Vec<(u32, u32)>,
}

/// A state that operations name.
#[derive(Clone, Debug)]
struct Named {
    /// The last return before which a read is called that needs it.
    last_read: Option<u32>,
    /// Changes that need it.
    changes: Vec<u32>,
    /// Its only maker, if there is one.
    maker: u32,
    makers: u32,
    /// The last return of a maker; later than all if one never returns.
    last_made: Option<u32>,
}

/// With more changes that need a state it is not looked whether one of them is left.
const MOST_CHANGES: usize = 16;

impl<M: Model> Needs<M> {
    pub(super) fn new(model: &M, course: &Course<M>) -> Needs<M> {
        let mut spans = vec![(NONE, NONE); course.ops.len()];
        for (at, end) in course.returns.iter().enumerate() {
            for op in course.calls(at) {
                spans[op as usize].0 = at as u32;
            }
            spans[end.op as usize].1 = at as u32;
        }
        let mut needs = Needs { numbers: HashMap::default(), states: vec![], ops: vec![], spans };
        for (number, op) in course.ops.iter().enumerate() {
            let (called, returned) = needs.spans[number];
            let needed = model.needs(&op.op).map_or(NONE, |state| needs.number(state));
            if let Some(state) = needs.states.get_mut(needed as usize) {
                match op.kind {
                    Kind::Read => state.last_read = state.last_read.max(Some(called)),
                    Kind::Change => state.changes.push(number as u32),
                    // It may do without.
                    Kind::Write | Kind::Unknown => {}
                }
            }
            let made = match model.makes(&op.op) {
                Makes::None => NONE,
                Makes::One(state) => needs.number(state),
                // Nothing can be said.
                Makes::Any => {
                    needs.numbers.clear();
                    needs.ops = vec![(NONE, NONE); course.ops.len()];
                    return needs;
                }
            };
            if let Some(state) = needs.states.get_mut(made as usize) {
                state.maker = number as u32;
                state.makers += 1;
                state.last_made = state.last_made.max(Some(returned));
            }
            needs.ops.push((needed, made));
        }
        needs
    }

    fn number(&mut self, state: M::State) -> u32 {
        let next = self.states.len() as u32;
        let number = *self.numbers.entry(state).or_insert(next);
        if number == next {
            self.states.push(Named {
                last_read: None,
                changes: Vec::new(),
                maker: NONE,
                makers: 0,
                last_made: None,
            });
        }
        number
    }

    /// The number of a state; [`NONE`] if nobody names it.
    pub(super) fn of(&self, state: &M::State) -> u32 {
        self.numbers.get(state).copied().unwrap_or(NONE)
    }

    /// The state that an operation needs.
    pub(super) fn needed_by(&self, op: u32) -> u32 {
        self.ops[op as usize].0
    }

    /// The state that an operation makes.
    pub(super) fn made_by(&self, op: u32) -> u32 {
        self.ops[op as usize].1
    }

    /// Whether an operation needs the state that has not been called before the return `at`, or
    /// that changes it and has not been placed.
    pub(super) fn is_needed<const N: usize>(
        &self,
        state: u32,
        course: &Course<M>,
        bits: &Bits<N>,
        at: usize,
    ) -> bool {
        let Some(named) = self.states.get(state as usize) else { return false };
        let at = at as u32;
        let unplaced = |op: &u32| {
            let (called, returned) = self.spans[*op as usize];
            called > at || (returned >= at && !bits.has(course.ops[*op as usize].slot))
        };
        named.last_read.is_some_and(|called| called > at)
            || (named.changes.len() <= MOST_CHANGES && named.changes.iter().any(unplaced))
    }

    /// Whether an operation that returns at `at` or later may still make the state.
    pub(super) fn can_be_made<const N: usize>(
        &self,
        state: u32,
        course: &Course<M>,
        bits: &Bits<N>,
        at: usize,
    ) -> bool {
        let Some(named) = self.states.get(state as usize) else { return true };
        let at = at as u32;
        if named.last_made.is_none_or(|returned| returned < at) {
            return false;
        }
        let maker = named.maker as usize;
        named.makers != 1 || self.spans[maker].0 > at || !bits.has(course.ops[maker].slot)
    }
}
