//! Medians across the cells of a matrix.

use plotters::style::Color;

use super::{
    Drawing, PlotError, Subject,
    axis::{Axis, label, needs_log},
    canvas::{Align, Canvas, FAINT, GRID, INK, Pen, SMALL, WIDTH},
    legend::{self, Entry, Sign},
    ms, palette,
};
use crate::{
    groups::{Figure, Group},
    stats::{self, Interval},
};

const LEFT: i32 = 150;
const RIGHT: i32 = WIDTH - 50;
const BODY: i32 = 620;

struct Point {
    cell: usize,
    variant: usize,
    median: f64,
    interval: Interval,
}

/// The median and its interval, milliseconds; empty if it lies among the censored.
fn point(group: &Group<'_>, cell: usize) -> Option<Point> {
    let (median, seen) = group.quantile_ms(Figure::Leaderless, 0.5)?;
    let sample = group.sample(Figure::Leaderless);
    let mut values: Vec<f64> = sample.iter().map(|o| o.value / 1000.0).collect();
    values.sort_by(f64::total_cmp);
    let mut interval = stats::order_interval(&values, 0.5);
    let unseen = sample.iter().filter(|o| !o.observed).map(|o| o.value / 1000.0);
    let first_unseen = unseen.fold(f64::INFINITY, f64::min);
    interval.high = interval.high.filter(|high| *high < first_unseen);
    seen.then_some(Point { cell, variant: group.index, median, interval })
}

pub(super) fn draw(subject: &Subject<'_>, title: &str) -> Result<Drawing, PlotError> {
    let plan = subject.plan;
    let colors = palette::colors(plan);
    let cell = |name: &str| plan.cells.iter().position(|cell| cell == name).unwrap_or(0);
    let points: Vec<Point> =
        subject.groups.iter().filter_map(|group| point(group, cell(group.cell))).collect();
    let ends = points.iter().flat_map(|p| [Some(p.median), p.interval.low, p.interval.high]);
    let values: Vec<f64> = ends.flatten().collect();
    let log = needs_log(&values);
    let entries: Vec<Entry> = plan
        .variants
        .iter()
        .enumerate()
        .map(|(index, variant)| Entry {
            name: variant.name.clone(),
            color: colors[index],
            sign: Sign::Marker(index),
        })
        .collect();
    let top = 140 + legend::height(&entries) + 40;
    let bottom = top + BODY;
    let y = Axis::over(&values, log, !log, bottom, top);
    let width = (RIGHT - LEFT) / plan.cells.len().max(1) as i32;
    // Variants stand beside one another within their cell.
    let apart = (width * 6 / 10 / plan.variants.len().max(1) as i32).clamp(8, 110);
    let x = |p: &Point| {
        let middle = LEFT + width * p.cell as i32 + width / 2;
        middle + apart * (2 * p.variant as i32 - (plan.variants.len() as i32 - 1)) / 2
    };
    let (key, names) = cell_names(&plan.cells);
    Canvas::draw(bottom + 110, title, |canvas| {
        canvas.heading(title, "medians with distribution-free 95 % intervals, which fewer than six trials do not give")?;
        legend::draw(canvas, &entries, 140)?;
        let grey = Pen::new(SMALL, FAINT);
        for tick in y.ticks(60) {
            canvas.line(&[(LEFT, y.at(tick)), (RIGHT, y.at(tick))], GRID, 1)?;
            canvas.text(grey.align(Align::Right), LEFT - 14, y.at(tick), &label(tick))?;
        }
        canvas.line(&[(LEFT, bottom), (RIGHT, bottom)], INK, 2)?;
        for (index, name) in names.iter().enumerate() {
            let pen = Pen::new(SMALL, INK).align(Align::Middle);
            let middle = LEFT + width * index as i32 + width / 2;
            canvas.text(pen, middle, bottom + 30, &pen.fit(name, width - 12))?;
        }
        for (variant, color) in colors.iter().enumerate() {
            let own = || points.iter().filter(move |p| p.variant == variant);
            // Between words there is nothing to interpolate.
            if names.iter().all(|name| name.starts_with(|c: char| c.is_ascii_digit())) {
                let line: Vec<(i32, i32)> = own().map(|p| (x(p), y.at(p.median))).collect();
                canvas.line(&line, color.mix(0.35), 3)?;
            }
            for p in own() {
                // An end that the sample does not bound is not drawn.
                for end in [p.interval.low, p.interval.high].into_iter().flatten() {
                    canvas.line(&[(x(p), y.at(p.median)), (x(p), y.at(end))], *color, 3)?;
                    canvas.line(&[(x(p) - 8, y.at(end)), (x(p) + 8, y.at(end))], *color, 3)?;
                }
                canvas.marker((x(p), y.at(p.median)), variant, 9, *color)?;
                // Numbers only where they have room on the right of their mark.
                let (pen, text) = (Pen::new(SMALL, INK), ms(p.median));
                if apart >= pen.width(&text) + 26 {
                    canvas.text(pen, x(p) + 14, y.at(p.median) - 20, &text)?;
                }
            }
        }
        let pen = Pen::new(SMALL, INK).align(Align::Middle);
        canvas.text(pen, (LEFT + RIGHT) / 2, bottom + 76, &pen.fit(&key, RIGHT - LEFT))?;
        let scale = if log { ", logarithmic" } else { "" };
        let name = format!("median time without a leader (ms{scale})");
        canvas.text_up(pen, 34, (top + bottom) / 2, &name)
    })
}

/// `cluster.size=3`, `cluster.size=5` -> `cluster.size` and `3`, `5`.
fn cell_names(cells: &[String]) -> (String, Vec<String>) {
    let split: Option<Vec<(&str, &str)>> = cells.iter().map(|cell| cell.split_once('=')).collect();
    match split {
        Some(pairs) if pairs.iter().all(|p| p.0 == pairs[0].0 && !p.1.contains('=')) => {
            (pairs[0].0.to_owned(), pairs.iter().map(|p| p.1.to_owned()).collect())
        }
        _ => ("cell".to_owned(), cells.to_vec()),
    }
}
