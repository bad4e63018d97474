/// Holm's step-down correction (Scandinavian Journal of Statistics 6(2), 1979): the k-th smallest
/// of m p-values is multiplied by m - k + 1, and no corrected value is below the one before it.
/// Values that are not there stay so and do not count.
pub fn holm(p: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<usize> = (0..p.len()).filter(|i| p[*i].is_some()).collect();
    order.sort_by(|a, b| p[*a].unwrap_or(1.0).total_cmp(&p[*b].unwrap_or(1.0)));
    let mut corrected = vec![None; p.len()];
    let mut least = 0.0_f64;
    for (rank, index) in order.iter().enumerate() {
        let factor = (order.len() - rank) as f64;
        least = least.max((p[*index].unwrap_or(1.0) * factor).min(1.0));
        corrected[*index] = Some(least);
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::holm;

    #[test]
    fn is_p_adjust_of_r() {
        // R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm") -> 0.05 0.08 0.09 0.09 0.09
        let p = [0.03, 0.01, 0.05, 0.02, 0.04].map(Some);
        let expected = [0.09, 0.05, 0.09, 0.08, 0.09];
        for (got, expected) in holm(&p).into_iter().zip(expected) {
            assert!((got.unwrap() - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn missing_values_do_not_count() {
        assert_eq!(holm(&[None, Some(0.04)]), [None, Some(0.04)]);
        assert_eq!(holm(&[Some(0.9), Some(0.8)]), [Some(1.0), Some(1.0)]);
        assert_eq!(holm(&[]), []);
    }
}
