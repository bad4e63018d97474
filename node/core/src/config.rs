use std::time::Duration;

use sraft_events::NodeId;

use crate::{Span, TimeoutRange};

/// Well below any round trip plus durable write, and still a thousand wake-ups a second.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(1);

/// What one node runs with: flat knobs, with no name of a protocol left in them.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// Every member of the cluster, this node included.
    pub members: Vec<NodeId>,
    /// Interval between heartbeats.
    pub heartbeat: Duration,
    /// Timeout of a node without a rank.
    pub timeout: TimeoutRange,
    /// Timeout of each rank; its length is the number of sub-leaders, none for original Raft.
    pub rank_timeouts: Vec<TimeoutRange>,
    /// A promotion that has no majority by then gives up.
    pub promotion_timeout: Duration,
    /// A leader that no majority has acknowledged for this long steps down.
    pub lease: Duration,
    /// After a certain death, how long each rank waits for the one before it.
    pub stagger: Duration,
    /// Weight of a new sample in the moving average of round trips, in (0, 1].
    pub rtt_alpha: f64,
    /// Whether the certain death of the leader's process is evidence.
    pub connection_evidence: bool,
    /// Whether a node that suspects its leader because of silence asks a pre-vote round before it
    /// stands (dissertation, 9.6).
    pub pre_vote: bool,
    /// Whether a leader that is told to stop hands over first.
    pub handover: bool,
    /// Whether a leader that a majority has lately acknowledged answers reads without asking them
    /// once more: see [`TimingKnobs::read_lease`](crate::TimingKnobs::read_lease).
    pub read_lease: bool,
    /// Most entries in one AppendEntries.
    pub max_append_entries: usize,
    /// Most bytes of commands in one AppendEntries; a single larger entry still goes alone.
    pub max_append_bytes: usize,
    /// Most AppendEntries with entries on their way to one follower.
    pub max_inflight: usize,
    /// Most bytes of a snapshot in one message.
    pub snapshot_chunk_bytes: usize,
    /// How many of the entries that a snapshot covers are kept for followers that are a little
    /// behind. Fewer are kept if they are larger than the snapshot (and than one AppendEntries):
    /// whoever lacks that much gets it sooner with the snapshot.
    pub retained_entries: u64,
    /// The flaw that a test wants to see caught.
    #[cfg(feature = "mutants")]
    pub mutation: Option<crate::Mutation>,
}

/// Why a configuration is refused. The text names the knob and what would be right.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The node is not in its own cluster.
    #[error("node {id} is not among the members {members:?}; give it the id of one of them")]
    NotAMember {
        /// The node.
        id: NodeId,
        /// The members.
        members: Vec<NodeId>,
    },
    /// A member is named twice, which would raise the quorum.
    #[error("member {0} is listed twice; list every node once")]
    DuplicateMember(NodeId),
    /// A timeout is too short for the heartbeat.
    #[error(
        "{knob} may be as short as {}, which is less than two heartbeats of {}: one late \
         heartbeat would depose a healthy leader; raise {knob} or lower heartbeat",
        Span(*timeout), Span(*heartbeat)
    )]
    TimeoutBelowHeartbeats {
        /// The knob.
        knob: &'static str,
        /// Its smallest value.
        timeout: Duration,
        /// The heartbeat interval.
        heartbeat: Duration,
    },
    /// A duration that must not be zero is.
    #[error("{0} is zero; give it a positive duration")]
    Zero(&'static str),
    /// Heartbeats that would leave a node no time for anything else.
    #[error("heartbeat is {}, and a node would do nothing else; make it 1ms or longer", Span(*.0))]
    HeartbeatTooShort(Duration),
    /// A number is out of its range.
    #[error("{knob} = {value} is out of range; it must be {range}")]
    OutOfRange {
        /// The knob.
        knob: &'static str,
        /// What was given.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
}

impl Config {
    /// Number of sub-leaders that a leader designates.
    pub fn sub_leaders(&self) -> usize {
        self.rank_timeouts.len()
    }

    /// Votes, or acknowledgements, that make a majority.
    pub fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The smallest timeout in use: who has heard the leader within it holds it for alive.
    pub fn smallest_timeout(&self) -> Duration {
        self.rank_timeouts.iter().map(|r| r.min).fold(self.timeout.min, Duration::min)
    }

    /// The configuration itself if it can work.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn validated(self) -> Result<Config, ConfigError> {
        if !self.members.contains(&self.id) {
            return Err(ConfigError::NotAMember { id: self.id, members: self.members });
        }
        let mut members = self.members.clone();
        members.sort_unstable();
        if let Some(pair) = members.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError::DuplicateMember(pair[0]));
        }
        let positive = [
            ("heartbeat", self.heartbeat),
            ("promotion_timeout", self.promotion_timeout),
            ("stagger", self.stagger),
        ];
        if let Some((knob, _)) = positive.iter().find(|(_, value)| value.is_zero()) {
            return Err(ConfigError::Zero(knob));
        }
        if self.heartbeat < SHORTEST_HEARTBEAT {
            return Err(ConfigError::HeartbeatTooShort(self.heartbeat));
        }
        let plain =
            if self.rank_timeouts.is_empty() { "election_timeout" } else { "follower_timeout" };
        let ranks = self.rank_timeouts.first().map(|range| ("rank_timeout", range.min));
        for (knob, timeout) in
            [(plain, self.timeout.min), ("lease", self.lease)].into_iter().chain(ranks)
        {
            if timeout < self.heartbeat * 2 {
                let heartbeat = self.heartbeat;
                return Err(ConfigError::TimeoutBelowHeartbeats { knob, timeout, heartbeat });
            }
        }
        if !(self.rtt_alpha > 0.0 && self.rtt_alpha <= 1.0) {
            return Err(ConfigError::OutOfRange {
                knob: "rtt_alpha",
                value: self.rtt_alpha,
                range: "above 0 and at most 1",
            });
        }
        Ok(self)
    }
}
