//! The phases between the fault and the first commit, stacked.

use plotters::style::RGBColor;

use super::{
    Drawing, PlotError, Subject,
    axis::{Axis, label},
    canvas::{Align, Canvas, FAINT, GRID, INK, MEDIUM, Pen, SMALL, WIDTH},
    legend::{self, Entry, Sign},
    ms,
    palette::STEPS,
};
use crate::groups::{Figure, Group};

const PHASES: [(Figure, RGBColor, &str); 3] = [
    (Figure::Detect, STEPS[0], "detect: fault to standing"),
    (Figure::Promote, STEPS[1], "promote: standing to majority"),
    (Figure::Commit, STEPS[2], "commit: majority to first commit"),
];
const LEFT: i32 = 44;
const RIGHT: i32 = WIDTH - 60;
/// The second panel, for the phases that the first one is too coarse for.
const SECOND: i32 = 1080;
const FIRST_END: i32 = 980;
const ROW: i32 = 132;

/// Means of detect, promote and commit, milliseconds, over the trials that have all three.
fn means(group: &Group<'_>) -> (usize, [f64; 3]) {
    let phases = |row: &&&crate::measure::TrialRow| -> Option<[f64; 3]> {
        let [a, b, c] = PHASES.map(|(figure, ..)| figure.of(row));
        Some([a?, b?, c?])
    };
    let all: Vec<[f64; 3]> =
        group.rows.iter().filter(|row| row.counts()).filter_map(|row| phases(&row)).collect();
    let mean = |i: usize| all.iter().map(|p| p[i]).sum::<f64>() / all.len().max(1) as f64 / 1000.0;
    (all.len(), [mean(0), mean(1), mean(2)])
}

pub(super) fn draw(subject: &Subject<'_>, title: &str) -> Result<Drawing, PlotError> {
    let rows: Vec<(usize, [f64; 3])> = subject.groups.iter().map(means).collect();
    let entries: Vec<Entry> = PHASES
        .iter()
        .map(|(_, color, name)| Entry { name: (*name).into(), color: *color, sign: Sign::Box })
        .collect();
    let top = 140 + legend::height(&entries) + 60;
    let bottom = top + ROW * rows.len() as i32;
    let total: Vec<f64> =
        rows.iter().filter(|row| row.0 > 0).map(|(_, phases)| phases.iter().sum()).collect();
    let short: Vec<f64> =
        rows.iter().filter(|row| row.0 > 0).map(|(_, phases)| phases[1] + phases[2]).collect();
    let panels = [
        (Axis::over(&total, false, true, LEFT, FIRST_END), 0, "mean time since the fault (ms)"),
        (Axis::over(&short, false, true, SECOND, RIGHT), 1, "mean time since standing (ms)"),
    ];
    Canvas::draw(bottom + 110, title, |canvas| {
        canvas.heading(
            title,
            "means over the trials that saw all three phases: means add up to the mean of the whole, medians would not",
        )?;
        legend::draw(canvas, &entries, 140)?;
        let head = Pen::new(SMALL, INK).bold();
        canvas.text(head, LEFT, top - 30, "all phases")?;
        canvas.text(head, SECOND, top - 30, "promote and commit only, own scale")?;
        for (axis, first, name) in &panels {
            let any = rows.iter().any(|(n, _)| *n > 0);
            for tick in axis.ticks(110).into_iter().filter(|_| any) {
                let at = axis.at(tick);
                canvas.line(&[(at, top), (at, bottom)], GRID, 1)?;
                let pen = Pen::new(SMALL, FAINT).align(Align::Middle);
                canvas.text(pen, at, bottom + 26, &label(tick))?;
            }
            let middle = (axis.at(axis.low()) + axis.at(axis.high())) / 2;
            canvas.text(Pen::new(SMALL, INK).align(Align::Middle), middle, bottom + 72, name)?;
            for (row, (n, phases)) in rows.iter().enumerate() {
                let line = top + ROW * row as i32;
                let mut since = 0.0;
                for (phase, (_, color, _)) in PHASES.iter().enumerate().skip(*first) {
                    let (from, to) = (axis.at(since), axis.at(since + phases[phase]));
                    if *n > 0 && to > from {
                        canvas.rect((from, line + 66), (to, line + 112), *color)?;
                    }
                    since += phases[phase];
                }
                canvas.line(&[(axis.at(0.0), line + 58), (axis.at(0.0), line + 120)], INK, 2)?;
            }
        }
        for (row, (n, phases)) in rows.iter().enumerate() {
            let line = top + ROW * row as i32;
            let pen = Pen::new(MEDIUM, INK).bold();
            let numbers = match n {
                0 => "no trial saw all three phases".to_owned(),
                _ => format!(
                    "{} + {} + {} = {} ms · n = {n}",
                    ms(phases[0]),
                    ms(phases[1]),
                    ms(phases[2]),
                    ms(phases.iter().sum())
                ),
            };
            let told = Pen::new(SMALL, FAINT);
            let room = FIRST_END - LEFT - told.width(&numbers) - 24;
            let name = pen.fit(subject.groups[row].variant, room);
            canvas.text(pen, LEFT, line + 32, &name)?;
            canvas.text(told, LEFT + pen.width(&name) + 24, line + 32, &numbers)?;
        }
        Ok(())
    })
}
