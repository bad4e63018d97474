//! The clocks that records are stamped with.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::protocol::Clocks;

/// This host's clocks, the monotonic one first: it is the one that figures are made of.
pub fn read() -> Clocks {
    let mono = clock_gettime(ClockId::Monotonic);
    let wall = clock_gettime(ClockId::Realtime);
    Clocks { mono_ns: nanos(mono), wall_ns: nanos(wall) }
}

fn nanos(time: Timespec) -> u64 {
    // Neither clock is before its epoch on a machine that runs.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
