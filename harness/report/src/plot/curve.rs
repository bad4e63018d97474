//! Distributions as steps, and places for their names beside them.

use plotters::style::RGBColor;

use super::{
    axis::Axis,
    canvas::{INK, Pen, SMALL},
};
use crate::{
    groups::{Figure, Group},
    stats::{self, Step},
};

/// The distribution of a figure of a group.
pub(super) struct Curve {
    pub(super) steps: Vec<Step>,
    pub(super) name: String,
    pub(super) color: RGBColor,
    /// Where the curve ends if the rest is censored.
    pub(super) until: Option<f64>,
    pub(super) n: usize,
    /// The median, milliseconds, if it was seen.
    pub(super) median: Option<f64>,
    /// What the median exceeds if it was not seen, milliseconds.
    pub(super) median_above: Option<f64>,
}

/// Shares of the trials beside which a name may stand, the best first.
const SHARES: [f64; 9] = [0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2, 0.88, 0.12];

impl Curve {
    pub(super) fn of(group: &Group<'_>, figure: Figure, color: RGBColor) -> Curve {
        let sample = group.sample(figure);
        let values: Vec<(f64, bool)> =
            sample.iter().map(|o| (o.value / 1000.0, o.observed)).collect();
        let median = group.quantile_ms(figure, 0.5);
        Curve {
            steps: stats::kaplan_meier(&values),
            name: group.variant.to_owned(),
            color,
            until: values.iter().filter(|v| !v.1).map(|v| v.0).reduce(f64::max),
            n: values.len(),
            median: median.filter(|m| m.1).map(|m| m.0),
            median_above: median.filter(|m| !m.1).map(|m| m.0),
        }
    }

    /// The corners of the curve in pixels; `y` draws the part that still waits.
    pub(super) fn points(&self, x: &Axis, y: impl Fn(f64) -> i32) -> Vec<(i32, i32)> {
        let mut points = vec![(x.at(x.low()), y(1.0))];
        let mut level = y(1.0);
        for step in &self.steps {
            let at = x.at(step.value);
            points.push((at, level));
            level = y(step.survival);
            points.push((at, level));
        }
        // A curve with censored trials goes on level; one without them has ended.
        if let Some(until) = self.until {
            points.push((x.at(until), level));
        }
        corners(&points)
    }

    /// The time that this share of the trials does not exceed.
    pub(super) fn reaches(&self, share: f64) -> Option<f64> {
        self.steps.iter().find(|step| 1.0 - step.survival >= share).map(|step| step.value)
    }
}

/// The points without those that change nothing of the drawn line: thousands of steps end up on the
/// same few hundred pixels.
fn corners(points: &[(i32, i32)]) -> Vec<(i32, i32)> {
    let mut kept: Vec<(i32, i32)> = Vec::new();
    for point in points {
        while let [.., before, last] = kept[..] {
            let upright = before.0 == last.0 && last.0 == point.0;
            let level = before.1 == last.1 && last.1 == point.1;
            // Steps only ever go one way, so a point between two others lies on their line.
            if !upright && !level {
                break;
            }
            kept.pop();
        }
        if kept.last() != Some(point) {
            kept.push(*point);
        }
    }
    kept
}

/// For each curve a place beside it where its name (with `extra` pixels before it) touches no drawn
/// line and no other name, if there is one: the left end and the middle. Nothing reaches beyond
/// `left` and `right`.
pub(super) fn direct_labels(
    curves: &[Curve],
    drawn: &[Vec<(i32, i32)>],
    (x, y): (&Axis, &Axis),
    (left, right): (i32, i32),
    extra: i32,
) -> Vec<Option<(i32, i32)>> {
    let pen = Pen::new(SMALL, INK).bold();
    let mut taken: Vec<[i32; 4]> = Vec::new();
    let mut place = |curve: &Curve| {
        let width = pen.width(&curve.name) + extra;
        let beside = |share: f64| {
            let at = curve.reaches(share).map(|value| x.at(value));
            at.map(|at| [(at + 16, y.at(share)), (at - 16 - width, y.at(share))])
        };
        SHARES.into_iter().filter_map(beside).flatten().find(|(from, middle)| {
            let boxed = [from - 6, middle - 20, from + width + 6, middle + 20];
            let free = boxed[0] >= left
                && boxed[2] <= right
                && taken.iter().all(|other| !overlap(&boxed, other))
                && drawn.iter().all(|line| !crosses(line, &boxed));
            if free {
                taken.push(boxed);
            }
            free
        })
    };
    curves.iter().map(&mut place).collect()
}

fn overlap(a: &[i32; 4], b: &[i32; 4]) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// Whether a line meets a box; a slanting piece counts with the box around it.
fn crosses(line: &[(i32, i32)], boxed: &[i32; 4]) -> bool {
    line.windows(2).any(|piece| {
        let ((x0, y0), (x1, y1)) = (piece[0], piece[1]);
        overlap(&[x0.min(x1), y0.min(y1), x0.max(x1) + 1, y0.max(y1) + 1], boxed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_are_all_that_is_kept() {
        let points =
            [(0, 9), (0, 9), (3, 9), (3, 8), (3, 8), (3, 5), (3, 5), (4, 5), (6, 5), (6, 0)];
        assert_eq!(corners(&points), [(0, 9), (3, 9), (3, 5), (6, 5), (6, 0)]);
        assert_eq!(corners(&[(1, 1)]), [(1, 1)]);
        assert_eq!(corners(&[]), []);
    }
}
