//! Random clusters under random faults: see `sraft_sim::swarm`. `SRAFT_SEEDS` says how many at
//! least, and `SRAFT_SECONDS` for how long there may be more of them.

use std::time::{Duration, Instant};

use sraft_sim::{Tally, replay, swarm};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |n| n.parse().expect("the variable is a number"))
}

#[test]
fn safety_and_liveness_under_random_faults() {
    let (least, first) = (number("SRAFT_SEEDS", 300), number("SRAFT_FIRST_SEED", 0));
    let (began, lasts) = (Instant::now(), Duration::from_secs(number("SRAFT_SECONDS", 0)));
    let (mut sum, mut seeds) = (Tally::default(), 0);
    for seed in first.. {
        if seeds >= least && began.elapsed() >= lasts {
            break;
        }
        seeds += 1;
        let tally = swarm(seed).unwrap_or_else(|failure| {
            panic!("{failure}\n{}", replay(seed));
        });
        sum += tally;
    }
    println!("{seeds} seeds: {sum:?}");
    // The faults must reach the protocol, or this shows nothing.
    assert!(sum.promotions > seeds / 4, "{sum:?}");
    assert!(sum.leaders > 2 * seeds && sum.handovers > seeds / 20, "{sum:?}");
    assert!(sum.committed > 5 * seeds, "{sum:?}");
}

#[test]
fn same_seed_same_run() {
    assert_eq!(replay(7), replay(7));
    assert_ne!(replay(7), replay(8));
}
