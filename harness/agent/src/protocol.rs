//! What the harness and an agent say to one another: one JSON object per line, requests on the
//! agent's standard input, replies and notices on its standard output.
//!
//! The agent lives exactly as long as its input is open. When that closes, for whatever reason,
//! it undoes every fault, kills every process it owns, and exits.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use sraft_events::{FaultAction, NodeId};

/// Version of this protocol; the harness and its agents come from one binary, so a difference
/// means that a host runs a stale upload.
pub const VERSION: u32 = 4;

/// Name of the folder in a node's directory where its own disk is mounted, if it has one.
pub const OWN_DISK: &str = "disk";

/// How long before it happens an agent tells of a [`Call::Reboot`]: long enough for what it says to
/// leave the host.
pub const REBOOT_TOLD_BEFORE: Duration = Duration::from_millis(300);

/// Longest line that either side accepts, in bytes.
pub const MAX_LINE: usize = 4 << 20;

/// A request of the harness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Repeated by the reply.
    pub id: u64,
    /// What is asked.
    #[serde(flatten)]
    pub call: Call,
}

/// What can be asked of an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// Who are you? The first request.
    Hello {
        /// The harness's [`VERSION`].
        version: u32,
        /// Name of the host in records (`agent:NAME`).
        host: String,
        /// Directory for everything the agent's processes write; made if it is absent. Only one
        /// agent at a time may use it.
        dir: String,
        /// Whether to leave the nodes' directories when the agent ends; it removes them else.
        #[serde(default)]
        keep: bool,
    },
    /// Answers with the agent's clocks.
    Ping {},
    /// Starts a node's process. Refused while the node's process lives.
    Start {
        /// The node.
        node: NodeId,
        /// The program; empty is the agent's own executable.
        program: Option<String>,
        /// Its arguments. `{dir}` stands for the node's directory (`DIR/node-N`) and
        /// `{agent_pid}` for the process id of the agent.
        args: Vec<String>,
        /// Files to write into the node's directory first: name and content.
        files: Vec<(String, String)>,
        /// Whether to remove the node's directory first.
        fresh: bool,
        /// Name of the event log in the node's directory, followed from its present end on.
        log_file: String,
        /// What stands in it.
        #[serde(default)]
        log_format: LogFormat,
        /// The disk that it writes to.
        #[serde(default)]
        disk: Disk,
    },
    /// Looks after a node that somebody else has started and that goes on afterwards: faults strike
    /// it, its end is stamped, and what it records is passed on, beginning with what it has recorded
    /// since it started. It does not end with the agent, which only undoes what it has done to it.
    Adopt {
        /// The node.
        node: NodeId,
        /// Its directory.
        dir: String,
        /// File there that says which process it is: an object with `pid`, `start` (its start
        /// time, ticks since the machine started) and `boot` (the machine's boot id).
        process_file: String,
        /// Name of the event log there.
        log_file: String,
        /// Arguments with which the agent's own executable starts the node again, as it was, and
        /// ends once that has been done.
        revive: Vec<String>,
    },
    /// Starts an adopted node again. Refused while its process lives.
    Revive {
        /// The node.
        node: NodeId,
    },
    /// Acts on processes, in this order, with nothing in between.
    Fault {
        /// What is done to which node.
        actions: Vec<(NodeId, FaultAction)>,
    },
    /// Can this host do these faults? Fails with what is missing. Removes what agents that died
    /// have left of such faults.
    CheckFaults {
        /// What will be asked of it.
        needs: Needs,
    },
    /// What have agents that died left in the kernel of this host?
    Leftovers {
        /// Whether to remove it.
        remove: bool,
    },
    /// Makes everything ready for a [`Call::Strike`]; nothing happens to any packet yet.
    Arm {
        /// The packets that are meant.
        flows: Vec<Flow>,
        /// What happens to them.
        effect: Effect,
        /// The kernel forgets the rules after so many milliseconds, whatever becomes of the agent.
        lease_ms: u64,
    },
    /// Makes everything ready for a [`Call::Strike`] that slows down the disks of nodes of this host,
    /// which were started in control groups of their own. Refused for nodes that were adopted: nothing
    /// would make them quick again if the agent were killed.
    ArmDisks {
        /// The nodes.
        nodes: Vec<NodeId>,
        /// How many writes each may have in a second.
        iops: u32,
    },
    /// Puts in force what was armed last.
    Strike {
        /// Whom it strikes, for the records: nodes of any host.
        strikes: Vec<(NodeId, FaultAction)>,
    },
    /// Removes what was armed or put in force. Does nothing if there is nothing.
    Heal {
        /// Whom it struck, for the records.
        nodes: Vec<NodeId>,
    },
    /// Makes everything ready for a [`Call::Reboot`]; nothing happens to the host yet.
    ArmReboot {
        /// Boots of machines that must stay up. Refused if this host's is one of them: what looks
        /// like a host of its own may be a namespace of a machine that others need.
        spared: Vec<String>,
    },
    /// Resets the host, for which that was armed, without a shutdown. Answered, with the record of
    /// it, [`REBOOT_TOLD_BEFORE`] before it happens; nothing is heard of the agent afterwards,
    /// unless it fails.
    Reboot {
        /// The nodes that run there, for the records.
        nodes: Vec<NodeId>,
    },
    /// Kills every process, waits for their ends, and delivers what is left of their logs. Nodes that
    /// were adopted are let go: paused ones go on, and those that it has ended are started again.
    StopAll {},
    /// Starts a probe, in a fresh directory `DIR/probe`. Answered with [`Answer::Started`] once it
    /// has acknowledged its first write (a line `# ready` in its file), failed if it ends before.
    /// Refused while there is another one that has not been stopped.
    StartProbe {
        /// The program; empty is the agent's own executable.
        program: Option<String>,
        /// Its arguments. `{dir}` stands for the probe's directory and `{agent_pid}` for the
        /// process id of the agent.
        args: Vec<String>,
        /// Files to write into the probe's directory first: name and content.
        files: Vec<(String, String)>,
        /// Name of the file of operations in the probe's directory.
        ops_file: String,
    },
    /// Tells the probe to end (SIGTERM). Answered once it has ended and every row has been
    /// delivered; failed if it had ended before, ended badly or had to be killed.
    StopProbe {},
    /// From now on the agent ends, as if its input had closed, when it has heard nothing for so
    /// long. Empty lines count: a connection that drops packets does not close.
    Lease {
        /// The longest silence, milliseconds.
        silence_ms: u64,
    },
    /// Answers the clock pings of other agents from now on.
    AnswerClocks {
        /// Address and UDP port to listen at.
        at: String,
    },
    /// Listens at these addresses (TCP) from now on, and at no others, for others to knock at.
    Listen {
        /// Addresses and ports.
        at: Vec<String>,
    },
    /// Tries to connect to each of these addresses, at the same time.
    Knock {
        /// Addresses and ports.
        at: Vec<String>,
        /// How long each may take, milliseconds.
        within_ms: u64,
    },
    /// Compares this host's clock with that of an agent that answers pings.
    CompareClocks {
        /// Where it answers.
        with: String,
    },
}

/// What faults need of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Packets are dropped.
    #[serde(default)]
    pub rules: bool,
    /// Packets are held back.
    #[serde(default)]
    pub delay: bool,
    /// Writes of a process are slowed down.
    #[serde(default)]
    pub slow_disk: bool,
    /// Nodes have disks of their own.
    #[serde(default)]
    pub own_disk: bool,
    /// Hosts are reset.
    #[serde(default)]
    pub reboot: bool,
}

/// The disk that a node writes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disk {
    /// The one that its directory is on.
    #[default]
    Shared,
    /// The same, from a control group of its own, so that [`Call::ArmDisks`] can slow it down.
    Limitable,
    /// One of its own, mounted at [`OWN_DISK`] in its directory for its process alone. What a fault
    /// has filled it with is removed first.
    Own {
        /// Its size.
        bytes: u64,
    },
}

/// Packets from one node to another, told by the nodes' addresses and peer ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Address and peer port of the sender.
    pub from: SocketAddr,
    /// Address and peer port of the receiver.
    pub to: SocketAddr,
    /// Where this host can lay hands on them.
    pub hook: Hook,
    /// Whether packets on connections that the receiver has dialled are meant as well. Messages
    /// travel on the sender's own connections; the sender's packets on the receiver's only
    /// acknowledge what the receiver has sent, and without them its messages are lost too.
    pub answers: bool,
}

/// Where packets pass by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// As they arrive at this host.
    In,
    /// As they leave it.
    Out,
}

/// What happens to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// They are lost.
    Drop,
    /// So many in a thousand are lost, by lot.
    Loss {
        /// From 1 to 999.
        per_mille: u32,
    },
    /// They are held back. Only where they leave ([`Hook::Out`]).
    Delay {
        /// How long, microseconds.
        delay_us: u64,
        /// The most by which it varies, microseconds.
        jitter_us: u64,
    },
}

/// What the lines of a node's log are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Records of this project, passed on in [`Said::Records`].
    #[default]
    Records,
    /// Another system's lines, passed on in [`Said::Text`] for the harness to make sense of.
    Text,
}

/// What an agent writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case")]
pub enum Said {
    /// The answer to a request that was carried out.
    Done {
        /// The request's id.
        id: u64,
        /// What it yields.
        answer: Answer,
    },
    /// The answer to a request that could not be carried out.
    Failed {
        /// The request's id.
        id: u64,
        /// One sentence that names the place and the remedy.
        error: String,
    },
    /// Lines of event logs, as their writers wrote them, and records of the agent itself. Each is
    /// the JSON of one `sraft_events::Record`. Per source they come in order.
    Records {
        /// The lines.
        lines: Vec<String>,
    },
    /// Lines of the log of a node that writes no records, in order.
    Text {
        /// The node.
        node: NodeId,
        /// Its process id.
        pid: u32,
        /// The host's clocks when the lines were read. Whoever wrote them has stamped them with the
        /// wall clock, if at all; this tells what the monotonic clock showed then.
        clocks: Clocks,
        /// The lines.
        lines: Vec<String>,
    },
    /// Rows of the probe's file of operations as it wrote them, without the header.
    Ops {
        /// The rows.
        lines: Vec<String>,
    },
    /// A node's process has ended without having been told to (the record of it comes as well).
    /// Carries what helps to find out why.
    Died {
        /// The node.
        node: NodeId,
        /// How, for a human.
        how: String,
        /// The last lines that it wrote to its standard error.
        stderr: String,
    },
}

/// What a request yields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Call::Hello`].
    Hello(Box<HostFacts>),
    /// To [`Call::Ping`].
    Clocks(Clocks),
    /// To [`Call::Start`], [`Call::Adopt`], [`Call::Revive`] and [`Call::StartProbe`]: the process
    /// id.
    Started {
        /// The process id.
        pid: u32,
    },
    /// To [`Call::CompareClocks`].
    Compared(Comparison),
    /// To [`Call::Listen`]: for each address why nobody can listen there, if so.
    Listening {
        /// In the order of the addresses.
        refused: Vec<Option<String>>,
    },
    /// To [`Call::Knock`].
    Knocked {
        /// In the order of the addresses.
        found: Vec<Knock>,
    },
    /// To [`Call::Fault`], [`Call::Strike`], [`Call::Heal`], [`Call::Reboot`] and [`Call::StopAll`],
    /// whose stamps come as records, to [`Call::StopProbe`], and to what yields nothing else.
    Ok,
    /// To [`Call::Leftovers`]: what there was, one phrase each.
    Leftovers {
        /// The phrases.
        found: Vec<String>,
    },
}

/// What came of an attempt to connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Knock {
    /// Somebody listens.
    Open,
    /// The host, or somebody on the way, refuses.
    Refused,
    /// There was no answer at all.
    Silent,
    /// Something else.
    Failed {
        /// What the system said.
        why: String,
    },
}

/// How far another host's `CLOCK_MONOTONIC` is from this one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Theirs less ours, nanoseconds.
    pub offset_ns: i64,
    /// The least round trip, without the time spent there, nanoseconds.
    pub rtt_ns: u64,
    /// How many pings of the burst were answered.
    pub answered: u32,
}

impl Comparison {
    /// How far the true offset can be from [`Comparison::offset_ns`], nanoseconds: half the round
    /// trip, if one of the two ways took no time at all.
    pub fn bound_ns(&self) -> u64 {
        self.rtt_ns.div_ceil(2)
    }
}

/// What the host's chrony says of its wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chrony {
    /// How far it believes the wall clock to be from the true time, nanoseconds; positive is slow.
    pub offset_ns: i64,
    /// How far it can be at most: offset, root dispersion and half the root delay (chronyc(1),
    /// tracking), nanoseconds.
    pub bound_ns: u64,
    /// Distance from a reference clock in hops.
    pub stratum: u32,
}

/// An agent's clocks, read one right after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// `CLOCK_REALTIME`, nanoseconds since 1970.
    pub wall_ns: u64,
}

/// What a run's manifest says of a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The agent's [`VERSION`].
    pub version: u32,
    /// The program's version.
    pub program: String,
    /// Process id of the agent.
    pub pid: u32,
    /// Kernel name and release.
    pub kernel: String,
    /// Machine architecture.
    pub arch: String,
    /// Host name.
    pub hostname: String,
    /// CPU model.
    pub cpu: Option<String>,
    /// Logical CPUs the agent may use.
    pub cpus: usize,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Type of the file system that the nodes write to, such as `ext4`.
    #[serde(default)]
    pub filesystem: Option<String>,
    /// The clocks at the answer.
    pub clocks: Clocks,
    /// The boot that it is up by (`/proc/sys/kernel/random/boot_id`).
    #[serde(default)]
    pub boot: Option<String>,
    /// What chrony says, if it is there.
    #[serde(default)]
    pub chrony: Option<Chrony>,
}
