//! An exhaustive check of the core itself, not of a model of it: every order in which three nodes
//! can act within the bounds of a test, with messages that overtake one another, arrive twice or
//! not at all, and with crashes that take away what was not durable.
//!
//! Time is no part of it. The clock stands still and every wait is zero (`Bounds::config`), so
//! whatever waits for time may happen at any moment: that covers every timing, and more.
//!
//! The tests `at_length` need minutes, gigabytes and a release build, and are skipped unless asked
//! for: `SRAFT_AT_LENGTH=1 cargo test --release -p sraft-core --test model at_length -- --nocapture
//! --test-threads 1`

mod cluster;
mod promises;
mod steps;

use cluster::{Bounds, Budget, Start};
use stateright::{Checker, HasDiscoveries, Model, report::WriteReporter};

/// Nothing but a settled S-Raft cluster, in which one node may stop believing in the leader.
const S_RAFT: Bounds = Bounds {
    ranks: 1,
    start: Start::Settled,
    instant_disk: false,
    connection_evidence: true,
    doubts: false,
    lease_runs_out: false,
    max_append_entries: 8,
    max_term: 12,
    budget: Budget {
        suspicions: 1,
        heartbeats: 0,
        proposals: 0,
        handovers: 0,
        crashes: 0,
        duplicates: 0,
        snapshots: 0,
        reads: 0,
    },
};

/// The same in original Raft.
const RAFT: Bounds = Bounds { ranks: 0, ..S_RAFT };

const BUDGET: Budget = S_RAFT.budget;

/// Visits every state and insists on every property. A failure shows the steps that lead to it.
#[allow(clippy::print_stdout, reason = "a test's size is of use to whoever runs it")]
fn check(bounds: Bounds) {
    let checker = bounds.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (all, unique) = (checker.state_count(), checker.unique_state_count());
    println!("{all} steps, {unique} states, depth {}", checker.max_depth());
    checker.assert_properties();
}

/// The same on every core, with a line each second.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn check_at_length(bounds: Bounds) {
    if std::env::var_os("SRAFT_AT_LENGTH").is_none() {
        println!("SKIPPED: takes minutes and gigabytes; SRAFT_AT_LENGTH=1 runs it");
        return;
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let checker = bounds.checker().finish_when(HasDiscoveries::AnyFailures).threads(cores);
    let mut stdout = std::io::stdout();
    let mut report = WriteReporter::new(&mut stdout);
    checker.spawn_bfs().join_and_report(&mut report).assert_properties();
}

#[test]
fn promotion_with_a_crash() {
    check(Bounds { budget: Budget { crashes: 1, ..BUDGET }, ..S_RAFT });
}

#[test]
fn promotion_with_a_command() {
    let budget = Budget { proposals: 1, ..BUDGET };
    check(Bounds { instant_disk: true, budget, ..S_RAFT });
}

#[test]
fn promotion_after_asking() {
    check(Bounds { connection_evidence: false, instant_disk: true, ..S_RAFT });
}

#[test]
fn promotion_with_a_duplicate() {
    let budget = Budget { duplicates: 1, ..BUDGET };
    check(Bounds { instant_disk: true, budget, ..S_RAFT });
}

#[test]
fn promotion_against_doubts() {
    let budget = Budget { suspicions: 2, ..BUDGET };
    check(Bounds { doubts: true, instant_disk: true, budget, ..S_RAFT });
}

#[test]
fn promotion_beside_a_leader_that_gives_up() {
    let budget = Budget { heartbeats: 1, ..BUDGET };
    check(Bounds { lease_runs_out: true, instant_disk: true, budget, ..S_RAFT });
}

#[test]
fn handover() {
    let budget = Budget { handovers: 1, suspicions: 0, ..BUDGET };
    check(Bounds { budget, ..S_RAFT });
}

#[test]
fn raft_with_a_crash() {
    check(Bounds { budget: Budget { crashes: 1, ..BUDGET }, ..RAFT });
}

#[test]
fn raft_with_a_command() {
    check(Bounds { budget: Budget { proposals: 1, ..BUDGET }, ..RAFT });
}

#[test]
fn raft_from_nothing() {
    check(Bounds { start: Start::Empty, connection_evidence: false, ..RAFT });
}

#[test]
fn raft_commits_only_its_own_term() {
    let bounds = Bounds { start: Start::Figure8, connection_evidence: false, ..RAFT };
    check(Bounds { max_append_entries: 1, instant_disk: true, ..bounds });
}

#[test]
fn reads_beside_an_election() {
    check(Bounds { instant_disk: true, budget: Budget { reads: 1, ..BUDGET }, ..RAFT });
}

#[test]
fn install_of_a_snapshot() {
    let budget = Budget { suspicions: 0, snapshots: 1, proposals: 1, heartbeats: 1, ..BUDGET };
    check(Bounds { budget, ..RAFT });
}

#[test]
fn at_length_install_with_a_crash() {
    let budget =
        Budget { suspicions: 0, snapshots: 1, proposals: 1, heartbeats: 1, crashes: 1, ..BUDGET };
    check_at_length(Bounds { budget, ..RAFT });
}

#[test]
fn at_length_install_beside_an_election() {
    let budget = Budget { snapshots: 1, proposals: 1, heartbeats: 1, ..BUDGET };
    check_at_length(Bounds { instant_disk: true, budget, ..RAFT });
}

#[test]
fn at_length_two_s_raft_campaigns() {
    let budget = Budget { suspicions: 2, ..BUDGET };
    check_at_length(Bounds { instant_disk: true, budget, ..S_RAFT });
}

#[test]
fn at_length_s_raft_with_a_command() {
    check_at_length(Bounds { budget: Budget { proposals: 1, ..BUDGET }, ..S_RAFT });
}

#[test]
fn at_length_raft_with_a_command_and_a_crash() {
    check_at_length(Bounds { budget: Budget { proposals: 1, crashes: 1, ..BUDGET }, ..RAFT });
}

#[test]
fn at_length_s_raft_with_a_command_and_a_crash() {
    check_at_length(Bounds { budget: Budget { proposals: 1, crashes: 1, ..BUDGET }, ..S_RAFT });
}
