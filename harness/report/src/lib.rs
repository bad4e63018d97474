//! From the records of a run to its rows, statistics, figures and report.
//!
//! ```text
//! results    the folders of a run; the only thing that the run side and the report side share
//! clocks     stamps of several hosts on one clock
//! timeline   records -> trials in order
//! measure    the records of one trial -> one row of trials.csv
//! stats      values -> quantiles, intervals, tests
//! published  results of others, to stand beside
//! plot       rows -> figures, SVG and PNG of one drawing
//! report     all of it again from events.jsonl, byte for byte
//! ```

pub mod clocks;
pub mod groups;
pub mod measure;
pub mod plot;
pub mod published;
pub mod report;
pub mod results;
pub mod stats;
pub mod timeline;

#[cfg(test)]
mod script;
#[cfg(test)]
mod synthetic;
