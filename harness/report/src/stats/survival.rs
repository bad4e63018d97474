/// A step of a survival curve: from `value` on, this part of the sample is still waiting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Where the step is.
    pub value: f64,
    /// The part that lasts longer than `value`.
    pub survival: f64,
}

/// The product-limit estimate of the survival function (Kaplan and Meier, Journal of the American
/// Statistical Association 53(282), 1958). Each value comes with whether its end was observed;
/// one that was not (censored) lasts *at least* that long. Without censoring, one minus it is the
/// empirical distribution function.
pub fn kaplan_meier(values: &[(f64, bool)]) -> Vec<Step> {
    let mut sorted = values.to_vec();
    // What is censored at the instant of an event was still at risk then.
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    let mut steps: Vec<Step> = Vec::new();
    let mut survival = 1.0;
    for group in sorted.chunk_by(|a, b| a.0 == b.0) {
        let ended = group.iter().filter(|(_, observed)| *observed).count();
        if ended > 0 {
            let at_risk = sorted.len() - sorted.partition_point(|other| other.0 < group[0].0);
            survival *= 1.0 - ended as f64 / at_risk as f64;
            steps.push(Step { value: group[0].0, survival });
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leukaemia_remissions_of_freireich() {
        // 6-MP arm of Freireich et al., Blood 21(6), 1963, the textbook example: survival at 6,
        // 7, 10, 13, 16, 22, 23 weeks.
        let ended = [6, 6, 6, 7, 10, 13, 16, 22, 23].map(|week| (f64::from(week), true));
        let censored =
            [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35].map(|week| (f64::from(week), false));
        let steps = kaplan_meier(&[&ended[..], &censored[..]].concat());
        let expected = [
            (6.0, 0.857),
            (7.0, 0.807),
            (10.0, 0.753),
            (13.0, 0.690),
            (16.0, 0.627),
            (22.0, 0.538),
            (23.0, 0.448),
        ];
        assert_eq!(steps.len(), expected.len());
        for (step, (value, survival)) in steps.iter().zip(expected) {
            assert_eq!(step.value, value);
            assert!((step.survival - survival).abs() < 5e-4, "{step:?}");
        }
    }

    #[test]
    fn without_censoring_it_is_the_empirical_distribution() {
        let steps = kaplan_meier(&[(2.0, true), (1.0, true), (2.0, true), (5.0, true)]);
        let expected = [(1.0, 0.75), (2.0, 0.25), (5.0, 0.0)];
        for (step, (value, survival)) in steps.iter().zip(expected) {
            assert!(step.value == value && (step.survival - survival).abs() < 1e-12);
        }
        assert_eq!(kaplan_meier(&[]), []);
        assert_eq!(kaplan_meier(&[(9.0, false)]), []);
    }
}
