//! From the records of a run to its rows, statistics, figures and report.
pub mod results;
