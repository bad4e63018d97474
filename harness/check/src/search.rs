//! The search for an order that explains a history.
//!
//! Wing and Gong ("Testing and verifying concurrent objects", JPDC 17(1-2), 1993) try operations
//! that overlap in every order until the object's specification accepts one. Lowe ("Testing for
//! linearizability", Concurrency and Computation 29(4), 2017) remembers the configurations from
//! which that has failed, and puts an operation in its place *just in time*: when an operation
//! returns that has none yet, and only with others before it as far as they help. Both are done
//! here, each key on its own (see `by_key`). A configuration is the object's state and which of
//! the operations *under way* have been placed; of operations that have ended nothing needs
//! to be known, so it takes a few words, however long the history is.
//!
//! Five rules of our own keep the search small without changing its answer. Take any order that
//! explains the rest of a history:
//!
//! 1. *An operation that only reads is placed as soon as the state allows it.* It may be moved
//!    there, because it changes nothing for the others.
//! 2. *A write may hide behind another one.* When a write is placed, each other write under way
//!    could have been placed just before it, unseen by all. So from then on that one is optional:
//!    it may still be placed, or be taken for hidden, and which of the two need not be decided.
//! 3. *Less is better.* A configuration that owes less, or has used up less of what is optional,
//!    can go on in every way in which the other one can. So the other one is not tried after it.
//! 4. *Equal operations of unknown outcome are used in the order of their calls.* Once they have
//!    been called they cannot be told apart.
//! 5. *A state that is still needed is not given up for ever.* If operations to come need a state,
//!    and all that can make it have been placed or are over, an order that leaves it leads nowhere.

mod course;
mod needs;
mod order;
mod pending;
mod seen;
mod walk;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use crate::{
    history::{self, Operation},
    model::Model,
};
use course::Course;
use walk::{End, Walk};

/// What a search may cost. Whoever reaches an end of it answers `undecided`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// For all keys of a history together.
    pub time: Duration,
    /// For what is remembered of one key, bytes.
    pub bytes: usize,
}

impl Default for Budget {
    /// Ten seconds and 1 GiB.
    fn default() -> Budget {
        Budget { time: Duration::from_secs(10), bytes: 1 << 30 }
    }
}

/// What is to be thought of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains it.
    Linearizable,
    /// There is none.
    NotLinearizable,
    /// The budget ended before one was found or excluded.
    Undecided(Spent),
}

/// Which part of the budget has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// The time.
    Time,
    /// The memory, or more operations are under way at once than are searched at all
    /// ([`MOST_AT_ONCE`]).
    Memory,
}

/// A history with more operations under way at one instant is not searched; those of unknown
/// outcome are under way for ever.
pub const MOST_AT_ONCE: usize = 8192;

/// The verdict on every key of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// In the order of their names.
    pub keys: Vec<CheckedKey>,
}

impl Checked {
    /// A history is as good as its worst key: one that cannot be explained outweighs others that
    /// are undecided.
    pub fn verdict(&self) -> Verdict {
        let of =
            |wanted: fn(&Verdict) -> bool| self.keys.iter().map(|key| key.verdict).find(wanted);
        of(|verdict| *verdict == Verdict::NotLinearizable)
            .or_else(|| of(|verdict| matches!(verdict, Verdict::Undecided(_))))
            .unwrap_or(Verdict::Linearizable)
    }
}

/// The verdict on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedKey {
    /// The key.
    pub key: String,
    /// Number of its operations.
    pub operations: usize,
    /// Whether they can be explained.
    pub verdict: Verdict,
    /// Unless it is linearizable: how far an explanation gets.
    pub prefix: Option<Prefix>,
}

/// The longest beginning of a history that was explained. Operations are positions in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// An order that explains everything up to the return of `stuck`.
    pub placed: Vec<usize>,
    /// The operation that had no place in any order when it returned; or, if the budget has ended,
    /// whose place was still looked for.
    pub stuck: usize,
    /// What else was under way then and is not among `placed`.
    pub open: Vec<usize>,
    /// The object's state after `placed`.
    pub state: String,
}

/// Whether each key of `history` is linearizable. An answer that is earlier than its call counts
/// as simultaneous with it; operations that touch in one instant overlap.
pub fn check<M: Model>(model: &M, history: &[Operation<M::Op>], budget: &Budget) -> Checked {
    let end = Instant::now() + budget.time;
    let mut keys: Vec<(&str, Vec<usize>)> = history::by_key(model, history).into_iter().collect();
    // What the small ones leave over is the large ones'.
    keys.sort_by_key(|(_, positions)| positions.len());
    let all = keys.len();
    let mut checked: Vec<CheckedKey> = keys
        .into_iter()
        .enumerate()
        .map(|(nth, (key, positions))| {
            let now = Instant::now();
            let share = end.saturating_duration_since(now) / (all - nth) as u32;
            let operations = positions.len();
            let limits = Limits { end: now + share, bytes: budget.bytes };
            let (verdict, prefix) = one_key(model, history, positions, limits);
            CheckedKey { key: key.to_owned(), operations, verdict, prefix }
        })
        .collect();
    checked.sort_by(|a, b| a.key.cmp(&b.key));
    Checked { keys: checked }
}

/// The budget of one key.
#[derive(Clone, Copy, Debug)]
struct Limits {
    end: Instant,
    bytes: usize,
}

fn one_key<M: Model>(
    model: &M,
    history: &[Operation<M::Op>],
    positions: Vec<usize>,
    limits: Limits,
) -> (Verdict, Option<Prefix>) {
    let (verdict, mut prefix) = match walk(model, history, &positions, usize::MAX, limits) {
        End::Explained(_) => return (Verdict::Linearizable, None),
        End::Spent(spent, prefix) => (Verdict::Undecided(spent), prefix),
        End::Stuck(prefix) => {
            let longest = longest(model, history, &positions, prefix, limits);
            (Verdict::NotLinearizable, Some(longest))
        }
    };
    if let Some(prefix) = &mut prefix {
        prefix.state = state_after(model, history, &positions, &prefix.placed);
    }
    (verdict, prefix)
}

/// Searches the history of a key up to its first `keep` returns.
fn walk<M: Model>(
    model: &M,
    history: &[Operation<M::Op>],
    positions: &[usize],
    keep: usize,
    limits: Limits,
) -> End {
    let course = Course::new(model, history, positions, keep);
    // Configurations are compared and copied all the time, so they have the width that they need.
    match course.width.div_ceil(64) {
        0..=1 => Walk::<M, 1>::new(model, &course, limits).run(),
        2 => Walk::<M, 2>::new(model, &course, limits).run(),
        3..=4 => Walk::<M, 4>::new(model, &course, limits).run(),
        5..=8 => Walk::<M, 8>::new(model, &course, limits).run(),
        9..=32 => Walk::<M, 32>::new(model, &course, limits).run(),
        33..=128 => Walk::<M, 128>::new(model, &course, limits).run(),
        _ => End::Spent(Spent::Memory, None),
    }
}

/// The longest beginning of a history that can be explained, if the whole cannot and `known` is one
/// that can. Whatever extends a beginning that cannot be explained cannot be either, so it is found
/// by halving. If the budget ends before, it is one that is not the longest.
fn longest<M: Model>(
    model: &M,
    history: &[Operation<M::Op>],
    positions: &[usize],
    known: Prefix,
    limits: Limits,
) -> Prefix {
    let end = |at: usize| history[at].back.map(|back| back.max(history[at].call));
    let mut ends: Vec<(u64, usize)> =
        positions.iter().filter_map(|at| end(*at).map(|end| (end, *at))).collect();
    ends.sort_unstable();
    let mut longest = known;
    // So many returns can be explained, and so many cannot.
    let mut can = ends.iter().position(|(_, at)| *at == longest.stuck).unwrap_or(0);
    let (mut cannot, mut step) = (ends.len(), 1);
    while can + 1 < cannot {
        // It is mostly near.
        let keep = (can + step).min(can.midpoint(cannot)).max(can + 1);
        step *= 2;
        match walk(model, history, positions, keep, limits) {
            End::Stuck(_) => cannot = keep,
            End::Spent(..) => break,
            End::Explained(placed) => {
                can = keep;
                let (instant, stuck) = ends[can];
                let known: HashSet<usize> = placed.iter().copied().chain([stuck]).collect();
                let says = |at: usize| end(at).is_some() || !model.only_reads(&history[at].op);
                let called = |at: usize| history[at].call <= instant;
                let open = positions.iter().copied();
                let open = open.filter(|at| called(*at) && says(*at) && !known.contains(at));
                longest = Prefix { open: open.collect(), placed, stuck, state: String::new() };
            }
        }
    }
    longest
}

/// The state after `placed`, in the words of the history: the search has merged values.
fn state_after<M: Model>(
    model: &M,
    history: &[Operation<M::Op>],
    positions: &[usize],
    placed: &[usize],
) -> String {
    let after = |first: M::State| {
        placed.iter().try_fold(first, |state, at| model.step(&state, &history[*at].op))
    };
    let states =
        model.initial(positions.iter().map(|at| &history[*at].op)).into_iter().find_map(after);
    states.map(|state| state.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
