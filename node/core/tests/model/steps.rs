//! One step: an input to one node, and what its driver makes of the output.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use sraft_core::{Input, Node, NodeId, Output, Role};
use sraft_events::LossCause;
use stateright::{Model, Property};

use crate::{
    cluster::{Action, Bounds, Budget, Flight, MEMBERS, Member, State, slot},
    promises::{self, Broken},
};

impl Bounds {
    /// Gives a node its inputs, does its driver's duties, and returns what is sent.
    pub(crate) fn feed(&self, state: &mut State, id: NodeId, inputs: Vec<Input>) -> Vec<Flight> {
        let mut sent = Vec::new();
        for input in inputs {
            let mut next = Some(input);
            while let Some(input) = next.take() {
                match self.handle(state, id, input) {
                    Ok((flights, ticket)) => {
                        sent.extend(flights);
                        next = ticket.map(|ticket| Input::Persisted { ticket });
                    }
                    Err(broken) => {
                        state.broken = state.broken.or(Some(broken));
                        return sent;
                    }
                }
            }
        }
        sent
    }

    /// One input. Returns what is sent, and the ticket of what was made durable at once.
    fn handle(
        &self,
        state: &mut State,
        id: NodeId,
        input: Input,
    ) -> Result<(Vec<Flight>, Option<u64>), Broken> {
        let before = state.members[slot(id)].clone();
        let now = self.now();
        let step = || -> (Node, Output) {
            let mut node = before.node.as_ref().clone();
            node.handle(now, input);
            let output = node.take_output();
            (node, output)
        };
        // The core stops when a message proves that safety is gone: a finding like any other.
        let (node, output) =
            catch_unwind(AssertUnwindSafe(step)).map_err(|_| Broken::CoreStopped)?;
        let mut disk = Arc::clone(&before.disk);
        let mut durable_now = None;
        if let Some(persist) = output.persist {
            let disk = Arc::make_mut(&mut disk);
            if self.instant_disk {
                durable_now = Some(persist.ticket);
                state.truncated |= disk.apply(persist)?;
            } else {
                disk.writes.push_back(persist);
            }
        }
        promises::steps_forward(&before.node, &node)?;
        for (_, event) in &output.events {
            promises::event(state, &node, event)?;
        }
        for envelope in &output.messages {
            // What this very step hands to the disk covers no message yet.
            promises::covered(&before.disk, envelope)?;
        }
        if let Some(snapshot) = &output.install {
            promises::installed(state, snapshot)?;
        }
        promises::applied(state, &node, &output.committed)?;
        for reply in output.reads {
            promises::read(state, &node, reply)?;
        }
        state.members[slot(id)] = Member::new(node, disk);
        let flights = output.messages.into_iter();
        let flights = flights.map(|envelope| Flight::new(id, envelope.to, envelope.message));
        Ok((flights.collect(), durable_now))
    }

    fn possible(&self, state: &State, id: NodeId, actions: &mut Vec<Action>) {
        let Member { node, disk, .. } = &state.members[slot(id)];
        let Budget {
            suspicions, heartbeats, proposals, handovers, crashes, snapshots, reads, ..
        } = state.left;
        let status = node.status();
        let due = node.next_deadline().is_some_and(|deadline| deadline <= self.now());
        if !disk.writes.is_empty() {
            actions.push(Action::Persisted(id));
        }
        if crashes > 0 {
            actions.push(Action::Crash(id));
        }
        if reads > 0 && status.leader.is_some() {
            actions.push(Action::Read(id));
        }
        let covered = node.snapshot().map_or(0, |snapshot| snapshot.last_index);
        if snapshots > 0 && status.commit > covered {
            actions.push(Action::Snapshot(id));
        }
        if status.role == Role::Leader {
            if heartbeats > 0 && due {
                actions.push(Action::Timeout(id));
            }
            if proposals > 0 {
                actions.push(Action::Propose(id));
            }
            if handovers > 0 {
                actions.push(Action::HandOver(id));
            }
            return;
        }
        let follows = status.role == Role::Follower && status.leader.is_some();
        if suspicions > 0 && self.connection_evidence && follows {
            actions.push(Action::Suspect(id));
            if self.doubts {
                actions.push(Action::Close(id));
            }
        } else if suspicions > 0 && due {
            actions.push(Action::Timeout(id));
        }
    }

    /// Loses a connection to the leader, with what is known about it, and has it back at once.
    fn lose_leader(&self, state: &mut State, id: NodeId, cause: LossCause) -> Vec<Flight> {
        let Some(peer) = state.members[slot(id)].node.status().leader else { return Vec::new() };
        let back = Input::PeerBack { peer, same_process: cause == LossCause::Closed };
        self.feed(state, id, vec![Input::PeerLost { peer, cause }, back])
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first_state()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        let mut last = None;
        for flight in &state.flights {
            if last.replace(flight.digest) == Some(flight.digest) {
                continue;
            }
            actions.push(Action::Deliver(flight.clone()));
            if state.left.duplicates > 0 {
                actions.push(Action::Duplicate(flight.clone()));
            }
        }
        for id in MEMBERS {
            self.possible(state, id, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let left = &mut state.left;
        let sent = match action {
            Action::Deliver(flight) => {
                let place = state.flights.iter().position(|f| f.digest == flight.digest)?;
                state.flights.remove(place);
                self.feed(&mut state, flight.to, vec![flight.arrival()])
            }
            Action::Duplicate(flight) => {
                left.duplicates -= 1;
                self.feed(&mut state, flight.to, vec![flight.arrival()])
            }
            Action::Persisted(id) => {
                let disk = Arc::make_mut(&mut state.members[slot(id)].disk);
                let write = disk.writes.pop_front()?;
                let ticket = write.ticket;
                match disk.apply(write) {
                    Ok(truncated) => state.truncated |= truncated,
                    Err(broken) => state.broken = Some(broken),
                }
                self.feed(&mut state, id, vec![Input::Persisted { ticket }])
            }
            Action::Timeout(id) => {
                if state.members[slot(id)].node.status().role == Role::Leader {
                    left.heartbeats -= 1;
                } else {
                    left.suspicions -= 1;
                }
                self.feed(&mut state, id, vec![Input::Timeout])
            }
            Action::Suspect(id) => {
                left.suspicions -= 1;
                self.lose_leader(&mut state, id, LossCause::Refused)
            }
            Action::Close(id) => {
                left.suspicions -= 1;
                self.lose_leader(&mut state, id, LossCause::Closed)
            }
            Action::Propose(id) => {
                left.proposals -= 1;
                let command = vec![b'a' + left.proposals];
                self.feed(&mut state, id, vec![Input::Propose { command }])
            }
            Action::Read(id) => {
                left.reads -= 1;
                let read = u64::from(left.reads);
                state.reads.insert((id, read), state.committed.len());
                self.feed(&mut state, id, vec![Input::Read { id: read }])
            }
            Action::Snapshot(id) => {
                left.snapshots -= 1;
                let index = state.members[slot(id)].node.status().commit;
                let data = promises::machine(&state, index)?.into();
                self.feed(&mut state, id, vec![Input::Snapshot { index, data }])
            }
            Action::HandOver(id) => {
                left.handovers -= 1;
                self.feed(&mut state, id, vec![Input::Transfer])
            }
            Action::Crash(id) => {
                left.crashes -= 1;
                let mut disk = state.members[slot(id)].disk.as_ref().clone();
                disk.writes.clear();
                let node = self.boot(id, &disk, self.now());
                state.reads.retain(|(asked, _), _| *asked != id);
                state.members[slot(id)] = Member::new(node, Arc::new(disk));
                Vec::new()
            }
        };
        state.flights.extend(sent);
        state.seal();
        (state != *last).then_some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.members.iter().all(|member| member.node.status().term <= self.max_term)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises::properties(self)
    }
}
