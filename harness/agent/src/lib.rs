//! The host-side helper of the harness: it owns the node processes of one host, applies faults to
//! them, stamps what it does on its own clocks, and streams the nodes' event logs.
//!
//! The harness starts one agent per host and speaks [`protocol`] with it over a pair of byte
//! pipes. An agent may outlive its harness, so it takes nothing for granted: the moment its input
//! closes, its output breaks or a signal asks it to end, it kills every process it owns, paused or
//! not, removes what it wrote, and exits.
//!
//! One thread and one `poll` do all of it. The agent shares the host with the failover that it
//! observes, so between a fault and its consequences it does as little as it can: see
//! [`supervisor`].

pub mod clock;
pub mod needs;
pub mod protocol;

mod directory;
pub mod exec;
mod facts;
mod input;
mod label;
mod own_disk;
mod ports;
pub mod probe;
mod process;
mod program;
mod reboot;
mod rules;
mod skew;
pub mod supervisor;
mod tail;
mod throttle;
mod waker;

pub use facts::{boot_id, gather};
pub use process::start_time;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    os::unix::fs::MetadataExt,
    os::unix::net::UnixStream,
    path::PathBuf,
};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::supervisor::Supervisor;

/// Why an agent ended before its input did. What a request gets wrong is no such reason: it is
/// answered, and the agent lives on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The agent could not be set up.
    #[error("the agent cannot {what}: {source}")]
    SetUp {
        /// What it could not do.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The pipe to or from the harness broke.
    #[error("the agent's {end} to the harness broke: {source}")]
    Pipe {
        /// Which pipe.
        end: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Waiting for events failed.
    #[error("the agent cannot wait for events: {0}")]
    Poll(io::Error),
}

/// Serves the harness at the other end of standard input and output until the input closes or
/// SIGTERM, SIGINT or SIGHUP arrives. No process that it started is left when it returns.
///
/// # Errors
/// See [`AgentError`].
pub fn run() -> Result<(), AgentError> {
    let set_up = |what| move |source| AgentError::SetUp { what, source };
    let (read, write) = UnixStream::pair().map_err(set_up("make a pipe for signals"))?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        let write = write.try_clone().map_err(set_up("make a pipe for signals"))?;
        signal_hook::low_level::pipe::register(signal, write)
            .map_err(set_up("watch for signals"))?;
    }
    serve(io::stdin().as_fd(), io::stdout(), read.as_fd())
}

/// The same with any pair of pipes; `stop` is readable when the agent is to end.
///
/// # Errors
/// See [`AgentError`].
pub fn serve(
    input: BorrowedFd<'_>,
    output: impl AsFd,
    stop: BorrowedFd<'_>,
) -> Result<(), AgentError> {
    let mut supervisor = Supervisor::new(output)?;
    let result = supervisor.turn(input, stop);
    supervisor.clean_up();
    result
}

/// Where this very program can be started from again, also if its file has been replaced or
/// removed since: a rebuild in the middle of a run must not mix two versions.
pub fn own_executable() -> PathBuf {
    // The link is resolved in the child, whose executable is still this one at that moment.
    let itself = PathBuf::from("/proc/self/exe");
    let Ok(path) = std::env::current_exe() else { return itself };
    let identity = |path: &PathBuf| path.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    if identity(&path).is_some() && identity(&path) == identity(&itself) { path } else { itself }
}
