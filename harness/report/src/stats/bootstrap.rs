use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{CONFIDENCE, Interval, quantile};

/// Resamples behind every interval.
pub const RESAMPLES: usize = 4000;

/// Fewest blocks that are resampled as blocks. Two or three blocks have next to no resamples;
/// below this number single values are resampled instead, which assumes that they are independent.
pub const MIN_BLOCKS: usize = 6;

/// How two samples differ in a statistic, with bootstrap intervals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contrast {
    /// First minus second.
    pub difference: f64,
    /// Its interval.
    pub difference_ci: Interval,
    /// First over second.
    pub ratio: f64,
    /// Its interval.
    pub ratio_ci: Interval,
    /// Whether blocks were resampled (else single values were).
    pub by_blocks: bool,
}

/// Compares the `p`-quantiles of `a` and `b`, each given as the blocks in which it was measured.
/// Empty if a sample is.
///
/// Intervals are percentile intervals of the bootstrap (Efron and Tibshirani, An Introduction to
/// the Bootstrap, 1993, chapter 13). Whole blocks are drawn, with replacement, within each sample:
/// values of a block share whatever the machine was doing at the time, and drawing them singly
/// would make the interval too narrow (Kuensch, Annals of Statistics 17(3), 1989; Davison and
/// Hinkley, Bootstrap Methods, 1997, section 3.8). The same `seed` gives the same interval.
pub fn contrast(a: &[Vec<f64>], b: &[Vec<f64>], p: f64, seed: u64) -> Option<Contrast> {
    let whole = |blocks: &[Vec<f64>]| at(&mut blocks.concat(), p);
    let (first, second) = (whole(a)?, whole(b)?);
    let filled = |blocks: &[Vec<f64>]| blocks.iter().filter(|block| !block.is_empty()).count();
    let by_blocks = filled(a).min(filled(b)) >= MIN_BLOCKS;
    let units = |blocks: &[Vec<f64>]| -> Vec<Vec<f64>> {
        if by_blocks {
            blocks.iter().filter(|block| !block.is_empty()).cloned().collect()
        } else {
            blocks.iter().flatten().map(|value| vec![*value]).collect()
        }
    };
    let (a, b) = (units(a), units(b));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut differences, mut ratios) = (Vec::new(), Vec::new());
    let mut drawn = Vec::new();
    let mut resample = |units: &[Vec<f64>]| {
        drawn.clear();
        for _ in units {
            drawn.extend_from_slice(&units[rng.random_range(0..units.len())]);
        }
        at(&mut drawn, p)
    };
    for _ in 0..RESAMPLES {
        if let (Some(x), Some(y)) = (resample(&a), resample(&b)) {
            differences.push(x - y);
            ratios.push(x / y);
        }
    }
    Some(Contrast {
        difference: first - second,
        difference_ci: percentile_interval(differences),
        ratio: first / second,
        ratio_ci: percentile_interval(ratios),
        by_blocks,
    })
}

/// [`quantile`] of values in any order, which it changes. Selecting is several times faster than
/// sorting, and this runs thousands of times.
fn at(values: &mut [f64], p: f64) -> Option<f64> {
    let position = values.len().checked_sub(1)? as f64 * p.clamp(0.0, 1.0);
    let (_, low, above) = values.select_nth_unstable_by(position.floor() as usize, f64::total_cmp);
    let high = above.iter().copied().fold(f64::INFINITY, f64::min);
    let part = position.fract();
    Some(if part == 0.0 { *low } else { *low + part * (high - *low) })
}

fn percentile_interval(mut values: Vec<f64>) -> Interval {
    let tail = (1.0 - CONFIDENCE) / 2.0;
    values.sort_unstable_by(f64::total_cmp);
    Interval { low: quantile(&values, tail), high: quantile(&values, 1.0 - tail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(shift: f64, count: usize) -> Vec<Vec<f64>> {
        let value = |block: usize, i: usize| shift + ((block * 7 + i * 13) % 31) as f64;
        (0..count).map(|block| (0..10).map(|i| value(block, i)).collect()).collect()
    }

    #[test]
    fn clear_difference_is_seen_and_none_is_not() {
        let far = contrast(&blocks(100.0, 10), &blocks(0.0, 10), 0.5, 1).unwrap();
        assert_eq!(far.difference, 100.0);
        assert!(far.difference_ci.excludes(0.0) && far.ratio_ci.excludes(1.0));
        let same = contrast(&blocks(50.0, 10), &blocks(50.0, 10), 0.5, 1).unwrap();
        assert!(!same.difference_ci.excludes(0.0) && !same.ratio_ci.excludes(1.0));
    }

    #[test]
    fn seed_decides() {
        let (a, b) = (blocks(10.0, 8), blocks(0.0, 8));
        assert_eq!(contrast(&a, &b, 0.5, 1), contrast(&a, &b, 0.5, 1));
    }

    #[test]
    fn drifting_blocks_widen_the_interval() {
        // Within a block all values are alike: 80 values tell as much as 8 do.
        let drifting: Vec<Vec<f64>> =
            (0..8).map(|block| vec![f64::from(block * block); 10]).collect();
        let singly: Vec<Vec<f64>> = vec![drifting.concat()];
        let width = |c: Contrast| c.difference_ci.high.unwrap() - c.difference_ci.low.unwrap();
        let whole = contrast(&drifting, &drifting, 0.5, 1).unwrap();
        let loose = contrast(&singly, &singly, 0.5, 1).unwrap();
        assert!(whole.by_blocks && !loose.by_blocks);
        assert!(width(whole) > 1.5 * width(loose));
    }

    #[test]
    fn mean_width_agrees_with_theory() {
        // The median of n uniform values has variance 1/(4(n+2)): n = 400 gives a standard
        // deviation of 0.025, a difference of two such medians 0.0353, an interval 0.138 wide.
        let uniform: Vec<Vec<f64>> = vec![(0..400).map(|i| (f64::from(i) + 0.5) / 400.0).collect()];
        let ci = contrast(&uniform, &uniform, 0.5, 7).unwrap().difference_ci;
        let width = ci.high.unwrap() - ci.low.unwrap();
        assert!((width - 0.138).abs() < 0.015, "{width}");
    }

    proptest::proptest! {
        #[test]
        fn selecting_agrees_with_sorting(
            mut values in proptest::collection::vec(0.0..1e6_f64, 0..60),
            p in 0.0..=1.0_f64,
        ) {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            proptest::prop_assert_eq!(at(&mut values, p), quantile(&sorted, p));
        }
    }

    #[test]
    fn empty_and_single_samples_do_not_panic() {
        assert_eq!(contrast(&[], &[vec![1.0]], 0.5, 1), None);
        let one = contrast(&[vec![2.0]], &[vec![1.0]], 0.99, 1).unwrap();
        assert_eq!((one.difference, one.ratio), (1.0, 2.0));
    }
}
