//! Faults of processes: signals, and a disk that is filled up. All are stamped, and all strike together.

use std::os::fd::AsFd;

use sraft_events::{Event, FaultAction, NodeId};

use super::Supervisor;
use crate::{clock, own_disk, protocol::Answer, waker::Waker};

impl<W: AsFd> Supervisor<W> {
    pub(super) fn fault(&mut self, actions: &[(NodeId, FaultAction)]) -> Result<Answer, String> {
        self.host()?;
        for (node, _) in actions {
            if self.processes.get(node).is_none_or(|process| process.ended.is_some()) {
                return Err(format!("node {node} does not run, so nothing was done to anyone"));
            }
        }
        for (node, _) in actions.iter().filter(|(_, action)| *action == FaultAction::Pause) {
            let process = self.processes.get_mut(node).expect("looked up above");
            if process.is_adopted() {
                let waker = Waker::of(process.pid());
                process.waker = Some(waker.map_err(|error| {
                    format!("nothing was paused, for nobody could wake node {node}: {error}")
                })?);
            }
        }
        let directory = &self.host()?.directory;
        // Between the first signal and the last there is nothing but the next.
        let mut outcome = Vec::with_capacity(actions.len());
        for (node, action) in actions {
            let process = &self.processes[node];
            let stamp = clock::read();
            outcome.push((
                stamp,
                match action {
                    FaultAction::DiskFull => {
                        own_disk::fill(process.pid(), &directory.node_path(*node))
                            .map(|()| Some(clock::read()))
                    }
                    action => process.act(*action).map(|()| None),
                },
            ));
        }
        let mut failure = None;
        for ((node, action), (stamp, result)) in actions.iter().zip(outcome) {
            match result {
                Ok(in_force) => {
                    let process = self.processes.get_mut(node).expect("looked up above");
                    let ends = matches!(
                        action,
                        FaultAction::Kill | FaultAction::Stop | FaultAction::DiskFull
                    );
                    process.told |= ends;
                    process.paused = match action {
                        FaultAction::Pause => true,
                        FaultAction::Resume => false,
                        _ => process.paused,
                    };
                    process.waker = process.waker.take().filter(|_| process.paused);
                    if let Some(adopted) = self.adopted.get_mut(node) {
                        adopted.ended_by_us |= ends;
                    }
                    let pid = process.pid();
                    self.record(stamp, Event::FaultApplied { node: *node, pid, action: *action });
                    if let Some(stamp) = in_force {
                        let nodes = vec![*node];
                        self.record(stamp, Event::FaultInForce { nodes, action: *action });
                    }
                }
                Err(error) if *action == FaultAction::DiskFull => {
                    failure.get_or_insert(format!("cannot fill the disk of node {node}: {error}"));
                }
                Err(error) => {
                    failure.get_or_insert(format!("cannot {action} node {node}: {error}"));
                }
            }
        }
        failure.map_or(Ok(Answer::Ok), Err)
    }
}
