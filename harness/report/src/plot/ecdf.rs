//! The distribution of leaderless times as steps, and its tail on a logarithmic axis.

use plotters::style::{RGBColor, WHITE};

use super::{
    Drawing, PlotError, Subject,
    axis::{Axis, label, needs_log},
    canvas::{Align, Canvas, FAINT, GRID, INK, Pen, SMALL, WIDTH},
    legend::{self, Entry, Sign},
    ms, palette,
};
use crate::{
    groups::{Figure, Group},
    stats::{self, Step},
};

const LEFT: i32 = 150;
const RIGHT: i32 = WIDTH - 60;
const UPPER: i32 = 520;
const LOWER: i32 = 360;
const BETWEEN: i32 = 76;

struct Curve {
    steps: Vec<Step>,
    name: String,
    color: RGBColor,
    /// Where the curve ends if the rest is censored.
    until: Option<f64>,
    n: usize,
}

impl Curve {
    fn of(group: &Group<'_>, color: RGBColor) -> Curve {
        let sample = group.sample(Figure::Leaderless);
        let values: Vec<(f64, bool)> =
            sample.iter().map(|o| (o.value / 1000.0, o.observed)).collect();
        let steps = stats::kaplan_meier(&values);
        let until = values.iter().filter(|v| !v.1).map(|v| v.0).reduce(f64::max);
        let name = match group.quantile_ms(Figure::Leaderless, 0.5) {
            Some((median, true)) => format!("{} · median {} ms", group.variant, ms(median)),
            _ => group.variant.to_owned(),
        };
        Curve { steps, name, color, until, n: values.len() }
    }

    /// The corners of the curve in pixels; `y` draws the part that still waits.
    fn points(&self, x: &Axis, y: impl Fn(f64) -> i32) -> Vec<(i32, i32)> {
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
        points
    }
}

pub(super) fn draw(subject: &Subject<'_>, title: &str) -> Result<Drawing, PlotError> {
    let colors = palette::colors(subject.plan);
    let curves: Vec<Curve> =
        subject.groups.iter().map(|group| Curve::of(group, colors[group.index])).collect();
    let values = subject.leaderless_ms();
    let log = needs_log(&values);
    let x = Axis::over(&values, log, !log, LEFT, RIGHT);
    let entries: Vec<Entry> = curves
        .iter()
        .map(|c| Entry { name: c.name.clone(), color: c.color, sign: Sign::Line })
        .collect();

    let top = 140;
    let y = Axis::exact(0.0, 1.0, false, top + UPPER, top);
    let drawn: Vec<Vec<(i32, i32)>> =
        curves.iter().map(|curve| curve.points(&x, |waiting| y.at(1.0 - waiting))).collect();
    let direct = direct_labels(&curves, &drawn, &x, &y);
    // Labels that do not fit beside their lines go into a legend above them.
    let shift = if direct.is_some() { 0 } else { legend::height(&entries) + 30 };
    let largest = curves.iter().map(|curve| curve.n).max().unwrap_or(1).max(10);
    let least = 10_f64.powf((0.7 / largest as f64).log10());

    let height = top + shift + UPPER + BETWEEN + LOWER + 110;
    Canvas::draw(height, title, |canvas| {
        canvas.heading(title, "above: share of the trials; below: the share that still waits, on a logarithmic axis (the tail)")?;
        if direct.is_none() {
            legend::draw(canvas, &entries, top)?;
        }
        let top = top + shift;
        let y = Axis::exact(0.0, 1.0, false, top + UPPER, top);
        let below = top + UPPER + BETWEEN;
        let tail = Axis::exact(least, 1.0, true, below + LOWER, below);
        let grey = Pen::new(SMALL, FAINT);
        if values.is_empty() {
            canvas.empty((LEFT + RIGHT) / 2, top + UPPER / 2 - 40)?;
        }
        let ticks = x.ticks(if log { 90 } else { 120 });
        for tick in ticks.into_iter().filter(|_| !values.is_empty()) {
            let at = x.at(tick);
            canvas.line(&[(at, top), (at, top + UPPER)], GRID, 1)?;
            canvas.line(&[(at, below), (at, below + LOWER)], GRID, 1)?;
            for base in [top + UPPER, below + LOWER] {
                canvas.text(grey.align(Align::Middle), at, base + 26, &label(tick))?;
            }
        }
        for percent in [0, 25, 50, 75, 100] {
            let at = y.at(f64::from(percent) / 100.0);
            canvas.line(&[(LEFT, at), (RIGHT, at)], GRID, if percent == 50 { 2 } else { 1 })?;
            canvas.text(grey.align(Align::Right), LEFT - 14, at, &format!("{percent} %"))?;
        }
        for share in tail.ticks(44) {
            let at = tail.at(share);
            canvas.line(&[(LEFT, at), (RIGHT, at)], GRID, 1)?;
            let text = format!("{} %", label(share * 100.0));
            canvas.text(grey.align(Align::Right), LEFT - 14, at, &text)?;
        }
        for base in [top + UPPER, below + LOWER] {
            canvas.line(&[(LEFT, base), (RIGHT, base)], INK, 2)?;
        }
        for curve in &curves {
            canvas.line(&curve.points(&x, |waiting| y.at(1.0 - waiting)), curve.color, 4)?;
            canvas.line(
                &curve.points(&x, |waiting| tail.at(waiting.max(least))),
                curve.color,
                4,
            )?;
        }
        for (curve, place) in curves.iter().zip(direct.iter().flatten()) {
            let pen = Pen::new(SMALL, INK).bold();
            let end = place.0 + 40 + pen.width(&curve.name);
            canvas.rect((place.0 - 6, place.1 - 18), (end, place.1 + 18), WHITE)?;
            canvas.line(&[(place.0, place.1), (place.0 + 24, place.1)], curve.color, 6)?;
            canvas.text(pen, place.0 + 34, place.1, &curve.name)?;
        }
        let scale = if log { ", logarithmic" } else { "" };
        let name = format!("time without a leader, fault to new majority (ms{scale})");
        let pen = Pen::new(SMALL, INK).align(Align::Middle);
        canvas.text(pen, (LEFT + RIGHT) / 2, below + LOWER + 72, &name)?;
        canvas.text_up(pen, 34, top + UPPER / 2, "have a leader")?;
        canvas.text_up(pen, 34, below + LOWER / 2, "still wait")
    })
}

/// A place beside each curve where its name touches no curve and no other name; empty if there is
/// none for one of them.
fn direct_labels(
    curves: &[Curve],
    drawn: &[Vec<(i32, i32)>],
    x: &Axis,
    y: &Axis,
) -> Option<Vec<(i32, i32)>> {
    let pen = Pen::new(SMALL, INK).bold();
    let mut taken: Vec<[i32; 4]> = Vec::new();
    let mut places = Vec::new();
    for curve in curves {
        let width = pen.width(&curve.name) + 34;
        let place =
            [0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2, 0.88, 0.12].into_iter().find_map(|share| {
                let step = curve.steps.iter().find(|step| 1.0 - step.survival >= share)?;
                let (left, middle) = (x.at(step.value) + 16, y.at(share));
                let boxed = [left - 6, middle - 20, left + width + 6, middle + 20];
                let free = boxed[2] <= RIGHT
                    && taken.iter().all(|other| !overlap(&boxed, other))
                    && drawn.iter().all(|line| !crosses(line, &boxed));
                free.then_some((left, middle, boxed))
            })?;
        taken.push(place.2);
        places.push((place.0, place.1));
    }
    Some(places)
}

fn overlap(a: &[i32; 4], b: &[i32; 4]) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// Whether a line of level and upright pieces meets a box.
fn crosses(line: &[(i32, i32)], boxed: &[i32; 4]) -> bool {
    line.windows(2).any(|piece| {
        let ((x0, y0), (x1, y1)) = (piece[0], piece[1]);
        overlap(&[x0.min(x1), y0.min(y1), x0.max(x1) + 1, y0.max(y1) + 1], boxed)
    })
}
