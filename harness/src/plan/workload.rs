//! What the probe asks of the cluster.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use serde::{Serialize, Serializer};
use sraft_core::Span;

use super::Backend;
use crate::experiment::Workload;

/// What the probe of every trial does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Probe {
    /// Operations per second, whether or not earlier ones have been answered.
    pub(crate) rate: u32,
    /// Bytes of a value.
    pub(crate) value_size: u32,
    /// An operation without an answer by then is of unknown outcome.
    #[serde(serialize_with = "span")]
    pub(crate) deadline: Duration,
    /// Registers that reads and compare-and-sets share.
    pub(crate) keys: u32,
    /// Share of reads among the operations.
    pub(crate) reads: f64,
    /// Share of compare-and-sets.
    pub(crate) cas: f64,
    /// How long it is at work before the fault, at least.
    #[serde(serialize_with = "span")]
    pub(crate) before: Duration,
    /// And after it, before the cluster is healed.
    #[serde(serialize_with = "span")]
    pub(crate) after: Duration,
}

fn span<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Span(*time))
}

/// What is wrong with which key of `[workload]`.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) key: &'static str,
    pub(super) message: String,
}

/// Fastest probe: beyond it, its own host would be the bottleneck.
const RATES: RangeInclusive<i64> = 0..=20_000;
/// etcd takes requests of up to 1.5 MiB.
const VALUES: RangeInclusive<i64> = 32..=1 << 20;
const KEYS: RangeInclusive<i64> = 1..=1000;
const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
const AROUND: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);

/// The probe of an experiment; none if it asks for nothing.
pub(super) fn probe(given: &Workload, backend: Backend) -> Result<Option<Probe>, Wrong> {
    let number = |key, value: i64, range: RangeInclusive<i64>, what: &str| {
        u32::try_from(value).ok().filter(|_| range.contains(&value)).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            wrong(key, value, format!("write {what} from {least} to {most}"))
        })
    };
    let time = |key, value: Option<Span>, default: u64, range: RangeInclusive<Duration>| {
        let value = value.map_or(Duration::from_millis(default), |span| span.0);
        range.contains(&value).then_some(value).ok_or_else(|| {
            let (least, most) = (Span(*range.start()), Span(*range.end()));
            wrong(key, Span(value), format!("write a duration from {least} to {most}"))
        })
    };
    let share = |key, value: f64| {
        let fits = (0.0..=1.0).contains(&value);
        fits.then_some(value).ok_or_else(|| wrong(key, value, "write a share from 0 to 1".into()))
    };
    let probe = Probe {
        rate: number("rate", given.rate, RATES, "operations per second")?,
        value_size: number("value_size", given.value_size.unwrap_or(64), VALUES, "bytes")?,
        deadline: time("deadline", given.deadline, 1000, DEADLINES)?,
        keys: number("keys", given.keys.unwrap_or(8), KEYS, "a number of keys")?,
        reads: share("reads", given.reads)?,
        cas: share("cas", given.cas)?,
        before: time("before", given.before, 1000, AROUND)?,
        after: time("after", given.after, 3000, AROUND)?,
    };
    if probe.reads + probe.cas >= 1.0 {
        let message = format!(
            "workload.reads and workload.cas are {} together; leave a share for writes: an outage \
             is the time between two of them",
            probe.reads + probe.cas
        );
        return Err(Wrong { key: "reads", message });
    }
    if probe.rate == 0 {
        return Ok(None);
    }
    if backend == Backend::Sim {
        let message = "there is nobody to ask in a simulated cluster; remove it".to_owned();
        return Err(wrong("rate", probe.rate, message));
    }
    Ok(Some(probe))
}

fn wrong(key: &'static str, value: impl Display, message: String) -> Wrong {
    Wrong { key, message: format!("workload.{key} is {value}; {message}") }
}
