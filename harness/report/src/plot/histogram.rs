//! How long the cluster was without a leader, or a client without service: one histogram per variant, all on one time axis.

use plotters::style::Color;
use sraft_events::{CampaignKind, Verdict};

use super::{
    Drawing, PlotError, Subject,
    axis::{Axis, label, needs_log, round_125},
    canvas::{Align, Canvas, FAINT, GRID, INK, MEDIUM, Pen, SMALL, WIDTH},
    ms, observed_ms, palette,
};
use crate::groups::{Figure, Group};

const LEFT: i32 = 130;
const RIGHT: i32 = WIDTH - 60;
const TOP: i32 = 140;
const HEAD: i32 = 52;

pub(super) fn draw(
    subject: &Subject<'_>,
    title: &str,
    figure: Figure,
) -> Result<Drawing, PlotError> {
    let panels = subject.groups.len() as i32;
    let body = if panels <= 2 { 300 } else { 190 };
    let pitch = HEAD + body + 24;
    let bottom = TOP + pitch * panels;
    let values = subject.observed_ms(figure);
    let log = needs_log(&values);
    let x = Axis::over(&values, log, false, LEFT, RIGHT);
    let edges = edges(&values, &x);
    let counts: Vec<Vec<usize>> =
        subject.groups.iter().map(|group| count(&observed_ms(group, figure), &edges)).collect();
    let most = counts.iter().flatten().copied().max().unwrap_or(0);
    let colors = palette::colors(subject.plan);
    let explanation = if log {
        "trials per bin; bins are equally wide on the logarithmic axis; the mark is the median"
    } else {
        "trials per bin; the mark is the median"
    };
    Canvas::draw(bottom + 110, title, |canvas| {
        canvas.heading(title, explanation)?;
        for (panel, (group, counts)) in subject.groups.iter().zip(&counts).enumerate() {
            let top = TOP + pitch * panel as i32 + HEAD;
            let base = top + body;
            // The text of the mark stands above the highest bar of all.
            let room = f64::from(body) / f64::from(body - 40);
            let y = Axis::exact(0.0, most.max(1) as f64 * room, false, base, top);
            let color = colors[group.index];
            canvas.rect((LEFT, top - HEAD + 12), (LEFT + 22, top - HEAD + 34), color)?;
            let name = Pen::new(MEDIUM, INK).bold();
            let story = story(group);
            let told = Pen::new(SMALL, FAINT);
            let room = (RIGHT - LEFT - 80 - told.width(&story)).max(200);
            let shown = name.fit(group.variant, room);
            canvas.text(name, LEFT + 34, top - HEAD + 24, &shown)?;
            canvas.text(told, LEFT + 34 + name.width(&shown) + 24, top - HEAD + 24, &story)?;
            let ticks = if most > 0 { y.ticks(70) } else { Vec::new() };
            for tick in ticks.into_iter().filter(|tick| tick.fract() == 0.0) {
                let at = y.at(tick);
                canvas.line(&[(LEFT, at), (RIGHT, at)], GRID, 1)?;
                let pen = Pen::new(SMALL, FAINT).align(Align::Right);
                canvas.text(pen, LEFT - 14, at, &label(tick))?;
            }
            for (bin, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let (from, to) = (x.at(edges[bin]), x.at(edges[bin + 1]));
                let to = if to - from > 3 { to - 1 } else { to.max(from + 2) };
                canvas.rect((from, y.at(*count as f64)), (to, base), color.mix(0.8))?;
            }
            canvas.line(&[(LEFT, base), (RIGHT, base)], INK, 2)?;
            if counts.iter().all(|count| *count == 0) {
                canvas.empty((LEFT + RIGHT) / 2, (top + base) / 2 + 10)?;
            }
            if let Some((median, true)) = group.quantile_ms(figure, 0.5) {
                let at = x.at(median);
                canvas.line(&[(at, top), (at, base)], INK, 3)?;
                let text = format!("median {} ms", ms(median));
                let pen = Pen::new(SMALL, INK).bold();
                let (pen, shift) = if at + pen.width(&text) + 14 > RIGHT {
                    (pen.align(Align::Right), -10)
                } else {
                    (pen, 10)
                };
                canvas.text(pen, at + shift, top + 16, &text)?;
            }
        }
        let ticks = x.ticks(if x.log() { 90 } else { 120 });
        for tick in ticks.into_iter().filter(|_| most > 0) {
            let at = x.at(tick);
            let base = bottom - 24;
            canvas.line(&[(at, base), (at, base + 10)], INK, 2)?;
            let pen = Pen::new(SMALL, FAINT).align(Align::Middle);
            canvas.text(pen, at, base + 30, &label(tick))?;
        }
        let pen = Pen::new(SMALL, INK).align(Align::Middle);
        let scale = if log { ", logarithmic" } else { "" };
        let name = format!("{} (ms{scale})", figure.axis());
        canvas.text(pen, (LEFT + RIGHT) / 2, bottom + 62, &name)?;
        let middle = (TOP + bottom) / 2;
        canvas.text_up(Pen::new(SMALL, INK).align(Align::Middle), 36, middle, "trials")
    })
}

/// Edges of the bins, the same for every variant, so that heights can be compared: between twenty
/// and sixty bins across the axis, more with more values, of a round width.
fn edges(values: &[f64], x: &Axis) -> Vec<f64> {
    let bins = (values.len() as f64).sqrt().mul_add(2.0, 8.0).clamp(20.0, 60.0);
    if x.log() {
        let ratio = (x.high() / x.low()).powf(1.0 / bins.round());
        return (0..=bins.round() as i32).map(|i| x.low() * ratio.powi(i)).collect();
    }
    let width = round_125((x.high() - x.low()) / bins, false);
    let count = ((x.high() - x.low()) / width).ceil() as usize;
    (0..=count).map(|i| x.low() + i as f64 * width).collect()
}

fn count(values: &[f64], edges: &[f64]) -> Vec<usize> {
    let bins = edges.len().saturating_sub(1);
    let mut counts = vec![0; bins];
    for value in values {
        let bin = edges.partition_point(|edge| edge <= value).saturating_sub(1);
        if let Some(count) = counts.get_mut(bin.min(bins.saturating_sub(1))) {
            *count += 1;
        }
    }
    counts
}

/// How many trials, how leadership passed, what is not shown.
fn story(group: &Group<'_>) -> String {
    let counted = || group.rows.iter().filter(|row| row.counts());
    let by = |kind| counted().filter(|row| row.passed_by == Some(kind)).count();
    let mut parts = vec![format!("n = {}", counted().count())];
    for (kind, name) in [
        (CampaignKind::Promotion, "by promotion"),
        (CampaignKind::Election, "by election"),
        (CampaignKind::Transfer, "by handover"),
    ] {
        if by(kind) > 0 {
            parts.push(format!("{} {name}", by(kind)));
        }
    }
    let censored = group.count(Verdict::Censored);
    if censored > 0 {
        parts.push(format!("{censored} timed out"));
    }
    let flagged = group.count(Verdict::Inconsistent) + group.count(Verdict::Invalid);
    if flagged > 0 {
        parts.push(format!("{flagged} flagged, not shown"));
    }
    parts.join(" · ")
}
