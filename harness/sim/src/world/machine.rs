//! What happens to the machines: processes that die, start and stand still, disks that write.

use super::*;

impl World {
    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Deliver { from, to, life, message } => {
                let (from, to) = (from as usize, to as usize);
                // A datagram finds whatever process is there; a connection leads to one process.
                let reaches = self.reordering || self.hosts[to].life == life;
                if reaches && !self.is_cut(from, to) {
                    self.note(|| format!("{} -> {}: {message:?}", from + 1, to + 1));
                    self.input(to, Input::Message { from: from as NodeId + 1, message });
                }
            }
            Happening::Durable { node, serial } => self.durable(node as usize, serial),
            Happening::Wake { node } => self.wake(node as usize),
            Happening::Serialised { node, life, index, data } => {
                let host = &mut self.hosts[node as usize];
                if host.life == life && host.node.is_some() {
                    host.serialises = false;
                    host.serialised = host.serialised.max(index);
                    self.input(node as usize, Input::Snapshot { index, data });
                }
            }
            Happening::Close { node, peer, life } => {
                let (node, peer) = (node as usize, peer as usize);
                let known = self.hosts[node].links[peer].life == life;
                if self.hosts[node].node.is_none() || !known || self.is_separated(node, peer) {
                    return;
                }
                let input = self.hosts[node].links[peer].closed(peer as NodeId + 1);
                self.tell(node, input);
                let delay = self.samplers.refused.draw(&mut self.rng);
                self.dial_after(delay, node, peer);
            }
            Happening::Dial { node, peer } => self.dial(node as usize, peer as usize),
            Happening::Fault(fault) => self.fault(fault),
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.note(|| format!("fault: {fault:?}"));
        let index = |node: NodeId| node as usize - 1;
        match fault {
            Fault::Crash(node) => self.crash(index(node)),
            Fault::Restart(node) => self.restart(index(node)),
            Fault::Pause(node) => {
                let host = &mut self.hosts[index(node)];
                if host.runs() {
                    host.paused = true;
                    self.agent(index(node), FaultAction::Pause);
                }
            }
            Fault::Resume(node) => self.resume(index(node)),
            Fault::Cut(cut) => self.set_cut(&cut, true),
            Fault::Isolate(node) => {
                self.agent(index(node), FaultAction::Isolate);
                let all = 1..=self.hosts.len() as NodeId;
                let to = all.filter(|other| *other != node).collect();
                self.set_cut(&Cut { from: vec![node], to, both_ways: true }, true);
            }
            Fault::Mend(cut) => self.set_cut(&cut, false),
            Fault::Disconnect(a, b) => {
                for (node, peer) in [(index(a), index(b)), (index(b), index(a))] {
                    if self.hosts[node].node.is_some() && !self.is_separated(node, peer) {
                        let input = self.hosts[node].links[peer].closed(peer as NodeId + 1);
                        self.tell(node, input);
                        self.redial(node, peer);
                    }
                }
            }
            Fault::SlowDisk(node, factor) => self.hosts[index(node)].disk.factor = factor.into(),
            Fault::StallDisk(node) => self.hosts[index(node)].disk.stalled = true,
            Fault::MendDisk(node) => {
                let host = &mut self.hosts[index(node)];
                host.disk.factor = 1;
                if std::mem::take(&mut host.disk.stalled) {
                    // A write that was held up ends now; else one may begin.
                    if host.disk.writing().is_empty() {
                        self.begin_write(index(node));
                    } else {
                        let serial = host.disk.next_serial();
                        let delay = self.samplers.write.draw(&mut self.rng);
                        let node = index(node) as u32;
                        self.after(delay, Happening::Durable { node, serial });
                    }
                }
            }
            Fault::Propose(node) => self.propose(index(node)),
            Fault::Read(node) => self.read(index(node)),
            Fault::Transfer(node) => {
                self.agent(index(node), FaultAction::Stop);
                self.input(index(node), Input::Transfer);
            }
        }
    }

    pub(super) fn boot(&mut self, index: usize) {
        let (seed, now) = (self.rng.random(), self.now);
        let host = &mut self.hosts[index];
        host.life += 1;
        host.paused = false;
        host.links.fill(Link::NEW);
        host.wake = u64::MAX;
        host.accepted = 0;
        #[cfg(feature = "mutants")]
        if self.forgets_votes {
            host.disk.hard_state.voted_for = None;
        }
        let hard_state = host.disk.hard_state;
        let snapshot = host.disk.snapshot.clone();
        let mut entries = host.disk.entries.clone();
        let (last_index, _) = host.disk.last();
        host.application = Application::default();
        host.serialises = false;
        if let Some(snapshot) = &snapshot {
            let state = Application::decode(&snapshot.data);
            host.application = state.expect("what is durable is whole");
            if self.rng.random_bool(0.5) {
                // A store need not read more than what follows the snapshot.
                entries.retain(|entry| entry.index > snapshot.last_index);
            }
        }
        host.serialised = host.application.applied;
        let restored = Restored { hard_state, snapshot, entries };
        let node = Node::new(host.config.clone(), restored, seed, host.local(now));
        host.node = Some(node);
        if let Some(recorder) = &mut self.recorder {
            recorder.started(index, host.life, hard_state.term, last_index, now);
        }
        if let Some(clients) = &mut self.clients {
            let Application { applied, digest } = host.application;
            clients.started(index, (applied > 0).then_some(digest));
        }
        if let Some(checker) = &mut self.checker {
            checker.started(index, hard_state, host.application.applied);
        }
    }

    pub(super) fn restart(&mut self, index: usize) {
        if self.hosts[index].node.is_some() {
            return;
        }
        self.boot(index);
        self.carry_out(index);
        self.redial_all(index);
    }

    pub(super) fn crash(&mut self, index: usize) {
        if self.hosts[index].node.is_none() {
            return;
        }
        self.agent(index, FaultAction::Kill);
        // What the disk was writing may or may not have got there; it is one write, so all of it.
        let survives = self.rng.random_bool(0.5);
        let (now, life) = (self.now, self.hosts[index].life);
        self.hosts[index].disk.lose_queue();
        if survives && !self.hosts[index].disk.stalled {
            self.written(index);
        } else {
            self.hosts[index].disk.lose_group();
        }
        let host = &mut self.hosts[index];
        host.node = None;
        host.paused = false;
        host.inbox.clear();
        if let Some(recorder) = &mut self.recorder {
            recorder.exited(index, now);
        }
        for peer in (0..self.hosts.len()).filter(|peer| *peer != index) {
            let link = self.hosts[peer].links[index];
            if link.state != State::Up || link.life != life {
                continue;
            }
            let delay = self.samplers.closed.draw(&mut self.rng);
            // On a connection the end comes after all that was sent before.
            let mut at = now + delay;
            if !self.reordering {
                at = at.max(self.hosts[index].links[peer].last_arrival);
            }
            let (node, peer) = (peer as u32, index as u32);
            self.calendar.schedule(at, Happening::Close { node, peer, life });
        }
        self.announce();
    }

    pub(super) fn resume(&mut self, index: usize) {
        let now = self.now;
        if !self.hosts[index].paused {
            return;
        }
        self.agent(index, FaultAction::Resume);
        let host = &mut self.hosts[index];
        host.paused = false;
        let local = host.local(now);
        let inbox = std::mem::take(&mut host.inbox);
        let node = host.node.as_mut().expect("a paused process exists");
        // Taken in as one batch, as a driver does that finds its sockets full.
        for input in inbox {
            node.handle(local, input);
        }
        self.carry_out(index);
        self.timeout_if_due(index);
        self.redial_all(index);
    }

    /// Makes what the disk was writing durable, under the checker's eyes.
    pub(super) fn written(&mut self, index: usize) -> Option<u64> {
        let breach = match &mut self.checker {
            Some(checker) => checker.writing(&self.hosts, index),
            None => Ok(()),
        };
        let ticket = self.hosts[index].disk.finish();
        self.found(breach);
        ticket
    }

    pub(super) fn durable(&mut self, index: usize, serial: u64) {
        let disk = &self.hosts[index].disk;
        if disk.serial != serial || disk.stalled {
            return;
        }
        if let Some(ticket) = self.written(index) {
            self.note(|| format!("{}: durable up to #{ticket}", index + 1));
            self.input(index, Input::Persisted { ticket });
        }
        self.begin_write(index);
    }

    pub(super) fn begin_write(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.disk.begin() {
            let (serial, factor) = (host.disk.next_serial(), host.disk.factor);
            let delay = self.samplers.write.draw(&mut self.rng).saturating_mul(factor);
            self.after(delay, Happening::Durable { node: index as u32, serial });
        }
    }

    pub(super) fn wake(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.wake != self.now {
            return;
        }
        host.wake = u64::MAX;
        self.timeout_if_due(index);
    }

    pub(super) fn timeout_if_due(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if !host.runs() {
            return;
        }
        let local = host.local(self.now);
        let node = host.node.as_mut().expect("it runs");
        if node.next_deadline().is_some_and(|deadline| deadline <= local) {
            node.handle(local, Input::Timeout);
            self.note(|| format!("{}: timeout", index + 1));
            self.carry_out(index);
        } else {
            self.set_alarm(index);
        }
    }

    pub(super) fn input(&mut self, index: usize, input: Input) {
        let host = &mut self.hosts[index];
        let local = host.local(self.now);
        let Some(node) = &mut host.node else { return };
        if host.paused {
            host.inbox.push(input);
        } else {
            node.handle(local, input);
            self.carry_out(index);
        }
    }
}
