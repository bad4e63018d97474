//! The S-Raft consensus node.
//!
//! [`run`] is the whole program: it puts the [`settings`] together, opens the durable state
//! ([`storage`]), listens for peers ([`transport`]) and drives [`sraft_core`] until it is told to
//! stop. What happens is recorded in the event log ([`journal`]).

pub mod api;
pub mod cli;
pub mod clock;
pub mod console;
pub mod desk;
mod driver;
pub mod journal;
pub mod metrics;
pub mod peers;
mod process;
pub mod settings;
pub mod storage;
pub mod store;
pub mod transport;

/// The allocator of programs that run a node. A client's request is many small allocations on one
/// thread that another one frees, which the system's allocator is slow at.
pub type Allocator = mimalloc::MiMalloc;

/// For `#[global_allocator]`.
pub const ALLOCATOR: Allocator = mimalloc::MiMalloc;

/// Runs a node until it is told to stop: by SIGTERM or SIGINT, upon which a leader hands over
/// first. It takes the process for its own: it handles these signals, and a panic ends the process.
///
/// # Errors
/// Why it could not start, or had to stop.
pub fn run(args: cli::NodeArgs) -> anyhow::Result<()> {
    process::die_of_panics();
    if let Some(parent) = args.die_with_parent {
        process::die_with_parent(parent)?;
    }
    let settings = settings::Settings::resolve(args, &settings::Environment::read()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(driver::run(settings));
    // A name that is still being looked up must not hold up the end.
    runtime.shutdown_background();
    result
}

/// The exit code for what [`run`] returned, after one line on standard error if it is an error.
pub fn exit_code(result: anyhow::Result<()>) -> std::process::ExitCode {
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "error: {}", one_line(&error));
            std::process::ExitCode::FAILURE
        }
    }
}

/// An error and its causes in one line. A cause that the error before it has quoted already is not
/// said again.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}
