//! Whether a host can do what faults need of it, and what agents that died have left on it.

use std::path::Path;

use crate::{own_disk, protocol::Needs, reboot, rules, throttle};

/// Whether this host can do what is needed for nodes that work below `dir`; the error says what is
/// missing and how to get it. What agents that died have left is removed.
///
/// # Errors
/// One sentence that names what is missing, and the remedy.
pub fn check(needs: Needs, dir: &Path) -> Result<(), String> {
    if needs.rules || needs.delay {
        rules::leftovers(true)?;
    }
    if needs.slow_disk {
        throttle::leftovers(true)?;
    }
    able(needs, dir)
}

/// The same, and nothing is removed.
///
/// # Errors
/// One sentence that names what is missing, and the remedy.
pub fn able(needs: Needs, dir: &Path) -> Result<(), String> {
    rules::able(needs)?;
    if needs.slow_disk {
        throttle::able(dir)?;
    }
    if needs.own_disk {
        own_disk::able(dir)?;
    }
    if needs.reboot { reboot::able(dir) } else { Ok(()) }
}

/// What agents that are dead have left in the kernel, one phrase each; removed if asked for.
///
/// # Errors
/// One sentence: what failed.
pub fn leftovers(remove: bool) -> Result<Vec<String>, String> {
    let mut found = rules::leftovers(remove)?;
    found.extend(throttle::leftovers(remove)?);
    Ok(found)
}
