use sraft_core::{Event, NodeId, Term};
use sraft_events::{FaultAction, Record, SCHEMA, Source};

/// Writes what the processes of a live run would have written. All clocks of the records are the
/// simulator's own, which has no error, so the records of all nodes lie on one timeline.
#[derive(Debug)]
pub(crate) struct Recorder {
    members: Vec<NodeId>,
    sub_leaders: usize,
    /// Records written by each node's present process, and by the agent (the last one).
    written: Vec<u64>,
    pids: Vec<u32>,
    records: Vec<Record>,
}

/// The wall clock at the start of every simulation: 1 January 2000, UTC, in nanoseconds.
const EPOCH: u64 = 946_684_800_000_000_000;

/// The name of the agent on whose host all simulated nodes live.
const AGENT: &str = "sim";

impl Recorder {
    pub(crate) fn new(members: &[NodeId], sub_leaders: usize) -> Recorder {
        let (written, pids) = (vec![0; members.len() + 1], vec![0; members.len()]);
        Recorder { members: members.to_vec(), sub_leaders, written, pids, records: Vec::new() }
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    pub(crate) fn node(&mut self, index: usize, now: u64, event: Event) {
        self.write(index, Source::Node(index as NodeId + 1), now, event);
    }

    pub(crate) fn started(
        &mut self,
        index: usize,
        life: u32,
        term: Term,
        last_index: u64,
        now: u64,
    ) {
        let node = index as NodeId + 1;
        self.pids[index] = self.pid(index, life);
        self.agent(now, Event::ProcessStarted { node, pid: self.pids[index] });
        self.written[index] = 0;
        let started = Event::NodeStarted {
            node,
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: AGENT.to_owned(),
            boot_id: self.pids[index].into(),
            pid: self.pids[index],
            members: self.members.clone(),
            sub_leaders: self.sub_leaders as u32,
            term,
            last_index,
        };
        self.node(index, now, started);
    }

    pub(crate) fn connected(&mut self, index: usize, peer: usize, life: u32, now: u64) {
        let boot_id = self.pid(peer, life).into();
        self.node(index, now, Event::PeerConnected { peer: peer as NodeId + 1, boot_id });
    }

    pub(crate) fn fault(&mut self, index: usize, action: FaultAction, now: u64) {
        let (node, pid) = (index as NodeId + 1, self.pids[index]);
        self.agent(now, Event::FaultApplied { node, pid, action });
    }

    pub(crate) fn exited(&mut self, index: usize, now: u64) {
        const SIGKILL: i32 = 9;
        let (node, pid) = (index as NodeId + 1, self.pids[index]);
        self.agent(now, Event::ProcessExited { node, pid, code: None, signal: Some(SIGKILL) });
    }

    /// Every process has its own number, which is its boot id as well.
    fn pid(&self, index: usize, life: u32) -> u32 {
        life * (self.members.len() as u32 + 1) + index as u32 + 1
    }

    fn agent(&mut self, now: u64, event: Event) {
        self.write(self.members.len(), Source::Agent(AGENT.to_owned()), now, event);
    }

    fn write(&mut self, writer: usize, source: Source, now: u64, event: Event) {
        let seq = self.written[writer];
        self.written[writer] += 1;
        let wall_ns = EPOCH.saturating_add(now);
        self.records.push(Record { source, seq, mono_ns: now, wall_ns, event });
    }
}
