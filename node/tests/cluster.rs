//! Whole clusters of real processes on the loopback interface.
//!
//! The tests wait for records of the nodes' event logs; time only bounds how long.

mod nodes;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::Stdio,
    time::Instant,
};

use rustix::process::Signal;
use sraft_events::{CampaignKind, Event, NodeId, Record, Source};

use nodes::{Cluster, PATIENCE, free_port};

fn elected(records: &[Record], term: u64) -> (NodeId, CampaignKind) {
    let all: Vec<(NodeId, CampaignKind)> = records
        .iter()
        .filter_map(|record| match (&record.source, &record.event) {
            (Source::Node(node), Event::Elected { term: t, campaign, .. }) if *t == term => {
                Some((*node, *campaign))
            }
            _ => None,
        })
        .collect();
    assert_eq!(all.len(), 1, "one leader per term: {all:?}");
    all[0]
}

#[test]
fn a_killed_leader_is_replaced_by_its_primary_and_comes_back_with_its_state() {
    let mut cluster = Cluster::start(3, &["--preset", "lan"]);
    let (leader, term) = cluster.leader(0);
    let ranks = cluster.settled(leader, term, 2);
    assert_eq!(ranks.len(), 1);

    cluster.signal(leader, Signal::KILL);
    let (successor, next) = cluster.leader(term);
    let records = cluster.records();
    if elected(&records, next) == (successor, CampaignKind::Promotion) {
        // Anything else is possible on a starved machine, but a promotion is the Primary's.
        assert_eq!(successor, ranks[0]);
        assert_eq!(next, term + 1, "the term reserved for rank 0");
    }
    assert!(records.iter().any(|record| matches!(
        &record.event,
        Event::PeerLost { peer, cause: sraft_events::LossCause::Refused } if *peer == leader
    )));

    cluster.start_node(leader);
    cluster.settled(successor, next, 2);
    let starts: Vec<(u64, u64)> = cluster
        .records()
        .iter()
        .filter(|record| record.source == Source::Node(leader))
        .filter_map(|record| match record.event {
            Event::NodeStarted { term, last_index, .. } => Some((term, last_index)),
            _ => None,
        })
        .collect();
    assert_eq!(starts[0], (0, 0));
    assert!(starts[1].0 >= term && starts[1].1 > 0, "{starts:?}");
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over_first() {
    let mut cluster = Cluster::start(3, &["--preset", "reference"]);
    let (leader, term) = cluster.leader(0);
    cluster.settled(leader, term, 2);
    assert!(cluster.signal(leader, Signal::TERM).success());
    let (successor, next) = cluster.leader(term);
    assert_ne!(successor, leader);
    let records = cluster.records();
    assert_eq!(elected(&records, next).1, CampaignKind::Transfer);
    assert!(records.iter().any(|record| record.source == Source::Node(leader)
        && matches!(&record.event, Event::NodeStopped { reason } if reason.contains("SIGTERM"))));
}

#[test]
fn a_node_killed_at_any_moment_of_its_first_start_starts_again() {
    // The storage engine makes a dozen files in a few milliseconds. A kill in the middle must not
    // leave a directory that it cannot open.
    let mut cluster = Cluster::start(0, &["--preset", "lan"]);
    for sign in ["lock", "identity.toml", "watermark", "log.new", "log"] {
        cluster.ports = vec![free_port()];
        cluster.client_ports = vec![free_port()];
        cluster.nodes = vec![None];
        let data = cluster.path(1, "data");
        let killed_at = data.join(sign);
        cluster.start_node(1);
        let until = Instant::now() + PATIENCE;
        while !killed_at.exists() && !data.join("log").exists() {
            assert!(Instant::now() < until, "{sign} does not come");
        }
        cluster.signal(1, Signal::KILL);
        cluster.start_node(1);
        cluster.leader(0);
        cluster.signal(1, Signal::KILL);
        fs::remove_dir_all(&data).unwrap();
        fs::remove_file(cluster.path(1, "log")).unwrap();
    }
}

#[test]
fn original_raft_elects_without_sub_leaders() {
    let cluster = Cluster::start(3, &["--original-raft", "--preset", "lan"]);
    let (leader, term) = cluster.leader(0);
    cluster.until("followers in step", |records| {
        let synced = |r: &&Record| matches!(r.event, Event::FollowerSynced { .. });
        (records.iter().filter(synced).count() >= 2).then_some(())
    });
    let records = cluster.records();
    assert_eq!(elected(&records, term), (leader, CampaignKind::Election));
    assert!(!records.iter().any(|record| matches!(record.event, Event::Designated { .. })));
}

#[test]
fn garbage_on_the_peer_port_is_recorded_and_the_cluster_goes_on() {
    let mut cluster = Cluster::start(3, &["--preset", "lan"]);
    let (leader, term) = cluster.leader(0);
    cluster.settled(leader, term, 2);
    let port = cluster.ports[leader as usize - 1];
    let garbage: [&[u8]; 3] =
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[0xff; 64], b"\0\0\0\x10SRFT\xff\xff0123456789"];
    for bytes in garbage {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        // The node closes it, with or without an answer.
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
    let refused = |records: &[Record], part: &str| {
        records.iter().any(|record| {
            record.source == Source::Node(leader)
                && matches!(&record.event, Event::ConnectionRefused { reason, .. } if reason.contains(part))
        })
    };
    for part in ["no sraft node", "version 65535"] {
        cluster.until(part, |records| refused(records, part).then_some(()));
    }
    // It is still the leader, and its cluster still replaces it when it ends.
    assert!(!cluster.records().iter().any(|r| matches!(r.event, Event::SteppedDown { .. })));
    cluster.signal(leader, Signal::KILL);
    assert_ne!(cluster.leader(term).0, leader);
}

#[test]
fn a_node_of_another_cluster_is_refused_on_both_sides() {
    let mut cluster = Cluster::start(3, &["--preset", "lan"]);
    let (leader, term) = cluster.leader(0);
    let other = leader % 3 + 1;
    cluster.settled(leader, term, 2);
    cluster.signal(other, Signal::KILL);
    fs::remove_dir_all(cluster.path(other, "data")).unwrap();
    cluster.options.extend(["--cluster".to_owned(), "elsewhere".to_owned()]);
    cluster.start_node(other);
    for (node, part) in [(leader, "cluster `elsewhere`"), (other, "the other side refuses")] {
        cluster.until(part, |records| {
            let refused = |record: &Record| {
                record.source == Source::Node(node)
                    && matches!(&record.event, Event::ConnectionRefused { reason, .. } if reason.contains(part))
            };
            records.iter().any(refused).then_some(())
        });
    }
}

#[test]
fn a_single_node_says_what_it_does_and_cleans_up() {
    let mut cluster = Cluster::start(0, &["--debug", "--preset", "lan"]);
    cluster.ports.push(free_port());
    cluster.client_ports.push(free_port());
    let (pid_file, metrics) = (cluster.path(1, "pid"), cluster.path(1, "metrics"));
    let mut child = cluster
        .command(1)
        .args(["--pid-file".as_ref(), pid_file.as_os_str()])
        .args(["--metrics-file".as_ref(), metrics.as_os_str()])
        .args(["--die-with-parent", &std::process::id().to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    cluster.nodes.push(Some(child));
    cluster.leader(0);
    let pid = fs::read_to_string(&pid_file).unwrap();
    assert_eq!(pid.trim(), cluster.nodes[0].as_ref().unwrap().id().to_string());
    assert!(cluster.signal(1, Signal::TERM).success());
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    for part in ["[Node 1] Started", "[ELECTION SUCCESS] Node 1 -> LEADER", "SIGTERM"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!pid_file.exists());
    let metrics: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&metrics).unwrap()).unwrap();
    assert_eq!(metrics["role"], "leader");
    assert!(metrics["storage_groups"].as_u64().unwrap() > 0);
}
