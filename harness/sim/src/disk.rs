use sraft_core::{Entry, HardState, Persist};

/// A disk with a queue in front. Like the node's storage thread it writes whatever waits when it
/// becomes free as one group, all of which becomes durable at the same instant.
#[derive(Debug)]
pub(crate) struct Disk {
    pub hard_state: HardState,
    pub entries: Vec<Entry>,
    queue: Vec<Persist>,
    group: Vec<Persist>,
    /// Numbers the ends of writes, so that one that was put off or lost is known when it comes.
    pub serial: u64,
    /// How many times as long as usual a write takes.
    pub factor: u64,
    pub stalled: bool,
}

impl Disk {
    pub(crate) fn new() -> Disk {
        Disk {
            hard_state: HardState::default(),
            entries: Vec::new(),
            queue: Vec::new(),
            group: Vec::new(),
            serial: 0,
            factor: 1,
            stalled: false,
        }
    }

    pub(crate) fn enqueue(&mut self, persist: Persist) {
        self.queue.push(persist);
    }

    /// Whether a write begins now.
    pub(crate) fn begin(&mut self) -> bool {
        let begins = self.group.is_empty() && !self.queue.is_empty() && !self.stalled;
        if begins {
            std::mem::swap(&mut self.group, &mut self.queue);
        }
        begins
    }

    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(crate) fn writing(&self) -> &[Persist] {
        &self.group
    }

    /// The group has become durable; its highest ticket.
    pub(crate) fn finish(&mut self) -> Option<u64> {
        let mut highest = None;
        for persist in self.group.drain(..) {
            highest = Some(persist.ticket);
            if let Some(hard_state) = persist.hard_state {
                self.hard_state = hard_state;
            }
            if let Some(first) = persist.entries.first() {
                self.entries.truncate(first.index as usize - 1);
                self.entries.extend(persist.entries);
            }
        }
        highest
    }

    /// The process has died: what had not been begun is gone.
    pub(crate) fn lose_queue(&mut self) {
        self.serial += 1;
        self.queue.clear();
    }

    pub(crate) fn lose_group(&mut self) {
        self.group.clear();
    }

    /// The term of the durable entry at `index`; 0 at index 0.
    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        match index {
            0 => Some(0),
            _ => self.entries.get(index as usize - 1).map(|entry| entry.term),
        }
    }
}
