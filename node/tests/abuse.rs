//! Clients that mean no good, or know no better: bounded memory, clear answers, and a cluster that
//! goes on.

mod nodes;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sraft_rpc::etcdserverpb::RangeRequest;
use tonic::Code;

use nodes::{
    Cluster, PATIENCE,
    client::{Client, memory, persist},
};

const MIB: u64 = 1 << 20;

/// HTTP/2's preface and an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Three nodes, the leader's place and its term.
fn settled() -> (Cluster, usize, u64) {
    let cluster = Cluster::start(3, &["--preset", "reference"]);
    let (leader, term) = cluster.leader(0);
    cluster.settled(leader, term, 2);
    (cluster, leader as usize - 1, term)
}

fn pid(cluster: &Cluster, node: usize) -> u32 {
    cluster.nodes[node].as_ref().unwrap().id()
}

/// Every node serves. Whether the same one leads is not asked: a machine that is busy with something
/// else may have kept it waiting for longer than its timeouts.
fn serves(cluster: &Cluster) {
    let mut client = Client::new(&cluster.endpoints());
    for node in 0..3 {
        persist(|| client.put(node, "still", "here"));
        assert_eq!(persist(|| client.get(node, "still")).unwrap().0, b"here");
    }
}

#[test]
fn a_value_of_64_mib_is_refused_and_costs_little() {
    let (cluster, leader, _) = settled();
    let mut client = Client::new(&cluster.endpoints());
    let before = memory(pid(&cluster, leader));
    for node in [leader, (leader + 1) % 3] {
        let refused = client.put(node, "k", vec![0; 64 << 20]).unwrap_err();
        // Or the connection is closed while the client still sends.
        let clear = [Code::InvalidArgument, Code::ResourceExhausted, Code::OutOfRange];
        assert!(clear.contains(&refused.code()), "{refused:?}");
        assert!(refused.message().contains("too large") || refused.message().contains("limit"));
    }
    // The largest that is taken is taken.
    client.put(leader, "k", vec![0; (3 << 19) - 100]).unwrap();
    assert_eq!(client.get((leader + 1) % 3, "k").unwrap().unwrap().0.len(), (3 << 19) - 100);
    let after = memory(pid(&cluster, leader));
    assert!(after < before + 48 * MIB, "{} MiB, then {} MiB", before / MIB, after / MIB);
    serves(&cluster);
}

#[test]
fn idle_connections_by_the_thousand_cost_little_and_keep_nobody_out() {
    let wanted = if std::env::var_os("SRAFT_AT_LENGTH").is_some() { 10_000 } else { 2_000 };
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let files = usize::try_from(maximum.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let wanted = wanted.min(files.saturating_sub(200));

    let (cluster, leader, _) = settled();
    let before = memory(pid(&cluster, leader));
    let port = cluster.client_ports[leader];
    let mut held = Vec::with_capacity(wanted);
    for n in 0..wanted {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        // Some have said that they speak HTTP/2, some half of it, some nothing at all.
        let hello = [HELLO, &HELLO[..10], &[]][n % 3];
        // It may have been closed by now, in favour of others.
        let _ = stream.write_all(hello);
        held.push(stream);
    }
    let after = memory(pid(&cluster, leader));
    assert!(
        after < before + 192 * MIB,
        "{} MiB, then {} MiB with {wanted} connections",
        before / MIB,
        after / MIB
    );
    serves(&cluster);
    drop(held);
    serves(&cluster);
}

#[test]
fn half_open_streams_and_nonsense_end_and_harm_nobody() {
    let (cluster, leader, _) = settled();
    let port = cluster.client_ports[leader];
    // A request whose headers never end, a frame whose body never comes, and no HTTP/2 at all.
    let unfinished: [&[u8]; 4] = [
        b"\0\0\x05\x01\0\0\0\0\x01\x83\x86\x45\0\0",
        b"\0\x40\0\0\0\0\0\0\x01xx",
        b"\xff\xff\xff\x01\xff\0\0\0\x01",
        b"\0\0\0\0\0\0\0\0\0",
    ];
    let mut open = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let hello: &[u8] = if n % 5 == 4 { b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" } else { HELLO };
        let _ = stream.write_all(hello).and_then(|()| stream.write_all(unfinished[n % 4]));
        open.push(stream);
    }
    serves(&cluster);
    // What is no HTTP/2 is closed.
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    drop(open);
    serves(&cluster);
}

#[test]
fn keys_are_bytes_and_bad_requests_are_told_so() {
    let (cluster, leader, _) = settled();
    let mut client = Client::new(&cluster.endpoints());
    for key in [&b"\xff\xfe\x80"[..], b"\0", b"a\nb", &[0xc3, 0x28]] {
        client.put(leader, key.to_vec(), "v").unwrap();
        let request = RangeRequest { key: key.to_vec().into(), ..RangeRequest::default() };
        let found = client.range((leader + 1) % 3, request).unwrap();
        assert_eq!(found.kvs[0].key, key);
    }
    let refused = client.put(leader, "", "v").unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    serves(&cluster);
}

#[test]
fn a_flood_that_nobody_waits_for_passes() {
    let (cluster, leader, _) = settled();
    let before = memory(pid(&cluster, leader));
    let endpoints = cluster.endpoints();
    // Thousands of large writes at once, given up at once.
    let mut client = Client::new(&endpoints);
    let until = Instant::now() + Duration::from_millis(500);
    let mut given_up = 0;
    while Instant::now() < until {
        given_up += client.give_up(leader, 64, vec![b'x'; 200_000]);
    }
    assert!(given_up > 0);
    let after = memory(pid(&cluster, leader));
    assert!(after < before + 700 * MIB, "{} MiB, then {} MiB", before / MIB, after / MIB);
    serves(&cluster);
}
