//! The names of what an agent makes in the kernel: tables of the packet filter, control groups. They
//! tell whose it is, so that the next agent finds what one that was killed has left. What is not called
//! so is never touched.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::process::start_time;

/// What they begin with.
pub(crate) const PREFIX: &str = "sraft_agent_";

/// A name that nobody has used: process id and start time of this agent, and a number.
pub(crate) fn new() -> Result<String, String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    let start = start_time(pid).ok_or("cannot read /proc/self/stat; is /proc mounted?")?;
    Ok(format!("{PREFIX}{pid}_{start}_{nth}"))
}

/// Whether the agent that made it is dead. False for what anybody else has made.
pub(crate) fn is_orphan(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let mut parts = rest.split('_').map(str::parse::<u64>);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Ok(pid)), Some(Ok(start)), Some(Ok(_)), None) => {
            u32::try_from(pid).ok().and_then(start_time) != Some(start)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_dead_agents_have_made_is_an_orphan() {
        let pid = std::process::id();
        let start = start_time(pid).unwrap();
        assert!(!is_orphan(&format!("sraft_agent_{pid}_{start}_0")), "it lives");
        assert!(is_orphan(&format!("sraft_agent_{pid}_{}_0", start + 1)), "another process");
        assert!(is_orphan(&format!("sraft_agent_{}_{start}_3", u32::MAX)), "no process");
        for others in ["filter", "sraft_agent_", "sraft_agent_1_2", "sraft_agent_x_1_0", "sraft"] {
            assert!(!is_orphan(others), "{others}");
        }
    }
}
