//! The distribution of a time as steps, and its tail on a logarithmic axis.

use plotters::style::WHITE;

use super::{
    Drawing, PlotError, Subject,
    axis::{Axis, label, needs_log},
    canvas::{Align, Canvas, FAINT, GRID, INK, Pen, SMALL, WIDTH},
    curve::{Curve, direct_labels},
    legend::{self, Entry, Sign},
    ms, palette,
};
use crate::groups::Figure;

const LEFT: i32 = 150;
const RIGHT: i32 = WIDTH - 60;
const UPPER: i32 = 520;
const LOWER: i32 = 360;
const BETWEEN: i32 = 76;

pub(super) fn draw(
    subject: &Subject<'_>,
    title: &str,
    figure: Figure,
) -> Result<Drawing, PlotError> {
    let colors = palette::colors(subject.plan);
    let mut curves: Vec<Curve> =
        subject.groups.iter().map(|group| Curve::of(group, figure, colors[group.index])).collect();
    let all_shared = palette::shared(&colors);
    let shared: Vec<bool> = subject.groups.iter().map(|group| all_shared[group.index]).collect();
    for curve in &mut curves {
        if let Some(median) = curve.median {
            curve.name = format!("{} · median {} ms", curve.name, ms(median));
        }
    }
    let values = subject.observed_ms(figure);
    let log = needs_log(&values);
    let x = Axis::over(&values, log, !log, LEFT, RIGHT);
    let entries: Vec<Entry> = curves
        .iter()
        .zip(&shared)
        .map(|(curve, shared)| Entry {
            name: curve.name.clone(),
            color: curve.color,
            sign: if *shared { Sign::Dashes } else { Sign::Line },
        })
        .collect();

    let top = 140;
    let y = Axis::exact(0.0, 1.0, false, top + UPPER, top);
    let drawn: Vec<Vec<(i32, i32)>> =
        curves.iter().map(|curve| curve.points(&x, |waiting| y.at(1.0 - waiting))).collect();
    let direct: Option<Vec<(i32, i32)>> =
        direct_labels(&curves, &drawn, (&x, &y), (LEFT, RIGHT), 34).into_iter().collect();
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
        for (curve, shared) in curves.iter().zip(&shared) {
            for line in [
                curve.points(&x, |waiting| y.at(1.0 - waiting)),
                curve.points(&x, |waiting| tail.at(waiting.max(least))),
            ] {
                if *shared {
                    canvas.dashes(&line, curve.color, 4)?;
                } else {
                    canvas.line(&line, curve.color, 4)?;
                }
            }
        }
        for (curve, place) in curves.iter().zip(direct.iter().flatten()) {
            let pen = Pen::new(SMALL, INK).bold();
            let end = place.0 + 40 + pen.width(&curve.name);
            canvas.rect((place.0 - 6, place.1 - 18), (end, place.1 + 18), WHITE)?;
            canvas.line(&[(place.0, place.1), (place.0 + 24, place.1)], curve.color, 6)?;
            canvas.text(pen, place.0 + 34, place.1, &curve.name)?;
        }
        let scale = if log { ", logarithmic" } else { "" };
        let name = format!("{} (ms{scale})", figure.axis());
        let pen = Pen::new(SMALL, INK).align(Align::Middle);
        canvas.text(pen, (LEFT + RIGHT) / 2, below + LOWER + 72, &name)?;
        canvas.text_up(
            pen,
            34,
            top + UPPER / 2,
            if figure == Figure::Outage { "are served" } else { "have a leader" },
        )?;
        canvas.text_up(pen, 34, below + LOWER / 2, "still wait")
    })
}
