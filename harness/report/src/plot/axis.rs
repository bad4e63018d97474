//! From values to pixels, and where to put ticks.

/// An axis for values in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    log: bool,
    from: i32,
    to: i32,
}

/// A range this wide or wider (greatest over smallest) is drawn on a logarithmic axis.
const LOG_FROM: f64 = 30.0;

/// Whether values need a logarithmic axis.
pub(super) fn needs_log(values: &[f64]) -> bool {
    let positive = || values.iter().copied().filter(|value| *value > 0.0);
    let (low, high) = (positive().fold(f64::INFINITY, f64::min), positive().fold(0.0, f64::max));
    high / low > LOG_FROM
}

impl Axis {
    /// An axis that shows all `values` between the pixels `from` and `to`, with round ends. It
    /// begins at 0 if `zero` and it is linear.
    pub(super) fn over(values: &[f64], log: bool, zero: bool, from: i32, to: i32) -> Axis {
        let finite = || values.iter().copied().filter(|v| v.is_finite() && (!log || *v > 0.0));
        let low = finite().fold(f64::INFINITY, f64::min);
        let high = finite().fold(f64::NEG_INFINITY, f64::max);
        let (mut low, mut high) = if low <= high { (low, high) } else { (1.0, 10.0) };
        if log {
            (low, high) = (round_125(low / 1.05, false), round_125(high * 1.05, true));
        } else {
            if zero {
                low = low.min(0.0);
            }
            if high <= low {
                (low, high) = (low - low.abs() * 0.1, high + high.abs() * 0.1 + 1e-3);
            }
            let step = step(high - low, 6.0);
            let margin = (high - low) * 0.02;
            low = if low == 0.0 { 0.0 } else { ((low - margin) / step).floor() * step };
            high = ((high + margin) / step).ceil() * step;
        }
        Axis { low, high, log, from, to }
    }

    /// An axis between exactly these values.
    pub(super) fn exact(low: f64, high: f64, log: bool, from: i32, to: i32) -> Axis {
        Axis { low, high, log, from, to }
    }

    pub(super) fn low(&self) -> f64 {
        self.low
    }

    pub(super) fn high(&self) -> f64 {
        self.high
    }

    pub(super) fn log(&self) -> bool {
        self.log
    }

    /// The pixel of a value; values beyond an end are drawn at that end.
    pub(super) fn at(&self, value: f64) -> i32 {
        let value = value.clamp(self.low, self.high);
        let part = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + (part * f64::from(self.to - self.from)).round() as i32
    }

    /// Values for ticks, with at least `gap` pixels between any two.
    pub(super) fn ticks(&self, gap: i32) -> Vec<f64> {
        let room = (f64::from((self.to - self.from).abs()) / f64::from(gap)).max(1.0);
        if !self.log {
            let step = step(self.high - self.low, room);
            let first = (self.low / step - 1e-6).ceil();
            let count = ((self.high - first * step) / step + 1e-6).floor() as i64;
            return (0..=count.max(0)).map(|i| (first + i as f64) * step).collect();
        }
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let within = |v: &f64| *v >= self.low * 0.999_999 && *v <= self.high * 1.000_001;
        let of = |steps: &[f64]| -> Vec<f64> {
            let all = decades.clone().flat_map(|d| steps.iter().map(move |s| s * 10_f64.powi(d)));
            all.filter(within).collect()
        };
        let pixels_per_decade =
            f64::from((self.to - self.from).abs()) / (self.high / self.low).log10();
        // 1-2-5 needs room for its closest pair, a factor of two apart.
        if pixels_per_decade * 2_f64.log10() >= f64::from(gap) {
            of(&[1.0, 2.0, 5.0])
        } else if pixels_per_decade * 3_f64.log10() >= f64::from(gap) {
            of(&[1.0, 3.0])
        } else {
            of(&[1.0])
        }
    }
}

/// The smallest of 1, 2 and 5 times a power of ten with which `range` has at most `room` steps.
pub(super) fn step(range: f64, room: f64) -> f64 {
    round_125(range / room.max(1.0), true)
}

/// The next of 1, 2 and 5 times a power of ten, upwards or downwards.
pub(super) fn round_125(value: f64, up: bool) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let digits = value / power;
    let choices = [1.0, 2.0, 5.0, 10.0];
    let found = if up {
        choices.into_iter().find(|choice| *choice >= digits - 1e-9)
    } else {
        choices.into_iter().rev().find(|choice| *choice <= digits + 1e-9)
    };
    found.unwrap_or(10.0) * power
}

/// A tick's number: no more decimals than it needs, thousands apart from 10,000 on.
pub(super) fn label(value: f64) -> String {
    let text = format!("{:.4}", value + 0.0);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, rest) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    if whole.len() < 5 {
        return format!("{sign}{digits}");
    }
    let mut grouped = String::new();
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_ticks_are_round_and_cover_the_axis() {
        let axis = Axis::over(&[3.0, 497.0], false, true, 0, 1000);
        assert_eq!((axis.low(), axis.high()), (0.0, 600.0));
        assert_eq!(axis.ticks(120), [0.0, 100.0, 200.0, 300.0, 400.0, 500.0, 600.0]);
        assert_eq!((axis.at(0.0), axis.at(300.0), axis.at(9999.0)), (0, 500, 1000));
    }

    #[test]
    fn log_ticks_thin_out_with_the_room() {
        let axis = Axis::over(&[1.5, 2900.0], true, false, 0, 1000);
        assert_eq!((axis.low(), axis.high()), (1.0, 5000.0));
        assert_eq!(
            axis.ticks(70),
            [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0]
        );
        assert_eq!(axis.ticks(200), [1.0, 10.0, 100.0, 1000.0]);
    }

    #[test]
    fn no_values_or_one_value_still_make_an_axis() {
        for (values, log) in
            [(&[][..], false), (&[][..], true), (&[172.0][..], false), (&[0.0][..], false)]
        {
            let axis = Axis::over(values, log, false, 0, 100);
            assert!(axis.low() < axis.high(), "{values:?}");
            assert!(!axis.ticks(20).is_empty());
        }
    }

    #[test]
    fn labels_are_short() {
        let cases =
            [(0.5, "0.5"), (1000.0, "1000"), (20_000.0, "20,000"), (-0.25, "-0.25"), (0.0, "0")];
        for (value, expected) in cases {
            assert_eq!(label(value), expected);
        }
    }
}
