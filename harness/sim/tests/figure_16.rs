//! The benchmark of the Raft paper's figure 16 beside the published curves. The curves are not
//! part of the repository: `SRAFT_SHARED_DATA` names the folder that holds `raft-fig16/cdf.csv`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use sraft_core::{Span, TimeoutRange};
use sraft_sim::{Distribution, Failover, Observe, Trial};

const TRIALS: u64 = 1000;

fn announced(failover: &Failover, trials: u64) -> Vec<f64> {
    let mut times = Vec::new();
    let mut unsettled = 0;
    for seed in 0.. {
        match failover.run(seed, Observe::default()).unwrap() {
            Trial::Announced(time) => times.push(time.as_secs_f64() * 1e3),
            Trial::Censored => times.push(f64::INFINITY),
            Trial::Unsettled => unsettled += 1,
        }
        assert!(unsettled < trials, "no leader ever lasts");
        if times.len() as u64 == trials {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    times
}

/// Steps of a published curve: time in milliseconds and probability, sorted.
type Curve = Vec<(f64, f64)>;

fn published() -> Option<BTreeMap<String, Curve>> {
    let shared = std::env::var_os("SRAFT_SHARED_DATA").map(PathBuf::from);
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = shared.unwrap_or_else(beside).join("raft-fig16/cdf.csv");
    let mut reader = csv::Reader::from_path(&path).ok()?;
    let mut lines: BTreeMap<String, Curve> = BTreeMap::new();
    for row in reader.records() {
        let row = row.expect("the file is a table");
        let step = (row[1].parse().expect("a time"), row[2].parse().expect("a probability"));
        lines.entry(row[0].to_owned()).or_default().push(step);
    }
    lines.values_mut().for_each(|curve| curve.sort_by(|a, b| a.0.total_cmp(&b.0)));
    Some(lines)
}

/// The two-sample Kolmogorov-Smirnov distance: the largest difference of the two distribution
/// functions, at a step of either.
fn distance(ours: &[f64], theirs: &Curve) -> f64 {
    let total: f64 = theirs.iter().map(|(_, mass)| mass).sum();
    let below = |at: f64| {
        let published: f64 =
            theirs.iter().take_while(|(time, _)| *time <= at).map(|(_, mass)| mass).sum();
        let simulated = ours.partition_point(|time| *time <= at) as f64 / ours.len() as f64;
        (published / total - simulated).abs()
    };
    let steps = ours.iter().copied().chain(theirs.iter().map(|(time, _)| *time));
    steps.map(below).fold(0.0, f64::max)
}

fn quantile(curve: &Curve, share: f64) -> f64 {
    let total: f64 = curve.iter().map(|(_, mass)| mass).sum();
    let mut sum = 0.0;
    let step = curve.iter().find(|(_, mass)| {
        sum += mass / total;
        sum >= share
    });
    step.map_or(f64::NAN, |(time, _)| *time)
}

#[test]
fn the_published_curves() {
    let Some(lines) = published() else {
        println!("SKIPPED: no raft-fig16/cdf.csv; name its folder in SRAFT_SHARED_DATA");
        return;
    };
    println!("timeout_ms   distance   p50 (published)      p99 (published)      max (published)");
    for (name, curve) in &lines {
        let range: TimeoutRange = format!("{name}ms").parse().expect("a range");
        let times = announced(&Failover::raft_figure_16(range), TRIALS);
        let ours = |share: f64| times[(times.len() as f64 * share).ceil() as usize - 1];
        let (distance, p50, p99) = (distance(&times, curve), ours(0.5), ours(0.99));
        let (published_p50, published_p99) = (quantile(curve, 0.5), quantile(curve, 0.99));
        println!(
            "{name:<11} {distance:>9.3} {p50:>9.1} ({published_p50:>7.1}) \
             {p99:>10.1} ({published_p99:>7.1}) {:>10.1} ({:>7.1})",
            ours(1.0),
            quantile(curve, 0.9999),
        );
        // The same seeds give the same times everywhere, so this cannot fail by chance.
        assert!(distance <= 0.10, "{name}: the curves are {distance} apart");
        assert!((p50 / published_p50 - 1.0).abs() < 0.05, "{name}: median {p50}");
        assert!((p99 / published_p99 - 1.0).abs() < 0.15, "{name}: p99 {p99}");
    }
}

#[test]
fn more_randomness_means_fewer_split_votes() {
    let median = |max| {
        let times = announced(&Failover::raft_figure_16(TimeoutRange::millis(150, max)), 300);
        times[times.len() / 2]
    };
    let medians = [151, 155, 175].map(median);
    assert!(medians[0] > medians[1] * 2.0, "{medians:?}");
    assert!(medians.is_sorted_by(|more, less| more > less), "{medians:?}");
}

/// Where no two servers stand at once, the mean is known: `1 + 1/(s + 1) + 2L + W - 1/4` until the
/// election is won, in units of the shortest timeout (Ongaro's dissertation, chapter 9). To that
/// come, at each end, one latency: the last heartbeat's, and the new leader's first message's.
#[test]
fn the_mean_is_the_one_that_the_formula_gives() {
    const SHORTEST: f64 = 2000.0;
    let (latency, write) = (4.0, 12.0);
    let mut failover = Failover::raft_figure_16(TimeoutRange::millis(2000, 4000));
    failover.model.timing.lease = Some(Span(Duration::from_secs(5)));
    failover.model.network.latency = Distribution::constant_us(4_000);
    failover.model.disk.write = Distribution::constant_us(12_000);
    for laggards in [0, 2] {
        let failover = Failover { laggards, ..failover.clone() };
        let times = announced(&failover, 4000);
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        let available = 4.0 - laggards as f64;
        let elected = 1.0 + 1.0 / (available + 1.0) + (2.0 * latency + write) / SHORTEST - 0.25;
        let expected = elected * SHORTEST + 2.0 * latency;
        println!("{laggards} laggards: {mean:.1} ms, expected {expected:.1} ms");
        assert!((mean / expected - 1.0).abs() < 0.02, "{mean} ms, not {expected} ms");
    }
}
