//! What a run of the load generator has shown: for people, for programs, for plotters.

use std::fmt::{self, Write};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::outcome::Outcome;

/// What a run has shown. Latencies are of acknowledged operations, in microseconds; what cannot be
/// said is empty.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `open`: operations were meant to start at set times, and latencies count from those.
    /// `closed`: each client waited for its answer; latencies are service times.
    pub schedule: &'static str,
    /// Operations per second that were asked for; empty for a closed loop.
    pub rate: Option<u32>,
    /// Closed: clients. Open: operations that may be under way at once.
    pub clients: u32,
    /// Connections to each endpoint.
    pub connections: usize,
    /// The endpoints.
    pub endpoints: Vec<String>,
    /// The leader's endpoint at the end, if it was known.
    pub leader: Option<String>,
    /// Bytes of a value.
    pub value_size: usize,
    /// Keys that the operations were spread over.
    pub keys: u32,
    /// Share of reads.
    pub reads: f64,
    /// Seed.
    pub seed: u64,
    /// Warm-up, seconds, whose operations are not counted.
    pub warmup_s: f64,
    /// Measured time, seconds.
    pub measured_s: f64,
    /// Whether somebody wanted the run to end before its time.
    pub interrupted: bool,
    /// Operations that were meant to start in the measured time and are over.
    pub operations: u64,
    /// Those of them that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledgements per second of the measured time.
    pub throughput: f64,
    /// Operations that were meant to start in the measured time and had not when it was over: the
    /// system cannot do this rate. They are in no latency.
    pub not_started: u64,
    /// Operations that were given up under way, because the run was interrupted.
    pub abandoned: u64,
    /// What went wrong, by kind.
    pub errors: Vec<Errors>,
    /// Latencies.
    pub latency_us: Latencies,
    /// Processor time of the generator per second of the whole run; near 1 it is what is measured.
    pub processors: f64,
    /// All latencies, nanoseconds.
    #[serde(skip)]
    pub histogram: Histogram<u64>,
}

/// Operations that went wrong in one way.
#[derive(Clone, Debug, Serialize)]
pub struct Errors {
    /// In which way.
    pub kind: &'static str,
    /// What is known of them.
    pub outcome: Outcome,
    /// How many.
    pub count: u64,
    /// What one of them said.
    pub example: String,
}

/// Quantiles, microseconds. A quantile that fewer than one operation is to be expected beyond
/// (n (1 - p) < 1) is empty: it would be the maximum under another name.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latencies {
    /// Smallest.
    pub min: Option<f64>,
    /// Median.
    pub p50: Option<f64>,
    /// 90 %.
    pub p90: Option<f64>,
    /// 99 %.
    pub p99: Option<f64>,
    /// 99.9 %.
    pub p999: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
}

impl Latencies {
    pub(super) fn of(histogram: &Histogram<u64>) -> Latencies {
        let n = histogram.len() as f64;
        let us = |ns: u64| ns as f64 / 1e3;
        let quantile = |p: f64| {
            let supported = n * (1.0 - p) >= 1.0 - 1e-9;
            supported.then(|| us(histogram.value_at_quantile(p)))
        };
        let any = !histogram.is_empty();
        Latencies {
            min: any.then(|| us(histogram.min())),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: any.then(|| us(histogram.max())),
        }
    }
}

/// Bounds of the bars of the terminal's histogram: three to a decade.
const STEPS: [u64; 3] = [1, 2, 5];

/// Length of the longest bar.
const BAR: u64 = 50;

impl Report {
    /// The percentile table that HdrHistogram's plotters read, in milliseconds.
    pub fn hgrm(&self) -> String {
        let ms = |ns: f64| ns / 1e6;
        let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
        let mut total = 0;
        for step in self.histogram.iter_quantiles(5) {
            total += step.count_since_last_iteration();
            let (value, level) = (ms(step.value_iterated_to() as f64), step.quantile_iterated_to());
            let _ = write!(text, "{value:12.6} {level:2.12} {total:10}");
            match level < 1.0 {
                true => _ = writeln!(text, " {:14.2}", 1.0 / (1.0 - level)),
                false => text.push('\n'),
            }
        }
        let h = &self.histogram;
        let _ = write!(
            text,
            "#[Mean    = {:12.6}, StdDeviation   = {:12.6}]\n\
             #[Max     = {:12.6}, Total count    = {:12}]\n\
             # acknowledged operations, milliseconds; {}\n",
            ms(h.mean()),
            ms(h.stdev()),
            ms(h.max() as f64),
            h.len(),
            self.meaning(),
        );
        text
    }

    fn meaning(&self) -> &'static str {
        match self.schedule {
            "open" => "open loop: from the intended start, so waiting for a slow system counts",
            _ => "closed loop: service times, a stall delays further operations unseen",
        }
    }

    /// Rows of a histogram: upper bound in nanoseconds and count, without empty ends.
    fn bars(&self) -> Vec<(u64, u64)> {
        let h = &self.histogram;
        let (mut bars, mut low, mut decade) = (Vec::new(), 0, 1_000_u64);
        while !h.is_empty() && low < h.max() {
            for high in STEPS.map(|step| step * decade) {
                // What the histogram cannot tell from the bound belongs to the bar below it.
                let count = h.count_between(low, high.saturating_sub(1));
                if low < h.max() && (count > 0 || !bars.is_empty()) {
                    bars.push((high, count));
                }
                low = high;
            }
            decade = decade.saturating_mul(10);
        }
        bars
    }
}

/// A time for people: three digits and a unit.
fn time(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 1e3 => (us, "µs"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = match value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line =
            |f: &mut fmt::Formatter<'_>, name: &str, text: String| writeln!(f, "{name:<12}{text}");
        let endpoints = self.endpoints.join(", ");
        line(f, "endpoints", endpoints)?;
        let leader = self.leader.clone().unwrap_or_else(|| "not known".to_owned());
        line(f, "leader", format!("{leader} (gets every operation while it answers)"))?;
        line(
            f,
            "schedule",
            match self.rate {
                Some(rate) => format!(
                    "{rate} operations a second, open loop, at most {} under way",
                    self.clients
                ),
                None => format!("as fast as {} clients can, one operation each", self.clients),
            },
        )?;
        let reads = match self.reads {
            0.0 => "puts".to_owned(),
            reads => format!("{:.0} % linearizable reads, else puts", reads * 100.0),
        };
        line(
            f,
            "operations",
            format!("{reads}; {} bytes on {} keys; seed {}", self.value_size, self.keys, self.seed),
        )?;
        line(
            f,
            "connections",
            format!(
                "{} to each endpoint; the generator used {:.2} processors",
                self.connections, self.processors
            ),
        )?;
        line(
            f,
            "measured",
            format!(
                "{:.1} s after {:.1} s of warm-up{}",
                self.measured_s,
                self.warmup_s,
                if self.interrupted { ", then interrupted" } else { "" }
            ),
        )?;
        writeln!(f)?;
        line(f, "throughput", format!("{:.1} acknowledged a second", self.throughput))?;
        line(
            f,
            "counts",
            format!("{} finished, {} acknowledged", self.operations, self.acknowledged),
        )?;
        if self.not_started > 0 {
            line(
                f,
                "NOT STARTED",
                format!(
                    "{} operations whose time had come: the system cannot do this rate, and the \
                     latencies below are too good",
                    self.not_started
                ),
            )?;
        }
        if self.abandoned > 0 {
            line(f, "abandoned", format!("{} under way at the interruption", self.abandoned))?;
        }
        for error in &self.errors {
            let Errors { kind, outcome, count, example } = error;
            line(f, "errors", format!("{count} x {kind} ({}): {example}", outcome.name()))?;
        }
        let l = &self.latency_us;
        let parts = [
            ("min", l.min),
            ("p50", l.p50),
            ("p90", l.p90),
            ("p99", l.p99),
            ("p99.9", l.p999),
            ("max", l.max),
        ];
        let latencies: Vec<String> = parts
            .iter()
            .map(|(name, us)| format!("{name} {}", us.map_or_else(|| "-".to_owned(), time)))
            .collect();
        line(f, "latency", latencies.join("   "))?;
        line(f, "", self.meaning().to_owned())?;
        let bars = self.bars();
        let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(0);
        if most > 0 {
            writeln!(f)?;
        }
        for (high, count) in bars {
            // Whatever is there is seen.
            let length = (count * BAR).div_ceil(most.max(1));
            let bar = "#".repeat(length as usize);
            writeln!(f, "  < {:>8} {count:>10} {bar}", time(high as f64 / 1e3))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_need_enough_values() {
        let mut histogram = super::super::tally::histogram();
        assert!(Latencies::of(&histogram).max.is_none());
        for ms in 1..=100 {
            histogram.record(ms * 1_000_000).unwrap();
        }
        let latencies = Latencies::of(&histogram);
        assert!((latencies.p99.unwrap() / 99e3 - 1.0).abs() < 0.002);
        assert_eq!(latencies.p999, None);
    }

    #[test]
    fn times_have_three_digits() {
        let shown = [0.5, 12.34, 123.4, 1_234.5, 99_900.0, 2_500_000.0].map(time);
        assert_eq!(shown, ["0.50 µs", "12.3 µs", "123 µs", "1.23 ms", "99.9 ms", "2.50 s"]);
    }
}
