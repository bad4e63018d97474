//! What a client sees around the fault: how much is acknowledged, and how long it takes.

use std::collections::BTreeMap;

use plotters::style::Color;

use super::{
    Drawing, PlotError, Subject,
    axis::{Axis, label, needs_log},
    canvas::{Align, Canvas, FAINT, GRID, INK, MEDIUM, Pen, SMALL, WIDTH},
    palette,
};
use crate::{
    groups::Group,
    results::{Op, Ops},
    stats,
};

/// The probe's side of a run: its operations, and when the fault of each trial struck.
#[derive(Clone, Copy, Debug)]
pub struct Probed<'a> {
    /// The operations.
    pub ops: &'a Ops,
    /// Nanoseconds on the clock of the operations, by trial.
    pub faults: &'a BTreeMap<u64, u64>,
}

/// What is shown at most, milliseconds from the fault.
const FROM: f64 = -1000.0;
const TO: f64 = 3000.0;
/// Widths of a bin, milliseconds; one with this many writes on average is wide enough.
const BINS: [f64; 5] = [25.0, 50.0, 100.0, 200.0, 500.0];
const WRITES: f64 = 4.0;
/// Higher peaks than this multiple of the rate before the fault are cut off.
const PEAK: f64 = 2.0;
/// Most thin lines in the figure, and in one field of it.
const LINES: usize = 240;
const LINES_OF_ONE: usize = 100;

const LEFT: i32 = 130;
const APART: i32 = 150;
const RIGHT: i32 = WIDTH - 50;
const TOP: i32 = 196;
const BODY: i32 = 250;
const HEAD: i32 = 54;

/// A value for every bin; empty where nothing was asked, or nothing acknowledged.
type Line = Vec<Option<f64>>;

/// What one variant shows.
struct Panel {
    name: String,
    /// Trials with a probe and a fault.
    trials: usize,
    rates: Vec<Line>,
    latencies: Vec<Line>,
}

/// The bins of the figure: all equally wide, none across the fault.
#[derive(Clone, Copy)]
struct Bins {
    from: f64,
    width: f64,
    count: usize,
}

impl Bins {
    /// Bins over what the probe covered of the second before and the three seconds after the fault.
    fn over(trials: &[(&[Op], u64)]) -> Bins {
        let ends = |op: &Op, fault: u64| ms_between(fault, op.intended_ns);
        let all =
            || trials.iter().flat_map(|(ops, fault)| ops.iter().map(move |o| ends(o, *fault)));
        let scheduled = || all().filter(|ms| (FROM..TO).contains(ms));
        let (low, high) = (scheduled().fold(0.0, f64::min), scheduled().fold(100.0, f64::max));
        let rate = scheduled().count() as f64 / (high - low) / trials.len().max(1) as f64;
        let wide = |width: &f64| rate * width >= WRITES;
        let width = BINS.into_iter().find(wide).unwrap_or(BINS[BINS.len() - 1]);
        let (from, to) = ((low / width).floor() * width, (high / width).ceil() * width);
        Bins { from, width, count: ((to - from) / width).round() as usize }
    }

    fn at(&self, ms: f64) -> Option<usize> {
        let bin = ((ms - self.from) / self.width).floor();
        (bin >= 0.0 && bin < self.count as f64).then_some(bin as usize)
    }

    fn to(&self) -> f64 {
        self.from + self.width * self.count as f64
    }

    /// How many bins lie before the fault.
    fn fault(&self) -> usize {
        (-self.from / self.width).round() as usize
    }

    fn middle(&self, bin: usize) -> f64 {
        self.from + self.width * (bin as f64 + 0.5)
    }

    /// Acknowledged writes per second by their end, and the slowest one by its intended start.
    fn lines(&self, ops: &[Op], fault: u64) -> (Line, Line) {
        let writes = || ops.iter().filter(|op| op.writes());
        let first = writes().map(|op| ms_between(fault, op.intended_ns)).fold(f64::MAX, f64::min);
        let last = writes().map(|op| ms_between(fault, op.intended_ns)).fold(f64::MIN, f64::max);
        // A bin that the probe covers in part would look like a dip.
        let covered = |bin: usize| {
            let from = self.from + self.width * bin as f64;
            from >= first && from + self.width <= last
        };
        let mut rates: Line = (0..self.count).map(|bin| covered(bin).then_some(0.0)).collect();
        let mut latencies: Line = vec![None; self.count];
        for op in writes().filter(|op| op.acknowledged_write()) {
            let Some(end) = op.end_ns else { continue };
            if let Some(Some(rate)) = self.at(ms_between(fault, end)).map(|bin| &mut rates[bin]) {
                *rate += 1000.0 / self.width;
            }
            if let Some(bin) = self.at(ms_between(fault, op.intended_ns)) {
                let ms = ms_between(op.intended_ns, end);
                latencies[bin] = Some(latencies[bin].map_or(ms, |most: f64| most.max(ms)));
            }
        }
        (rates, latencies)
    }
}

fn ms_between(from: u64, to: u64) -> f64 {
    (i128::from(to) - i128::from(from)) as f64 / 1e6
}

/// The median of the lines where at least half of them have a value.
fn median(lines: &[Line]) -> Line {
    let bins = lines.first().map_or(0, Vec::len);
    let of = |bin: usize| {
        let mut values: Vec<f64> = lines.iter().filter_map(|line| line[bin]).collect();
        values.sort_by(f64::total_cmp);
        (2 * values.len() >= lines.len()).then(|| stats::quantile(&values, 0.5)).flatten()
    };
    (0..bins).map(of).collect()
}

/// The trials of a group that can be shown.
fn trials<'a>(group: &Group<'_>, probed: Probed<'a>) -> Vec<(&'a [Op], u64)> {
    let counted = group.rows.iter().filter(|row| row.counts());
    let shown = |trial: u64| {
        let ops = probed.ops.of(trial);
        (!ops.is_empty()).then_some((ops, *probed.faults.get(&trial)?))
    };
    counted.filter_map(|row| shown(row.trial)).collect()
}

/// At most `most` of `count`, at even distances.
fn some(count: usize, most: usize) -> impl Iterator<Item = usize> {
    let shown = count.min(most);
    (0..shown).map(move |nth| nth * count / shown.max(1))
}

pub(super) fn draw(
    subject: &Subject<'_>,
    title: &str,
    probed: Probed<'_>,
) -> Result<Drawing, PlotError> {
    let trials: Vec<Vec<(&[Op], u64)>> =
        subject.groups.iter().map(|group| trials(group, probed)).collect();
    let bins = Bins::over(&trials.concat());
    let panels: Vec<Panel> = subject
        .groups
        .iter()
        .zip(&trials)
        .map(|(group, trials)| {
            let lines = trials.iter().map(|(ops, fault)| bins.lines(ops, *fault));
            let (rates, latencies) = lines.unzip();
            Panel { name: group.variant.to_owned(), trials: trials.len(), rates, latencies }
        })
        .collect();
    let values = |lines: fn(&Panel) -> &Vec<Line>| -> Vec<f64> {
        panels.iter().flat_map(|p| lines(p).iter().flatten().flatten().copied()).collect()
    };
    let (rates, latencies) = (values(|panel| &panel.rates), values(|panel| &panel.latencies));
    // What has waited is acknowledged all at once; shown whole, it would flatten everything else.
    let undisturbed =
        panels.iter().flat_map(|panel| &panel.rates).flat_map(|line| line[..bins.fault()].iter());
    let mut undisturbed: Vec<f64> = undisturbed.flatten().copied().collect();
    undisturbed.sort_by(f64::total_cmp);
    let most = stats::quantile(&undisturbed, 0.5).map_or(f64::INFINITY, |rate| rate * PEAK);
    let cut = rates.iter().any(|rate| *rate > most);
    let rates: Vec<f64> = rates.into_iter().map(|rate| rate.min(most)).collect();
    let log = needs_log(&latencies);
    let most = (LINES / panels.len().max(1)).clamp(1, LINES_OF_ONE);
    let half = (RIGHT - LEFT - APART) / 2;
    let fields = [(LEFT, LEFT + half), (RIGHT - half, RIGHT)];
    let colors = palette::colors(subject.plan);
    let explanation = format!(
        "{} thin line is a trial, the bold one their median; bins of {} ms, the fault at 0{}",
        if panels.iter().any(|panel| panel.trials > most) { "some trials: a" } else { "a" },
        label(bins.width),
        if cut { "; peaks of what had waited are cut off" } else { "" },
    );
    let pitch = HEAD + BODY + 20;
    let bottom = TOP + pitch * panels.len() as i32;
    Canvas::draw(bottom + 84, title, |canvas| {
        canvas.heading(title, &explanation)?;
        let head = Pen::new(MEDIUM, INK).bold();
        canvas.text(head, fields[0].0, TOP - 40, "acknowledged writes per second")?;
        let scale = if log { ", log axis" } else { "" };
        let slowest = format!("slowest write by intended start (ms{scale})");
        canvas.text(head, fields[1].0, TOP - 40, &head.fit(&slowest, half))?;
        for (nth, (panel, group)) in panels.iter().zip(subject.groups).enumerate() {
            let top = TOP + pitch * nth as i32 + HEAD;
            let color = colors[group.index];
            canvas.rect((LEFT, top - 42), (LEFT + 22, top - 20), color)?;
            let name = Pen::new(MEDIUM, INK).bold();
            let told = Pen::new(SMALL, FAINT);
            let shown = name.fit(&panel.name, half);
            canvas.text(name, LEFT + 34, top - 30, &shown)?;
            let count = format!("{} trials", panel.trials);
            canvas.text(told, LEFT + 34 + name.width(&shown) + 24, top - 30, &count)?;
            for ((left, right), (lines, values, log)) in fields
                .into_iter()
                .zip([(&panel.rates, &rates, false), (&panel.latencies, &latencies, log)])
            {
                let field = Field {
                    x: Axis::exact(bins.from, bins.to(), false, left, right),
                    y: Axis::over(values, log, !log, top + BODY, top),
                    ends: (left, right),
                    top,
                };
                field.frame(canvas, nth + 1 == panels.len(), values.is_empty())?;
                for line in some(lines.len(), most).map(|nth| &lines[nth]) {
                    field.line(canvas, &bins, line, color.mix(0.22), 1)?;
                }
                field.line(canvas, &bins, &median(lines), color, 5)?;
            }
        }
        let pen = Pen::new(SMALL, INK).align(Align::Middle);
        for (left, right) in fields {
            canvas.text(pen, (left + right) / 2, bottom + 46, "time from the fault (ms)")?;
        }
        Ok(())
    })
}

/// One field of the figure.
struct Field {
    x: Axis,
    y: Axis,
    ends: (i32, i32),
    top: i32,
}

impl Field {
    fn frame(&self, canvas: &Canvas<'_>, lowest: bool, empty: bool) -> Result<(), PlotError> {
        let ((left, right), bottom) = (self.ends, self.top + BODY);
        let grey = Pen::new(SMALL, FAINT);
        for tick in self.y.ticks(48).into_iter().filter(|_| !empty) {
            let at = self.y.at(tick);
            canvas.line(&[(left, at), (right, at)], GRID, 1)?;
            canvas.text(grey.align(Align::Right), left - 12, at, &label(tick))?;
        }
        for tick in self.x.ticks(110) {
            let at = self.x.at(tick);
            canvas.line(&[(at, self.top), (at, bottom)], GRID, 1)?;
            if lowest {
                canvas.text(grey.align(Align::Middle), at, bottom + 26, &label(tick))?;
            }
        }
        let fault = self.x.at(0.0);
        canvas.dashes(&[(fault, self.top), (fault, bottom)], INK, 2)?;
        canvas.line(&[(left, bottom), (right, bottom)], INK, 2)?;
        if empty {
            canvas.empty((left + right) / 2, self.top + BODY / 2)?;
        }
        Ok(())
    }

    /// Joins the values of neighbouring bins.
    fn line(
        &self,
        canvas: &Canvas<'_>,
        bins: &Bins,
        line: &Line,
        color: impl Color + Copy,
        width: u32,
    ) -> Result<(), PlotError> {
        let points: Vec<Option<(i32, i32)>> = line
            .iter()
            .enumerate()
            .map(|(bin, value)| value.map(|v| (self.x.at(bins.middle(bin)), self.y.at(v))))
            .collect();
        for piece in points.split(Option::is_none).filter(|piece| piece.len() > 1) {
            let piece: Vec<(i32, i32)> = piece.iter().flatten().copied().collect();
            canvas.line(&piece, color, width)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{OpKind, OpOutcome};

    fn put(intended_ms: u64, end_ms: Option<u64>) -> Op {
        Op {
            trial: 1,
            kind: OpKind::Put,
            key: "w/1/1".into(),
            intended_ns: intended_ms * 1_000_000,
            end_ns: end_ms.map(|end| end * 1_000_000),
            outcome: if end_ms.is_some() { OpOutcome::Ok } else { OpOutcome::Unknown },
            found: None,
        }
    }

    #[test]
    fn bins_hold_what_is_acknowledged_and_the_slowest_of_what_was_begun() {
        // 200 writes per second from -0.5 s to +1 s; nothing is answered for 200 ms from the fault.
        let fault = 10_000;
        let answer =
            |at: u64| if (fault..fault + 200).contains(&at) { fault + 201 } else { at + 2 };
        let ops: Vec<Op> = (fault - 500..fault + 1000)
            .step_by(5)
            .map(|at| put(at, (at != fault + 500).then(|| answer(at))))
            .collect();
        let trial = [(ops.as_slice(), fault * 1_000_000)];
        let bins = Bins::over(&trial);
        assert_eq!((bins.from, bins.width, bins.to()), (-500.0, 25.0, 1000.0));
        let (rates, latencies) = bins.lines(&ops, fault * 1_000_000);
        let at = |ms: f64| bins.at(ms).unwrap();
        assert_eq!(rates[at(-200.0)], Some(200.0));
        assert_eq!(rates[at(100.0)], Some(0.0), "nothing is acknowledged");
        assert_eq!(rates[at(200.0)], Some(45.0 * 40.0), "and then everything that has waited");
        assert_eq!(rates[at(500.0)], Some(160.0), "one was never answered");
        assert_eq!(rates[at(999.0)], None, "the probe has not covered the last bin");
        assert_eq!(latencies[at(-200.0)], Some(2.0));
        assert_eq!((latencies[at(0.0)], latencies[at(100.0)]), (Some(201.0), Some(101.0)));
    }

    #[test]
    fn medians_need_half_of_the_lines() {
        let lines = vec![
            vec![Some(1.0), None, None],
            vec![Some(5.0), Some(2.0), None],
            vec![Some(3.0), Some(4.0), Some(7.0)],
        ];
        assert_eq!(median(&lines), [Some(3.0), Some(3.0), None]);
        assert_eq!(median(&[]), Line::new());
    }

    #[test]
    fn few_writes_make_wide_bins_and_none_still_make_some() {
        let ops: Vec<Op> = (9_000..12_000).step_by(100).map(|at| put(at, Some(at + 1))).collect();
        let bins = Bins::over(&[(ops.as_slice(), 10_000_000_000)]);
        assert_eq!(bins.width, 500.0);
        assert_eq!(Bins::over(&[]).count, 1);
        assert_eq!(some(250, 100).max(), Some(247));
        assert_eq!(some(0, 100).count(), 0);
    }
}
