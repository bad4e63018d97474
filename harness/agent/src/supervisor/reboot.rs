//! The reset of this very host: everything is ready and everybody told before it happens.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use sraft_events::{Event, FaultAction, NodeId};

use super::Supervisor;
use crate::{
    AgentError, clock,
    protocol::{Answer, Clocks, REBOOT_TOLD_BEFORE, Said},
    reboot::Reset,
};

impl<W: AsFd> Supervisor<W> {
    pub(super) fn arm_reboot(&mut self, spared: &[String]) -> Result<Answer, String> {
        self.reset = None; // before there is another
        self.reset = Some(Reset::arm(spared, self.host()?.directory.path())?);
        Ok(Answer::Ok)
    }

    /// Answers the request, and resets the host. Returns only if that has failed, with the reason.
    pub(super) fn reboot(&mut self, id: u64, nodes: &[NodeId]) -> Result<String, AgentError> {
        let Some(reset) = self.reset.take() else {
            return Ok("no reset was armed, so nothing was done".to_owned());
        };
        let now = clock::read();
        let before = u64::try_from(REBOOT_TOLD_BEFORE.as_nanos()).unwrap_or(u64::MAX);
        let at = Clocks { mono_ns: now.mono_ns + before, wall_ns: now.wall_ns + before };
        for &node in nodes {
            let pid = self.pid_of(node);
            self.record(at, Event::FaultApplied { node, pid, action: FaultAction::Reboot });
        }
        self.pending.push(Said::Done { id, answer: Answer::Ok });
        let in_time = Instant::now() + REBOOT_TOLD_BEFORE;
        self.deliver()?;
        if !self.write_until(in_time)? {
            return Ok("the harness does not listen, so the host was not reset".to_owned());
        }
        // The stamp is of an instant to come; there is nothing that could be awaited in its place.
        let left = at.mono_ns.saturating_sub(clock::read().mono_ns);
        std::thread::sleep(Duration::from_nanos(left));
        Ok(reset.strike())
    }
}
