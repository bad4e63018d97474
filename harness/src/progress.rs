//! What the user sees while a run goes on: on a terminal a bar, elsewhere a line now and then.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sraft_report::{groups::Figure, measure::TrialRow, results::Plan};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    plain: bool,
    total: u64,
    done: u64,
    /// Trials that were complete before this process began.
    before: u64,
    began: Instant,
    last_line: Instant,
    order: Vec<String>,
    /// The cell of the moment: medians over different cells would mean nothing.
    cell: String,
    /// What the medians are of.
    figure: Figure,
    ms: BTreeMap<(String, String), Vec<f64>>,
    odd: BTreeMap<String, u32>,
}

impl Progress {
    pub(crate) fn new(plan: &Plan, before: u64) -> Progress {
        let total = plan.blocks.iter().map(|block| block.trials.len() as u64).sum();
        let plain = !std::io::stderr().is_terminal();
        let target =
            if plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        // Two lines, also on 80 columns: what does not fit is cut off, and the time left comes first.
        let style = "trial {pos} of {len} {bar:20} {prefix:40!}\n{wide_msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is well formed"));
        bar.set_position(before);
        let began = Instant::now();
        let order = plan.variants.iter().map(|variant| variant.name.clone()).collect();
        Progress {
            bar,
            plain,
            total,
            done: before,
            before,
            began,
            last_line: began,
            order,
            cell: String::new(),
            figure: Figure::compared(plan),
            ms: BTreeMap::new(),
            odd: BTreeMap::new(),
        }
    }

    /// Which part of a trial begins.
    pub(crate) fn stage(&mut self, cell: &str, variant: &str, stage: &str) {
        cell.clone_into(&mut self.cell);
        let cell = if cell.is_empty() { String::new() } else { format!(" ({cell})") };
        self.bar.set_prefix(format!("{stage}: {variant}{cell}"));
        self.bar.set_message(self.medians());
    }

    /// Says something above the bar that is to stay.
    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{text}");
        });
    }

    /// Trials have ended.
    pub(crate) fn trials(&mut self, rows: &[TrialRow]) {
        for row in rows {
            self.done += 1;
            if let Some(us) = self.figure.of(row).filter(|_| row.counts()) {
                let key = (row.cell.clone(), row.variant.clone());
                self.ms.entry(key).or_default().push(us / 1e3);
            }
            if row.verdict != sraft_events::Verdict::Ok {
                *self.odd.entry(row.verdict.to_string()).or_default() += 1;
            }
        }
        self.bar.set_position(self.done);
        self.bar.set_message(self.medians());
        let now = Instant::now();
        if self.plain && (now - self.last_line >= LINE_EVERY || self.done == self.total) {
            self.last_line = now;
            self.note(&format!("trial {} of {}: {}", self.done, self.total, self.medians()));
        }
    }

    /// Leaves the terminal as it was.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// `2m 3s left; leaderless, median: raft 512 ms, s-raft 172 ms; 1 censored`
    fn medians(&self) -> String {
        let medians: Vec<String> = self
            .order
            .iter()
            .filter_map(|variant| {
                let key = (self.cell.clone(), variant.clone());
                Some((variant, median(self.ms.get(&key)?)?))
            })
            .map(|(variant, ms)| format!("{variant} {ms:.1} ms"))
            .collect();
        let mut parts = Vec::new();
        if let Some(left) = self.left() {
            let left = Duration::from_secs(left.as_secs());
            parts.push(format!("{} left", humantime::format_duration(left)));
        }
        if !medians.is_empty() {
            parts.push(format!("{}, median: {}", self.figure.name(), medians.join(", ")));
        }
        parts.extend(self.odd.iter().map(|(verdict, count)| format!("{count} {verdict}")));
        parts.join("; ")
    }

    fn left(&self) -> Option<Duration> {
        let here = u32::try_from(self.done - self.before).ok().filter(|here| *here > 0)?;
        let left = u32::try_from(self.total - self.done).ok()?;
        Some(self.began.elapsed() / here * left)
    }
}

/// The middle value; of an even number of values, the mean of the two in the middle.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let low = sorted.get(sorted.len().checked_sub(1)? / 2)?;
    let high = sorted.get(sorted.len() / 2)?;
    Some((low + high) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_of_nothing_is_nothing() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 5.0, 6.0]), Some(5.5));
    }
}
