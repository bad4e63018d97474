//! When operations are meant to start.

use crate::clock::SECOND;

/// Evenly spaced instants that depend on nothing but their beginning: a system that stalls delays
/// starts, never intentions, so its stall shows in every operation that was meant to start in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    began_ns: u64,
    per_second: u32,
    count: u64,
}

impl Schedule {
    /// The first instant is `began_ns`.
    pub(crate) fn new(began_ns: u64, per_second: u32) -> Schedule {
        assert!(per_second > 0, "a schedule without operations");
        Schedule { began_ns, per_second, count: 0 }
    }

    /// The next instant, nanoseconds of the monotonic clock.
    pub(crate) fn next_ns(&self) -> u64 {
        let since = u128::from(self.count) * u128::from(SECOND) / u128::from(self.per_second);
        self.began_ns.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// Takes the next instant, if it has come.
    pub(crate) fn take(&mut self, now_ns: u64) -> Option<u64> {
        let next = self.next_ns();
        if next > now_ns {
            return None;
        }
        self.count += 1;
        Some(next)
    }

    /// How many instants before `end_ns` have not been taken.
    pub(crate) fn left_before(&self, end_ns: u64) -> u64 {
        let span = u128::from(end_ns.saturating_sub(self.began_ns));
        // Instant n is before the end if n / rate < span.
        let all = (span * u128::from(self.per_second)).div_ceil(u128::from(SECOND));
        u64::try_from(all).unwrap_or(u64::MAX).saturating_sub(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_do_not_drift() {
        let mut schedule = Schedule::new(1_000, 3);
        assert_eq!(schedule.left_before(1_000 + SECOND), 3);
        assert_eq!(schedule.take(999), None);
        let taken: Vec<u64> = std::iter::from_fn(|| schedule.take(SECOND)).collect();
        assert_eq!(taken, [1_000, 333_334_333, 666_667_666]);
        assert_eq!(schedule.next_ns(), 1_000 + SECOND);
        assert_eq!(schedule.left_before(1_000 + SECOND), 0);
        assert_eq!(schedule.left_before(1_001 + SECOND), 1);
        // A stall takes nothing away from what was intended.
        let late = 1_000 + 100 * SECOND;
        assert_eq!(std::iter::from_fn(|| schedule.take(late)).count(), 298);
    }
}
