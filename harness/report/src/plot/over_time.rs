//! Every trial as a dot in the order of running: drift, outliers and blocks become visible.

use std::collections::BTreeSet;

use plotters::style::{Color, RGBColor};
use sraft_events::Verdict;

use super::{
    Drawing, PlotError, Subject,
    axis::{Axis, label, needs_log},
    canvas::{Align, Canvas, FAINT, GRID, INK, Pen, SHADE, SMALL, WIDTH},
    legend::{self, Entry, Sign},
    palette,
};
use crate::{groups::Figure, measure::TrialRow, stats};

const LEFT: i32 = 150;
const RIGHT: i32 = WIDTH - 50;
const BODY: i32 = 640;
const ODD: RGBColor = RGBColor(0x1c, 0x23, 0x2b);

/// Up to this many trials each is a dot of its own.
const DOTS: usize = 2000;
/// Of more, about as many marks as this stand for some trials each.
const MARKS: usize = 800;

/// Consecutive trials of a variant, seen from afar.
struct Bin {
    variant: usize,
    /// Where its trials lie in the order of running, on average, from 1.
    place: f64,
    /// Fastest, median and slowest, milliseconds.
    spread: [f64; 3],
}

/// Bins of `size` consecutive trials of a variant, those without a time left out.
fn bins(trials: &[(&TrialRow, usize)], size: usize, figure: Figure) -> Vec<Bin> {
    let variants = trials.iter().map(|(_, variant)| variant + 1).max().unwrap_or(0);
    let mut bins = Vec::new();
    for variant in 0..variants {
        let own = trials.iter().enumerate().filter(|(_, trial)| trial.1 == variant);
        let timed: Vec<(f64, f64)> = own
            .filter_map(|(order, trial)| Some((order as f64 + 1.0, figure.of(trial.0)? / 1000.0)))
            .collect();
        for part in timed.chunks(size) {
            let mut values: Vec<f64> = part.iter().map(|(_, value)| *value).collect();
            values.sort_by(f64::total_cmp);
            let at = |p| stats::quantile(&values, p).unwrap_or_default();
            bins.push(Bin {
                variant,
                place: part.iter().map(|(place, _)| place).sum::<f64>() / part.len() as f64,
                spread: [at(0.0), at(0.5), at(1.0)],
            });
        }
    }
    bins
}

pub(super) fn draw(subject: &Subject<'_>, title: &str) -> Result<Drawing, PlotError> {
    let figure = Figure::compared(subject.plan);
    let colors = palette::colors(subject.plan);
    // Trials of one cell run in the order of their blocks; within a variant they are in order.
    let mut trials: Vec<(&TrialRow, usize)> = subject
        .groups
        .iter()
        .flat_map(|group| group.rows.iter().map(|row| (*row, group.index)))
        .collect();
    trials.sort_by(|(a, _), (b, _)| (&a.started_at, a.trial).cmp(&(&b.started_at, b.trial)));
    let values: Vec<f64> =
        trials.iter().filter_map(|(row, _)| figure.of(row)).map(|v| v / 1000.0).collect();
    let log = needs_log(&values);

    let mut entries: Vec<Entry> = subject
        .groups
        .iter()
        .map(|group| Entry {
            name: group.variant.to_owned(),
            color: colors[group.index],
            sign: Sign::Marker(group.index),
        })
        .collect();
    let has = |verdict| trials.iter().any(|(row, _)| row.verdict == verdict);
    for (verdict, name, sign) in [
        (Verdict::Censored, "timed out", Sign::Late),
        (Verdict::Inconsistent, "inconsistent", Sign::Ring),
        (Verdict::Invalid, "invalid", Sign::Cross),
    ] {
        if has(verdict) {
            entries.push(Entry { name: name.to_owned(), color: ODD, sign });
        }
    }
    let top = 140 + legend::height(&entries) + 56;
    let bottom = top + BODY;
    let y = Axis::over(&values, log, !log, bottom, top);
    let last = trials.len().max(2) as f64;
    let x = Axis::exact(0.0, last + 1.0, false, LEFT, RIGHT);

    let many = trials.len() > DOTS;
    let size = if many { trials.len().div_ceil(MARKS) } else { 1 };
    // Blocks of less than four pixels would be a grey field.
    let blocks = trials.chunk_by(|a, b| a.0.block == b.0.block).count();
    let shaded = blocks as i32 * 4 <= RIGHT - LEFT;
    let shading = "shading marks the blocks, each with one freshly started cluster";
    let explanation = match (many, shaded) {
        (false, true) => format!("a dot is a trial; {shading}"),
        (false, false) => "a dot is a trial".to_owned(),
        (true, shaded) => {
            let shading = if shaded { "; shading marks the blocks" } else { "" };
            format!(
                "a mark is {size} consecutive trials of a variant: their median, and a line from \
                 fastest to slowest{shading}"
            )
        }
    };

    Canvas::draw(bottom + 110, title, |canvas| {
        canvas.heading(title, &explanation)?;
        legend::draw(canvas, &entries, 140)?;
        let mut place = 0;
        for (number, block) in trials.chunk_by(|a, b| a.0.block == b.0.block).enumerate() {
            let (from, to) = (place as f64 + 0.5, (place + block.len()) as f64 + 0.5);
            if number % 2 == 0 && shaded {
                canvas.rect((x.at(from), top), (x.at(to), bottom), SHADE)?;
            }
            place += block.len();
        }
        let grey = Pen::new(SMALL, FAINT);
        if values.is_empty() {
            canvas.empty((LEFT + RIGHT) / 2, (top + bottom) / 2 - 30)?;
        }
        for tick in y.ticks(60).into_iter().filter(|_| !values.is_empty()) {
            let at = y.at(tick);
            canvas.line(&[(LEFT, at), (RIGHT, at)], GRID, 1)?;
            canvas.text(grey.align(Align::Right), LEFT - 14, at, &label(tick))?;
        }
        for tick in x
            .ticks(120)
            .into_iter()
            .filter(|t| t.fract() == 0.0 && *t > 0.0 && *t <= trials.len() as f64)
        {
            canvas.line(&[(x.at(tick), bottom), (x.at(tick), bottom + 10)], INK, 2)?;
            canvas.text(grey.align(Align::Middle), x.at(tick), bottom + 30, &label(tick))?;
        }
        canvas.line(&[(LEFT, bottom), (RIGHT, bottom)], INK, 2)?;
        for bin in bins(&trials, size, figure).iter().filter(|_| many) {
            let ([low, middle, high], color) = (bin.spread.map(|ms| y.at(ms)), colors[bin.variant]);
            let at = x.at(bin.place);
            canvas.line(&[(at, low), (at, high)], color.mix(0.35), 2)?;
            canvas.marker((at, middle), bin.variant, 5, color)?;
        }
        let dot = if trials.len() > 400 { 5 } else { 7 };
        // However many trials are odd, no more signs are drawn than can be told apart.
        let mut signs = BTreeSet::new();
        for (order, (row, variant)) in trials.iter().enumerate() {
            let at = x.at(order as f64 + 1.0);
            let value = figure.of(row).map(|value| y.at(value / 1000.0));
            if let Some(value) = value.filter(|_| !many) {
                canvas.marker((at, value), *variant, dot, colors[*variant])?;
            }
            let place = value.unwrap_or(bottom);
            if row.verdict != Verdict::Ok && !signs.insert((at / 3, place / 3, row.verdict)) {
                continue;
            }
            match row.verdict {
                Verdict::Ok => {}
                // Above everything that was measured: it took longer.
                Verdict::Censored => arrow(canvas, (at, top - 8), colors[*variant])?,
                Verdict::Inconsistent => canvas.ring((at, place), 13, ODD)?,
                Verdict::Invalid => canvas.cross((at, value.unwrap_or(bottom - 12)), 8, ODD)?,
            }
        }
        let pen = Pen::new(SMALL, INK).align(Align::Middle);
        canvas.text(pen, (LEFT + RIGHT) / 2, bottom + 76, "trial, in the order of running")?;
        let scale = if log { ", logarithmic" } else { "" };
        let what = if figure == Figure::Outage { "outage" } else { "time without a leader" };
        canvas.text_up(pen, 34, (top + bottom) / 2, &format!("{what} (ms{scale})"))
    })
}

/// An arrow upwards, its foot at `at`.
pub(super) fn arrow(canvas: &Canvas<'_>, at: (i32, i32), color: RGBColor) -> Result<(), PlotError> {
    let (x, y) = at;
    canvas.line(&[(x, y), (x, y - 24)], color, 3)?;
    canvas.line(&[(x - 8, y - 14), (x, y - 24), (x + 8, y - 14)], color, 3)
}
