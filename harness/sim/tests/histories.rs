//! Clients of simulated clusters under random faults, held against the history checker, which knows
//! nothing of Raft: without a flaw whatever they saw can be explained by one register, and where
//! reads are stale or writes are lost it cannot. `SRAFT_SEEDS` says how many seeds without a flaw.

use std::sync::Arc;

use sraft_check::{
    Budget, Operation, Register, Verdict, check,
    model::{Action, RegisterOp},
};
use sraft_sim::{ClientAction, ClientOp, history};

fn operations(seen: &[ClientOp]) -> Vec<Operation<RegisterOp>> {
    let key: Arc<str> = Arc::from("register");
    let value = |value: u64| Arc::from(value.to_string());
    let operation = |op: &ClientOp| {
        let action = match op.action {
            ClientAction::Write(written) => Action::Write(value(written)),
            ClientAction::Read(read) => Action::Read(read.map(value)),
        };
        let (process, call, back) = (op.node, op.asked, op.answered);
        Operation { process, call, back, op: RegisterOp { key: key.clone(), action } }
    };
    seen.iter().map(operation).collect()
}

fn verdict(seen: &[ClientOp]) -> Verdict {
    check(&Register::absent(), &operations(seen), &Budget::default()).verdict()
}

#[test]
fn every_history_of_the_core_is_linearizable() {
    let default = if cfg!(feature = "mutants") { 1000 } else { 200 };
    let seeds = std::env::var("SRAFT_SEEDS");
    let seeds = seeds.map_or(default, |n| n.parse().expect("the variable is a number"));
    let (mut acknowledged, mut unknown, mut read, mut elsewhere) = (0, 0, 0, 0);
    for seed in 0..seeds {
        let seen = history(seed);
        for op in &seen {
            match op.action {
                ClientAction::Write(_) if op.answered.is_some() => acknowledged += 1,
                ClientAction::Write(_) => unknown += 1,
                ClientAction::Read(Some(value)) => {
                    read += 1;
                    let writer = |op: &&ClientOp| op.action == ClientAction::Write(value);
                    let writer = seen.iter().find(writer).expect("what is read was written");
                    elsewhere += u64::from(writer.node != op.node);
                }
                ClientAction::Read(None) => {}
            }
        }
        assert_eq!(verdict(&seen), Verdict::Linearizable, "seed {seed}: {seen:#?}");
    }
    println!(
        "{seeds} seeds: {acknowledged} writes acknowledged and {unknown} not, {read} reads of a \
         value, {elsewhere} of them written at another node"
    );
    // A history of which nobody has seen anything shows nothing.
    assert!(acknowledged > 5 * seeds && unknown > seeds / 2, "{acknowledged}, {unknown}");
    assert!(read > 5 * seeds && elsewhere > seeds, "{read}, {elsewhere}");
}

#[cfg(feature = "mutants")]
mod mutants {
    use std::{panic, thread};

    use sraft_core::Mutation;
    use sraft_sim::{Flaw, history_with_flaw};

    use super::*;

    const MOST_SEEDS: u64 = 1000;

    /// Stale reads, and writes that are lost after they have been acknowledged. Of the other flaws
    /// clients see nothing within so many seeds: only whoever looks into the nodes does, as
    /// `mutants.rs` shows.
    const FLAWS: [Flaw; 7] = [
        Flaw::Core(Mutation::ReadUnconfirmed),
        Flaw::Core(Mutation::ReadBeforeReady),
        Flaw::Core(Mutation::VoteDespiteLease),
        Flaw::Core(Mutation::GrantWithoutLogCheck),
        Flaw::Core(Mutation::TruncateBeforeVote),
        Flaw::Core(Mutation::CommitLogLength),
        Flaw::Core(Mutation::SnapshotDropsTail),
    ];

    /// A flawed core may fail an assertion of its own. That ends the run, and what clients have seen
    /// by then counts; it is not to be written to the test's output.
    fn quietly<T>(run: impl FnOnce() -> T) -> T {
        let (here, usual) = (thread::current().id(), panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            if thread::current().id() != here {
                usual(info);
            }
        }));
        let result = run();
        drop(panic::take_hook());
        result
    }

    #[test]
    fn what_clients_of_flawed_cores_see_is_not_linearizable() {
        let found = quietly(|| {
            FLAWS.map(|flaw| {
                let seen = (0..MOST_SEEDS).map(|seed| (seed, history_with_flaw(seed, flaw)));
                let mut seen = seen.map(|(seed, seen)| (seed + 1, verdict(&seen), seen.len()));
                seen.find(|(_, verdict, _)| *verdict == Verdict::NotLinearizable)
            })
        });
        println!("{:<34} seeds  operations", "flaw");
        for (flaw, found) in FLAWS.iter().zip(&found) {
            let flaw = format!("{flaw:?}");
            match found {
                Some((seeds, _, operations)) => println!("{flaw:<34} {seeds:>5}  {operations:>10}"),
                None => println!("{flaw:<34}     -  not flagged"),
            }
        }
        let missed = FLAWS.iter().zip(&found).filter(|(_, found)| found.is_none());
        let missed: Vec<_> = missed.map(|(flaw, _)| flaw).collect();
        assert!(missed.is_empty(), "linearizable for {MOST_SEEDS} seeds: {missed:?}");
    }
}
