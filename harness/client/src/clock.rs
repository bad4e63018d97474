//! The host's monotonic clock, and an alarm that is kept to the microsecond.

use std::{io, os::fd::OwnedFd};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

fn nanos(time: Timespec) -> u64 {
    // Neither clock is before its origin on a machine that runs.
    time.tv_sec.unsigned_abs().saturating_mul(SECOND).saturating_add(time.tv_nsec.unsigned_abs())
}

/// `CLOCK_MONOTONIC`, in nanoseconds: the same clock for every process of the host.
pub fn now() -> u64 {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// Processor time that this process has used so far, all its threads together, in nanoseconds.
pub(crate) fn used() -> u64 {
    nanos(clock_gettime(ClockId::ProcessCPUTime))
}

/// Waits for an instant of the monotonic clock. tokio's own timers are rounded up to whole
/// milliseconds, which is the distance of two operations at 1000 a second; a timerfd is kept by the
/// kernel's high-resolution timers.
#[derive(Debug)]
pub(crate) struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    /// An alarm that is not set. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel has no descriptor to spare.
    #[expect(
        deprecated,
        reason = "deprecated for types that may close their descriptor early, which OwnedFd \
                  cannot; the replacement is an unsafe function"
    )]
    pub(crate) fn new() -> io::Result<Alarm> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Alarm(AsyncFd::with_interest(timer, Interest::READABLE)?))
    }

    /// Waits until `at` (nanoseconds of the monotonic clock) has come. Giving up the wait is safe.
    ///
    /// # Errors
    /// The timer can be neither set nor read.
    pub(crate) async fn wait_until(&mut self, at: u64) -> io::Result<()> {
        // All zeros would disarm it, so the origin of the clock becomes its first nanosecond.
        let at = at.max(1);
        let value = Timespec { tv_sec: (at / SECOND) as i64, tv_nsec: (at % SECOND) as i64 };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval: never, it_value: value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &spec)?;
        while now() < at {
            let mut guard = self.0.readable().await?;
            let mut count = [0; 8];
            match rustix::io::read(guard.get_inner(), &mut count) {
                // Setting it has taken back an expiry that nobody had read, but not what tokio
                // remembers of it; so readiness is no proof, and the clock is asked again.
                Ok(_) | Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn an_alarm_is_never_early_and_can_be_set_anew() {
        let mut alarm = Alarm::new().unwrap();
        let start = now();
        let later = start + 3600 * SECOND;
        tokio::select! {
            biased;
            result = alarm.wait_until(later) => panic!("{result:?}"),
            () = std::future::ready(()) => {}
        }
        alarm.wait_until(start + 700_000).await.unwrap();
        assert!(now() >= start + 700_000);
        // One that has passed is no reason to wait.
        alarm.wait_until(start).await.unwrap();
        let next = now() + 300_000;
        alarm.wait_until(next).await.unwrap();
        assert!(now() >= next);
    }
}
