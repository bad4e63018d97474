//! The S-Raft consensus node.
#![warn(missing_docs)]

pub mod cli;
pub mod clock;
pub mod console;
pub mod counter;
pub mod journal;
pub mod peers;
mod process;
pub mod settings;
pub mod storage;

/// Runs a node until it is told to stop.
///
/// # Errors
/// Why it could not start, or had to stop.
pub fn run(args: cli::NodeArgs) -> anyhow::Result<()> {
    let _settings = settings::Settings::resolve(args, &settings::Environment::read()?)?;
    anyhow::bail!("not wired up yet")
}

/// The exit code for what [`run`] returned, after one line on standard error if it is an error.
pub fn exit_code(result: anyhow::Result<()>) -> std::process::ExitCode {
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
