use super::*;
use crate::synthetic::{Synthetic, calm, fast, raft, restless, rough, s_raft};

fn plots(synthetic: &Synthetic) -> Vec<Plot> {
    let plan = synthetic.plan();
    let (script, ops) = (synthetic.script(), synthetic.read_ops());
    let rows = crate::measure::rows(&plan, script.records(), &ops);
    let faults = crate::measure::faults(script.records());
    let plots = all(&plan, &rows, Probed { ops: &ops, faults: &faults }).unwrap();
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
        messages: false,
        probe: 0,
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

const FELT: [&str; 3] = ["around_fault", "outage_histogram", "outage_ecdf"];

#[test]
fn what_a_client_felt_has_figures_of_its_own() {
    let run = Synthetic { probe: 200, ..synthetic("probed") };
    assert_eq!(names(&plots(&run)), [&FELT[..], &USUAL].concat());
    let variants = vec![
        ("raft-silence", raft as crate::synthetic::Model),
        ("raft-connection", rough),
        ("s-raft-silence", s_raft),
        ("s-raft-connection", fast),
    ];
    let wish = crate::results::Wish {
        figure: Some(crate::results::WishedFigure::Outage),
        ..Default::default()
    };
    let run = Synthetic { variants, wish: Some(wish), probe: 500, count: 40, ..synthetic("felt") };
    for plot in plots(&run) {
        let bytes = plot.drawing.svg.len();
        assert!(bytes < 1_000_000, "{} takes {bytes} bytes", plot.name);
    }
    let run = Synthetic { cells: vec!["a=1", "a=2"], probe: 50, count: 4, ..synthetic("felt-by") };
    assert_eq!(plots(&run).len(), 2 * 7 + 2);
}

#[test]
fn matrix_has_figures_per_cell_and_two_across() {
    let cells = vec!["cluster.size=3", "cluster.size=5", "cluster.size=7", "cluster.size=9"];
    let plots = plots(&Synthetic { cells, count: 20, ..synthetic("matrix") });
    assert_eq!(plots.len(), 4 * 4 + 2);
    assert_eq!(
        names(&plots[..3]),
        ["by_cell", "ecdf_by_cell", "leaderless_histogram.cluster.size-3"]
    );
}

#[test]
fn leaders_that_are_left_in_place_have_a_figure_of_their_own() {
    let variants = vec![
        ("raft", restless as crate::synthetic::Model),
        ("s-raft", calm),
        ("s-raft-of-some-cells", |rng: &mut rand_chacha::ChaCha8Rng| {
            if crate::synthetic::uniform(rng, 0.0, 1.0) < 0.5 { s_raft(rng) } else { calm(rng) }
        }),
    ];
    let cells = vec!["fault.direction=both", "fault.direction=out"];
    let spared = plots(&Synthetic {
        cells: cells.clone(),
        variants: variants[..2].to_vec(),
        count: 20,
        ..synthetic("spared")
    });
    assert_eq!(names(&spared), ["stability"]);
    let mixed = plots(&Synthetic { cells, variants, count: 20, ..synthetic("partly-spared") });
    assert_eq!(names(&mixed[..3]), ["stability", "by_cell", "ecdf_by_cell"]);
    assert_eq!(mixed.len(), 3 + 2 * USUAL.len());
}

#[test]
fn large_matrix_has_only_figures_across_cells() {
    let cells = [3, 5, 7, 9, 13, 21, 31, 51, 75, 101]
        .map(|size| &*format!("cluster.size={size}").leak())
        .to_vec();
    let run = Synthetic { cells, count: 20, messages: true, ..synthetic("scale") };
    assert_eq!(names(&plots(&run)), ["by_cell", "ecdf_by_cell"]);
    let many: Vec<&'static str> =
        (3..33).map(|size| &*format!("cluster.size={size}").leak()).collect();
    plots(&Synthetic { cells: many, count: 6, block: 3, ..synthetic("thirty") });
}

#[test]
fn cells_that_are_words_stand_side_by_side() {
    let cells = vec![
        "leader.region=us-east-1",
        "leader.region=us-west-2",
        "leader.region=eu-central-1",
        "leader.region=ap-northeast-2",
        "leader.region=ap-southeast-2",
    ];
    let variants: Vec<(&'static str, crate::synthetic::Model)> =
        vec![("raft", raft), ("s-raft", s_raft), ("s-raft-rtt", fast)];
    let run = Synthetic { cells, variants, count: 20, messages: true, ..synthetic("wan") };
    assert_eq!(plots(&run).len(), 5 * 4 + 2);
    let cells = vec![
        "fault.target=leader,cluster.size=5",
        "fault.target=leader,cluster.size=7",
        "fault.target=leader+primary,cluster.size=5",
        "fault.target=leader+primary,cluster.size=7",
        "fault.target=leader+all-sub-leaders,cluster.size=5",
        "fault.target=leader+all-sub-leaders,cluster.size=7",
        "fault.target=leader+all-sub-leaders,cluster.size=9",
    ];
    plots(&Synthetic { cells, count: 20, ..synthetic("two-keys") });
}

#[test]
fn figure_16_has_its_panels() {
    let run = crate::synthetic::figure_16("figure-16");
    let plots = plots(&run);
    assert_eq!(names(&plots)[0], "announced_panels");
    assert_eq!(names(&plots)[1..], USUAL);
    // Without panels and published lines all variants share one.
    let wish = crate::results::Wish {
        figure: Some(crate::results::WishedFigure::Announced),
        ..Default::default()
    };
    let variants: Vec<(&'static str, crate::synthetic::Model)> =
        vec![("raft", raft), ("s-raft", s_raft)];
    self::plots(&Synthetic { wish: Some(wish), variants, count: 40, ..synthetic("announced") });
}

#[test]
fn thousands_of_trials_stay_small() {
    let run = Synthetic { count: 1200, ..crate::synthetic::figure_16("thousands") };
    for plot in plots(&run) {
        let bytes = plot.drawing.svg.len();
        assert!(bytes < 600_000, "{} takes {bytes} bytes", plot.name);
    }
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
