//! The host's clocks, and a deadline that is kept to the microsecond.

use std::{io, os::fd::OwnedFd};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use sraft_core::Time;
use tokio::io::{Interest, unix::AsyncFd};

const NANOS: u64 = 1_000_000_000;

fn nanos(clock: ClockId) -> u64 {
    let at = clock_gettime(clock);
    // Neither clock is negative on a machine whose date is after 1970.
    (at.tv_sec as u64).saturating_mul(NANOS).saturating_add(at.tv_nsec as u64)
}

/// `CLOCK_MONOTONIC`, in nanoseconds: the same clock for every process of the host.
pub fn now() -> Time {
    Time::from_nanos(nanos(ClockId::Monotonic))
}

/// What `CLOCK_REALTIME` showed at `at`, in nanoseconds since 1970, from reading both clocks now.
pub fn wall(at: Time) -> u64 {
    let mono = nanos(ClockId::Monotonic);
    let wall = nanos(ClockId::Realtime);
    wall.saturating_sub(mono).saturating_add(at.as_nanos())
}

/// Waits for an instant of the monotonic clock.
///
/// tokio's own timers are rounded up to whole milliseconds, which is more than a promotion takes;
/// a timerfd is kept by the kernel's high-resolution timers.
#[derive(Debug)]
pub struct Deadline {
    timer: AsyncFd<OwnedFd>,
    set: Option<Time>,
}

impl Deadline {
    /// A deadline that is not set. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel has no descriptor to spare.
    #[expect(
        deprecated,
        reason = "deprecated for types that may close their descriptor early, which OwnedFd \
                  cannot; the replacement is an unsafe function"
    )]
    pub fn new() -> io::Result<Deadline> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Deadline { timer: AsyncFd::with_interest(timer, Interest::READABLE)?, set: None })
    }

    /// Sets it, or with `None` takes it back.
    ///
    /// # Errors
    /// The kernel refuses the time.
    pub fn set(&mut self, at: Option<Time>) -> io::Result<()> {
        // A heartbeat moves the deadline back a little each time. A timer that fires early costs
        // one look at the clock; setting it anew at each message would cost a system call each.
        if let (Some(set), Some(at)) = (self.set, at)
            && set <= at
        {
            return Ok(());
        }
        if self.set != at {
            self.arm(at)?;
        }
        Ok(())
    }

    fn arm(&mut self, at: Option<Time>) -> io::Result<()> {
        // All zeros would disarm it, so the origin of the clock becomes its first nanosecond.
        let nanos = at.map_or(0, |at| at.as_nanos().max(1));
        let value = Timespec { tv_sec: (nanos / NANOS) as i64, tv_nsec: (nanos % NANOS) as i64 };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval: never, it_value: value };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &spec)?;
        self.set = at;
        Ok(())
    }

    /// Waits until the timer fires, which may be before the instant set last, never after it. It
    /// is unset afterwards. Without an instant it waits for ever.
    ///
    /// # Errors
    /// The timer cannot be read.
    pub async fn passed(&mut self) -> io::Result<()> {
        loop {
            let mut guard = self.timer.readable().await?;
            let mut count = [0; 8];
            match rustix::io::read(guard.get_inner(), &mut count) {
                Ok(_) => {
                    guard.clear_ready();
                    self.set = None;
                    return Ok(());
                }
                Err(error) if error == rustix::io::Errno::AGAIN => guard.clear_ready(),
                Err(error) if error == rustix::io::Errno::INTR => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_deadline_is_never_early_and_can_be_moved() {
        let mut deadline = Deadline::new().unwrap();
        let start = now();
        deadline.set(Some(start + Duration::from_secs(3600))).unwrap();
        deadline.set(Some(start + Duration::from_micros(700))).unwrap();
        deadline.passed().await.unwrap();
        assert!(now().since(start) >= Duration::from_micros(700));
        // One that has passed already fires too.
        deadline.set(Some(start)).unwrap();
        deadline.passed().await.unwrap();
    }

    #[test]
    fn wall_time_follows_the_monotonic_stamp() {
        let at = now();
        let later = at + Duration::from_secs(1);
        let second = wall(later).abs_diff(wall(at)).abs_diff(NANOS);
        assert!(second < NANOS / 2, "{second}");
    }
}
