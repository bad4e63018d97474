//! The built-in workload of `--workload-rate`.

use std::time::Duration;

use sraft_core::Time;

/// Increments that the built-in workload proposes at once at most; what is due beyond that after a
/// stall is proposed in the following rounds.
const BURST: u32 = 1000;

/// The increments that the node proposes itself: one each interval from the moment it is ready,
/// whether or not earlier ones have committed.
#[derive(Debug)]
pub(crate) struct Workload {
    rate: u32,
    next: Option<Time>,
}

impl Workload {
    pub(crate) fn new(rate: u32) -> Workload {
        Workload { rate, next: None }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.rate > 0
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Time> {
        self.next
    }

    /// Starts or stops it.
    pub(crate) fn run(&mut self, works: bool, now: Time) {
        match (works, self.next) {
            (true, None) => self.next = Some(now),
            (false, Some(_)) => self.next = None,
            _ => {}
        }
    }

    /// How many are due.
    pub(crate) fn take(&mut self, now: Time) -> u32 {
        let mut due = 0;
        while let Some(next) = self.next.filter(|next| *next <= now && due < BURST) {
            due += 1;
            self.next = Some(next + Duration::from_secs(1) / self.rate);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workload_is_an_open_loop() {
        let mut workload = Workload::new(1000);
        let start = Time::from_nanos(5);
        assert_eq!(workload.take(start), 0);
        workload.run(true, start);
        assert_eq!(workload.take(start), 1);
        assert_eq!(workload.take(start + Duration::from_micros(999)), 0);
        // A stall is made up for, in bounded bursts.
        assert_eq!(workload.take(start + Duration::from_millis(10)), 10);
        assert_eq!(workload.take(start + Duration::from_secs(3)), BURST);
        workload.run(false, start);
        assert_eq!(workload.next, None);
    }
}
