use std::{cmp::Reverse, collections::BinaryHeap};

/// What is to happen, ordered by time; at one instant alarms come last, since a driver passes on
/// what has arrived before it looks at its deadline, and otherwise first scheduled comes first.
#[derive(Debug)]
pub(crate) struct Calendar<T> {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    scheduled: u64,
}

/// Set in the order of an alarm.
const ALARM: u64 = 1 << 63;

impl<T> Calendar<T> {
    pub(crate) fn new() -> Calendar<T> {
        let (heap, slots) = (BinaryHeap::with_capacity(64), Vec::with_capacity(64));
        Calendar { heap, slots, free: Vec::with_capacity(64), scheduled: 0 }
    }

    pub(crate) fn schedule(&mut self, at: u64, what: T) {
        self.insert(at, 0, what);
    }

    pub(crate) fn schedule_alarm(&mut self, at: u64, what: T) {
        self.insert(at, ALARM, what);
    }

    fn insert(&mut self, at: u64, class: u64, what: T) {
        self.scheduled += 1;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(what);
                slot
            }
            None => {
                self.slots.push(Some(what));
                self.slots.len() as u32 - 1
            }
        };
        self.heap.push(Reverse((at, class | self.scheduled, slot)));
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        let what = self.slots[slot as usize].take().expect("a scheduled slot is filled");
        Some((at, what))
    }
}
