//! Clients of a cluster of real processes: what they were promised holds when nodes die, and what
//! they make nodes keep is bounded.

mod nodes;

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use rustix::process::Signal;
use sraft_events::{Event, NodeId, Record, Source};

use nodes::{
    Cluster, PATIENCE,
    client::{Client, memory, persist, write_on},
};

/// Waits until a condition holds that is nobody's record.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what} did not happen");
        thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn what_was_acknowledged_outlives_leaders_and_nothing_is_done_twice() {
    let mut cluster = Cluster::start(3, &["--preset", "lan"]);
    let (mut leader, mut term) = cluster.leader(0);
    let endpoints = cluster.endpoints();
    let stop = AtomicBool::new(false);
    let stories = thread::scope(|scope| {
        let writers: Vec<_> = (0..6)
            .map(|n| {
                let (endpoints, stop) = (&endpoints, &stop);
                scope.spawn(move || {
                    let done = || stop.load(Ordering::Relaxed);
                    write_on(endpoints, format!("w{n}"), 0, 8, &done)
                })
            })
            .collect();
        let mut client = Client::new(&endpoints);
        for round in 0..3 {
            cluster.settled(leader, term, 2);
            // Under load, and with writes on their way.
            let before = persist(|| client.get(leader as usize % 3, "w0"));
            until("progress", || persist(|| client.get(leader as usize % 3, "w0")) != before);
            let died = leader;
            cluster.signal(died, Signal::KILL);
            (leader, term) = cluster.leader(term);
            assert_ne!(leader, died, "round {round}");
            cluster.start_node(died);
        }
        cluster.settled(leader, term, 2);
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    let mut client = Client::new(&endpoints);
    for node in 0..3 {
        for story in &stories {
            assert!(!story.acknowledged.is_empty(), "{story:?}");
            story.check(&mut client, node);
        }
    }
}

/// Bytes that files below a directory occupy.
fn disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(files) = fs::read_dir(dir) else { return 0 };
    files
        .flatten()
        .map(|file| match file.metadata() {
            Ok(data) if data.is_dir() => disk(&file.path()),
            Ok(data) => data.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

fn installed(records: &[Record], node: NodeId) -> Option<u64> {
    records.iter().rev().find_map(|record| match record.event {
        Event::SnapshotInstalled { index, .. } if record.source == Source::Node(node) => {
            Some(index)
        }
        _ => None,
    })
}

#[test]
fn memory_and_disk_are_bounded_and_a_follower_catches_up_by_snapshot() {
    const MIB: u64 = 1 << 20;
    let at_length = std::env::var_os("SRAFT_AT_LENGTH").is_some();
    let total = if at_length { 2048 * MIB } else { 96 * MIB };
    let mut cluster = Cluster::start(3, &["--preset", "reference", "--snapshot-bytes", "1048576"]);
    let (leader, term) = cluster.leader(0);
    cluster.settled(leader, term, 2);
    let away = leader % 3 + 1;
    let endpoints = cluster.endpoints();
    let writing = thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let endpoints = &endpoints;
                scope.spawn(move || {
                    let mut client = Client::new(endpoints);
                    let value = vec![b'x'; 32 << 10];
                    // The same keys again and again: the store stays small, the log does not.
                    for round in 0..total / (8 * (32 << 10)) {
                        let key = format!("{n}/{}", round % 16);
                        persist(|| client.put(leader as usize - 1, key.clone(), value.clone()));
                    }
                })
            })
            .collect();
        // It misses most of it.
        cluster.until("a first snapshot", |records| {
            let taken = |r: &&Record| matches!(r.event, Event::SnapshotTaken { .. });
            records.iter().find(taken).map(drop)
        });
        cluster.signal(away, Signal::KILL);
        let mut most = (0, 0);
        while writers.iter().any(|writer| !writer.is_finished()) {
            for node in 1..=3 {
                if node != away {
                    let pid = cluster.nodes[node as usize - 1].as_ref().unwrap().id();
                    most.0 = most.0.max(memory(pid));
                    most.1 = most.1.max(disk(&cluster.path(node, "data")));
                }
            }
            thread::sleep(std::time::Duration::from_millis(20));
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        most
    });
    let (memory, disk) = writing;
    assert!(memory < 200 * MIB, "{} MiB of memory", memory / MIB);
    assert!(disk < 260 * MIB, "{} MiB on disk", disk / MIB);

    cluster.start_node(away);
    cluster.until("a snapshot from the leader", |records| installed(records, away));
    cluster.settled(leader, term, 2);
    let mut client = Client::new(&endpoints);
    let here = client.all(away as usize - 1, "0/");
    assert_eq!(here.len(), 16);
    assert_eq!(here, client.all(leader as usize - 1, "0/"));
    // And it starts from it, too.
    cluster.signal(away, Signal::KILL);
    cluster.start_node(away);
    assert_eq!(client.all(away as usize - 1, "0/"), here);
    let mut starts = cluster.records().into_iter().filter_map(|record| match record.event {
        Event::NodeStarted { node, last_index, .. } if node == away => Some(last_index),
        _ => None,
    });
    assert!(starts.next_back().unwrap() > 0);
}
