use super::*;
use crate::synthetic::{Synthetic, fast, raft, rough, s_raft};

fn plots(synthetic: &Synthetic) -> Vec<Plot> {
    let plan = synthetic.plan();
    let rows = crate::measure::rows(&plan, synthetic.script().records());
    let plots = all(&plan, &rows).unwrap();
    if let Some(dir) = std::env::var_os("SRAFT_SYNTHETIC") {
        let dir = std::path::Path::new(&dir).join("figures");
        std::fs::create_dir_all(&dir).unwrap();
        for plot in &plots {
            let name = format!("{}.{}", synthetic.name, plot.name);
            std::fs::write(dir.join(format!("{name}.svg")), &plot.drawing.svg).unwrap();
            std::fs::write(dir.join(format!("{name}.png")), &plot.drawing.png).unwrap();
        }
    }
    for plot in &plots {
        assert!(!plot.drawing.svg.contains("<text"), "text is outlined");
        assert!(plot.drawing.svg.matches("<path").count() > 10, "{} has text", plot.name);
        assert!(plot.drawing.png.starts_with(b"\x89PNG"));
    }
    plots
}

fn names(plots: &[Plot]) -> Vec<&str> {
    plots.iter().map(|plot| plot.name.as_str()).collect()
}

const USUAL: [&str; 4] = ["leaderless_histogram", "leaderless_ecdf", "phases", "trials_over_time"];

fn synthetic(name: &'static str) -> Synthetic {
    Synthetic {
        name,
        variants: vec![("raft", raft), ("s-raft", s_raft)],
        cells: vec![""],
        count: 100,
        block: 10,
        stop_after: usize::MAX,
        wish: None,
    }
}

#[test]
fn two_variants() {
    assert_eq!(names(&plots(&synthetic("two"))), USUAL);
}

#[test]
fn eight_variants_with_long_names_over_three_decades() {
    let variants = vec![
        ("raft-silence", raft as crate::synthetic::Model),
        ("raft-connection", rough),
        ("s-raft-silence", s_raft),
        ("s-raft-connection", fast),
        ("a-variant-whose-name-goes-on-and-on-for-much-longer-than-anybody-would-like", rough),
        ("s-raft-with-another-rather-long-name-of-its-own", s_raft),
        ("raft-lan-preset", rough),
        ("s-raft-lan", fast),
    ];
    let run = Synthetic { variants, count: 40, ..synthetic("eight") };
    assert_eq!(names(&plots(&run)), USUAL);
}

#[test]
fn detectors() {
    let variants = vec![
        ("raft-silence", raft as crate::synthetic::Model),
        ("raft-connection", rough),
        ("s-raft-silence", s_raft),
        ("s-raft-connection", fast),
    ];
    plots(&Synthetic { variants, ..synthetic("detectors") });
}

#[test]
fn matrix_has_figures_per_cell_and_one_across() {
    let cells = vec!["cluster.size=3", "cluster.size=5", "cluster.size=7", "cluster.size=9"];
    let plots = plots(&Synthetic { cells, count: 20, ..synthetic("matrix") });
    assert_eq!(plots.len(), 4 * 4 + 1);
    assert_eq!(plots[0].name, "leaderless_histogram.cluster.size-3");
    assert_eq!(plots[16].name, "by_cell");
}

#[test]
fn one_trial_none_and_only_spoiled_ones_still_draw() {
    plots(&Synthetic { stop_after: 1, ..synthetic("one") });
    plots(&Synthetic { stop_after: 0, ..synthetic("none") });
    let spoiled: crate::synthetic::Model = |_| crate::script::Course::Spoiled;
    let late: crate::synthetic::Model = |_| crate::script::Course::TimedOut;
    let variants = vec![("raft", spoiled), ("s-raft", late)];
    plots(&Synthetic { variants, count: 3, ..synthetic("spoiled") });
}

#[test]
fn same_rows_give_the_same_bytes() {
    let run = Synthetic { count: 10, ..synthetic("again") };
    let (one, two) = (plots(&run), plots(&run));
    for (a, b) in one.iter().zip(&two) {
        assert!(a.drawing.svg == b.drawing.svg && a.drawing.png == b.drawing.png, "{}", a.name);
    }
}

#[test]
fn times_are_rounded_to_three_digits() {
    let cases = [
        (0.1234, "0.123"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (172.4, "172"),
        (9996.0, "9996"),
        (12_345.6, "12,346"),
    ];
    for (value, expected) in cases {
        assert_eq!(ms(value), expected);
    }
}
