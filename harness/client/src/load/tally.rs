//! Counting what came of operations.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::LoadError;
use crate::{client::Done, clock::SECOND, outcome::Outcome};

/// Significant digits of latencies.
const DIGITS: u8 = 3;

/// An empty histogram of nanoseconds.
pub(super) fn histogram() -> Histogram<u64> {
    let histogram = Histogram::new(DIGITS);
    histogram.expect("three significant digits are within what the crate allows")
}

/// Adds a latency; the histogram grows as needed.
fn add(histogram: &mut Histogram<u64>, latency_ns: u64) {
    if histogram.record(latency_ns).is_err() {
        // No memory to grow: the largest that it can tell is better than nothing.
        histogram.saturating_record(latency_ns);
    }
}

/// One second of the measured time: what ended in it.
#[derive(Debug)]
pub(super) struct Second {
    /// Number of the second, from 0.
    pub(super) at: u64,
    pub(super) acknowledged: u64,
    pub(super) errors: u64,
    pub(super) latencies: Histogram<u64>,
}

impl Second {
    fn new(at: u64) -> Second {
        Second { at, acknowledged: 0, errors: 0, latencies: histogram() }
    }
}

/// The measured part of a run.
#[derive(Debug)]
pub(super) struct Tally {
    /// Operations that were meant to start before belong to the warm-up.
    from_ns: u64,
    /// Operations that end later do not count for the throughput.
    until_ns: u64,
    pub(super) latencies: Histogram<u64>,
    pub(super) finished: u64,
    pub(super) acknowledged: u64,
    pub(super) acknowledged_in_time: u64,
    /// By kind and what is known of the operation.
    pub(super) errors: BTreeMap<(&'static str, Outcome), u64>,
    /// An example of each kind.
    pub(super) examples: BTreeMap<&'static str, String>,
    second: Second,
    seconds: Seconds,
}

/// Where complete seconds go.
#[derive(Debug, Default)]
pub(super) struct Seconds(pub(super) Option<csv::Writer<std::fs::File>>);

impl Seconds {
    fn write(&mut self, second: &Second) -> Result<(), csv::Error> {
        let Some(rows) = &mut self.0 else { return Ok(()) };
        let latency = |value: u64| match second.latencies.is_empty() {
            true => String::new(),
            false => format!("{:.3}", value as f64 / 1e3),
        };
        rows.write_record([
            second.at.to_string(),
            second.acknowledged.to_string(),
            second.errors.to_string(),
            latency(second.latencies.value_at_quantile(0.5)),
            latency(second.latencies.value_at_quantile(0.99)),
            latency(second.latencies.max()),
        ])?;
        Ok(rows.flush()?)
    }
}

impl Tally {
    pub(super) fn new(
        from_ns: u64,
        until_ns: u64,
        mut seconds: Seconds,
    ) -> Result<Tally, LoadError> {
        if let Some(rows) = &mut seconds.0 {
            let header = ["time_s", "throughput", "errors", "p50_us", "p99_us", "max_us"];
            rows.write_record(header).map_err(LoadError::seconds)?;
        }
        Ok(Tally {
            from_ns,
            until_ns,
            latencies: histogram(),
            finished: 0,
            acknowledged: 0,
            acknowledged_in_time: 0,
            errors: BTreeMap::new(),
            examples: BTreeMap::new(),
            second: Second::new(0),
            seconds,
        })
    }

    /// Takes up an operation. Its latency counts from when it was meant to start.
    pub(super) fn count(
        &mut self,
        intended_ns: u64,
        done: &Done,
        now_ns: u64,
    ) -> Result<(), LoadError> {
        let ended_ns = done.end_ns.unwrap_or(now_ns);
        // What the warm-up has begun counts as throughput if it ends later, as does at the end what
        // begins before and ends after: only so does the number per second come out right.
        let second = ended_ns.checked_sub(self.from_ns).map(|since| since / SECOND);
        if let Some(second) = second {
            self.pass(second)?;
        }
        let acknowledged = done.outcome == Outcome::Ok;
        if second.is_some() && ended_ns < self.until_ns && acknowledged {
            self.acknowledged_in_time += 1;
        }
        if second.is_some() {
            match acknowledged {
                true => self.second.acknowledged += 1,
                false => self.second.errors += 1,
            }
        }
        if intended_ns < self.from_ns {
            return Ok(());
        }
        self.finished += 1;
        let latency_ns = ended_ns.saturating_sub(intended_ns);
        if acknowledged {
            self.acknowledged += 1;
            add(&mut self.latencies, latency_ns);
            add(&mut self.second.latencies, latency_ns);
        } else if let Some(trouble) = &done.trouble {
            *self.errors.entry((trouble.kind, done.outcome)).or_default() += 1;
            self.examples.entry(trouble.kind).or_insert_with(|| trouble.text.clone());
        }
        Ok(())
    }

    /// Writes the seconds that are over once something ends in second `at`.
    fn pass(&mut self, at: u64) -> Result<(), LoadError> {
        while self.second.at < at {
            let next = Second::new(self.second.at + 1);
            let over = std::mem::replace(&mut self.second, next);
            self.seconds.write(&over).map_err(LoadError::seconds)?;
        }
        Ok(())
    }

    /// The run is over at `end_ns`.
    pub(super) fn conclude(&mut self, end_ns: u64) -> Result<(), LoadError> {
        let whole = end_ns.min(self.until_ns).saturating_sub(self.from_ns) / SECOND;
        self.pass(whole)?;
        if self.second.acknowledged + self.second.errors > 0 {
            self.pass(self.second.at + 1)?;
        }
        Ok(())
    }
}
