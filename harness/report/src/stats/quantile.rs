use statrs::distribution::{Binomial, DiscreteCDF};

use super::{CONFIDENCE, Interval};

/// The `p`-quantile of ascending values, interpolated between the two order statistics around
/// position `(n - 1) p` (type 7 of Hyndman and Fan, The American Statistician 50(4), 1996; the
/// default of R, NumPy and spreadsheets). Empty without values.
pub fn quantile(sorted: &[f64], p: f64) -> Option<f64> {
    let position = sorted.len().checked_sub(1)? as f64 * p.clamp(0.0, 1.0);
    let (low, part) = (position.floor() as usize, position.fract());
    let (a, b) = (sorted[low], sorted[(low + 1).min(sorted.len() - 1)]);
    Some(if part == 0.0 { a } else { a + part * (b - a) })
}

/// The median of values in any order.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// Whether `n` values are enough to print their `p`-quantile: at least one of them is to be
/// expected beyond it, n (1 - p) >= 1. So p90 needs 10 values, p95 20, p99 100, p99.9 1000; with
/// fewer the number would be the maximum under another name.
pub fn supports(n: usize, p: f64) -> bool {
    n as f64 * (1.0 - p) >= 1.0 - 1e-9
}

/// The distribution-free interval for the `p`-quantile of ascending values: the order statistics
/// of ranks l and u with P(B < l) <= a/2 and P(B >= u) <= a/2 for B binomial (n, p) and a = 1 -
/// [`CONFIDENCE`] (David and Nagaraja, Order Statistics, 3rd ed., 2003, section 7.1; Hahn and
/// Meeker, Statistical Intervals, 1991, section 5.2). It covers at least as much as it promises,
/// whatever the distribution. An end for which there is no such rank is empty.
pub fn order_interval(sorted: &[f64], p: f64) -> Interval {
    let n = sorted.len() as u64;
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let Ok(below) = Binomial::new(p.clamp(0.0, 1.0), n) else { return Interval::default() };
    // Largest l (from 1) with P(B <= l - 1) <= a/2, smallest u with P(B <= u - 1) >= 1 - a/2.
    let low = (1..=n).take_while(|l| below.cdf(l - 1) <= tail).last();
    let high = (1..=n).find(|u| below.cdf(u - 1) >= 1.0 - tail);
    let at = |rank: u64| sorted[rank as usize - 1];
    Interval { low: low.map(at), high: high.map(at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upto(n: u32) -> Vec<f64> {
        (1..=n).map(f64::from).collect()
    }

    #[test]
    fn quantiles_are_those_of_r() {
        // R: quantile(c(1, 2, 4, 8, 16), c(.1, .25, .5, .9)) -> 1.4 2.0 4.0 12.8
        let x = [1.0, 2.0, 4.0, 8.0, 16.0];
        for (p, expected) in [(0.1, 1.4), (0.25, 2.0), (0.5, 4.0), (0.9, 12.8), (1.0, 16.0)] {
            assert!((quantile(&x, p).unwrap() - expected).abs() < 1e-12, "{p}");
        }
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
    }

    #[test]
    fn median_intervals_are_the_tabulated_ranks() {
        // Ranks of the 95 % interval for the median as tabulated with the sign test (for example
        // Conover, Practical Nonparametric Statistics, 3rd ed., 1999, section 3.2).
        for (n, low, high) in [(6, 1, 6), (10, 2, 9), (20, 6, 15), (30, 10, 21), (100, 40, 61)] {
            let interval = order_interval(&upto(n), 0.5);
            let expected = (Some(f64::from(low)), Some(f64::from(high)));
            assert_eq!((interval.low, interval.high), expected, "n = {n}");
        }
    }

    #[test]
    fn small_samples_bound_nothing_that_they_cannot() {
        assert_eq!(order_interval(&upto(5), 0.5), Interval::default());
        let p99 = order_interval(&upto(100), 0.99);
        assert_eq!((p99.low.is_some(), p99.high), (true, None));
        // The largest of n values is beyond the p99 with 97.5 % from n = 368 on: 0.99^368 < 0.025.
        assert!(order_interval(&upto(367), 0.99).high.is_none());
        assert!(order_interval(&upto(368), 0.99).high.is_some());
        assert_eq!(order_interval(&[], 0.5), Interval::default());
    }

    #[test]
    fn rule_for_printing() {
        let least = [(0.5, 2), (0.9, 10), (0.95, 20), (0.99, 100), (0.999, 1000)];
        for (p, n) in least {
            assert!(supports(n, p) && !supports(n - 1, p), "{p}");
        }
    }

    proptest::proptest! {
        #[test]
        fn interval_holds_the_quantile(mut x in proptest::collection::vec(0.0..1e6_f64, 1..200), p in 0.01..0.99_f64) {
            x.sort_by(f64::total_cmp);
            let (q, interval) = (quantile(&x, p).unwrap(), order_interval(&x, p));
            proptest::prop_assert!(interval.low.is_none_or(|low| low <= q));
            proptest::prop_assert!(interval.high.is_none_or(|high| q <= high));
        }
    }
}
