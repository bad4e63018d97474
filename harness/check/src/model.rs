//! What the objects do whose histories are checked.

use std::{collections::BTreeSet, fmt, hash::Hash, sync::Arc};

/// An object, specified one operation at a time. Operations carry their answers, so a step is a
/// question: could this object, in this state, have given this answer?
pub trait Model {
    /// What the object remembers.
    type State: Clone + Eq + Hash + fmt::Display;
    /// An operation with its answer. One of unknown outcome carries the answer of its taking
    /// effect; that it may never take effect is the search's business.
    type Op: Clone + Eq + Hash + fmt::Display;

    /// The key that an operation touches. Keys are objects of their own.
    fn key<'a>(&self, op: &'a Self::Op) -> &'a str;

    /// The states in which a key may be at the beginning, the likeliest first, never none.
    /// `ops` are all operations on it.
    fn initial<'a>(&self, ops: impl Iterator<Item = &'a Self::Op>) -> Vec<Self::State>
    where
        Self::Op: 'a;

    /// The state after the operation; nothing if it cannot have given its answer in `state`.
    fn step(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;

    /// Whether the operation leaves *every* state as it is in which it can have given its answer.
    fn only_reads(&self, op: &Self::Op) -> bool;

    /// Whether the operation is possible in *every* state, and the state after it does not depend on
    /// the one before.
    fn overwrites(&self, op: &Self::Op) -> bool;

    /// The state without which the operation cannot have given its answer, if there is only one.
    fn needs(&self, op: &Self::Op) -> Option<Self::State> {
        let _ = op;
        None
    }

    /// The states in which the operation can leave the object if it does not leave it as it was.
    fn makes(&self, op: &Self::Op) -> Makes<Self::State> {
        let _ = op;
        Makes::Any
    }

    /// Makes operations equal that cannot be told apart by any answer among `ops`, which are all
    /// operations on a key. They are renamed consistently, so it changes no verdict; the search has
    /// less to try.
    fn merge(&self, ops: &mut [&mut Self::Op]) {
        let _ = ops;
    }

    /// About how many bytes a state takes, for the budget.
    fn bytes(&self, state: &Self::State) -> usize;
}

/// What an operation can make of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Makes<S> {
    /// Nothing: it only reads.
    None,
    /// This state.
    One(S),
    /// Any, as far as is known.
    Any,
}

/// A value, or its absence.
pub type Value = Option<Arc<str>>;

/// Registers with read, write and compare-and-set, one per key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    unknown: bool,
}

impl Register {
    /// Registers that are absent (nil) at first.
    pub fn absent() -> Register {
        Register { unknown: false }
    }

    /// Registers whose first value nobody knows, because it was written before the history began.
    pub fn carried_over() -> Register {
        Register { unknown: true }
    }
}

/// An operation on a register.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegisterOp {
    /// Which register.
    pub key: Arc<str>,
    /// What was done.
    pub action: Action,
}

/// What is done to a register.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It was read, and this was there.
    Read(Value),
    /// It was written.
    Write(Arc<str>),
    /// It was to become `new` if it was `expected`.
    Cas {
        /// The value compared with; nothing compares with absence.
        expected: Value,
        /// The new value.
        new: Arc<str>,
        /// Whether it was `expected`.
        swapped: bool,
    },
}

/// What a register holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    /// A value, or nothing.
    Known(Value),
    /// A first value that no operation of the history names.
    Unnamed,
}

impl Model for Register {
    type State = Held;
    type Op = RegisterOp;

    fn key<'a>(&self, op: &'a RegisterOp) -> &'a str {
        &op.key
    }

    fn initial<'a>(&self, ops: impl Iterator<Item = &'a RegisterOp>) -> Vec<Held> {
        if !self.unknown {
            return vec![Held::Known(None)];
        }
        // Only values that an answer speaks of can be told apart.
        let (mut written, mut seen) = (BTreeSet::new(), Vec::new());
        for op in ops {
            match &op.action {
                Action::Read(value) => seen.push(value.clone()),
                Action::Write(value) => {
                    written.insert(value.clone());
                }
                Action::Cas { expected, new, swapped } => {
                    seen.push(expected.clone());
                    if *swapped {
                        written.insert(new.clone());
                    }
                }
            }
        }
        // In the order of first appearance, and those first that nobody has written: where there
        // is one, it was most likely the first.
        let mut named = BTreeSet::new();
        seen.retain(|value| named.insert(value.clone()));
        let (ours, foreign): (Vec<Value>, Vec<Value>) = seen
            .into_iter()
            .partition(|value| value.as_ref().is_some_and(|value| written.contains(value)));
        let known = foreign.into_iter().chain(ours).map(Held::Known);
        known.chain([Held::Unnamed]).collect()
    }

    fn step(&self, state: &Held, op: &RegisterOp) -> Option<Held> {
        let holds = |value: &Value| matches!(state, Held::Known(held) if held == value);
        match &op.action {
            Action::Read(value) => holds(value).then(|| state.clone()),
            Action::Write(value) => Some(Held::Known(Some(value.clone()))),
            Action::Cas { expected, new, swapped: true } => {
                holds(expected).then(|| Held::Known(Some(new.clone())))
            }
            Action::Cas { expected, swapped: false, .. } => {
                (!holds(expected)).then(|| state.clone())
            }
        }
    }

    fn only_reads(&self, op: &RegisterOp) -> bool {
        matches!(op.action, Action::Read(_) | Action::Cas { swapped: false, .. })
    }

    fn overwrites(&self, op: &RegisterOp) -> bool {
        matches!(op.action, Action::Write(_))
    }

    fn needs(&self, op: &RegisterOp) -> Option<Held> {
        match &op.action {
            Action::Read(value) => Some(Held::Known(value.clone())),
            Action::Cas { expected, swapped: true, .. } => Some(Held::Known(expected.clone())),
            Action::Write(_) | Action::Cas { swapped: false, .. } => None,
        }
    }

    fn makes(&self, op: &RegisterOp) -> Makes<Held> {
        match &op.action {
            Action::Write(new) | Action::Cas { new, swapped: true, .. } => {
                Makes::One(Held::Known(Some(new.clone())))
            }
            Action::Read(_) | Action::Cas { swapped: false, .. } => Makes::None,
        }
    }

    /// Values that are never read, and that nothing is compared with, are as good as one.
    fn merge(&self, ops: &mut [&mut RegisterOp]) {
        let mut named = BTreeSet::new();
        for op in &*ops {
            match &op.action {
                Action::Read(Some(value)) | Action::Cas { expected: Some(value), .. } => {
                    named.insert(value.clone());
                }
                _ => {}
            }
        }
        let mut first: Option<Arc<str>> = None;
        for op in ops {
            match &mut op.action {
                Action::Write(new) | Action::Cas { new, .. } if !named.contains(new) => {
                    *new = first.get_or_insert_with(|| new.clone()).clone();
                }
                _ => {}
            }
        }
    }

    fn bytes(&self, _: &Held) -> usize {
        // Values are shared with the history.
        0
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Held::Known(value) => f.write_str(name(value)),
            Held::Unnamed => f.write_str("a value of before"),
        }
    }
}

fn name(value: &Value) -> &str {
    value.as_deref().unwrap_or("nil")
}

impl fmt::Display for RegisterOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Read(value) => write!(f, "read {}", name(value)),
            Action::Write(value) => write!(f, "write {value}"),
            Action::Cas { expected, new, swapped } => {
                let refused = if *swapped { "" } else { ", refused" };
                write!(f, "cas {} → {new}{refused}", name(expected))
            }
        }
    }
}

/// A store of strings with get, put, append and compare-and-set. A missing key is the empty string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValue;

/// An operation on a key-value store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreOp {
    /// Which key.
    pub key: Arc<str>,
    /// What was done.
    pub action: StoreAction,
}

/// What is done to a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StoreAction {
    /// It was read, and this was there.
    Get(Arc<str>),
    /// It was set.
    Put(Arc<str>),
    /// This was added at its end.
    Append(Arc<str>),
    /// It was to become `new` if it was `expected`.
    Cas {
        /// The value compared with.
        expected: Arc<str>,
        /// The new value.
        new: Arc<str>,
        /// Whether it was `expected`.
        swapped: bool,
    },
}

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stored(Arc<str>);

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

impl Model for KeyValue {
    type State = Stored;
    type Op = StoreOp;

    fn key<'a>(&self, op: &'a StoreOp) -> &'a str {
        &op.key
    }

    fn initial<'a>(&self, _: impl Iterator<Item = &'a StoreOp>) -> Vec<Stored> {
        vec![Stored(Arc::from(""))]
    }

    fn step(&self, state: &Stored, op: &StoreOp) -> Option<Stored> {
        let Stored(held) = state;
        match &op.action {
            StoreAction::Get(value) => (held == value).then(|| state.clone()),
            StoreAction::Put(value) => Some(Stored(value.clone())),
            StoreAction::Append(value) => Some(Stored(Arc::from([&**held, value].concat()))),
            StoreAction::Cas { expected, new, swapped: true } => {
                (held == expected).then(|| Stored(new.clone()))
            }
            StoreAction::Cas { expected, swapped: false, .. } => {
                (held != expected).then(|| state.clone())
            }
        }
    }

    fn only_reads(&self, op: &StoreOp) -> bool {
        matches!(op.action, StoreAction::Get(_) | StoreAction::Cas { swapped: false, .. })
    }

    fn overwrites(&self, op: &StoreOp) -> bool {
        matches!(op.action, StoreAction::Put(_))
    }

    fn needs(&self, op: &StoreOp) -> Option<Stored> {
        match &op.action {
            StoreAction::Get(value) => Some(Stored(value.clone())),
            StoreAction::Cas { expected, swapped: true, .. } => Some(Stored(expected.clone())),
            _ => None,
        }
    }

    fn makes(&self, op: &StoreOp) -> Makes<Stored> {
        match &op.action {
            StoreAction::Put(new) | StoreAction::Cas { new, swapped: true, .. } => {
                Makes::One(Stored(new.clone()))
            }
            StoreAction::Get(_) | StoreAction::Cas { swapped: false, .. } => Makes::None,
            StoreAction::Append(_) => Makes::Any,
        }
    }

    fn bytes(&self, state: &Stored) -> usize {
        state.0.len()
    }
}

impl fmt::Display for StoreOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            StoreAction::Get(value) => write!(f, "get \"{value}\""),
            StoreAction::Put(value) => write!(f, "put \"{value}\""),
            StoreAction::Append(value) => write!(f, "append \"{value}\""),
            StoreAction::Cas { expected, new, swapped } => {
                let refused = if *swapped { "" } else { ", refused" };
                write!(f, "cas \"{expected}\" → \"{new}\"{refused}")
            }
        }
    }
}
