//! Who is being served, and who has to go when there are too many: connections, and requests.
//!
//! A guest is idle until it is busy: a connection while none of its requests has been received as
//! a whole, a request until then. For one more than there may be, the one goes that has been idle
//! for longest. So whoever leaves things unfinished makes room for those who do not.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Every guest of a kind.
#[derive(Debug)]
pub(super) struct Guests {
    most: usize,
    present: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    /// Numbers guests, and the moments at which they become idle.
    next: u64,
    guests: BTreeMap<u64, Guest>,
    /// Those that are idle, in the order in which they became so.
    idle: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Guest {
    /// How many things it waits for.
    busy: usize,
    /// Its place among the idle, while it is.
    turn: u64,
    leave: Arc<Notify>,
}

/// What became of a guest that asked to be let in.
#[derive(Debug)]
pub(super) enum Entry {
    /// There was room.
    Free(Seat),
    /// Another one has to go for it.
    Replaces(Seat),
    /// All others are busy.
    Full,
}

impl Guests {
    pub(super) fn new(most: usize) -> Arc<Guests> {
        Arc::new(Guests { most, present: Mutex::default() })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.present().guests.len()
    }

    /// Lets a guest in, if need be in place of the one that has been idle for longest.
    pub(super) fn enter(self: &Arc<Guests>) -> Entry {
        let mut present = self.present();
        let full = present.guests.len() >= self.most;
        if full && !present.dismiss() {
            return Entry::Full;
        }
        let (number, leave) = (present.number(), Arc::new(Notify::new()));
        present.guests.insert(number, Guest { busy: 0, turn: number, leave: leave.clone() });
        present.idle.insert(number, number);
        let seat = Seat { guests: self.clone(), number, leave };
        if full { Entry::Replaces(seat) } else { Entry::Free(seat) }
    }

    /// Tells the one that has been idle for longest to go. Whether there was one.
    pub(super) fn dismiss(&self) -> bool {
        self.present().dismiss()
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        // Nothing in here panics half-way.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn dismiss(&mut self) -> bool {
        let longest = self.idle.pop_first();
        let guest = longest.and_then(|(_, number)| self.guests.remove(&number));
        guest.inspect(|guest| guest.leave.notify_one()).is_some()
    }

    fn begins(&mut self, number: u64) {
        // One that was told to go may not have gone yet.
        let Some(guest) = self.guests.get_mut(&number) else { return };
        guest.busy += 1;
        self.idle.remove(&guest.turn);
    }

    fn ends(&mut self, number: u64) {
        let turn = self.number();
        let Some(guest) = self.guests.get_mut(&number) else { return };
        guest.busy = guest.busy.saturating_sub(1);
        if guest.busy == 0 {
            guest.turn = turn;
            self.idle.insert(turn, number);
        }
    }

    fn leaves(&mut self, number: u64) {
        if let Some(guest) = self.guests.remove(&number) {
            self.idle.remove(&guest.turn);
        }
    }
}

/// The place of a guest that was let in; free again when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    guests: Arc<Guests>,
    number: u64,
    leave: Arc<Notify>,
}

impl Seat {
    /// Returns when the guest has to go.
    pub(super) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    /// The guest is busy until what is returned is dropped.
    pub(super) fn busy(self: &Arc<Seat>) -> Busy {
        self.guests.present().begins(self.number);
        Busy { seat: self.clone() }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.guests.present().leaves(self.number);
    }
}

/// Something that a guest waits for.
#[derive(Debug)]
pub(super) struct Busy {
    seat: Arc<Seat>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.seat.guests.present().ends(self.seat.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(entry: Entry) -> Arc<Seat> {
        match entry {
            Entry::Free(seat) | Entry::Replaces(seat) => Arc::new(seat),
            Entry::Full => panic!("it was to be let in"),
        }
    }

    async fn has_to_leave(seat: &Seat) -> bool {
        tokio::select! {
            biased;
            () = seat.told_to_leave() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn the_one_that_has_been_idle_for_longest_goes() {
        let guests = Guests::new(3);
        let seats: Vec<Arc<Seat>> = (0..3).map(|_| seat(guests.enter())).collect();
        let (first, second) = (seats[0].busy(), seats[1].busy());
        let again = seats[1].busy();
        drop(second);
        let third = seats[2].busy();
        assert!(matches!(guests.enter(), Entry::Full));
        assert!(!guests.dismiss());
        drop(third);
        drop(first);
        // The third has been idle for longer than the first, and the second still waits.
        assert!(matches!(guests.enter(), Entry::Replaces(_)));
        assert!(has_to_leave(&seats[2]).await);
        assert!(!has_to_leave(&seats[0]).await && !has_to_leave(&seats[1]).await);
        assert_eq!(guests.count(), 2, "the new one has left");
        // What a dismissed guest does changes nothing any more.
        drop(seats[2].busy());
        drop(again);
        drop(seats);
        assert_eq!(guests.count(), 0);
        assert!(guests.present().idle.is_empty());
        assert!(matches!(guests.enter(), Entry::Free(_)));
    }
}
