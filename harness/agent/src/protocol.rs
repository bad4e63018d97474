//! What the harness and an agent say to one another: one JSON object per line, requests on the
//! agent's standard input, replies and notices on its standard output.
//!
//! The agent lives exactly as long as its input is open. When that closes, for whatever reason,
//! it undoes every fault, kills every process it owns, and exits.

use serde::{Deserialize, Serialize};
use sraft_events::{FaultAction, NodeId};

/// Version of this protocol; the harness and its agents come from one binary, so a difference
/// means that a host runs a stale upload.
pub const VERSION: u32 = 1;

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
    },
    /// Acts on processes, in this order, with nothing in between.
    Fault {
        /// What is done to which node.
        actions: Vec<(NodeId, FaultAction)>,
    },
    /// Kills every process, waits for their ends, and delivers what is left of their logs.
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
    /// To [`Call::Start`] and [`Call::StartProbe`]: the process id.
    Started {
        /// The process id.
        pid: u32,
    },
    /// To [`Call::Fault`] and [`Call::StopAll`]. The stamps come as records. To
    /// [`Call::StopProbe`].
    Ok,
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
}
