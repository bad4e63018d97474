//! Published results that a run may stand beside. They are facts read off figures, kept as tables
//! of percentiles in this crate; each table names its source.

use std::sync::LazyLock;

use crate::results::Published;

static RAFT_FIG16: LazyLock<Vec<Line>> =
    LazyLock::new(|| parse(include_str!("../published/raft-fig16.csv")));

/// A published distribution of the announced time.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The range that election timeouts were drawn from, as variants are named.
    pub name: String,
    /// Share of the trials, from 0 to 1, and the time that they do not exceed, milliseconds; both
    /// ascend.
    pub points: Vec<(f64, f64)>,
}

impl Published {
    /// Its lines, in the order of the table.
    pub fn lines(self) -> &'static [Line] {
        match self {
            Published::RaftFig16 => &RAFT_FIG16,
        }
    }

    /// The line of this name.
    pub fn line(self, name: &str) -> Option<&'static Line> {
        self.lines().iter().find(|line| line.name == name)
    }

    /// Its name, as in an experiment.
    pub fn name(self) -> &'static str {
        match self {
            Published::RaftFig16 => "raft-fig16",
        }
    }

    /// Where it was published, in short.
    pub fn source(self) -> &'static str {
        match self {
            Published::RaftFig16 => {
                "Ongaro, Consensus: Bridging Theory and Practice, 2014; also figure 16 of the Raft \
                 paper"
            }
        }
    }

    /// How far the straight lines between the points of the tables depart from the full curves, as
    /// a share of the trials: no distance is known more closely.
    pub fn resolution(self) -> f64 {
        match self {
            Published::RaftFig16 => 0.016,
        }
    }
}

impl Line {
    /// The share of the trials that took at most `ms`, on straight lines between the points.
    pub fn share(&self, ms: f64) -> f64 {
        let above = self.points.partition_point(|point| point.1 <= ms);
        match (above.checked_sub(1).map(|below| self.points[below]), self.points.get(above)) {
            (None, _) => 0.0,
            (Some((share, _)), None) => share,
            (Some((p, low)), Some((q, high))) => p + (q - p) * (ms - low) / (high - low),
        }
    }

    /// A quantile that stands in the table, milliseconds.
    pub fn quantile(&self, p: f64) -> Option<f64> {
        self.points.iter().find(|point| (point.0 - p).abs() < 1e-9).map(|point| point.1)
    }

    /// The Kolmogorov-Smirnov distance: the greatest vertical distance between this line and the
    /// steps of a sample of `n` values, of which `ascending` holds the observed ones; the rest took
    /// longer than any of them. Empty without values.
    pub fn distance(&self, ascending: &[f64], n: usize) -> Option<f64> {
        let share = |rank: usize| rank as f64 / n as f64;
        let steps = ascending.iter().enumerate().map(|(rank, value)| {
            let here = self.share(*value);
            // The line is continuous: it is farthest from a step just before or just after it.
            (here - share(rank)).abs().max((here - share(rank + 1)).abs())
        });
        let rest = (n > 0).then(|| 1.0 - share(ascending.len()));
        rest.map(|rest| steps.fold(rest, f64::max))
    }
}

/// Lines `line,percentile,ms`; lines that begin with `#` are comments.
fn parse(table: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for row in table.lines().filter(|row| !row.starts_with('#')).skip(1) {
        let cells: Vec<&str> = row.split(',').collect();
        let number = |at: usize| cells.get(at).and_then(|cell| cell.parse::<f64>().ok());
        let (Some(percentile), Some(ms)) = (number(1), number(2)) else {
            unreachable!("the shipped table is whole: {row}")
        };
        if lines.last().is_none_or(|line| line.name != cells[0]) {
            lines.push(Line { name: cells[0].to_owned(), points: Vec::new() });
        }
        let points = &mut lines.last_mut().expect("just pushed").points;
        points.push((percentile / 100.0, ms));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_table_is_whole() {
        let lines = Published::RaftFig16.lines();
        let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["150-155", "150-300", "100-200", "12-24"]);
        for line in lines {
            assert_eq!((line.points[0].0, line.points[line.points.len() - 1].0), (0.0, 1.0));
            assert!(line.points.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "{}", line.name);
        }
        // The dissertation's text: a median of 287 ms with 150-155, a maximum of 152 with 12-24.
        let named = |name| Published::RaftFig16.line(name).unwrap();
        assert!((named("150-155").quantile(0.5).unwrap() - 287.0).abs() < 1.0);
        assert!((named("12-24").quantile(1.0).unwrap() - 152.0).abs() < 1.0);
    }

    #[test]
    fn distance_is_the_greatest_gap() {
        let line = Line { name: "even".into(), points: vec![(0.0, 0.0), (1.0, 10.0)] };
        assert_eq!(line.share(-1.0), 0.0);
        assert_eq!(line.share(2.5), 0.25);
        assert_eq!(line.share(11.0), 1.0);
        let middles: Vec<f64> = (0..10).map(|i| f64::from(i) + 0.5).collect();
        assert!((line.distance(&middles, 10).unwrap() - 0.05).abs() < 1e-12);
        // All values at 3: the gap is largest just after the step.
        assert!((line.distance(&[3.0; 4], 4).unwrap() - 0.7).abs() < 1e-12);
        // Half of the sample was never observed.
        assert!((line.distance(&middles, 20).unwrap() - 0.525).abs() < 0.03);
        assert_eq!(line.distance(&[], 4), Some(1.0));
        assert_eq!(line.distance(&[], 0), None);
    }
}
