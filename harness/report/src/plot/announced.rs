//! The distribution of announced times in panels, as the Raft paper's figure 16 has it, with what
//! was published behind it.

use plotters::style::{Color, RGBColor, WHITE};

use super::{
    Drawing, PlotError, Subject,
    axis::{Axis, label, needs_log},
    canvas::{Align, Canvas, FAINT, GRID, INK, Pen, SMALL, WIDTH},
    curve::{Curve, direct_labels},
    ms, palette,
};
use crate::{
    groups::{Figure, Group},
    published::Line,
    results::{Published, Wish},
};

const LEFT: i32 = 150;
/// The field ends here; the list of lines stands on its right.
const RIGHT: i32 = 1090;
const LIST: i32 = 1130;
const TOP: i32 = 150;
const BODY: i32 = 560;
const PITCH: i32 = BODY + 150;
/// Room for the mark before a name.
const SIGN: i32 = 26;
/// Pixels between two lines of the list.
const ENTRY: i32 = 66;
/// Shares of the trials at which a line carries its mark, shifted a little from line to line.
const MARKS: [f64; 4] = [0.2, 0.45, 0.7, 0.9];

/// One panel.
struct Panel {
    curves: Vec<Curve>,
    published: Vec<Option<&'static Line>>,
    x: Axis,
    y: Axis,
}

impl Panel {
    fn new(groups: &[&Group<'_>], colors: &[RGBColor], of: Option<Published>, top: i32) -> Panel {
        let curve =
            |(group, color): (&&Group<'_>, &RGBColor)| Curve::of(group, Figure::Announced, *color);
        let curves: Vec<Curve> = groups.iter().zip(colors).map(curve).collect();
        let published: Vec<Option<&'static Line>> =
            groups.iter().map(|group| of.and_then(|of| of.line(group.variant))).collect();
        let ours = curves.iter().flat_map(|curve| curve.steps.iter().map(|step| step.value));
        let theirs = published.iter().flatten().flat_map(|line| line.points.iter().map(|p| p.1));
        let values: Vec<f64> = ours.chain(theirs).filter(|value| *value > 0.0).collect();
        let log = needs_log(&values);
        let x = Axis::over(&values, log, !log, LEFT, RIGHT);
        let y = Axis::exact(0.0, 1.0, false, top + BODY, top);
        Panel { curves, published, x, y }
    }

    fn empty(&self) -> bool {
        self.curves.iter().all(|curve| curve.steps.is_empty())
    }

    fn theirs(&self, line: &Line) -> Vec<(i32, i32)> {
        line.points.iter().map(|(share, ms)| (self.x.at(*ms), self.y.at(*share))).collect()
    }

    fn draw(&self, canvas: &Canvas<'_>, top: i32) -> Result<(), PlotError> {
        let (x, y, bottom) = (&self.x, &self.y, top + BODY);
        self.field(canvas, top)?;
        if self.empty() {
            canvas.empty((LEFT + RIGHT) / 2, top + BODY / 2 - 40)?;
        }
        for (curve, line) in self.curves.iter().zip(&self.published) {
            if let Some(line) = line {
                canvas.line(&self.theirs(line), curve.color.mix(0.32), 12)?;
            }
        }
        let mut drawn: Vec<Vec<(i32, i32)>> = Vec::new();
        for (shape, curve) in self.curves.iter().enumerate() {
            let mut points = curve.points(x, |waiting| y.at(1.0 - waiting));
            if !curve.steps.is_empty() {
                // Before its first trial a line would only cover the axis.
                points.remove(0);
            }
            canvas.line(&points, curve.color, 3)?;
            for mark in MARKS {
                let share = mark + 0.018 * (shape as f64 - 3.0);
                if let Some(value) = curve.reaches(share) {
                    canvas.marker((x.at(value), y.at(share)), shape, 8, curve.color)?;
                }
            }
            drawn.push(points);
        }
        drawn.extend(self.published.iter().flatten().map(|line| self.theirs(line)));
        let places = direct_labels(&self.curves, &drawn, (x, y), (LEFT, RIGHT), SIGN);
        for (shape, (curve, place)) in self.curves.iter().zip(places).enumerate() {
            let Some((left, middle)) = place else { continue };
            let pen = Pen::new(SMALL, INK).bold();
            let end = left + SIGN + 6 + pen.width(&curve.name);
            canvas.rect((left - 4, middle - 17), (end, middle + 17), WHITE)?;
            canvas.marker((left + 9, middle), shape, 8, curve.color)?;
            canvas.text(pen, left + SIGN, middle, &curve.name)?;
        }
        let pen = Pen::new(SMALL, INK).align(Align::Middle);
        let scale = if x.log() { ", logarithmic" } else { "" };
        let name = format!("time until all know the new leader (ms{scale})");
        canvas.text(pen, (LEFT + RIGHT) / 2, bottom + 74, &name)?;
        canvas.text_up(pen, 34, top + BODY / 2, "cumulative percent")?;
        self.list(canvas, top)
    }

    fn field(&self, canvas: &Canvas<'_>, top: i32) -> Result<(), PlotError> {
        let (x, bottom) = (&self.x, top + BODY);
        let grey = Pen::new(SMALL, FAINT);
        for tick in x.ticks(if x.log() { 80 } else { 110 }) {
            let at = x.at(tick);
            canvas.line(&[(at, top), (at, bottom)], GRID, 1)?;
            canvas.text(grey.align(Align::Middle), at, bottom + 28, &label(tick))?;
        }
        for percent in [0, 20, 40, 60, 80, 100] {
            let at = self.y.at(f64::from(percent) / 100.0);
            canvas.line(&[(LEFT, at), (RIGHT, at)], GRID, 1)?;
            canvas.text(grey.align(Align::Right), LEFT - 14, at, &format!("{percent} %"))?;
        }
        canvas.line(&[(LEFT, bottom), (RIGHT, bottom)], INK, 2)
    }

    /// The lines with their marks and medians, the fastest first.
    fn list(&self, canvas: &Canvas<'_>, top: i32) -> Result<(), PlotError> {
        let mut order: Vec<usize> = (0..self.curves.len()).collect();
        let median = |at: &usize| self.curves[*at].median.unwrap_or(f64::INFINITY);
        order.sort_by(|a, b| median(a).total_cmp(&median(b)));
        let pitch = ENTRY.min(BODY / self.curves.len().max(1) as i32);
        for (row, at) in order.into_iter().enumerate() {
            let (curve, y) = (&self.curves[at], top + 22 + pitch * row as i32);
            if self.published[at].is_some() {
                canvas.line(&[(LIST, y), (LIST + 44, y)], curve.color.mix(0.32), 12)?;
            }
            canvas.line(&[(LIST, y), (LIST + 44, y)], curve.color, 3)?;
            canvas.marker((LIST + 22, y), at, 8, curve.color)?;
            let (name, told) = (Pen::new(SMALL, INK).bold(), Pen::new(SMALL, FAINT));
            let ours = match (curve.median, curve.median_above) {
                (Some(median), _) => ms(median),
                (None, Some(above)) => format!("over {}", ms(above)),
                (None, None) => String::new(),
            };
            let line = self.published[at].and_then(|line| line.quantile(0.5));
            let theirs = line.map(|line| format!(", published {}", ms(line))).unwrap_or_default();
            let text = match curve.n {
                0 => "no trial that counts".to_owned(),
                _ => format!("median {ours}{theirs} ms"),
            };
            let room = WIDTH - LIST - 56 - 12;
            canvas.text(name, LIST + 56, y, &name.fit(&curve.name, room))?;
            // Too many for two lines each: the names stand alone.
            if pitch == ENTRY {
                canvas.text(told, LIST + 56, y + 28, &told.fit(&text, room))?;
            }
        }
        Ok(())
    }
}

pub(super) fn draw(subject: &Subject<'_>, title: &str, wish: &Wish) -> Result<Drawing, PlotError> {
    let all: Vec<String> = subject.groups.iter().map(|group| group.variant.to_owned()).collect();
    let panels = if wish.panels.is_empty() { vec![all] } else { wish.panels.clone() };
    let named: Vec<Vec<&Group<'_>>> = panels
        .iter()
        .map(|panel| {
            let of = |name: &String| subject.groups.iter().find(|group| group.variant == name);
            panel.iter().filter_map(of).collect()
        })
        .collect();
    let colors = palette::panels(&panels);
    let panels: Vec<Panel> = named
        .iter()
        .zip(&colors)
        .enumerate()
        .map(|(nth, (groups, colors))| {
            Panel::new(groups, colors, wish.published, TOP + PITCH * nth as i32)
        })
        .collect();
    let explanation = match wish.published {
        Some(_) => {
            "share of the trials by the time from the crash until the last server knows the new leader; \
             wide and pale: published, thin: this run"
        }
        None => {
            "share of the trials by the time from the fault until the last server knows the new leader"
        }
    };
    Canvas::draw(TOP + PITCH * panels.len() as i32 - 24, title, |canvas| {
        canvas.heading(title, explanation)?;
        for (nth, panel) in panels.iter().enumerate() {
            panel.draw(canvas, TOP + PITCH * nth as i32)?;
        }
        Ok(())
    })
}
