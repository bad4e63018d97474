//! Whole clusters without any random fault: who takes over when the leader dies, what a run looks
//! like from outside, and what the faults do.

use std::time::Duration;

use sraft_core::{Event, NodeId, Preset, Protocol, TimingKnobs};
use sraft_events::{CampaignKind, Source};
use sraft_sim::{ClockModel, Cut, DiskModel, Distribution, Fault, Model, Observe, World};

const CHECKED: Observe = Observe { check: true, record: false, trace: false, clients: false };

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Kills the leader of seven nodes and the first `victims - 1` of its sub-leaders. Returns the
/// world and who the sub-leaders were.
fn kill_leader(protocol: Protocol, victims: usize) -> (World, Vec<NodeId>) {
    let model = Model { nodes: 7, protocol, ..Model::default() };
    let mut world = World::new(&model, 1, CHECKED).unwrap();
    world.run_for(Duration::from_secs(5)).unwrap();
    let leader = world.serving().expect("a leader");
    let node = world.node(leader).unwrap();
    let ranks = node.designation().map_or(Vec::new(), |designation| designation.ranks.clone());
    let dead = std::iter::once(leader).chain(ranks.iter().copied().take(victims - 1));
    for node in dead {
        world.strike(Fault::Crash(node)).unwrap();
    }
    (world, ranks)
}

#[test]
fn the_primary_follows_the_leader() {
    let (mut world, ranks) = kill_leader(Protocol::SRaft, 1);
    world.run_for(millis(210)).unwrap();
    assert_eq!(world.serving(), Some(ranks[0]));
}

#[test]
fn the_secondary_follows_if_the_primary_dies_as_well() {
    let (mut world, ranks) = kill_leader(Protocol::SRaft, 2);
    world.run_for(millis(360)).unwrap();
    assert_eq!(world.serving(), Some(ranks[1]));
}

#[test]
fn anybody_follows_if_all_sub_leaders_die_as_well() {
    let (mut world, ranks) = kill_leader(Protocol::SRaft, 3);
    world.run_for(Duration::from_secs(5)).unwrap();
    let leader = world.serving().expect("a leader");
    assert!(!ranks.contains(&leader));
    assert_eq!(world.tally().promotions, 0);
}

#[test]
fn original_raft_elects() {
    let (mut world, ranks) = kill_leader(Protocol::Raft, 1);
    assert!(ranks.is_empty());
    world.run_for(Duration::from_secs(5)).unwrap();
    assert!(world.serving().is_some());
    assert_eq!(world.tally().promotions, 0);
}

#[test]
fn a_certain_death_is_found_within_two_milliseconds() {
    let timing = TimingKnobs { preset: Some(Preset::Lan), ..TimingKnobs::default() };
    let mut world = World::new(&Model { timing, ..Model::default() }, 3, CHECKED).unwrap();
    world.run_for(Duration::from_secs(2)).unwrap();
    let leader = world.serving().unwrap();
    world.strike(Fault::Crash(leader)).unwrap();
    world.run_for(millis(2)).unwrap();
    assert_ne!(world.serving().expect("the Primary"), leader);
}

#[test]
fn a_handover_leaves_no_gap() {
    let mut world = World::new(&Model::default(), 4, CHECKED).unwrap();
    world.run_for(Duration::from_secs(5)).unwrap();
    let leader = world.serving().unwrap();
    world.strike(Fault::Transfer(leader)).unwrap();
    world.run_for(millis(5)).unwrap();
    assert_eq!(world.tally().handovers, 1);
    assert_ne!(world.serving().unwrap(), leader);
}

#[test]
fn a_pause_shorter_than_the_timeout_of_the_others_deposes_nobody() {
    let mut world = World::new(&Model::default(), 5, CHECKED).unwrap();
    world.run_for(Duration::from_secs(5)).unwrap();
    let leader = world.serving().unwrap();
    let follower = leader % 5 + 1;
    for node in [leader, follower] {
        world.strike(Fault::Pause(node)).unwrap();
        // The follower's own timeout passes too, but the heartbeats that have arrived come first.
        world.run_for(millis(if node == leader { 90 } else { 5000 })).unwrap();
        world.strike(Fault::Resume(node)).unwrap();
        world.run_for(Duration::from_secs(2)).unwrap();
        assert_eq!((world.serving(), world.tally().leaders), (Some(leader), 1));
    }
}

#[test]
fn a_majority_without_its_disks_commits_nothing() {
    let mut world = World::new(&Model::default(), 6, CHECKED).unwrap();
    world.run_for(Duration::from_secs(5)).unwrap();
    let leader = world.serving().unwrap();
    let before = world.tally().committed;
    let stalled: Vec<_> = (1..=5).filter(|node| *node != leader).take(3).collect();
    for node in &stalled {
        world.strike(Fault::StallDisk(*node)).unwrap();
    }
    world.strike(Fault::Propose(leader)).unwrap();
    world.run_for(Duration::from_secs(2)).unwrap();
    assert_eq!(world.tally().committed, before);
    world.strike(Fault::MendDisk(stalled[0])).unwrap();
    world.run_for(millis(10)).unwrap();
    assert_eq!(world.tally().committed, before + 1);
}

#[test]
fn a_minority_that_is_cut_off_elects_nobody() {
    let mut world = World::new(&Model::default(), 7, CHECKED).unwrap();
    world.run_for(Duration::from_secs(5)).unwrap();
    let leader = world.serving().unwrap();
    let (away, rest): (Vec<_>, Vec<_>) =
        (1..=5).partition(|id| *id == leader || *id == leader % 5 + 1);
    let cut = Cut { from: away.clone(), to: rest.clone(), both_ways: true };
    world.strike(Fault::Cut(cut.clone())).unwrap();
    world.run_for(Duration::from_secs(10)).unwrap();
    assert!(rest.contains(&world.serving().expect("the majority has a leader")));
    for node in away {
        assert!(!world.node(node).unwrap().status().ready, "check-quorum deposes the old leader");
    }
    world.strike(Fault::Mend(cut)).unwrap();
    world.run_for(Duration::from_secs(3)).unwrap();
    let term = world.node(world.serving().unwrap()).unwrap().status().term;
    assert!(world.nodes().all(|(_, node)| node.unwrap().status().term == term));
}

#[test]
fn writes_that_wait_share_one_sync() {
    let disk = DiskModel { write: Distribution::constant_us(10_000) };
    let mut world = World::new(&Model { nodes: 1, disk, ..Model::default() }, 8, CHECKED).unwrap();
    world.run_for(Duration::from_secs(5)).unwrap();
    let before = world.tally().committed;
    for _ in 0..100 {
        world.strike(Fault::Propose(1)).unwrap();
    }
    // The first alone, the other 99 together.
    world.run_for(millis(15)).unwrap();
    assert_eq!(world.tally().committed, before + 1);
    world.run_for(millis(10)).unwrap();
    assert_eq!(world.tally().committed, before + 100);
}

#[test]
fn a_fast_clock_beats_faster() {
    let beats = |ppm| {
        let clocks = vec![ClockModel { node: 1, ppm }];
        let mut world =
            World::new(&Model { nodes: 1, clocks, ..Model::default() }, 9, CHECKED).unwrap();
        world.run_for(Duration::from_secs(100)).unwrap();
        world.tally().events as f64
    };
    let ratio = beats(50_000) / beats(0);
    assert!((1.045..1.055).contains(&ratio), "{ratio}");
}

#[test]
fn the_records_are_those_of_a_live_run() {
    let observe = Observe { record: true, ..CHECKED };
    let run = || {
        let mut world = World::new(&Model::default(), 10, observe).unwrap();
        world.run_for(Duration::from_secs(5)).unwrap();
        let leader = world.serving().unwrap();
        world.strike(Fault::Crash(leader)).unwrap();
        world.run_for(Duration::from_secs(2)).unwrap();
        world.strike(Fault::Restart(leader)).unwrap();
        world.run_for(Duration::from_secs(2)).unwrap();
        world.take_records()
    };
    let records = run();
    let text = |records: &[sraft_events::Record]| {
        let lines = records.iter().map(|record| serde_json::to_string(record).unwrap());
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(text(&records), text(&run()), "byte for byte");
    let elected = |event: &Event| matches!(event, Event::Elected { campaign, .. } if *campaign == CampaignKind::Promotion);
    assert_eq!(records.iter().filter(|record| elected(&record.event)).count(), 1);
    for (what, times) in [("node_started", 6), ("fault_applied", 1), ("process_exited", 1)] {
        let found = text(&records).matches(&format!("\"event\":\"{what}\"")).count();
        assert_eq!(found, times, "{what}");
    }
    // Every process numbers its records without a gap.
    for node in 1..=5 {
        let mut next = 0;
        for record in records.iter().filter(|record| record.source == Source::Node(node)) {
            if matches!(record.event, Event::NodeStarted { .. }) {
                next = 0;
            }
            assert_eq!(record.seq, next);
            next += 1;
        }
        assert!(next > 0);
    }
    assert!(records.is_sorted_by_key(|record| record.mono_ns));
}
