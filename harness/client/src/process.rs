//! What ties the probe's process to its parent.

use std::io;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Asks the kernel to kill this process when its parent dies. The kernel means the parent's
/// *thread*: the one that started this process has to live on.
///
/// # Errors
/// The kernel refuses, or the parent is not process `parent` (any more).
pub(crate) fn die_with_parent(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Only after the request is it certain that a death of the parent is not missed.
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == Some(parent) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "--die-with-parent {parent}: that process is not (or no longer) the parent of this one"
    )))
}
