//! What is simulated: a cluster, its network, disks and clocks, and what is done to it.

use serde::{Deserialize, Serialize};
use sraft_core::{ConfigError, NodeId, Protocol, Span, TimingKnobs};

use crate::distribution::{Distribution, DistributionError, Sampler};

/// A cluster and its surroundings. Nodes are numbered from 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Number of nodes, from 1 to [`MAX_NODES`].
    pub nodes: u32,
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// The timing knobs.
    #[serde(default)]
    pub timing: TimingKnobs,
    /// The network between the nodes.
    #[serde(default)]
    pub network: Network,
    /// How leaders replicate.
    #[serde(default)]
    pub replication: Replication,
    /// The nodes' disks.
    #[serde(default)]
    pub disk: DiskModel,
    /// How fast and how surely nodes learn that a peer's process has died.
    #[serde(default)]
    pub evidence: EvidenceModel,
    /// Nodes whose clocks run too fast or too slow.
    #[serde(default, rename = "clock")]
    pub clocks: Vec<ClockModel>,
    /// What is done to the cluster, and when.
    #[serde(default, rename = "fault")]
    pub faults: Vec<ScheduledFault>,
}

/// Most nodes of a cluster.
pub const MAX_NODES: u32 = 1000;

/// The links between nodes. Without reordering a link is like a TCP connection: what arrives
/// arrives in order, only from the process that it was sent by and only at the process that it was
/// sent to. With reordering it is like datagrams: anything may arrive at any time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// How long a message takes one way.
    pub latency: Distribution,
    /// Links that differ.
    #[serde(rename = "link")]
    pub links: Vec<LinkModel>,
    /// Probability that a message is lost.
    pub loss: f64,
    /// Probability that a message arrives twice.
    pub duplication: f64,
    /// Whether messages may overtake one another.
    pub reordering: bool,
}

/// The latency of one direction between two nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkModel {
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// How long a message takes.
    pub latency: Distribution,
}

/// How much a leader sends at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replication {
    /// Most entries in one message.
    pub max_entries: usize,
    /// Most messages with entries on their way to one follower.
    pub max_inflight: usize,
    /// A node takes a snapshot of its state machine after it has applied so many entries since the
    /// last one; 0 is never.
    pub snapshot_entries: u64,
    /// Most bytes of a snapshot in one message.
    pub snapshot_chunk_bytes: usize,
    /// How many of the entries that a snapshot covers are kept.
    pub retained_entries: u64,
}

/// A disk. Everything that waits when a write ends is made durable together by the next one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiskModel {
    /// How long one durable write takes.
    pub write: Distribution,
}

/// How nodes learn of the death of a process: its connections close, then nobody answers when
/// they dial it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvidenceModel {
    /// From the death until a peer sees its connection close.
    pub closed: Distribution,
    /// From there until a new connection is refused.
    pub refused: Distribution,
    /// From a process's start, or a link's repair, until a connection stands.
    pub connect: Distribution,
}

/// A clock that runs at the wrong rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockModel {
    /// The node.
    pub node: NodeId,
    /// Parts per million that it gains; negative if it loses.
    pub ppm: i32,
}

/// A fault and when it happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduledFault {
    /// From the start of the run.
    pub at: Span,
    /// What happens.
    #[serde(rename = "do")]
    pub fault: Fault,
}

/// What can be done to a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The process dies, and with it all that was not durable.
    Crash(NodeId),
    /// The process starts again with what was durable. Nothing happens if it runs.
    Restart(NodeId),
    /// The process stands still; what arrives for it waits.
    Pause(NodeId),
    /// It goes on: what has arrived comes first, then its overdue timeout.
    Resume(NodeId),
    /// Messages are lost from each of the first nodes to each of the second: one way, both ways,
    /// or one link, as the lists say.
    Cut(Cut),
    /// The node is cut off from every other, both ways.
    Isolate(NodeId),
    /// The opposite of [`Fault::Cut`].
    Mend(Cut),
    /// A connection breaks though both processes live; it is soon back.
    Disconnect(NodeId, NodeId),
    /// Every durable write takes this many times as long.
    SlowDisk(NodeId, u32),
    /// Nothing is made durable any more.
    StallDisk(NodeId),
    /// The disk works as it should again.
    MendDisk(NodeId),
    /// A client proposes a command at this node.
    Propose(NodeId),
    /// A client asks this node for a linearizable read.
    Read(NodeId),
    /// The node is asked to hand leadership over.
    Transfer(NodeId),
}

/// Ordered pairs of nodes: each of `from` with each of `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// The senders.
    pub from: Vec<NodeId>,
    /// The receivers.
    pub to: Vec<NodeId>,
    /// Whether the other direction is meant as well.
    #[serde(default)]
    pub both_ways: bool,
}

impl Default for Model {
    /// Five nodes of one data centre without faults.
    fn default() -> Model {
        Model {
            nodes: 5,
            protocol: Protocol::default(),
            timing: TimingKnobs::default(),
            network: Network::default(),
            replication: Replication::default(),
            disk: DiskModel::default(),
            evidence: EvidenceModel::default(),
            clocks: Vec::new(),
            faults: Vec::new(),
        }
    }
}

impl Default for Network {
    /// 50 to 150 microseconds, nothing lost, TCP.
    fn default() -> Network {
        Network {
            latency: Distribution::uniform_us(50, 150),
            links: Vec::new(),
            loss: 0.0,
            duplication: 0.0,
            reordering: false,
        }
    }
}

impl Default for Replication {
    /// What nodes do that are not simulated, without snapshots.
    fn default() -> Replication {
        Replication {
            max_entries: 1024,
            max_inflight: 64,
            snapshot_entries: 0,
            snapshot_chunk_bytes: 256 << 10,
            retained_entries: 5000,
        }
    }
}

impl Default for DiskModel {
    /// 200 to 400 microseconds.
    fn default() -> DiskModel {
        DiskModel { write: Distribution::uniform_us(200, 400) }
    }
}

impl Default for EvidenceModel {
    /// What the loopback device of one machine shows.
    fn default() -> EvidenceModel {
        EvidenceModel {
            closed: Distribution::uniform_us(100, 400),
            refused: Distribution::uniform_us(50, 200),
            connect: Distribution::uniform_us(200, 2000),
        }
    }
}

/// Why a model is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelError {
    /// Too few nodes, or more than the simulator takes.
    #[error("a cluster of {0} nodes cannot be simulated; give 1 to {MAX_NODES} nodes")]
    Size(u32),
    /// A node that does not exist.
    #[error("{place} names node {node}, but the nodes are 1 to {nodes}")]
    UnknownNode {
        /// Where.
        place: &'static str,
        /// What it names.
        node: NodeId,
        /// How many there are.
        nodes: u32,
    },
    /// A node has no link to itself.
    #[error("{place} names the link from node {node} to itself; a link joins two nodes")]
    Itself {
        /// Where.
        place: &'static str,
        /// The node.
        node: NodeId,
    },
    /// A list of nodes is empty.
    #[error("{0} has an empty list of nodes; name at least one")]
    Nobody(&'static str),
    /// A probability outside [0, 1].
    #[error("{knob} = {value} is no probability; it must be from 0 to 1")]
    Probability {
        /// The knob.
        knob: &'static str,
        /// What was given.
        value: f64,
    },
    /// A duration that cannot be.
    #[error("{place}: {source}")]
    Distribution {
        /// Where.
        place: &'static str,
        /// What is wrong.
        source: DistributionError,
    },
    /// A clock that is no clock.
    #[error("the clock of node {node} is off by {ppm} ppm; at most 100000 either way is allowed")]
    Clock {
        /// The node.
        node: NodeId,
        /// What was given.
        ppm: i32,
    },
    /// A disk cannot be zero times as slow.
    #[error("slow-disk of node {0} has the factor 0; give 1 or more, or use stall-disk")]
    Factor(NodeId),
    /// Nothing could ever be replicated.
    #[error("{0} is 0; give 1 or more")]
    Zero(&'static str),
    /// A fault later than any run.
    #[error("a fault at {0} lies beyond the ten years that can be simulated")]
    TooLate(Span),
    /// The timing knobs.
    #[error("timing: {0}")]
    Timing(#[from] ConfigError),
}

/// A model's distributions, validated.
#[derive(Clone, Debug)]
pub(crate) struct Samplers {
    pub latency: Sampler,
    pub links: Vec<(NodeId, NodeId, Sampler)>,
    pub write: Sampler,
    pub closed: Sampler,
    pub refused: Sampler,
    pub connect: Sampler,
}

impl Model {
    /// Finds what is wrong with the model, if anything.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn validate(&self) -> Result<(), ModelError> {
        self.samplers()?;
        let members: Vec<NodeId> = (1..=NodeId::from(self.nodes)).collect();
        self.timing.resolve().lower(self.protocol, 1, &members)?;
        Ok(())
    }

    pub(crate) fn samplers(&self) -> Result<Samplers, ModelError> {
        if !(1..=MAX_NODES).contains(&self.nodes) {
            return Err(ModelError::Size(self.nodes));
        }
        for (knob, value) in
            [("network.loss", self.network.loss), ("network.duplication", self.network.duplication)]
        {
            if !(0.0..=1.0).contains(&value) {
                return Err(ModelError::Probability { knob, value });
            }
        }
        if self.replication.max_entries == 0 {
            return Err(ModelError::Zero("replication.max_entries"));
        }
        if self.replication.max_inflight == 0 {
            return Err(ModelError::Zero("replication.max_inflight"));
        }
        if self.replication.snapshot_chunk_bytes == 0 {
            return Err(ModelError::Zero("replication.snapshot_chunk_bytes"));
        }
        for clock in &self.clocks {
            self.check_node("clock", clock.node)?;
            if clock.ppm.unsigned_abs() > 100_000 {
                return Err(ModelError::Clock { node: clock.node, ppm: clock.ppm });
            }
        }
        for fault in &self.faults {
            if fault.at.0.as_secs() > 10 * 366 * 86_400 {
                return Err(ModelError::TooLate(fault.at));
            }
            self.check_fault(&fault.fault)?;
        }
        let sampler = |place, distribution: &Distribution| {
            distribution.sampler().map_err(|source| ModelError::Distribution { place, source })
        };
        let links = self.network.links.iter().map(|link| {
            self.check_pair("network.link", link.from, link.to)?;
            Ok((link.from, link.to, sampler("network.link.latency", &link.latency)?))
        });
        Ok(Samplers {
            latency: sampler("network.latency", &self.network.latency)?,
            links: links.collect::<Result<_, ModelError>>()?,
            write: sampler("disk.write", &self.disk.write)?,
            closed: sampler("evidence.closed", &self.evidence.closed)?,
            refused: sampler("evidence.refused", &self.evidence.refused)?,
            connect: sampler("evidence.connect", &self.evidence.connect)?,
        })
    }

    fn check_node(&self, place: &'static str, node: NodeId) -> Result<(), ModelError> {
        if (1..=NodeId::from(self.nodes)).contains(&node) {
            return Ok(());
        }
        Err(ModelError::UnknownNode { place, node, nodes: self.nodes })
    }

    fn check_pair(&self, place: &'static str, a: NodeId, b: NodeId) -> Result<(), ModelError> {
        self.check_node(place, a)?;
        self.check_node(place, b)?;
        if a == b { Err(ModelError::Itself { place, node: a }) } else { Ok(()) }
    }

    fn check_fault(&self, fault: &Fault) -> Result<(), ModelError> {
        match fault {
            Fault::Crash(node) => self.check_node("fault crash", *node),
            Fault::Restart(node) => self.check_node("fault restart", *node),
            Fault::Pause(node) => self.check_node("fault pause", *node),
            Fault::Resume(node) => self.check_node("fault resume", *node),
            Fault::Isolate(node) => self.check_node("fault isolate", *node),
            Fault::StallDisk(node) => self.check_node("fault stall-disk", *node),
            Fault::MendDisk(node) => self.check_node("fault mend-disk", *node),
            Fault::Propose(node) => self.check_node("fault propose", *node),
            Fault::Read(node) => self.check_node("fault read", *node),
            Fault::Transfer(node) => self.check_node("fault transfer", *node),
            Fault::SlowDisk(node, 0) => Err(ModelError::Factor(*node)),
            Fault::SlowDisk(node, _) => self.check_node("fault slow-disk", *node),
            Fault::Disconnect(a, b) => self.check_pair("fault disconnect", *a, *b),
            Fault::Cut(cut) => self.check_cut("fault cut", cut),
            Fault::Mend(cut) => self.check_cut("fault mend", cut),
        }
    }

    fn check_cut(&self, place: &'static str, cut: &Cut) -> Result<(), ModelError> {
        if cut.from.is_empty() || cut.to.is_empty() {
            return Err(ModelError::Nobody(place));
        }
        for &from in &cut.from {
            for &to in &cut.to {
                self.check_pair(place, from, to)?;
            }
        }
        Ok(())
    }
}
