//! Exports for the tools around HdrHistogram. The truth is `trials.csv`: a histogram rounds to
//! three significant digits and knows no censoring.

use std::{fmt::Write, time::Duration};

use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriterBuilder, Tag},
    },
};

use super::ReportError;
use crate::{
    groups::{Figure, Group},
    plot::slug,
    results::{OpKind, Ops},
};

const NS_PER_MS: f64 = 1e6;

/// The `.hgrm` and `.hlog` of each of these figures of a group that was observed at least once: file
/// name and content.
pub(super) fn exports(
    group: &Group<'_>,
    figures: &[Figure],
) -> Result<Vec<(String, Vec<u8>)>, ReportError> {
    let mut files = Vec::new();
    for figure in figures {
        let sample = group.sample(*figure);
        let mut histogram =
            Histogram::<u64>::new(3).map_err(|error| ReportError::Histogram(error.to_string()))?;
        for observation in sample.iter().filter(|o| o.observed && o.value >= 0.0) {
            let ns = (observation.value * 1000.0).round() as u64;
            histogram.record(ns).map_err(|error| ReportError::Histogram(error.to_string()))?;
        }
        let censored = sample.iter().filter(|o| !o.observed).count();
        let left_out = format!("{censored} timed-out trials are not in here");
        files.extend(pair(&histogram, figure.name(), group, &left_out)?);
    }
    Ok(files)
}

/// The same for the latencies of the probe's acknowledged writes in the trials that count, each from
/// the start that the schedule meant, so that no stall hides the writes that it held up.
pub(super) fn latencies(
    group: &Group<'_>,
    ops: &Ops,
) -> Result<Vec<(String, Vec<u8>)>, ReportError> {
    let mut histogram =
        Histogram::<u64>::new(3).map_err(|error| ReportError::Histogram(error.to_string()))?;
    let mut unanswered = 0;
    let counted = group.rows.iter().filter(|row| row.counts());
    for op in counted.flat_map(|row| ops.of(row.trial)).filter(|op| op.kind == OpKind::Put) {
        match op.end_ns.filter(|_| op.acknowledged_write()) {
            Some(end) => histogram
                .record(end.saturating_sub(op.intended_ns))
                .map_err(|error| ReportError::Histogram(error.to_string()))?,
            None => unanswered += 1,
        }
    }
    let left_out = format!("{unanswered} writes that were not acknowledged are not in here");
    pair(&histogram, "latency", group, &left_out)
}

/// Both files of a histogram, unless it is empty.
fn pair(
    histogram: &Histogram<u64>,
    what: &str,
    group: &Group<'_>,
    left_out: &str,
) -> Result<Vec<(String, Vec<u8>)>, ReportError> {
    if histogram.is_empty() {
        return Ok(Vec::new());
    }
    let parts = [what, group.variant, group.cell].map(slug);
    let stem = parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(".");
    let title = format!("{what} of {}{}", group.variant, in_cell(group.cell));
    Ok(vec![
        (format!("{stem}.hgrm"), hgrm(histogram, &title, left_out).into_bytes()),
        (format!("{stem}.hlog"), hlog(histogram, &title, group, left_out)?),
    ])
}

fn in_cell(cell: &str) -> String {
    if cell.is_empty() { String::new() } else { format!(" in {cell}") }
}

/// The percentile table that HdrHistogram's plotters read, in milliseconds.
fn hgrm(histogram: &Histogram<u64>, title: &str, left_out: &str) -> String {
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut level = 0.0_f64;
    loop {
        // The levels are sums of fractions, and 0.3 + 5.6e-17 of ten values would be four of them.
        let value = histogram.value_at_quantile((level - 1e-12).max(0.0));
        let total = histogram.count_between(0, value);
        let shown = value as f64 / NS_PER_MS;
        let _ = write!(text, "{shown:12.6} {level:2.12} {total:10}");
        if level >= 1.0 {
            text.push('\n');
            break;
        }
        let rest = 1.0 / (1.0 - level);
        let _ = writeln!(text, " {rest:14.2}");
        // Five steps for every halving of the distance to 1, as HdrHistogram's own tables have.
        let halvings = rest.log2().floor() as i32 + 1;
        level += 1.0 / (5.0 * 2_f64.powi(halvings));
        if total == histogram.len() {
            level = 1.0;
        }
    }
    let _ = write!(
        text,
        "#[Mean    = {:12.6}, StdDeviation   = {:12.6}]\n\
         #[Max     = {:12.6}, Total count    = {:12}]\n\
         # {title}, milliseconds; {left_out}\n",
        histogram.mean() / NS_PER_MS,
        histogram.stdev() / NS_PER_MS,
        histogram.max() as f64 / NS_PER_MS,
        histogram.len(),
    );
    text
}

/// An interval log with one interval, the whole run; values in nanoseconds.
fn hlog(
    histogram: &Histogram<u64>,
    title: &str,
    group: &Group<'_>,
    left_out: &str,
) -> Result<Vec<u8>, ReportError> {
    let failed = |error: &dyn std::fmt::Display| ReportError::Histogram(error.to_string());
    let began = |row: &&crate::measure::TrialRow| humantime::parse_rfc3339(&row.started_at).ok();
    let starts: Vec<_> = group.rows.iter().filter_map(began).collect();
    let start = starts.iter().min().copied().unwrap_or(std::time::UNIX_EPOCH);
    let length = starts.iter().max().and_then(|last| last.duration_since(start).ok());
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment(&format!("{title}, nanoseconds; the column Interval_Max is in milliseconds"))
        .add_comment(left_out)
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(NS_PER_MS);
    let mut log =
        builder.begin_log_with(&mut bytes, &mut serializer).map_err(|error| failed(&error))?;
    let tag = slug(group.variant);
    log.write_histogram(histogram, Duration::ZERO, length.unwrap_or_default(), Tag::new(&tag))
        .map_err(|error| failed(&error))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_log_gives_the_values_back() {
        use hdrhistogram::serialization::{
            Deserializer,
            interval_log::{IntervalLogIterator, LogEntry},
        };

        use crate::synthetic::{Synthetic, raft, s_raft};
        let run = Synthetic {
            name: "hlog",
            variants: vec![("raft", raft), ("s-raft", s_raft)],
            cells: vec![""],
            count: 20,
            block: 10,
            stop_after: usize::MAX,
            wish: None,
            messages: false,
            probe: 0,
        };
        let (plan, script) = (run.plan(), run.script());
        let rows = crate::measure::rows(&plan, script.records(), &Ops::default());
        let groups = Group::all(&plan, &rows);
        let files = exports(&groups[1], &Figure::ALL).unwrap();
        let (_, bytes) = files.iter().find(|file| file.0 == "leaderless.s-raft.hlog").unwrap();
        let entries: Vec<_> = IntervalLogIterator::new(bytes).map(|entry| entry.unwrap()).collect();
        let encoded = entries.iter().find_map(|entry| match entry {
            LogEntry::Interval(interval) => Some(interval.encoded_histogram()),
            _ => None,
        });
        let raw = base64_decoded(encoded.unwrap());
        let histogram: Histogram<u64> =
            Deserializer::new().deserialize(&mut raw.as_slice()).unwrap();
        assert_eq!(histogram.len(), 20);
        let median = groups[1].quantile_ms(Figure::Leaderless, 0.5).unwrap().0;
        let coded = histogram.value_at_quantile(0.5) as f64 / NS_PER_MS;
        assert!((coded / median - 1.0).abs() < 0.05, "{coded} {median}");
    }

    /// RFC 4648, which the log's histograms are coded in.
    fn base64_decoded(text: &str) -> Vec<u8> {
        let digit = |c: u8| match c {
            b'A'..=b'Z' => u32::from(c - b'A'),
            b'a'..=b'z' => u32::from(c - b'a') + 26,
            b'0'..=b'9' => u32::from(c - b'0') + 52,
            b'+' => 62,
            _ => 63,
        };
        let digits: Vec<u32> = text.bytes().filter(|c| *c != b'=').map(digit).collect();
        let mut bytes = Vec::new();
        for group in digits.chunks(4) {
            let bits =
                group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
            bytes.extend(&bits.to_be_bytes()[1..group.len()]);
        }
        bytes
    }

    #[test]
    fn percentile_table_counts_up_to_the_last_value() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for ms in 1..=100 {
            histogram.record(ms * 1_000_000).unwrap();
        }
        let text = hgrm(&histogram, "leaderless of s-raft", "all is in here");
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .take_while(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|cell| cell.parse().unwrap()).collect())
            .collect();
        for row in &rows {
            let (value, level, total) = (row[0], row[1], row[2]);
            assert!((value - total).abs() < 0.1, "the n-th value is n: {row:?}");
            let rank = (level * 100.0 - 1e-6).ceil().max(1.0);
            assert_eq!(total, rank, "the least value that so many are not above: {row:?}");
        }
        assert!(rows.iter().any(|row| (row[1] - 0.9).abs() < 1e-9));
        assert_eq!((rows.last().unwrap()[1], rows.last().unwrap()[2]), (1.0, 100.0));
    }
}
