//! Medians across the cells of a matrix.

use plotters::style::{Color, RGBColor};

use super::{
    Drawing, PlotError, Subject,
    axis::{Axis, label, needs_log},
    canvas::{Align, Canvas, FAINT, GRID, INK, MEDIUM, Pen, SMALL, WIDTH},
    cells::{Cells, Scale},
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
/// Height of the second panel, and what lies between the two.
const SECOND: i32 = 420;
const BETWEEN: i32 = 90;
/// Pixels between the variants of a cell on an axis of numbers, where their place means something.
const DODGE: i32 = 6;

struct Point {
    cell: usize,
    variant: usize,
    median: f64,
    interval: Interval,
}

/// The median of a time and its interval, milliseconds; empty if it lies among the censored.
fn time(group: &Group<'_>, figure: Figure, cell: usize) -> Option<Point> {
    let (median, seen) = group.quantile_ms(figure, 0.5)?;
    let sample = group.sample(figure);
    let mut values: Vec<f64> = sample.iter().map(|o| o.value / 1000.0).collect();
    values.sort_by(f64::total_cmp);
    let mut interval = stats::order_interval(&values, 0.5);
    let unseen = sample.iter().filter(|o| !o.observed).map(|o| o.value / 1000.0);
    let first_unseen = unseen.fold(f64::INFINITY, f64::min);
    interval.high = interval.high.filter(|high| *high < first_unseen);
    seen.then_some(Point { cell, variant: group.index, median, interval })
}

/// The median of the messages of a failover, where they were counted.
fn messages(group: &Group<'_>, cell: usize) -> Option<Point> {
    let values = group.messages();
    let median = stats::quantile(&values, 0.5)?;
    let interval = stats::order_interval(&values, 0.5);
    Some(Point { cell, variant: group.index, median, interval })
}

/// One field of the figure.
struct Panel {
    points: Vec<Point>,
    y: Axis,
    name: String,
    /// What stands beside a point.
    shown: fn(f64) -> String,
}

impl Panel {
    fn new(points: Vec<Point>, always_log: bool, name: &str, top: i32, bottom: i32) -> Panel {
        let ends = points.iter().flat_map(|p| [Some(p.median), p.interval.low, p.interval.high]);
        let values: Vec<f64> = ends.flatten().collect();
        let log = needs_log(&values) || (always_log && values.iter().all(|value| *value > 0.0));
        let y = Axis::over(&values, log, !log, bottom, top);
        let scale = if log { ", logarithmic)" } else { ")" };
        let name = name.replacen(')', scale, 1);
        Panel { points, y, name, shown: if always_log { count } else { ms } }
    }
}

/// A count, or the middle of two.
fn count(value: f64) -> String {
    if value >= 100.0 { label(value.round()) } else { label(value) }
}

pub(super) fn draw(subject: &Subject<'_>, title: &str) -> Result<Drawing, PlotError> {
    let plan = subject.plan;
    let figure = Figure::headline(plan);
    let colors = palette::colors(plan);
    let cells = Cells::of(&plan.cells);
    let at = |group: &Group<'_>| plan.cells.iter().position(|c| c == group.cell).unwrap_or(0);
    let of = |point: &dyn Fn(&Group<'_>, usize) -> Option<Point>| -> Vec<Point> {
        subject.groups.iter().filter_map(|group| point(group, at(group))).collect()
    };
    let times = of(&|group, cell| time(group, figure, cell));
    let counts = of(&messages);
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
    // Lines carry their names at their right ends; groups of points need a legend.
    let name = Pen::new(SMALL, INK).bold();
    let widest = entries.iter().map(|entry| name.width(&entry.name)).max().unwrap_or(0);
    let lines = cells.scale.is_some() && widest <= 380;
    let right = if lines { RIGHT - widest.max(60) } else { RIGHT };
    let top = 150 + if lines { 0 } else { legend::height(&entries) + 30 };
    let bottom = top + BODY;
    let what = match figure {
        Figure::Announced => "median time until all know the new leader (ms)",
        Figure::Outage => "median outage (ms)",
        _ => "median time without a leader (ms)",
    };
    let mut panels = vec![Panel::new(times, false, what, top, bottom)];
    if !counts.is_empty() {
        let (top, bottom) = (bottom + BETWEEN, bottom + BETWEEN + SECOND);
        panels.push(Panel::new(counts, true, "messages per failover (median)", top, bottom));
    }
    let field = Field {
        cells: &cells,
        colors: &colors,
        variants: plan.variants.len() as i32,
        right,
        names: lines.then(|| entries.iter().map(|entry| entry.name.as_str()).collect()),
    };
    let last = panels.last().map_or(bottom, |panel| panel.y.at(panel.y.low()));
    Canvas::draw(last + field.foot() + 76, title, |canvas| {
        canvas.heading(
            title,
            "medians with distribution-free 95 % intervals, which fewer than six trials do not give",
        )?;
        if !lines {
            legend::draw(canvas, &entries, 140)?;
        }
        for panel in &panels {
            field.draw(canvas, panel)?;
        }
        let pen = Pen::new(SMALL, INK).align(Align::Middle);
        let key = match &cells.scale {
            Some(scale) if scale.log => format!("{} (logarithmic)", cells.key),
            _ => cells.key.clone(),
        };
        let at = last + field.foot() + 36;
        canvas.text(pen, (LEFT + right) / 2, at, &pen.fit(&key, right - LEFT))
    })
}

/// What the panels share: the cells from left to right.
struct Field<'a> {
    cells: &'a Cells,
    colors: &'a [RGBColor],
    variants: i32,
    right: i32,
    /// The names at the right ends of the lines, if there are lines to name.
    names: Option<Vec<&'a str>>,
}

impl Field<'_> {
    /// Pixels between the middles of two cells that are words.
    fn width(&self) -> i32 {
        (self.right - LEFT) / self.cells.names.len().max(1) as i32
    }

    /// Pixels between two variants of a cell.
    fn apart(&self) -> i32 {
        match &self.cells.scale {
            Some(_) => DODGE,
            None => (self.width() * 7 / 10 / self.variants.max(1)).clamp(8, 130),
        }
    }

    fn middle(&self, cell: usize) -> i32 {
        match &self.cells.scale {
            Some(Scale { values, log, low, high }) => {
                Axis::exact(*low, *high, *log, LEFT + 20, self.right - 20).at(values[cell])
            }
            None => LEFT + self.width() * cell as i32 + self.width() / 2,
        }
    }

    fn x(&self, point: &Point) -> i32 {
        self.middle(point.cell)
            + self.apart() * (2 * point.variant as i32 - (self.variants - 1)) / 2
    }

    /// Whether the cells' names stand upright, because they are too wide.
    fn upright(&self) -> bool {
        let pen = Pen::new(SMALL, INK);
        self.cells.scale.is_none()
            && self.cells.names.iter().any(|name| pen.width(name) > self.width() - 12)
    }

    /// Room below the axis for the cells' names.
    fn foot(&self) -> i32 {
        let pen = Pen::new(SMALL, INK);
        let widest = self.cells.names.iter().map(|name| pen.width(name)).max().unwrap_or(0);
        if self.upright() { widest.min(360) + 24 } else { 44 }
    }

    fn draw(&self, canvas: &Canvas<'_>, panel: &Panel) -> Result<(), PlotError> {
        let y = &panel.y;
        let (bottom, top) = (y.at(y.low()), y.at(y.high()));
        let grey = Pen::new(SMALL, FAINT);
        for tick in y.ticks(60) {
            canvas.line(&[(LEFT, y.at(tick)), (self.right, y.at(tick))], GRID, 1)?;
            canvas.text(grey.align(Align::Right), LEFT - 14, y.at(tick), &label(tick))?;
        }
        canvas.line(&[(LEFT, bottom), (self.right, bottom)], INK, 2)?;
        if panel.points.is_empty() {
            canvas.empty((LEFT + self.right) / 2, (top + bottom) / 2)?;
        }
        self.labels(canvas, bottom)?;
        for (variant, color) in self.colors.iter().enumerate() {
            let own: Vec<&Point> = panel.points.iter().filter(|p| p.variant == variant).collect();
            if self.cells.ordered {
                let line: Vec<(i32, i32)> =
                    own.iter().map(|p| (self.x(p), y.at(p.median))).collect();
                canvas.line(&line, color.mix(if self.names.is_some() { 0.8 } else { 0.35 }), 3)?;
            }
            for p in own {
                // An end that the sample does not bound is not drawn.
                for end in [p.interval.low, p.interval.high].into_iter().flatten() {
                    let x = self.x(p);
                    canvas.line(&[(x, y.at(p.median)), (x, y.at(end))], *color, 3)?;
                    canvas.line(&[(x - 8, y.at(end)), (x + 8, y.at(end))], *color, 3)?;
                }
                canvas.marker((self.x(p), y.at(p.median)), variant, 9, *color)?;
                // Numbers only where they have room above their mark.
                let pen = Pen::new(SMALL, INK).align(Align::Middle);
                let text = (panel.shown)(p.median);
                if self.names.is_none() && self.apart() >= pen.width(&text) + 4 {
                    let highest = p.interval.high.unwrap_or(p.median).max(p.median);
                    let above = (y.at(highest) - 18).min(y.at(p.median) - 26);
                    canvas.text(pen, self.x(p), above, &text)?;
                }
            }
        }
        self.ends(canvas, panel)?;
        let pen = Pen::new(SMALL, INK).align(Align::Middle);
        canvas.text_up(pen, 34, (top + bottom) / 2, &panel.name)
    }

    /// The cells' names below the axis; on an axis of numbers those that have room.
    fn labels(&self, canvas: &Canvas<'_>, bottom: i32) -> Result<(), PlotError> {
        let pen = Pen::new(SMALL, INK).align(Align::Middle);
        if self.upright() {
            let pen = Pen::new(SMALL, INK).align(Align::Right);
            for (index, name) in self.cells.names.iter().enumerate() {
                canvas.text_up(pen, self.middle(index), bottom + 16, &pen.fit(name, 360))?;
            }
            return Ok(());
        }
        let mut order: Vec<usize> = (0..self.cells.names.len()).collect();
        order.sort_by_key(|index| self.middle(*index));
        let mut taken = i32::MIN;
        for index in order {
            let (at, name) = (self.middle(index), &self.cells.names[index]);
            if self.cells.scale.is_some() {
                canvas.line(&[(at, bottom), (at, bottom + 10)], INK, 2)?;
                let half = pen.width(name) / 2;
                if at - half < taken {
                    continue;
                }
                taken = at + half + 10;
                canvas.text(pen, at, bottom + 30, name)?;
            } else {
                canvas.text(pen, at, bottom + 30, &pen.fit(name, self.width() - 12))?;
            }
        }
        Ok(())
    }

    /// The lines' names at their right ends, pushed apart where they would touch.
    fn ends(&self, canvas: &Canvas<'_>, panel: &Panel) -> Result<(), PlotError> {
        let Some(names) = &self.names else { return Ok(()) };
        let last = |variant: usize| {
            let own = panel.points.iter().filter(move |p| p.variant == variant);
            own.max_by_key(|p| self.middle(p.cell))
        };
        let mut ends: Vec<(i32, usize)> = (0..names.len())
            .filter_map(|variant| last(variant).map(|p| (panel.y.at(p.median), variant)))
            .collect();
        ends.sort_unstable();
        let mut free = i32::MIN;
        for (y, variant) in ends {
            let y = y.max(free);
            free = y + MEDIUM + 6;
            let pen = Pen { color: self.colors[variant], ..Pen::new(SMALL, INK).bold() };
            canvas.text(pen, self.right + 14, y, names[variant])?;
        }
        Ok(())
    }
}
