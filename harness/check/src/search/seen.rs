use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::course::NONE;

/// A set of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bits<const N: usize>([u64; N]);

impl<const N: usize> Bits<N> {
    pub(super) const EMPTY: Bits<N> = Bits([0; N]);

    pub(super) fn has(&self, slot: u32) -> bool {
        self.0[slot as usize / 64] >> (slot % 64) & 1 == 1
    }

    pub(super) fn set(&mut self, slot: u32) {
        self.0[slot as usize / 64] |= 1 << (slot % 64);
    }

    pub(super) fn clear(&mut self, slot: u32) {
        self.0[slot as usize / 64] &= !(1 << (slot % 64));
    }

    /// Clears all of `mask`.
    pub(super) fn clear_all(&mut self, mask: &Bits<N>) {
        for (word, mask) in self.0.iter_mut().zip(&mask.0) {
            *word &= !mask;
        }
    }

    /// The part inside `mask`, and the part outside.
    fn split(&self, mask: &Bits<N>) -> (Bits<N>, Bits<N>) {
        let (mut inside, mut outside) = (*self, *self);
        for (word, mask) in mask.0.iter().enumerate() {
            inside.0[word] &= mask;
            outside.0[word] &= !mask;
        }
        (inside, outside)
    }

    fn is_subset_of(&self, other: &Bits<N>) -> bool {
        self.0.iter().zip(&other.0).all(|(own, other)| own & !other == 0)
    }
}

/// A state of the object, by number, and what has been done of what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Config<const N: usize> {
    pub(super) state: u32,
    /// What the bits say is told with the kinds of operations. Of those of kind `Change` they must
    /// be equal for configurations to be compared; of all others less is better.
    pub(super) bits: Bits<N>,
}

/// The configurations that were tried, at each return of the history.
#[derive(Debug)]
pub(super) struct Seen<const N: usize> {
    heads: HashMap<Place<N>, u32, FixedState>,
    /// Linked lists of those that agree in what must be equal.
    less: Vec<(Bits<N>, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place<const N: usize> {
    at: u32,
    state: u32,
    exact: Bits<N>,
}

impl<const N: usize> Seen<N> {
    pub(super) fn new() -> Seen<N> {
        Seen { heads: HashMap::default(), less: Vec::new() }
    }

    /// Remembers a configuration, unless one was tried at the same return that is as good: the same
    /// within `exact`, and no more than it outside. Says whether it is new.
    pub(super) fn insert(&mut self, at: usize, config: &Config<N>, exact: &Bits<N>) -> bool {
        let (exact, less) = config.bits.split(exact);
        let place = Place { at: at as u32, state: config.state, exact };
        let head = self.heads.entry(place).or_insert(NONE);
        let mut cursor = *head;
        while cursor != NONE {
            let (known, next) = &mut self.less[cursor as usize];
            if known.is_subset_of(&less) {
                return false;
            }
            if less.is_subset_of(known) {
                *known = less;
                return true;
            }
            cursor = *next;
        }
        let first = self.less.len() as u32;
        self.less.push((less, *head));
        *head = first;
        true
    }

    pub(super) fn bytes(&self) -> usize {
        // One byte of control for each place of the table.
        let place = size_of::<Place<N>>() + size_of::<u32>() + 1;
        self.heads.capacity() * place * 8 / 7 + self.less.capacity() * size_of::<(Bits<N>, u32)>()
    }
}
