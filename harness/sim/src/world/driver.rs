//! The driver's duties, in the order of the core's contract, and the network behind them.

use super::*;

impl World {
    /// Carries out what a node wants, in the order of the core's contract.
    pub(super) fn carry_out(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let Some(node) = &mut host.node else { return };
        let mut output = node.take_output();
        if let Some(checker) = &mut self.checker {
            let breach = checker.after(&self.hosts, index, &output);
            self.found(breach);
        }
        if let Some(persist) = output.persist.take() {
            self.hosts[index].disk.enqueue(persist);
            self.begin_write(index);
        }
        for (_, event) in output.events {
            self.observe(index, event);
        }
        for envelope in output.messages {
            self.send(index, envelope.to as usize - 1, envelope.message);
        }
        let application = &mut self.hosts[index].application;
        if let Some(snapshot) = &output.install {
            let state = Application::decode(&snapshot.data);
            *application = state.expect("the checker has seen that the snapshot is whole");
            if let Some(clients) = &mut self.clients {
                clients.installed(index, application.digest);
            }
        }
        output.committed.iter().for_each(|entry| application.apply(entry));
        if let Some(clients) = &mut self.clients {
            output.committed.iter().for_each(|entry| clients.applied(index, entry));
            clients.answered(index, &output.reads, application.applied);
        }
        self.tally.reads += output.reads.iter().filter(|read| read.index.is_some()).count() as u64;
        self.serialise_if_due(index);
        self.set_alarm(index);
    }

    /// Takes a snapshot once enough has been applied since the last one. As in the node, that takes
    /// some time, and what has been applied by then is not in it.
    fn serialise_if_due(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let Application { applied, .. } = host.application;
        let due = self.snapshot_entries > 0 && applied >= host.serialised + self.snapshot_entries;
        if !due || host.serialises {
            return;
        }
        host.serialises = true;
        let longest = host.config.snapshot_chunk_bytes.min(1 << 10) * 4;
        let padding = self.rng.random_range(0..=longest);
        if let Some(clients) = &mut self.clients {
            clients.serialised(index, host.application.digest);
        }
        let data = host.application.encode(self.rng.random(), padding);
        let (node, life) = (index as u32, host.life);
        let delay = self.samplers.write.draw(&mut self.rng);
        self.after(delay, Happening::Serialised { node, life, index: applied, data });
    }

    /// A client of this node wants to read.
    pub(super) fn read(&mut self, index: usize) {
        if self.hosts[index].node.is_none() {
            return;
        }
        self.asked += 1;
        let id = self.asked;
        if let Some(checker) = &mut self.checker {
            checker.asked(index, id, self.now);
        }
        if let Some(clients) = &mut self.clients {
            clients.read(index, id);
        }
        self.input(index, Input::Read { id });
    }

    /// A client of this node wants to write.
    pub(super) fn propose(&mut self, index: usize) {
        let node = self.hosts[index].node.as_ref();
        // A command that nobody can take is dropped for certain.
        let is_taken = node.is_some_and(|node| node.status().leader.is_some());
        let command = match &mut self.clients {
            Some(clients) if is_taken => clients.write(index),
            _ => vec![b'x'],
        };
        self.input(index, Input::Propose { command });
    }

    pub(super) fn observe(&mut self, index: usize, event: Event) {
        self.note(|| format!("{}: {event:?}", index + 1));
        let (leader, at) = (index as NodeId + 1, self.now());
        match &event {
            Event::Elected { term, campaign, .. } => {
                self.elected = Some(Milestone { leader, term: *term, at });
                self.hosts[index].accepted = *term;
                self.tally.leaders += 1;
                match campaign {
                    sraft_events::CampaignKind::Promotion => self.tally.promotions += 1,
                    sraft_events::CampaignKind::Transfer => self.tally.handovers += 1,
                    sraft_events::CampaignKind::Election => {}
                }
                self.announce();
            }
            Event::LeaderAccepted { term, .. } => {
                self.hosts[index].accepted = *term;
                self.announce();
            }
            Event::SnapshotTaken { .. } => self.tally.snapshots += 1,
            Event::SnapshotInstalled { .. } => self.tally.installs += 1,
            Event::Ready { term, .. } => {
                self.ready = Some(Milestone { leader, term: *term, at });
            }
            _ => {}
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.node(index, self.now, event);
        }
    }

    /// Looks whether every live node knows the leader elected last.
    pub(super) fn announce(&mut self) {
        let Some(elected) = self.elected else { return };
        if self.announced.is_some_and(|known| known.term >= elected.term) {
            return;
        }
        let mut live = self.hosts.iter().filter(|host| host.node.is_some());
        if live.all(|host| host.accepted >= elected.term) {
            self.announced = Some(Milestone { at: self.now(), ..elected });
        }
    }

    pub(super) fn send(&mut self, from: usize, to: usize, message: Message) {
        self.tally.messages += 1;
        let link = self.hosts[from].links[to];
        let connected = self.reordering || link.state == State::Up;
        if !connected
            || self.is_cut(from, to)
            || (self.loss > 0.0 && self.rng.random_bool(self.loss))
        {
            return;
        }
        if self.duplication > 0.0 && self.rng.random_bool(self.duplication) {
            self.post(from, to, message.clone());
        }
        self.post(from, to, message);
    }

    pub(super) fn post(&mut self, from: usize, to: usize, message: Message) {
        let special = self.link_latency.get(from * self.hosts.len() + to).copied().flatten();
        let sampler = match special {
            Some(index) => &self.samplers.links[index as usize].2,
            None => &self.samplers.latency,
        };
        let mut at = self.now + sampler.draw(&mut self.rng);
        let link = &mut self.hosts[from].links[to];
        if !self.reordering {
            at = at.max(link.last_arrival);
            link.last_arrival = at;
        }
        let (from, to, life) = (from as u32, to as u32, link.life);
        self.calendar.schedule(at, Happening::Deliver { from, to, life, message });
    }

    pub(super) fn set_alarm(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.paused {
            return;
        }
        let Some(deadline) = host.node.as_ref().and_then(Node::next_deadline) else { return };
        let at = host.global(deadline).max(self.now);
        if at < host.wake {
            host.wake = at;
            self.calendar.schedule_alarm(at, Happening::Wake { node: index as u32 });
        }
    }

    pub(super) fn after(&mut self, delay: u64, happening: Happening) {
        self.calendar.schedule(self.now.saturating_add(delay), happening);
    }

    pub(super) fn agent(&mut self, index: usize, action: FaultAction) {
        if let Some(recorder) = &mut self.recorder {
            recorder.fault(index, action, self.now);
        }
    }

    pub(super) fn found(&mut self, breach: Result<(), crate::checker::Breach>) {
        if let Err(breach) = breach {
            self.violated(breach.invariant, breach.detail);
        }
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(self.tally.events, Time::from_nanos(self.now), line());
        }
    }
}
