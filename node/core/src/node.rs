use crate::*;

/// What a node is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks whether it could win.
    PreCandidate,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub id: NodeId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader it knows, itself included.
    pub leader: Option<NodeId>,
    /// Its rank among the sub-leaders.
    pub rank: Option<u32>,
    /// Its commit index.
    pub commit: Index,
    /// Index of the last entry of its log.
    pub last_index: Index,
    /// Whether it leads and its no-op has committed.
    pub ready: bool,
}

/// One node of a cluster.
#[derive(Debug)]
pub struct Node {
    config: Config,
}

impl Node {
    /// A node that starts, or starts again, with what was durable.
    pub fn new(config: Config, restored: Restored, seed: u64, now: Time) -> Node {
        let _ = (restored, seed, now);
        Node { config }
    }
    /// Takes an input in.
    pub fn handle(&mut self, now: Time, input: Input) {
        let _ = (now, input);
    }
    /// When [`Input::Timeout`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        None
    }
    /// What the driver has to do now.
    pub fn take_output(&mut self) -> Output {
        Output::default()
    }
    /// What the node says of itself.
    pub fn status(&self) -> Status {
        let _ = &self.config;
        unreachable!()
    }
}
