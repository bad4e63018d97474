//! The cells of a matrix as places on an axis.

/// What the cells are called, and where they stand.
pub(super) struct Cells {
    /// What is varied: `cluster.size`.
    pub(super) key: String,
    /// Each cell's name: `3`, `5`.
    pub(super) names: Vec<String>,
    /// Whether one follows the other, so that a line may join them; between words there is nothing
    /// to interpolate.
    pub(super) ordered: bool,
    /// Where they stand if all are numbers.
    pub(super) scale: Option<Scale>,
}

/// An axis of the numbers that the cells are.
pub(super) struct Scale {
    pub(super) values: Vec<f64>,
    pub(super) log: bool,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// Numbers that span this factor or more stand on a logarithmic axis.
const LOG_FROM: f64 = 8.0;

impl Cells {
    pub(super) fn of(cells: &[String]) -> Cells {
        let (key, names) = names(cells);
        let scale = Scale::of(&names).filter(|_| names.len() > 1);
        let ordered = names.iter().all(|name| name.starts_with(|c: char| c.is_ascii_digit()));
        Cells { key, names, ordered, scale }
    }
}

impl Scale {
    /// Numbers, all with the same unit or none, and all different.
    fn of(names: &[String]) -> Option<Scale> {
        let number = |name: &String| {
            let fits = |c: char| c.is_ascii_digit() || c == '.';
            let (digits, unit) = name.split_at(name.find(|c| !fits(c)).unwrap_or(name.len()));
            let plain = unit.chars().all(|c| c.is_alphabetic() || c == '%' || c == ' ');
            digits.parse::<f64>().ok().filter(|_| plain).map(|value| (value, unit.to_owned()))
        };
        let numbers: Vec<(f64, String)> = names.iter().map(number).collect::<Option<_>>()?;
        let mut values: Vec<f64> = numbers.iter().map(|number| number.0).collect();
        let (low, high) =
            values.iter().fold((f64::INFINITY, 0.0_f64), |(l, h), v| (l.min(*v), h.max(*v)));
        let same = numbers.iter().all(|number| number.1 == numbers[0].1);
        values.sort_by(f64::total_cmp);
        if !same || values.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        let values = numbers.into_iter().map(|number| number.0).collect();
        let log = low > 0.0 && high / low >= LOG_FROM;
        Some(Scale { values, log, low, high })
    }
}

/// `a=3,b=5`, `a=3,b=7` -> `a, b` and `3, 5`, `3, 7`.
fn names(cells: &[String]) -> (String, Vec<String>) {
    let split = |cell: &String| -> Option<(Vec<String>, Vec<String>)> {
        let parts = cell.split(',').map(|part| part.split_once('='));
        let pairs: Vec<(&str, &str)> = parts.collect::<Option<_>>()?;
        Some(pairs.into_iter().map(|(key, name)| (key.to_owned(), name.to_owned())).unzip())
    };
    match cells.iter().map(split).collect::<Option<Vec<_>>>() {
        Some(split) if !split.is_empty() && split.iter().all(|cell| cell.0 == split[0].0) => {
            (split[0].0.join(", "), split.iter().map(|cell| cell.1.join(", ")).collect())
        }
        _ => ("cell".to_owned(), cells.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cells: &[&str]) -> Cells {
        Cells::of(&cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn numbers_get_an_axis_and_words_do_not() {
        let sizes = of(&["cluster.size=3", "cluster.size=101"]);
        let scale = sizes.scale.unwrap();
        assert_eq!(
            (sizes.key.as_str(), scale.values, scale.log),
            ("cluster.size", vec![3.0, 101.0], true)
        );
        assert!(!of(&["a=50ms", "a=100ms"]).scale.unwrap().log);
        assert!(of(&["a=50ms", "a=1s"]).scale.is_none(), "units differ");
        let ranges = of(&["a=75ms-150ms", "a=150ms-300ms"]);
        assert!(ranges.scale.is_none() && ranges.ordered);
        let words = of(&["leader.region=eu-west-1", "leader.region=us-east-1"]);
        assert!(words.scale.is_none() && !words.ordered);
        let two = of(&["a=1,b=2", "a=1,b=3"]);
        assert_eq!((two.key.as_str(), two.scale.is_none()), ("a, b", true));
        assert_eq!(two.names, ["1, 2", "1, 3"]);
        let unlike = of(&["a=1", "b=1"]);
        assert_eq!((unlike.key.as_str(), unlike.names[1].as_str()), ("cell", "b=1"));
    }
}
