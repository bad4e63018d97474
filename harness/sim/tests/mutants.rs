//! Checkers that can fail: every flaw must be flagged within [`MOST_SEEDS`] seeds of the swarm,
//! and the core without a flaw in none of them.

use sraft_core::Mutation;
use sraft_sim::{Failure, Flaw, replay_with_flaw, swarm, swarm_with_flaw};

const MOST_SEEDS: u64 = 1000;

const FLAWS: [Flaw; 15] = [
    Flaw::Core(Mutation::GrantWithoutLogCheck),
    Flaw::Core(Mutation::GrantWithoutRecord),
    Flaw::Core(Mutation::CommitLogLength),
    Flaw::ForgetVote,
    Flaw::Core(Mutation::TruncateBeforeVote),
    Flaw::Core(Mutation::CommitOlderTerms),
    Flaw::Core(Mutation::ReplyBeforeDurable),
    Flaw::Core(Mutation::LeadWithoutOwnVote),
    Flaw::Core(Mutation::KeepHeldReplies),
    Flaw::Core(Mutation::ReadUnconfirmed),
    Flaw::Core(Mutation::ReadConfirmedBefore),
    Flaw::Core(Mutation::ReadBeforeReady),
    Flaw::Core(Mutation::VoteDespiteLease),
    Flaw::Core(Mutation::InstallNotDurable),
    Flaw::Core(Mutation::SnapshotDropsTail),
];

/// Assertions of the core are findings here, and not to be written to the test's output.
fn quietly<T>(run: impl FnOnce() -> T) -> T {
    std::panic::set_hook(Box::new(|_| {}));
    let result = run();
    drop(std::panic::take_hook());
    result
}

#[test]
fn every_flaw_is_flagged_and_no_flaw_is_not() {
    let flagged = quietly(|| {
        FLAWS.map(|flaw| {
            let mut seeds = 0..MOST_SEEDS;
            seeds.find_map(|seed| match swarm_with_flaw(seed, flaw) {
                Err(Failure::Unsafe(violation)) => Some((seed + 1, violation)),
                // A flaw that costs only liveness has not been caught at what is wrong with it.
                Err(Failure::NotLive { .. }) | Ok(_) => None,
            })
        })
    });
    println!("{:<34} seeds  flagged by", "flaw");
    for (flaw, finding) in FLAWS.iter().zip(&flagged) {
        let (seeds, invariant) = match finding {
            Some((seeds, violation)) => (seeds.to_string(), violation.invariant),
            None => ("-".to_owned(), "nothing"),
        };
        println!("{:<34} {seeds:>5}  {invariant}", format!("{flaw:?}"));
    }
    let missed: Vec<_> =
        FLAWS.iter().zip(&flagged).filter(|(_, found)| found.is_none()).map(|(f, _)| f).collect();
    assert!(missed.is_empty(), "not flagged within {MOST_SEEDS} seeds: {missed:?}");
    for seed in 0..MOST_SEEDS {
        if let Err(failure) = swarm(seed) {
            panic!("the core without a flaw is flagged: {failure}");
        }
    }
}

#[test]
fn a_finding_can_be_replayed() {
    let flaw = Flaw::Core(Mutation::CommitLogLength);
    let found = (0..MOST_SEEDS).find_map(|seed| match swarm_with_flaw(seed, flaw) {
        Err(Failure::Unsafe(violation)) => Some(violation),
        _ => None,
    });
    let violation = found.expect("the flaw is flagged");
    let text = replay_with_flaw(violation.seed, flaw);
    assert!(text.contains(&violation.to_string()), "{text}");
    assert!(text.contains(&format!("\n#{} ", violation.event)), "{text}");
}
