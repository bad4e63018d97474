//! The layout of a run's folders, and the files that the run side and the report side share.
//!
//! This is the only place where the two meet: the run side appends raw records and describes what
//! it does ([`Plan`], [`Manifest`]); the report side reads them back and derives everything else.

mod events;
mod layout;
mod ops;
mod wish;

pub use events::{Events, TornTail};
pub(crate) use layout::csv;
pub use layout::{Resumed, RunDir, RunLock};
pub use ops::{OPS_HEADER, Op, OpKind, OpOutcome, Ops};
pub use wish::{Published, Wish, WishError, WishedFigure};

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use sraft_events::NodeId;

/// What can go wrong with the files of a run. Every text names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The folder of a new run is taken.
    #[error("{path} exists already; runs are never overwritten: choose another name for the run")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A name that would not stay inside its folder.
    #[error(
        "`{name}` cannot be the name of a folder; use letters, digits, `.`, `_` and `-`, and do \
         not begin with a dot"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// The given folder holds no run.
    #[error(
        "{path} is no run: it has no {missing}; give the folder results/EXPERIMENT/RUN that \
         `sraft run` has named at its end"
    )]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// The file that is not there.
        missing: &'static str,
    },
    /// Another harness works on the run.
    #[error("another harness works on {path}; wait for its end, or end it, before resuming")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file of the run is not what it should be.
    #[error("{path} is damaged: {error}; restore the file, or start the run anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// A line of the event log cannot be read although intact trials follow it.
    #[error(
        "{path}, line {line}: {error}; complete trials follow this line, so it is no torn end: \
         restore the file, or remove the line and expect the trial around it to be marked"
    )]
    CorruptLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        error: String,
    },
    /// A trial is there twice.
    #[error(
        "{path}, line {line}: trial {trial} ends a second time, so the file holds something \
         twice: restore it"
    )]
    RepeatedTrial {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The trial.
        trial: u64,
    },
}

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
    /// What the experiment asks of its report, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Wish>,
    /// Name of the cluster that was up already and was used, if the run did not start its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<String>,
}

impl Plan {
    /// What a variant runs with in a cell.
    pub fn setting(&self, cell: &str, variant: &str) -> Option<&Setting> {
        self.settings.iter().find(|s| s.cell == cell && s.variant == variant)
    }

    /// Number of nodes that a variant runs with in a cell, numbered from 1; 0 if there is none.
    pub fn size(&self, cell: &str, variant: &str) -> u64 {
        self.setting(cell, variant).map_or(0, |setting| setting.size.into())
    }
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
    /// What the logs of the system's nodes tell.
    #[serde(default, skip_serializing_if = "LogFacts::is_whole")]
    pub log: LogFacts,
}

/// What the log of a system's nodes tells of elections. This project's own node tells everything.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogFacts {
    /// How wrong its stamps may be, microseconds: half the unit in which they are written.
    pub bound_us: f64,
    /// Whether a new leader says when its first entry has committed, so that it serves.
    pub ready: bool,
}

impl LogFacts {
    /// The log of this project's own node.
    pub const WHOLE: LogFacts = LogFacts { bound_us: 0.0, ready: true };

    fn is_whole(&self) -> bool {
        *self == LogFacts::WHOLE
    }
}

impl Default for LogFacts {
    fn default() -> LogFacts {
        LogFacts::WHOLE
    }
}

impl Setting {
    /// The region of each node, where the simulated network has regions.
    pub fn regions(&self) -> BTreeMap<NodeId, String> {
        let regions = self.node.pointer("/sim/regions").and_then(|regions| regions.as_object());
        let mut of = BTreeMap::new();
        for (region, nodes) in regions.into_iter().flatten() {
            let nodes = nodes.as_array().into_iter().flatten();
            of.extend(nodes.filter_map(|node| node.as_u64()).map(|node| (node, region.clone())));
        }
        of
    }
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
    /// `complete`, `interrupted` or `failed`; empty if the harness was killed.
    pub end: Option<String>,
}
