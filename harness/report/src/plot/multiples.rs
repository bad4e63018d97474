//! The distributions of many cells side by side, all on the same axes.

use super::{
    Drawing, PlotError, Subject,
    axis::{Axis, label, needs_log},
    canvas::{Align, Canvas, FAINT, GRID, INK, Pen, SMALL, WIDTH},
    cells::Cells,
    curve::Curve,
    legend::{self, Entry, Sign},
    palette,
};
use crate::groups::Figure;

/// Most cells that are shown; of more than these, as many at even distances.
const MOST: usize = 12;
const LEFT: i32 = 120;
const APART: i32 = 40;
const BODY: i32 = 230;
const PITCH: i32 = BODY + 66;

/// Positions of the cells that are shown: the first, the last, and even steps between them.
fn shown(cells: usize) -> Vec<usize> {
    if cells <= MOST {
        return (0..cells).collect();
    }
    (0..MOST).map(|nth| nth * (cells - 1) / (MOST - 1)).collect()
}

pub(super) fn draw(subject: &Subject<'_>, title: &str) -> Result<Drawing, PlotError> {
    let plan = subject.plan;
    let figure = Figure::headline(plan);
    let colors = palette::colors(plan);
    let shared = palette::shared(&colors);
    let cells = Cells::of(&plan.cells);
    let shown = shown(plan.cells.len());
    let panels: Vec<Vec<Curve>> = shown
        .iter()
        .map(|cell| {
            let own = subject.groups.iter().filter(|group| group.cell == plan.cells[*cell]);
            own.map(|group| Curve::of(group, figure, colors[group.index])).collect()
        })
        .collect();
    let values: Vec<f64> =
        panels.iter().flatten().flat_map(|curve| curve.steps.iter().map(|s| s.value)).collect();
    let log = needs_log(&values);
    let columns = match panels.len() {
        0..=2 => 2,
        3 | 5 | 6 | 9 => 3,
        _ => 4,
    };
    let rows = panels.len().div_ceil(columns as usize) as i32;
    let width = (WIDTH - 50 - LEFT - APART * (columns - 1)) / columns;
    let entries: Vec<Entry> = plan
        .variants
        .iter()
        .enumerate()
        .map(|(index, variant)| Entry {
            name: variant.name.clone(),
            color: colors[index],
            sign: if shared[index] { Sign::Dashes } else { Sign::Line },
        })
        .collect();
    let top = 140 + legend::height(&entries) + 50;
    let skipped = plan.cells.len() - shown.len();
    let explanation = match skipped {
        0 => "share of the trials, by time; all fields have the same axes".to_owned(),
        _ => format!(
            "share of the trials, by time; all fields have the same axes; {} of {} cells",
            shown.len(),
            plan.cells.len()
        ),
    };
    Canvas::draw(top + PITCH * rows + 64, title, |canvas| {
        canvas.heading(title, &explanation)?;
        legend::draw(canvas, &entries, 140)?;
        for (nth, curves) in panels.iter().enumerate() {
            let (column, row) = (nth as i32 % columns, nth as i32 / columns);
            let left = LEFT + (width + APART) * column;
            let (top, right) = (top + PITCH * row, left + width);
            let x = Axis::over(&values, log, !log, left, right);
            let y = Axis::exact(0.0, 1.0, false, top + BODY, top);
            let grey = Pen::new(SMALL, FAINT);
            let name = Pen::new(SMALL, INK).bold();
            canvas.text(name, left, top - 20, &name.fit(&cells.names[shown[nth]], width))?;
            for percent in [0, 50, 100] {
                let at = y.at(f64::from(percent) / 100.0);
                canvas.line(&[(left, at), (right, at)], GRID, 1)?;
                if column == 0 {
                    canvas.text(
                        grey.align(Align::Right),
                        left - 12,
                        at,
                        &format!("{percent} %"),
                    )?;
                }
            }
            let lowest = nth + columns as usize >= panels.len();
            for tick in
                x.ticks(if log { 64 } else { 84 }).into_iter().filter(|_| !values.is_empty())
            {
                let at = x.at(tick);
                canvas.line(&[(at, top), (at, top + BODY)], GRID, 1)?;
                if lowest {
                    // The outermost stay within their field, or they would touch the neighbour's.
                    let (text, half) = (label(tick), grey.width(&label(tick)) / 2);
                    let at = at.clamp(left + half - 14, right - half + 14);
                    canvas.text(grey.align(Align::Middle), at, top + BODY + 24, &text)?;
                }
            }
            canvas.line(&[(left, top + BODY), (right, top + BODY)], INK, 2)?;
            for (index, curve) in curves.iter().enumerate() {
                let line = curve.points(&x, |waiting| y.at(1.0 - waiting));
                if shared[index] {
                    canvas.dashes(&line, curve.color, 4)?;
                } else {
                    canvas.line(&line, curve.color, 4)?;
                }
            }
        }
        let pen = Pen::new(SMALL, INK).align(Align::Middle);
        let scale = if log { ", logarithmic" } else { "" };
        let what = match figure {
            Figure::Announced => "time until all know the new leader",
            Figure::Outage => "outage",
            _ => "time without a leader",
        };
        let text = format!("{what} (ms{scale}), by {}", cells.key);
        canvas.text(pen, (LEFT + WIDTH - 50) / 2, top + PITCH * rows + 26, &text)
    })
}
