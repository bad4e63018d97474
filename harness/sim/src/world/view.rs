//! What can be seen of a world from outside.

use super::*;

impl World {
    /// The present instant, nanoseconds from the start of the run on a clock without error.
    pub fn now(&self) -> Time {
        Time::from_nanos(self.now)
    }

    /// The nodes, by id from 1; a node that does not run is absent.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, Option<&Node>)> {
        self.hosts.iter().enumerate().map(|(index, host)| (index as NodeId + 1, host.node.as_ref()))
    }

    /// A node, if it runs (or stands still).
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.hosts.get((id as usize).checked_sub(1)?)?.node.as_ref()
    }

    /// What of a node's state is durable: term, vote, and the log as far as no snapshot covers it.
    pub fn durable_state(&self, id: NodeId) -> Option<(HardState, &[Entry])> {
        let disk = &self.hosts.get((id as usize).checked_sub(1)?)?.disk;
        Some((disk.hard_state, &disk.entries))
    }

    /// The leader of the highest term that is ready to serve, if there is one.
    pub fn serving(&self) -> Option<NodeId> {
        let live = self.hosts.iter().filter(|host| !host.paused).filter_map(|h| h.node.as_ref());
        let ready = live.map(Node::status).filter(|status| status.ready);
        ready.max_by_key(|status| status.term).map(|status| status.id)
    }

    /// When the oldest read was asked that a node has not answered yet, be it that it has to be
    /// asked again (nothing without checking).
    pub fn unanswered_since(&self) -> Option<Time> {
        self.checker.as_ref().and_then(Checker::unanswered_since)
    }

    /// The node that leads in the highest term, ready or not.
    pub fn leader(&self) -> Option<NodeId> {
        let live = self.hosts.iter().filter_map(|host| host.node.as_ref());
        let leaders = live.map(Node::status).filter(|status| status.role == Role::Leader);
        leaders.max_by_key(|status| status.term).map(|status| status.id)
    }

    /// The last election won.
    pub fn elected(&self) -> Option<Milestone> {
        self.elected
    }

    /// The last leader whose no-op committed.
    pub fn ready(&self) -> Option<Milestone> {
        self.ready
    }

    /// The last leader of whom every live node has accepted a message, and when the last one did.
    pub fn announced(&self) -> Option<Milestone> {
        self.announced
    }

    /// What the run adds up to so far.
    pub fn tally(&self) -> Tally {
        let applied = || {
            let running = self.hosts.iter().filter(|host| host.node.is_some());
            running.map(|host| host.application.applied).max().unwrap_or(0)
        };
        let committed = self.checker.as_ref().map_or_else(applied, Checker::committed);
        Tally { committed, ..self.tally }
    }

    /// The records that are kept and have not been taken yet.
    pub fn records(&self) -> &[Record] {
        self.recorder.as_ref().map_or(&[], Recorder::records)
    }

    /// The records so far, if they are kept; they are handed over only once.
    pub fn take_records(&mut self) -> Vec<Record> {
        self.recorder.as_mut().map(Recorder::take).unwrap_or_default()
    }

    /// What clients asked and were told, if it is kept: every write, and the reads that were
    /// served, in the order in which they were asked.
    pub fn history(&self) -> Vec<ClientOp> {
        self.clients.as_ref().map(Clients::history).unwrap_or_default()
    }

    /// The account of the last events, if one is kept.
    pub fn trace(&self) -> String {
        self.trace.as_ref().map(Trace::to_string).unwrap_or_default()
    }

    /// From now on messages are lost and duplicated with these probabilities.
    ///
    /// # Panics
    /// If one of them is no probability.
    pub fn set_noise(&mut self, loss: f64, duplication: f64) {
        assert!((0.0..=1.0).contains(&loss) && (0.0..=1.0).contains(&duplication));
        (self.loss, self.duplication) = (loss, duplication);
    }

    /// Mends whatever is broken: links, disks, processes that stand still or are dead; nothing is
    /// lost or duplicated any more.
    ///
    /// # Errors
    /// As [`World::run_until`].
    pub fn heal(&mut self) -> Result<(), Box<Violation>> {
        self.set_noise(0.0, 0.0);
        let all: Vec<NodeId> = (1..=self.hosts.len() as NodeId).collect();
        self.cut.fill(false);
        for &node in &all {
            self.strike(Fault::MendDisk(node))?;
            self.strike(Fault::Resume(node))?;
            self.strike(Fault::Restart(node))?;
        }
        (0..self.hosts.len()).for_each(|index| self.redial_all(index));
        Ok(())
    }

    pub(super) fn describe(&self) -> Vec<String> {
        let line = |(index, host): (usize, &Host)| {
            let disk = &host.disk;
            let last = disk.last();
            let durable = format!(
                "durable: term {} vote {} snapshot {} last {}@{}",
                disk.hard_state.term,
                disk.hard_state.voted_for.map_or("none".to_owned(), |vote| vote.to_string()),
                disk.covered(),
                last.0,
                last.1
            );
            let Some(node) = &host.node else {
                return format!("{}: dead (life {}); {durable}", index + 1, host.life);
            };
            let status = node.status();
            format!(
                "{}: {:?}{} term {} leader {} rank {} commit {} log {} to {}@{}; {durable}",
                index + 1,
                status.role,
                if host.paused { " (paused)" } else { "" },
                status.term,
                status.leader.map_or("none".to_owned(), |leader| leader.to_string()),
                status.rank.map_or("none".to_owned(), |rank| rank.to_string()),
                status.commit,
                status.first_index,
                status.last_index,
                node.log().last_term(),
            )
        };
        self.hosts.iter().enumerate().map(line).collect()
    }
}
