use statrs::distribution::{ContinuousCDF, Normal};

/// Largest total number of values for which the exact distribution of U is used; up to here its
/// counts are whole numbers that a double holds exactly.
const EXACT_UP_TO: usize = 40;

/// What a Mann-Whitney test says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankTest {
    /// Pairs in which the first sample's value is the greater one, ties counting half.
    pub u: f64,
    /// Two-sided p-value.
    pub p: f64,
}

/// The Mann-Whitney U test, two-sided (Mann and Whitney, Annals of Mathematical Statistics 18(1),
/// 1947): exact for up to 40 values in all without ties, else by the normal approximation with
/// corrections for ties and continuity (Hollander, Wolfe and Chicken, Nonparametric Statistical
/// Methods, 3rd ed., 2014, section 4.1). Empty if a sample is.
///
/// `statrs` 0.19 has this test, but its exact p-value is 1 for {1, 2, 3} against {4, 5, 6}, where
/// enumeration gives 0.1.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> Option<RankTest> {
    let (n, m) = (a.len() as f64, b.len() as f64);
    let u = n * m * (1.0 + cliffs_delta(a, b)?) / 2.0;
    let mut all: Vec<f64> = a.iter().chain(b).copied().collect();
    all.sort_by(f64::total_cmp);
    let ties: f64 = all
        .chunk_by(|x, y| x == y)
        .map(|tied| (tied.len() as f64).powi(3) - tied.len() as f64)
        .sum();
    let (mean, total) = (n * m / 2.0, n + m);
    if ties == 0.0 && all.len() <= EXACT_UP_TO {
        let ways = ways(a.len(), b.len());
        let far =
            |(seen, _): &(usize, &f64)| (*seen as f64 - mean).abs() >= (u - mean).abs() - 1e-6;
        let extreme: f64 = ways.iter().enumerate().filter(far).map(|(_, ways)| ways).sum();
        return Some(RankTest { u, p: (extreme / ways.iter().sum::<f64>()).min(1.0) });
    }
    let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    let z = ((u - mean).abs() - 0.5).max(0.0) / variance.sqrt();
    // Without any spread the variance is 0: nothing can be told apart.
    let p = if variance > 0.0 { (2.0 * Normal::standard().sf(z)).min(1.0) } else { 1.0 };
    Some(RankTest { u, p })
}

/// In how many of the orders of `n` and `m` values U is 0, 1, ..., nm: the coefficients of the
/// Gaussian binomial, the product of (1 - q^(m+i)) / (1 - q^i) for i from 1 to n.
fn ways(n: usize, m: usize) -> Vec<f64> {
    let mut ways = vec![0.0; n * m + 1];
    ways[0] = 1.0;
    for i in 1..=n {
        for u in (m + i..ways.len()).rev() {
            ways[u] -= ways[u - m - i];
        }
        for u in i..ways.len() {
            ways[u] += ways[u - i];
        }
    }
    ways
}

/// Cliff's delta (Psychological Bulletin 114(3), 1993): how much likelier a value of `a` is to be
/// greater than one of `b` than to be smaller; from -1 to 1, 0 is none. Empty if a sample is.
pub fn cliffs_delta(a: &[f64], b: &[f64]) -> Option<f64> {
    let mut sorted = b.to_vec();
    sorted.sort_by(f64::total_cmp);
    let pairs = a.len() * b.len();
    let balance = |x: &f64| {
        let smaller = sorted.partition_point(|y| y < x) as f64;
        let greater = (sorted.len() - sorted.partition_point(|y| y <= x)) as f64;
        smaller - greater
    };
    (pairs > 0).then(|| a.iter().map(balance).sum::<f64>() / pairs as f64)
}

/// The Hodges-Lehmann estimate of the shift from `b` to `a`: the median of all differences of a
/// value of `a` and one of `b` (Annals of Mathematical Statistics 34(2), 1963). Empty if a sample
/// is. The differences are never listed: the k-th smallest is found by bisection over counts, so
/// thousands of values on either side take no memory.
pub fn hodges_lehmann(a: &[f64], b: &[f64]) -> Option<f64> {
    let pairs = a.len() * b.len();
    if pairs == 0 {
        return None;
    }
    let (mut a, mut b) = (a.to_vec(), b.to_vec());
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let upper = nth_difference(&a, &b, pairs / 2);
    let lower = if pairs % 2 == 1 { upper } else { nth_difference(&a, &b, pairs / 2 - 1) };
    Some(lower + (upper - lower) / 2.0)
}

/// The difference of which exactly `n` come before in ascending order.
fn nth_difference(a: &[f64], b: &[f64], n: usize) -> f64 {
    // For a given x the differences fall as y grows, rounding included.
    let at_most = |limit: f64| -> usize {
        a.iter().map(|x| b.len() - b.partition_point(|y| x - y > limit)).sum()
    };
    let (mut low, mut high) = (key(a[0] - b[b.len() - 1]), key(a[a.len() - 1] - b[0]));
    while low < high {
        let middle = ((i128::from(low) + i128::from(high)).div_euclid(2)) as i64;
        if at_most(unkey(middle)) > n {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    unkey(low)
}

/// Doubles as integers in the same order.
fn key(value: f64) -> i64 {
    let bits = (value + 0.0).to_bits() as i64;
    if bits < 0 { i64::MIN.wrapping_sub(bits) } else { bits }
}

fn unkey(key: i64) -> f64 {
    let bits = if key < 0 { i64::MIN.wrapping_sub(key) } else { key };
    f64::from_bits(bits as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P(U at least as far from its mean as seen), over every way to deal the ranks.
    fn enumerated(a: &[f64], b: &[f64]) -> f64 {
        let all: Vec<f64> = a.iter().chain(b).copied().collect();
        let u = |mask: u32| -> f64 {
            let (mut u, n) = (0.0, all.len());
            for i in (0..n).filter(|i| mask >> i & 1 == 1) {
                for j in (0..n).filter(|j| mask >> j & 1 == 0) {
                    u += f64::from(u8::from(all[i] > all[j]));
                }
            }
            u
        };
        let mean = (a.len() * b.len()) as f64 / 2.0;
        let seen = (u((1 << a.len()) - 1) - mean).abs();
        let deals: Vec<f64> = (0..1_u32 << all.len())
            .filter(|mask| mask.count_ones() as usize == a.len())
            .map(u)
            .collect();
        let far = deals.iter().filter(|u| (*u - mean).abs() >= seen).count();
        far as f64 / deals.len() as f64
    }

    #[test]
    fn exact_p_is_that_of_enumeration() {
        let samples: [(&[f64], &[f64]); 4] = [
            (&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]),
            (&[19.0, 22.0, 16.0, 29.0, 24.0], &[20.0, 11.0, 17.0, 12.0]),
            (&[1.0, 9.0], &[2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
            (&[5.0], &[1.0, 2.0]),
        ];
        for (a, b) in samples {
            let p = mann_whitney(a, b).unwrap().p;
            assert!((p - enumerated(a, b)).abs() < 1e-9, "{a:?} {b:?}: {p}");
        }
        // SciPy's documentation gives U = 17 for the second pair.
        assert_eq!(mann_whitney(samples[1].0, samples[1].1).unwrap().u, 17.0);
    }

    #[test]
    fn depression_data_of_hollander_and_wolfe() {
        // R's help page of wilcox.test (permeability constants of the human chorioamnion):
        // W = 35, and the Hodges-Lehmann estimate of the shift is 0.305.
        let x = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
        let y = [1.15, 0.88, 0.90, 0.74, 1.21];
        let test = mann_whitney(&x, &y).unwrap();
        assert_eq!(test.u, 35.0);
        // One-sided 0.1272 in R; the distribution is symmetric.
        assert!((test.p - 0.2544).abs() < 1e-4, "{}", test.p);
        assert!((hodges_lehmann(&x, &y).unwrap() - 0.305).abs() < 1e-9);
        // delta = 2U/(mn) - 1.
        assert!((cliffs_delta(&x, &y).unwrap() - 0.4).abs() < 1e-12);
    }

    #[test]
    fn ozone_of_may_and_august_with_ties() {
        // R's help page of wilcox.test: airquality, W = 127.5, p-value = 0.0001208.
        let may = [
            41, 36, 12, 18, 28, 23, 19, 8, 7, 16, 11, 14, 18, 14, 34, 6, 30, 11, 1, 11, 4, 32, 23,
            45, 115, 37,
        ];
        let august = [
            39, 9, 16, 78, 35, 66, 122, 89, 110, 44, 28, 65, 22, 59, 23, 31, 44, 21, 9, 45, 168,
            73, 76, 118, 84, 85,
        ];
        let test = mann_whitney(&may.map(f64::from), &august.map(f64::from)).unwrap();
        assert_eq!(test.u, 127.5);
        assert!((test.p - 0.000_120_8).abs() < 5e-8, "{}", test.p);
    }

    #[test]
    fn counts_of_u_are_exact_up_to_the_limit() {
        let binomial =
            |n: usize, k: usize| (1..=k).fold(1.0, |c, i| c * (n - k + i) as f64 / i as f64);
        for n in 1..EXACT_UP_TO {
            let m = EXACT_UP_TO - n;
            let total: f64 = ways(n, m).iter().sum();
            assert_eq!(total, binomial(n + m, n).round(), "{n} of {EXACT_UP_TO}");
        }
    }

    #[test]
    fn samples_without_spread_or_values_do_not_panic() {
        assert_eq!(mann_whitney(&[1.0; 30], &[1.0; 30]).unwrap().p, 1.0);
        assert_eq!(mann_whitney(&[], &[1.0]), None);
        assert_eq!(hodges_lehmann(&[], &[1.0]), None);
        assert_eq!(cliffs_delta(&[1.0], &[]), None);
        assert_eq!(hodges_lehmann(&[3.0], &[1.0]), Some(2.0));
    }

    proptest::proptest! {
        #[test]
        fn hodges_lehmann_is_the_median_of_all_differences(
            a in proptest::collection::vec(-1e3..1e3_f64, 1..20),
            b in proptest::collection::vec(-1e3..1e3_f64, 1..20),
        ) {
            let all: Vec<f64> = a.iter().flat_map(|x| b.iter().map(move |y| x - y)).collect();
            let expected = crate::stats::median(&all).unwrap();
            proptest::prop_assert!((hodges_lehmann(&a, &b).unwrap() - expected).abs() < 1e-9);
        }

        #[test]
        fn delta_and_u_agree(
            a in proptest::collection::vec(0..9_i32, 1..30),
            b in proptest::collection::vec(0..9_i32, 1..30),
        ) {
            let (a, b): (Vec<f64>, Vec<f64>) =
                (a.into_iter().map(f64::from).collect(), b.into_iter().map(f64::from).collect());
            let (test, delta) = (mann_whitney(&a, &b).unwrap(), cliffs_delta(&a, &b).unwrap());
            proptest::prop_assert!((0.0..=1.0).contains(&test.p));
            let from_u = 2.0 * test.u / (a.len() * b.len()) as f64 - 1.0;
            proptest::prop_assert!((from_u - delta).abs() < 1e-9);
        }
    }
}
