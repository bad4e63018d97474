//! A leader's view of one follower.

use std::collections::{BTreeMap, VecDeque};

use sraft_events::Index;

use super::MISSED_HEARTBEATS;
use crate::{Snapshot, Time};

/// A leader's view of one follower.
#[derive(Clone, Debug)]
pub(crate) struct Follower {
    /// Highest index known to be durable there and to agree.
    pub match_index: Index,
    pub next_index: Index,
    /// Whether the leader is still looking for the point where the logs agree: then one message
    /// at a time, else as many as the window holds.
    pub probing: bool,
    pub probe_sent: bool,
    /// Messages with entries that have not been answered, and the last index of each.
    pub inflight: BTreeMap<u64, Index>,
    pub next_seq: u64,
    pub heartbeats: VecDeque<(u64, Time)>,
    pub unanswered: u32,
    pub last_reply: Option<Time>,
    /// Moving average of the round trip, in nanoseconds.
    pub rtt: Option<f64>,
    /// Connected, answering, and once caught up with the commit index.
    pub synced: bool,
    /// When the latest heartbeat was sent that it has answered.
    pub acknowledged: Option<Time>,
    /// The snapshot on its way there. Until it has arrived nothing else is replicated.
    pub sending: Option<Box<Sending>>,
    /// The follower is to hear at once that this index has committed; 0 if it waits for nothing.
    pub awaits: Index,
    /// The highest commit index that it was sent and could make use of.
    pub told: Index,
}

/// A snapshot on its way to a follower.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Sending {
    pub snapshot: Snapshot,
    /// So many bytes from its beginning have arrived, as the answer with this number says.
    pub acked: u64,
    pub acked_seq: u64,
    /// So many bytes have been sent.
    pub sent: u64,
    /// When the follower last got on.
    pub progress: Time,
}

impl Sending {
    pub(crate) fn new(snapshot: Snapshot, now: Time) -> Sending {
        Sending { snapshot, acked: 0, acked_seq: 0, sent: 0, progress: now }
    }

    pub(crate) fn size(&self) -> u64 {
        self.snapshot.data.len() as u64
    }
}

impl Follower {
    pub(crate) fn new(next_index: Index) -> Follower {
        Follower {
            match_index: 0,
            next_index,
            probing: true,
            probe_sent: false,
            inflight: BTreeMap::new(),
            next_seq: 1,
            heartbeats: VecDeque::new(),
            unanswered: 0,
            last_reply: None,
            rtt: None,
            synced: false,
            acknowledged: None,
            sending: None,
            awaits: 0,
            told: 0,
        }
    }

    /// Starts to look for the point of agreement again. With a snapshot on its way there is none
    /// before the snapshot's end.
    pub(crate) fn probe_from(&mut self, next_index: Index) {
        let end = self.sending.as_ref().map(|sending| sending.snapshot.last_index + 1);
        self.next_index = end.unwrap_or(next_index.max(self.match_index + 1));
        self.probing = true;
        self.probe_sent = false;
        self.inflight.clear();
    }

    /// Whether it answers.
    pub(crate) fn responsive(&self) -> bool {
        self.unanswered <= MISSED_HEARTBEATS
    }

    /// Takes the answer to a heartbeat as a sample of the round trip. Only heartbeats count: the
    /// answer to an append waits for the follower's disk.
    pub(crate) fn sample(&mut self, seq: u64, now: Time, alpha: f64) -> bool {
        let Some(position) = self.heartbeats.iter().position(|&(sent, _)| sent == seq) else {
            return false;
        };
        let (_, sent_at) = self.heartbeats[position];
        self.heartbeats.drain(..=position);
        self.acknowledged = self.acknowledged.max(Some(sent_at));
        let sample = now.since(sent_at).as_nanos() as f64;
        self.rtt = Some(self.rtt.map_or(sample, |rtt| rtt + alpha * (sample - rtt)));
        true
    }
}
