//! The clocks of the hosts. On one machine there is one, and nothing of this is needed.

use sraft_agent::{
    clock,
    protocol::{Answer, Call},
};
use sraft_events::{Event, NodeId, Record, Source};
use sraft_report::clocks::{Clocks, HARNESS};

use super::{Cluster, Halt};

/// How often the harness compares its own clock with the reference's each time. Its clock only
/// says which records belong to a trial.
const PINGS: u32 = 3;

impl Cluster {
    /// Has the reference answer, and makes sure that everybody can ask: an experiment whose clocks
    /// cannot be compared is better not begun.
    pub(super) fn engage_clocks(&mut self) -> Result<(), Halt> {
        let all = self.hosts.len();
        self.lean_on(0)?;
        self.measure(all).map(drop)
    }

    /// Makes the first host that is not struck the one whose clock is everybody's and on which the
    /// probe runs: one that is reset has no clock meanwhile. For a trial to come.
    pub(crate) fn lean_on_others(&mut self, struck: &[NodeId]) -> Result<(), Halt> {
        let used = self.hosts.len().min(self.membership.nodes.len());
        let spared = |host: &usize| struck.iter().all(|node| self.host_of(*node) != *host);
        match (0..used).find(spared) {
            Some(host) => self.lean_on(host),
            None => Err(Halt::Stuck("no host is spared, so nobody could watch".to_owned())),
        }
    }

    fn lean_on(&mut self, host: usize) -> Result<(), Halt> {
        self.compared.clear();
        let Some(at) = self.hosts[host].clock_address() else { return Ok(()) };
        if self.reference != host {
            self.view.forget_times();
        }
        self.reference = host;
        self.ask_all(vec![(host, Call::AnswerClocks { at })]).map(drop)
    }

    /// Compares the clocks of all hosts that the cluster uses, and records it.
    pub(crate) fn compare_clocks(&mut self) -> Result<(), Halt> {
        if !self.is_remote() {
            return Ok(());
        }
        let size = self.membership.nodes.len();
        for event in self.measure(size.min(self.hosts.len()))? {
            self.record(event);
        }
        Ok(())
    }

    /// Compares the clocks of the first hosts.
    fn measure(&mut self, hosts: usize) -> Result<Vec<Event>, Halt> {
        let reference = self.reference;
        let Some(with) = self.hosts[reference].clock_address() else { return Ok(Vec::new()) };
        let compare = |agent| (agent, Call::CompareClocks { with: with.clone() });
        let others: Vec<usize> = (0..hosts).filter(|host| *host != reference).collect();
        let answers = self.ask_all(others.iter().copied().map(compare).collect())?;
        let mut events = vec![self.event(reference, 0, 0)];
        for (host, answer) in others.into_iter().zip(answers) {
            match answer {
                Answer::Compared(found) => {
                    events.push(self.event(host, found.offset_ns, found.rtt_ns));
                }
                other => {
                    let why = format!("it compared clocks and found {other:?}");
                    return Err(self.lost(host, why));
                }
            }
        }
        events.push(self.measure_own()?);
        self.compared.extend(events.iter().cloned());
        self.clocks = Clocks::of(&self.compared);
        Ok(events)
    }

    /// How the harness's own clock stands to the reference's, by way of the agent's channel.
    fn measure_own(&mut self) -> Result<Event, Halt> {
        let mut best: Option<(u64, i64)> = None;
        for _ in 0..PINGS {
            let before = clock::read().mono_ns;
            let answers = self.ask_all(vec![(self.reference, Call::Ping {})])?;
            let rtt = clock::read().mono_ns - before;
            let Some(Answer::Clocks(there)) = answers.into_iter().next() else {
                return Err(self.lost(self.reference, "it does not know its clocks".to_owned()));
            };
            let middle = i128::from(before) + i128::from(rtt / 2);
            let offset = i64::try_from(i128::from(there.mono_ns) - middle).unwrap_or(i64::MAX);
            best = best.into_iter().chain([(rtt, offset)]).min();
        }
        let (rtt_ns, offset_ns) = best.unwrap_or_default();
        let (host, bound_ns) = (HARNESS.to_owned(), rtt_ns.div_ceil(2));
        let (nodes, boot) = (Vec::new(), None);
        Ok(Event::ClockMeasured { host, nodes, offset_ns, bound_ns, rtt_ns, boot })
    }

    fn event(&self, host: usize, offset_ns: i64, rtt_ns: u64) -> Event {
        let nodes: Vec<NodeId> = (1..=self.membership.nodes.len() as u64)
            .filter(|node| self.host_of(*node) == host)
            .collect();
        let boot = self.boots[host].clone();
        let (host, bound_ns) = (self.hosts[host].name.clone(), rtt_ns.div_ceil(2));
        Event::ClockMeasured { host, nodes, offset_ns, bound_ns, rtt_ns, boot }
    }

    /// The record, stamped in the reference's time as far as that is known by now.
    pub(super) fn placed(&self, record: &Record) -> Record {
        let source = match &record.source {
            // Before the cluster is there, nobody has said which nodes are where.
            Source::Node(node) => Source::Agent(self.hosts[self.host_of(*node)].name.clone()),
            other => other.clone(),
        };
        let at = self.clocks.as_ref().and_then(|c| c.reference_ns(&source, record));
        Record { mono_ns: at.unwrap_or(record.mono_ns), ..record.clone() }
    }

    /// The instant that a record is sorted by. However wrong the harness's clock may be, a trial's
    /// records stand between its beginning and its end.
    pub(super) fn order_ns(&self, record: &Record) -> u64 {
        let Some(clocks) = &self.clocks else { return record.mono_ns };
        let at = self.placed(record).mono_ns;
        match (&record.source, &record.event) {
            (_, Event::TrialEnded { .. }) => u64::MAX,
            (Source::Harness, _) => at.saturating_sub(clocks.harness_bound_ns()),
            _ => at,
        }
    }

    /// What has been recorded, all in the reference's time, the harness's own records as early as
    /// they can have been.
    pub(crate) fn placed_records(&self) -> Vec<Record> {
        let place = |record: &Record| Record { mono_ns: self.order_ns(record), ..record.clone() };
        self.records.iter().map(place).collect()
    }

    /// How wrong spans between two hosts may be, nanoseconds, by the newest comparison.
    pub(crate) fn clock_bounds_ns(&self) -> Vec<u64> {
        let clocks = self.clocks.as_ref();
        let bound = |name: &str| clocks.map_or(0, |clocks| clocks.host_bound_ns(name));
        self.hosts.iter().map(|host| bound(&host.name)).collect()
    }
}
