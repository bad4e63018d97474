//! Programs of others that are to live no longer than the agent.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Why a program did not become this process.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// Nothing was named.
    #[error("there is no program to run; name one after --")]
    Nothing,
    /// The kernel does not promise to end the program with the agent.
    #[error("cannot tie {program} to its agent: {source}")]
    Tie {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The agent has ended meanwhile, or somebody else calls this.
    #[error(
        "process {parent} is not (or no longer) the parent of this one, so {program} is not run"
    )]
    Orphan {
        /// The program.
        program: String,
        /// Who should be the parent.
        parent: u32,
    },
    /// The program cannot be run.
    #[error("cannot run {program}: {source}; install it, or put its folder into PATH")]
    Run {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
}

/// Becomes the program `command[0]`, which the kernel kills when process `parent`, its parent, dies.
/// The promise outlives the change of programs; only one that changes its user would lose it.
///
/// # Errors
/// [`ExecError`]; this returns only then.
pub fn exec(parent: u32, command: &[String]) -> Result<ExitCode, ExecError> {
    let [program, args @ ..] = command else { return Err(ExecError::Nothing) };
    let named = || program.clone();
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| ExecError::Tie { program: named(), source: error.into() })?;
    // Only after the request is it certain that a death of the parent is not missed.
    let now = getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().unsigned_abs());
    if now != Some(parent) {
        return Err(ExecError::Orphan { program: named(), parent });
    }
    Err(ExecError::Run { program: named(), source: Command::new(program).args(args).exec() })
}
