//! What an experiment can be expected to show, before it is run.
//!
//! Nearly all of the spread of the time without a leader comes from the timeouts that the nodes
//! draw, and those are known beforehand. So the spread of a median over `n` trials is found by
//! drawing such trials, and from it the smallest difference between two variants that a two-sided
//! test at the 5 % level finds with a power of 80 %: `(1.96 + 0.84) * sqrt(a^2 + b^2)`, with `a`
//! and `b` the standard errors of the two medians (Cohen, Statistical Power Analysis for the
//! Behavioral Sciences, 2nd ed., 1988, chapter 2).

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sraft_core::{Detector, Protocol, TimeoutRange};

use super::Launch;
use crate::fault::{Kind, Target};

/// Quantiles of the normal distribution: 97.5 % for the level, 80 % for the power.
const LEVEL_AND_POWER: f64 = 1.96 + 0.84;

/// Medians drawn to estimate the standard error of one.
const MEDIANS: usize = 400;

/// The smallest difference of medians that two variants with so many trials each would show; empty
/// if the fault leaves the leader alone, or if no timeout plays a part.
pub(super) fn detectable(sides: [(&Launch, usize); 2], seed: u64) -> Option<Duration> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut variance = 0.0;
    for (launch, trials) in sides {
        let troubles = launch.fault.kind.is_gray()
            // When these nodes go is for them to say.
            || matches!(launch.fault.kind, Kind::Stop | Kind::DiskFull);
        if trials == 0 || !strikes_leader(launch) || troubles {
            return None;
        }
        variance += variance_of_median(launch, trials, &mut rng);
    }
    (variance > 0.0).then(|| Duration::from_secs_f64(LEVEL_AND_POWER * variance.sqrt()))
}

fn strikes_leader(launch: &Launch) -> bool {
    matches!(
        launch.fault.target,
        Target::Leader | Target::LeaderAndPrimary | Target::LeaderAndAllSubLeaders
    )
}

/// Seconds squared.
fn variance_of_median(launch: &Launch, trials: usize, rng: &mut ChaCha8Rng) -> f64 {
    let medians: Vec<f64> = (0..MEDIANS)
        .map(|_| {
            let mut draws: Vec<f64> = (0..trials).map(|_| leaderless(launch, rng)).collect();
            draws.sort_unstable_by(f64::total_cmp);
            draws[trials / 2]
        })
        .collect();
    let mean = medians.iter().sum::<f64>() / MEDIANS as f64;
    medians.iter().map(|median| (median - mean).powi(2)).sum::<f64>() / (MEDIANS - 1) as f64
}

/// One trial as the timeouts alone would have it, in seconds: the first survivor to stand wins.
fn leaderless(launch: &Launch, rng: &mut ChaCha8Rng) -> f64 {
    let timing = &launch.timing;
    let struck = launch.fault.target.strikes(launch.cell_sub_leaders);
    let ranks_struck = (struck - 1).min(launch.sub_leaders);
    let survivors = launch.size - struck;
    let plain = match launch.protocol {
        Protocol::Raft => timing.election_timeout,
        Protocol::SRaft => timing.follower_timeout,
    };
    let certain = timing.detector == Detector::Connection && launch.fault.kind == Kind::Kill;
    let ranks = (ranks_struck..launch.sub_leaders).map(|rank| match certain {
        true => (timing.stagger * rank, timing.stagger * rank),
        false => (
            timing.rank_timeout.min + timing.rank_step.min * rank,
            timing.rank_timeout.max + timing.rank_step.max * rank,
        ),
    });
    let all_ranks = timing.stagger * launch.sub_leaders;
    let others = survivors - (launch.sub_leaders - ranks_struck);
    let others = (0..others).map(|_| match certain {
        true => (all_ranks, all_ranks + plain.width()),
        false => (plain.min, plain.max),
    });
    let first = ranks
        .chain(others)
        .map(|(min, max)| uniform(TimeoutRange { min, max }, rng))
        .fold(f64::INFINITY, f64::min);
    // The timeouts run since the last heartbeat, which was sent before the fault.
    let since = match certain {
        true => 0.0,
        false => uniform(TimeoutRange { min: Duration::ZERO, max: timing.heartbeat }, rng),
    };
    first - since
}

fn uniform(range: TimeoutRange, rng: &mut ChaCha8Rng) -> f64 {
    let share: f64 = rng.random();
    range.min.as_secs_f64() + range.width().as_secs_f64() * share
}

#[cfg(test)]
mod tests {
    use sraft_core::Timing;

    use super::*;
    use crate::plan::Fault;

    fn launch(protocol: Protocol, kind: Kind, target: Target) -> Launch {
        Launch {
            system: crate::system::named("sraft").unwrap(),
            fault: Fault {
                kind,
                target,
                duration: Duration::ZERO,
                count: 1,
                iops: None,
                links: None,
            },
            size: 5,
            protocol,
            timing: Timing::reference(),
            sub_leaders: Timing::reference().sub_leaders(protocol, 5) as u32,
            cell_sub_leaders: 2,
            probe: None,
            sim: None,
        }
    }

    #[test]
    fn more_trials_show_smaller_differences() {
        let raft = launch(Protocol::Raft, Kind::Kill, Target::Leader);
        let s_raft = launch(Protocol::SRaft, Kind::Kill, Target::Leader);
        let shows = |n| detectable([(&s_raft, n), (&raft, n)], 1).unwrap().as_secs_f64();
        let ratio = shows(25) / shows(400);
        // A standard error shrinks with the root of n.
        assert!((3.0..5.5).contains(&ratio), "{ratio}");
    }

    #[test]
    fn the_standard_error_of_a_uniform_median_is_the_textbook_one() {
        // Of the timeouts of two ranks only the Primary's matters: U(150, 200) - U(0, 50) is a
        // triangle with a density of 1/50 per ms in its middle, so the standard error of the
        // median of n is 1 / (2 f sqrt(n)) = 2.5 ms for n = 100.
        let s_raft = launch(Protocol::SRaft, Kind::Kill, Target::Leader);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let error = variance_of_median(&s_raft, 100, &mut rng).sqrt() * 1e3;
        assert!((2.2..2.8).contains(&error), "{error}");
    }

    #[test]
    fn a_fault_that_spares_the_leader_shows_nothing() {
        let raft = launch(Protocol::Raft, Kind::Kill, Target::Follower);
        assert_eq!(detectable([(&raft, 10), (&raft, 10)], 1), None);
        let stop = launch(Protocol::Raft, Kind::Stop, Target::Leader);
        assert_eq!(detectable([(&stop, 10), (&stop, 10)], 1), None);
    }
}
