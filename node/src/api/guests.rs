//! Connections: how many there are, and who has to go when there are too many.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use tokio::sync::Notify;

/// Every connection.
#[derive(Debug)]
pub(super) struct Guests {
    most: usize,
    opened: Instant,
    present: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    next: u64,
    guests: BTreeMap<u64, Arc<Guest>>,
}

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Guest {
    /// Requests that it has not been answered.
    busy: AtomicUsize,
    /// When it last had a request, in nanoseconds since the server started.
    active: AtomicU64,
    /// Told when it has to go.
    leave: Notify,
}

/// What became of a connection that asked to be let in.
#[derive(Debug)]
pub(super) enum Entry {
    /// There was room.
    Free(Seat),
    /// Another one has to go for it.
    Replaces(Seat),
    /// All others are at work.
    Full,
}

impl Guests {
    pub(super) fn new(most: usize) -> Arc<Guests> {
        Arc::new(Guests { most, opened: Instant::now(), present: Mutex::default() })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.present().guests.len()
    }

    /// Lets a connection in, if need be in place of the one that has had nothing to do for longest.
    pub(super) fn enter(self: &Arc<Guests>) -> Entry {
        let mut present = self.present();
        let full = present.guests.len() >= self.most;
        if full {
            let idle = present.guests.iter().filter(|(_, guest)| guest.busy.load(Relaxed) == 0);
            let longest = idle.min_by_key(|(_, guest)| guest.active.load(Relaxed));
            let Some(number) = longest.map(|(number, _)| *number) else { return Entry::Full };
            if let Some(guest) = present.guests.remove(&number) {
                guest.leave.notify_one();
            }
        }
        let guest = Arc::new(Guest { active: self.now().into(), ..Guest::default() });
        let number = present.next;
        present.next += 1;
        present.guests.insert(number, guest.clone());
        let seat = Seat { guests: self.clone(), number, guest };
        if full { Entry::Replaces(seat) } else { Entry::Free(seat) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn present(&self) -> std::sync::MutexGuard<'_, Present> {
        // Nothing in here panics half-way.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a connection that was let in; free again when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    guests: Arc<Guests>,
    number: u64,
    guest: Arc<Guest>,
}

impl Seat {
    /// Returns when the connection has to go.
    pub(super) async fn told_to_leave(&self) {
        self.guest.leave.notified().await;
    }

    /// A request has come; it lasts until what is returned is dropped.
    pub(super) fn busy(self: &Arc<Seat>) -> Busy {
        self.guest.busy.fetch_add(1, Relaxed);
        Busy { seat: self.clone() }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.guests.present().guests.remove(&self.number);
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Busy {
    seat: Arc<Seat>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Seat { guests, guest, .. } = &*self.seat;
        guest.active.store(guests.now(), Relaxed);
        guest.busy.fetch_sub(1, Relaxed);
    }
}
