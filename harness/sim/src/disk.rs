use sraft_core::{Entry, HardState, Index, Persist, Snapshot, Term};

/// A disk with a queue in front. Like the node's storage thread it writes whatever waits when it
/// becomes free as one group, all of which becomes durable at the same instant.
#[derive(Debug)]
pub(crate) struct Disk {
    pub hard_state: HardState,
    pub snapshot: Option<Snapshot>,
    /// The log after the snapshot, or from an entry that the snapshot covers.
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
            snapshot: None,
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
        let mut group = std::mem::take(&mut self.group);
        for persist in group.drain(..) {
            highest = Some(persist.ticket);
            if let Some(hard_state) = persist.hard_state {
                self.hard_state = hard_state;
            }
            if let Some(new) = persist.snapshot {
                if new.reset {
                    self.entries.clear();
                } else {
                    let first = new.first_index;
                    self.entries.drain(..self.entries.partition_point(|e| e.index < first));
                }
                self.snapshot = Some(new.snapshot);
            }
            if let Some(first) = persist.entries.first() {
                let kept = first.index.checked_sub(self.first_index());
                let kept = kept.filter(|kept| *kept <= self.entries.len() as Index);
                let kept = kept.expect("a write leaves no gap in the durable log");
                self.entries.truncate(kept as usize);
                self.entries.extend(persist.entries);
            }
        }
        self.group = group;
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

    /// Index of the first entry of the durable log, or of the one that would be.
    pub(crate) fn first_index(&self) -> Index {
        self.entries.first().map_or(self.covered() + 1, |first| first.index)
    }

    /// Index and term of the last durable entry.
    pub(crate) fn last(&self) -> (Index, Term) {
        let snapshot = self.snapshot.as_ref().map(|s| (s.last_index, s.last_term));
        self.entries.last().map(|last| (last.index, last.term)).or(snapshot).unwrap_or_default()
    }

    /// The index up to which the durable snapshot stands for the log.
    pub(crate) fn covered(&self) -> Index {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.last_index)
    }

    /// The term of the durable entry at `index`; 0 at index 0.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        match &self.snapshot {
            _ if index == 0 => Some(0),
            Some(snapshot) if snapshot.last_index == index => Some(snapshot.last_term),
            _ => {
                let place = usize::try_from(index.checked_sub(self.first_index())?).ok()?;
                self.entries.get(place).map(|entry| entry.term)
            }
        }
    }
}
