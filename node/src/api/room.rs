//! Room for bytes that clients make the server hold.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// So many bytes, and how many of them are taken.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    taken: AtomicUsize,
}

impl Room {
    pub(super) fn new(most: usize) -> Arc<Room> {
        Arc::new(Room { most, taken: AtomicUsize::new(0) })
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// Takes this many bytes until the share is dropped; nothing if there is no room.
    pub(super) fn take(self: &Arc<Room>, bytes: usize) -> Option<Share> {
        let share = Share { room: self.clone(), bytes: AtomicUsize::new(0) };
        share.grow(bytes).then_some(share)
    }
}

/// Bytes taken.
#[derive(Debug)]
pub(super) struct Share {
    room: Arc<Room>,
    bytes: AtomicUsize,
}

impl Share {
    /// Takes more; nothing more if there is no room.
    pub(super) fn grow(&self, bytes: usize) -> bool {
        let fits = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= self.room.most);
        let grown = self.room.taken.fetch_update(Relaxed, Relaxed, fits).is_ok();
        if grown {
            self.bytes.fetch_add(bytes, Relaxed);
        }
        grown
    }

    /// Takes more even if there is no room; always true.
    pub(super) fn force(&self, bytes: usize) -> bool {
        self.room.taken.fetch_add(bytes, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        true
    }

    /// Bytes taken so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes(), Relaxed);
    }
}
