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
};

const NS_PER_MS: f64 = 1e6;

/// The `.hgrm` and `.hlog` of every figure of a group that was observed at least once: file name
/// and content.
pub(super) fn exports(group: &Group<'_>) -> Result<Vec<(String, Vec<u8>)>, ReportError> {
    let mut files = Vec::new();
    for figure in Figure::ALL {
        let sample = group.sample(figure);
        let mut histogram =
            Histogram::<u64>::new(3).map_err(|error| ReportError::Histogram(error.to_string()))?;
        for observation in sample.iter().filter(|o| o.observed && o.value >= 0.0) {
            let ns = (observation.value * 1000.0).round() as u64;
            histogram.record(ns).map_err(|error| ReportError::Histogram(error.to_string()))?;
        }
        if histogram.is_empty() {
            continue;
        }
        let parts = [figure.name(), group.variant, group.cell].map(slug);
        let stem =
            parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(".");
        let censored = sample.iter().filter(|o| !o.observed).count();
        let title = format!("{} of {}{}", figure.name(), group.variant, in_cell(group.cell));
        files.push((format!("{stem}.hgrm"), hgrm(&histogram, &title, censored).into_bytes()));
        files.push((format!("{stem}.hlog"), hlog(&histogram, &title, group, censored)?));
    }
    Ok(files)
}

fn in_cell(cell: &str) -> String {
    if cell.is_empty() { String::new() } else { format!(" in {cell}") }
}

/// The percentile table that HdrHistogram's plotters read, in milliseconds.
fn hgrm(histogram: &Histogram<u64>, title: &str, censored: usize) -> String {
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut level = 0.0;
    loop {
        let value = histogram.value_at_quantile(level);
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
         # {title}, milliseconds; {censored} timed-out trials are not in here\n",
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
    censored: usize,
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
        .add_comment(&format!("{censored} timed-out trials are not in here"))
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
    fn percentile_table_counts_up_to_the_last_value() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for ms in 1..=100 {
            histogram.record(ms * 1_000_000).unwrap();
        }
        let text = hgrm(&histogram, "leaderless of s-raft", 0);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .take_while(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|cell| cell.parse().unwrap()).collect())
            .collect();
        for row in &rows {
            let (value, level, total) = (row[0], row[1], row[2]);
            assert!((value - total).abs() < 0.1, "the n-th value is n: {row:?}");
            assert!(total + 1e-6 >= (level * 100.0).floor(), "{row:?}");
        }
        assert!(rows.iter().any(|row| (row[1] - 0.9).abs() < 1e-9));
        assert_eq!((rows.last().unwrap()[1], rows.last().unwrap()[2]), (1.0, 100.0));
    }
}
