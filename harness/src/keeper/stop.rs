//! Stopping a node: it is told to, so that a leader hands over, and killed if it does not.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{Stopped, place::Place, service};

/// How long a killed process may take to be gone: its disk may be slow.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// Stops the node of a host's folder. Nothing if none runs.
pub(super) fn stop(dir: &Path, patience: Duration) -> Result<Option<Stopped>, String> {
    let place = Place::below(dir);
    if !place.path.is_dir() {
        return Ok(None);
    }
    let _lock = place.lock()?;
    let begun = Instant::now();
    let unit = place.started().and_then(|started| started.unit).filter(|u| service::is_active(u));
    // Before systemd is told: telling it can take longer than the node needs to end.
    let mut found = place.process();
    if let Some(unit) = &unit {
        // Also if no process lives: one may be about to.
        service::begin_to_stop(unit)?;
        found = found.or_else(|| place.process());
    }
    let Some((process, handle)) = found else { return Ok(None) };
    let failed = |error: std::io::Error| format!("cannot stop process {}: {error}", process.pid);
    if unit.is_none() {
        handle.signal(Signal::TERM).map_err(failed)?;
    }
    let mut killed = false;
    if !handle.ends_within(patience)? {
        killed = true;
        match &unit {
            Some(unit) => service::kill(unit)?,
            None => handle.signal(Signal::KILL).map_err(failed)?,
        }
        if !handle.ends_within(KILLED_WITHIN)? {
            return Err(format!(
                "process {} has not ended {} s after SIGKILL; look at the host's disk",
                process.pid,
                KILLED_WITHIN.as_secs()
            ));
        }
    }
    let _ = place.forget_process(); // it is no process any more either way
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Some(Stopped { pid: process.pid, killed, took_ms }))
}
