//! The layout of a run's folders, and the files that the run side and the report side share.
//!
//! This is the only place where the two meet: the run side appends raw records and describes what
//! it does ([`Plan`], [`Manifest`]); the report side reads them back and derives everything else.

use serde::{Deserialize, Serialize};

/// `plan.json`: what the experiment expanded to, before anything was started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the experiment.
    pub experiment: String,
    /// The question that it asks, for titles.
    pub question: String,
    /// Everything random in the run follows from it.
    pub seed: u64,
    /// The fault's kind and target, as in the experiment.
    pub fault: String,
    /// What the fault strikes, as in the experiment.
    pub target: String,
    /// A trial that has not ended by then is censored, nanoseconds from the fault.
    pub timeout_ns: u64,
    /// The matrix cells in the order of the experiment; one with an empty name without a matrix.
    pub cells: Vec<String>,
    /// The variants in the order of the experiment.
    pub variants: Vec<PlannedVariant>,
    /// What each variant runs with in each cell.
    pub settings: Vec<Setting>,
    /// The blocks in the order in which they run.
    pub blocks: Vec<Block>,
}

/// A variant of the experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedVariant {
    /// Its name.
    pub name: String,
    /// Whether the others are compared with it.
    pub baseline: bool,
}

/// What a variant runs with in a cell. Two variants of a cell with equal settings are an A/A pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The cell.
    pub cell: String,
    /// The variant.
    pub variant: String,
    /// Number of nodes.
    pub size: u32,
    /// Number of sub-leaders.
    pub sub_leaders: u32,
    /// Protocol and every timing knob, as the node is given them.
    pub node: serde_json::Value,
}

/// Trials that run one after the other on the same cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Counts from 1 in the order of running.
    pub block: u32,
    /// The cell.
    pub cell: String,
    /// The variant.
    pub variant: String,
    /// Trials that run first and do not count.
    pub warmup: u32,
    /// Numbers of the trials that count; over all blocks they are 1, 2, 3, ...
    pub trials: Vec<u64>,
}

/// `manifest.json`: who ran what where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the event schema.
    pub schema: u32,
    /// Name of the experiment.
    pub experiment: String,
    /// Name of the run (its folder).
    pub run: String,
    /// Version of the program.
    pub version: String,
    /// The commit that it was built from, if that is known.
    pub git_commit: Option<String>,
    /// Whether the checkout had been changed since.
    pub git_dirty: Option<bool>,
    /// SHA-256 of the executable, hexadecimal.
    pub binary_sha256: String,
    /// The command line.
    pub command: Vec<String>,
    /// The seed in force.
    pub seed: u64,
    /// The hosts as their agents described them.
    pub hosts: Vec<Host>,
    /// Every stretch in which a harness worked on the run; more than one after `--resume`.
    pub sessions: Vec<Session>,
}

/// A host that took part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// What its agent said of it.
    pub facts: serde_json::Value,
    /// Half-width of its clock's uncertainty against the others, microseconds; 0 on one host.
    pub clock_bound_us: f64,
}

/// One stretch of work on a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended; empty if the harness was killed.
    pub ended_at: Option<String>,
    /// `complete` or `interrupted`; empty if the harness was killed.
    pub end: Option<String>,
}
