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
    let whole = |blocks: &[Vec<f64>]| {
        let mut values = blocks.concat();
        values.sort_by(f64::total_cmp);
        quantile(&values, p)
    };
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
    let (mut a, mut b) = (Units::new(&units(a), p), Units::new(&units(b), p));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut differences, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..RESAMPLES {
        if let (Some(x), Some(y)) = (a.resample(&mut rng), b.resample(&mut rng)) {
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

/// A sample to draw from, unit by unit.
struct Units {
    p: f64,
    /// Every value and the unit that it belongs to, ascending.
    sorted: Vec<(f64, u32)>,
    /// Values of each unit.
    sizes: Vec<u32>,
    /// How often each unit was drawn.
    drawn: Vec<u32>,
}

impl Units {
    fn new(units: &[Vec<f64>], p: f64) -> Units {
        let of = |(unit, values): (usize, &Vec<f64>)| {
            values.iter().map(|value| (*value, unit as u32)).collect::<Vec<_>>()
        };
        let mut sorted: Vec<(f64, u32)> = units.iter().enumerate().flat_map(of).collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let sizes = units.iter().map(|unit| unit.len() as u32).collect();
        Units { p, sorted, sizes, drawn: vec![0; units.len()] }
    }

    /// Draws as many units as there are, with replacement: the quantile of their values.
    fn resample(&mut self, rng: &mut ChaCha8Rng) -> Option<f64> {
        self.drawn.fill(0);
        let mut total = 0;
        for _ in 0..self.sizes.len() {
            let unit = rng.random_range(0..self.sizes.len());
            self.drawn[unit] += 1;
            total += self.sizes[unit] as usize;
        }
        let position = total.checked_sub(1)? as f64 * self.p.clamp(0.0, 1.0);
        let (rank, part) = (position.floor() as usize, position.fract());
        let (low, high) = self.ranked(rank, total)?;
        Some(if part == 0.0 { low } else { low + part * (high - low) })
    }

    /// The values of `rank`, from 0, and of the rank after it (or the last) among the `total` drawn
    /// ones. Walking the ascending values from the nearer end is many times faster than drawing
    /// them and selecting, and this runs thousands of times.
    fn ranked(&self, rank: usize, total: usize) -> Option<(f64, f64)> {
        let weight = |at: usize| self.drawn[self.sorted[at].1 as usize] as usize;
        let next = (rank + 1).min(total - 1);
        if 2 * rank < total {
            let (mut passed, mut low) = (0, None);
            for at in 0..self.sorted.len() {
                passed += weight(at);
                if passed > rank && low.is_none() {
                    low = Some(self.sorted[at].0);
                }
                if passed > next {
                    return Some((low?, self.sorted[at].0));
                }
            }
        } else {
            let (mut left, mut high) = (total, None);
            for at in (0..self.sorted.len()).rev() {
                left -= weight(at);
                if left <= next && high.is_none() {
                    high = Some(self.sorted[at].0);
                }
                if left <= rank {
                    return Some((self.sorted[at].0, high?));
                }
            }
        }
        None
    }
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
        fn walking_agrees_with_drawing_and_sorting(
            units in proptest::collection::vec(
                proptest::collection::vec(0.0..1e6_f64, 1..6), 1..20),
            p in 0.0..=1.0_f64,
            seed in 0..1000_u64,
        ) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut drawn: Vec<f64> = Vec::new();
            for _ in 0..units.len() {
                drawn.extend(&units[rng.random_range(0..units.len())]);
            }
            drawn.sort_by(f64::total_cmp);
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let walked = Units::new(&units, p).resample(&mut rng);
            proptest::prop_assert_eq!(walked, quantile(&drawn, p));
        }
    }

    #[test]
    fn empty_and_single_samples_do_not_panic() {
        assert_eq!(contrast(&[], &[vec![1.0]], 0.5, 1), None);
        let one = contrast(&[vec![2.0]], &[vec![1.0]], 0.99, 1).unwrap();
        assert_eq!((one.difference, one.ratio), (1.0, 2.0));
    }
}
