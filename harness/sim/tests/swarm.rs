//! Random clusters under random faults: see `sraft_sim::swarm`. `SRAFT_SEEDS` says how many.

use sraft_sim::{Tally, replay, swarm};

fn seeds(default: u64) -> u64 {
    std::env::var("SRAFT_SEEDS").map_or(default, |n| n.parse().expect("SRAFT_SEEDS is a number"))
}

#[test]
fn safety_and_liveness_under_random_faults() {
    let seeds = seeds(300);
    let first: u64 = std::env::var("SRAFT_FIRST_SEED").map_or(0, |n| n.parse().expect("a number"));
    let mut sum = Tally::default();
    for seed in first..first + seeds {
        let tally = swarm(seed).unwrap_or_else(|failure| {
            panic!("{failure}\n{}", replay(seed));
        });
        sum.events += tally.events;
        sum.messages += tally.messages;
        sum.leaders += tally.leaders;
        sum.promotions += tally.promotions;
        sum.handovers += tally.handovers;
        sum.committed += tally.committed;
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
