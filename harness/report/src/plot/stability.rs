//! What became of leaders whom the fault left in place: shares of trials, one bar per variant and cell.

use super::{
    Drawing, PlotError, Subject,
    canvas::{Align, Canvas, FAINT, GRID, INK, MEDIUM, Pen, SMALL, WIDTH},
    legend::{self, Entry, Sign},
    palette::STEPS,
};
use crate::groups::{Group, Stability};

const NAMES: [&str; 3] =
    ["in place: nobody stood", "contested: somebody stood, in vain", "replaced: somebody else led"];
const LEFT: i32 = 44;
/// Where the bars begin and end.
const FROM: i32 = 420;
const TO: i32 = WIDTH - 420;
const ROW: i32 = 58;
/// Room for the name of a cell above its rows.
const CELL: i32 = 64;

pub(super) fn draw(subject: &Subject<'_>, title: &str) -> Result<Drawing, PlotError> {
    let rows: Vec<(&Group<'_>, Stability)> =
        subject.groups.iter().filter_map(|group| Some((group, group.stability()?))).collect();
    let entry = |(name, color): (&str, _)| Entry { name: name.into(), color, sign: Sign::Box };
    let entries: Vec<Entry> = NAMES.into_iter().zip(STEPS).map(entry).collect();
    let top = 140 + legend::height(&entries) + 30;
    // The top of each row, below the name of its cell if that is new.
    let mut at = top;
    let mut cell = "";
    let mut places = Vec::new();
    for (group, _) in &rows {
        if group.cell != cell {
            cell = group.cell;
            at += CELL;
        }
        places.push(at);
        at += ROW;
    }
    let bottom = at;
    let x = |share: f64| FROM + (f64::from(TO - FROM) * share).round() as i32;
    Canvas::draw(bottom + 110, title, |canvas| {
        canvas.heading(title, "trials whose fault leaves the leader in place")?;
        legend::draw(canvas, &entries, 140)?;
        for percent in [0, 25, 50, 75, 100] {
            let at = x(f64::from(percent) / 100.0);
            canvas.line(&[(at, top), (at, bottom)], GRID, 1)?;
            let pen = Pen::new(SMALL, FAINT).align(Align::Middle);
            canvas.text(pen, at, bottom + 26, &format!("{percent} %"))?;
        }
        let mut cell = "";
        for ((group, stability), at) in rows.iter().zip(&places) {
            let head = Pen::new(MEDIUM, INK).bold();
            if group.cell != cell {
                cell = group.cell;
                canvas.text(head, LEFT, at - CELL / 2, &head.fit(cell, FROM - LEFT))?;
            }
            let (middle, pen) = (at + ROW / 2, Pen::new(SMALL, INK));
            canvas.text(pen, LEFT, middle, &pen.fit(group.variant, FROM - LEFT - 24))?;
            let parts = [stability.in_place(), stability.contested, stability.replaced];
            let mut before = 0;
            for (part, color) in parts.into_iter().zip(STEPS) {
                let share = |count: usize| count as f64 / stability.trials as f64;
                let (from, to) = (x(share(before)), x(share(before + part)));
                if part > 0 {
                    canvas.rect((from, at + 10), (to, at + ROW - 10), color)?;
                }
                before += part;
            }
            let told = format!(
                "{} of {} in place, {} terms used",
                stability.in_place(),
                stability.trials,
                stability.terms
            );
            let pen = Pen::new(SMALL, FAINT);
            canvas.text(pen, TO + 24, middle, &pen.fit(&told, WIDTH - TO - 44))?;
        }
        canvas.line(&[(FROM, top), (FROM, bottom)], INK, 2)?;
        let pen = Pen::new(SMALL, INK).align(Align::Middle);
        canvas.text(pen, (FROM + TO) / 2, bottom + 72, "share of trials")
    })
}
