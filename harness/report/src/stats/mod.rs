//! From values to quantiles, intervals, tests. Every function names its source, and knows nothing
//! of trials: values are numbers in any unit, and the caller's unit comes back.

mod bootstrap;
mod holm;
mod quantile;
mod rank;
mod survival;

pub use bootstrap::{Contrast, MIN_BLOCKS, RESAMPLES, contrast};
pub use holm::holm;
pub use quantile::{median, order_interval, quantile, supports};
pub use rank::{RankTest, cliffs_delta, hodges_lehmann, mann_whitney};
pub use survival::{Step, kaplan_meier};

/// Confidence of every interval in the report.
pub const CONFIDENCE: f64 = 0.95;

/// A confidence interval; an end is empty where the sample cannot bound it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Interval {
    /// Whether the interval has both ends and `value` lies outside it.
    pub fn excludes(&self, value: f64) -> bool {
        matches!((self.low, self.high), (Some(low), Some(high)) if value < low || value > high)
    }
}
