//! What is left when the power fails, and when a disk is full or damaged: all that was promised, or
//! a node that says why it does not start.

mod nodes;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use sraft_events::{Event, NodeId, Record};

use nodes::{
    Cluster,
    client::{Client, Story, persist, write_on},
};

fn kill_all(cluster: &mut Cluster) {
    // All at once, as when the power fails; only then are they waited for.
    for node in cluster.nodes.iter().flatten() {
        kill_process(Pid::from_child(node), Signal::KILL).unwrap();
    }
    for node in 0..cluster.nodes.len() {
        if let Some(mut child) = cluster.nodes[node].take() {
            child.wait().unwrap();
        }
    }
}

#[test]
fn every_acknowledged_write_is_there_after_a_power_cut() {
    let rounds = if std::env::var_os("SRAFT_AT_LENGTH").is_some() { 100 } else { 5 };
    // Snapshots every few hundred writes, so that the cuts meet them too.
    let mut cluster = Cluster::start(5, &["--preset", "lan", "--snapshot-bytes", "65536"]);
    let endpoints = cluster.endpoints();
    let mut term = 0;
    let mut stories: Vec<Story> = Vec::new();
    let mut luck = u64::from(std::process::id());
    for round in 0..rounds {
        luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (_, term) = cluster.leader(term);
        let stop = AtomicBool::new(false);
        let told = thread::scope(|scope| {
            let writers: Vec<_> = (0..5)
                .map(|n| {
                    let (endpoints, stop) = (&endpoints, &stop);
                    scope.spawn(move || {
                        let done = || stop.load(Ordering::Relaxed);
                        write_on(endpoints, format!("r{round}w{n}"), 0, 200, &done)
                    })
                })
                .collect();
            let mut client = Client::new(&endpoints);
            persist(|| match client.get(0, &format!("r{round}w0"))? {
                Some(_) => Ok(()),
                None => Err(tonic::Status::unavailable("nothing is written yet")),
            });
            if round == 0 {
                // So that the cuts meet logs that begin with a snapshot.
                cluster.until("a snapshot", |records| {
                    let taken = |r: &&Record| matches!(r.event, Event::SnapshotTaken { .. });
                    records.iter().find(taken).map(drop)
                });
            }
            // At any moment.
            thread::sleep(Duration::from_micros((luck >> 33) % 400_000));
            kill_all(&mut cluster);
            stop.store(true, Ordering::Relaxed);
            writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        stories.extend(told);
        for node in 1..=5 {
            cluster.start_node(node);
        }
        let mut client = Client::new(&endpoints);
        let recent = stories.len().saturating_sub(10);
        for story in &stories[recent..] {
            story.check(&mut client, round % 5);
        }
    }
    let mut client = Client::new(&endpoints);
    for story in &stories {
        story.check(&mut client, 3);
    }
    let acknowledged: usize = stories.iter().map(|story| story.acknowledged.len()).sum();
    assert!(acknowledged >= rounds, "{acknowledged}");
}

/// A file system in memory, of which the size can be changed.
struct Small(PathBuf);

impl Small {
    /// Nothing if it is not permitted here.
    fn mount(at: &Path, size: &str) -> Option<Small> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "sraft-test"])
            .arg(at)
            .output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Small(at.to_owned()))
    }

    fn resize(&self, size: &str) {
        let resized = Command::new("mount")
            .args(["-o", &format!("remount,size={size}")])
            .arg(&self.0)
            .status();
        assert!(resized.unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_the_node_and_it_starts_again_with_everything() {
    let mut cluster = Cluster::start(0, &["--preset", "lan", "--snapshot-bytes", "1048576"]);
    cluster.ports = vec![nodes::free_port()];
    cluster.client_ports = vec![nodes::free_port()];
    cluster.nodes = vec![None];
    let data = cluster.path(1, "data");
    let Some(disk) = Small::mount(&data, "24m") else {
        eprintln!("skipped: a small file system cannot be mounted (that takes root)");
        assert!(std::env::var_os("CI").is_none() || !geteuid().is_root(), "it should be possible");
        return;
    };
    for size in ["24m", "48m", "72m"] {
        disk.resize(size);
        cluster.start_node(1);
        let mut client = Client::new(&cluster.endpoints());
        persist(|| client.put(0, "first", "v"));
        let mut acknowledged = Vec::new();
        for n in 0.. {
            // Nothing is overwritten, so that the snapshots grow as well.
            let key = format!("{size}/{n:06}");
            match client.put(0, key.clone(), vec![b'x'; 20_000]) {
                Ok(_) => acknowledged.push(key),
                Err(_) => break,
            }
        }
        let status = cluster.ended(1);
        assert_eq!(status.code(), Some(1), "{}", cluster.complaints(1));
        let text = cluster.complaints(1);
        assert!(text.contains("cannot write to") && text.contains("free space"), "{text}");
        assert!(text.contains("No space left on device") && !text.contains("Error"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!acknowledged.is_empty());

        // With room it has all of it.
        disk.resize("1g");
        cluster.start_node(1);
        let mut client = Client::new(&cluster.endpoints());
        let found = client.all(0, &format!("{size}/"));
        let found: std::collections::BTreeSet<&str> = found
            .iter()
            .map(|(key, value, version)| {
                assert_eq!((value.len(), *version), (20_000, 1));
                key.as_str()
            })
            .collect();
        for key in &acknowledged {
            assert!(found.contains(key.as_str()), "{key} was acknowledged and is gone");
        }
        // Room for the next round, in the store and on the disk.
        cluster.signal(1, Signal::KILL);
        for file in fs::read_dir(&data).unwrap().flatten() {
            let path = file.path();
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.unwrap();
        }
    }
}

fn start_fails(cluster: &mut Cluster, node: NodeId, part: &str) {
    cluster.start_node(node);
    let status = cluster.ended(node);
    let text = cluster.complaints(node);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains(part) && text.contains("backup"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn a_damaged_disk_keeps_a_node_away_and_the_others_go_on() {
    let mut cluster = Cluster::start(3, &["--preset", "lan", "--snapshot-bytes", "65536"]);
    let (leader, term) = cluster.leader(0);
    cluster.settled(leader, term, 2);
    let mut client = Client::new(&cluster.endpoints());
    let at = leader as usize - 1;
    for n in 0..60 {
        persist(|| client.put(at, format!("k{n}"), vec![b'x'; 4000]));
    }
    let node = leader % 3 + 1;
    let data = cluster.path(node, "data");
    let snapshot = |data: &Path| {
        let files = fs::read_dir(data).unwrap().flatten().map(|file| file.path());
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        files
            .into_iter()
            .find(|path| name(path).starts_with("snapshot-") && !name(path).ends_with(".new"))
    };
    // It has applied all of it, so its snapshots are as far as the leader's.
    assert!(client.get(node as usize - 1, "k59").unwrap().is_some());
    let until = std::time::Instant::now() + nodes::PATIENCE;
    while snapshot(&data).is_none() {
        assert!(std::time::Instant::now() < until, "no snapshot");
        thread::sleep(Duration::from_millis(5));
    }
    cluster.signal(node, Signal::TERM);
    let path = snapshot(&data).unwrap();
    let whole = fs::read(&path).unwrap();

    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    fs::write(&path, &flipped).unwrap();
    start_fails(&mut cluster, node, "its checksum is wrong");
    fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    start_fails(&mut cluster, node, "not as long as its header says");
    fs::remove_file(&path).unwrap();
    start_fails(&mut cluster, node, "is not there");

    // The others do not need it.
    persist(|| client.put(at, "meanwhile", "v"));
    fs::write(&path, &whole).unwrap();
    cluster.start_node(node);
    let found = persist(|| client.get(node as usize - 1, "meanwhile"));
    assert_eq!(found.unwrap().0, b"v");
}
