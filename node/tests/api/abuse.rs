//! Clients that ask for too much, or that never finish what they began.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use sraft_node::api::Limits;
use sraft_rpc::etcdserverpb::PutRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic::Code;

use crate::{
    admin::metric,
    double::{Double, Mood, PATIENCE},
    keys::{put, range},
    raw::{self, begin, finish},
};

const PUT: &str = "/etcdserverpb.KV/Put";

/// Waits until the server has closed the connection; returns what it had to say.
async fn closed(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    // An abrupt end is an end.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("it is closed");
    String::from_utf8_lossy(&said).into_owned()
}

async fn works(address: &Double) {
    address.kv().await.put(put("a", "1")).await.unwrap();
}

#[tokio::test]
async fn a_value_of_64_mib_is_refused_by_its_first_bytes() {
    let double = Double::start();
    let mut kv = double.kv().await;
    let huge = PutRequest { value: vec![7; 64 << 20].into(), ..put("a", "") };
    let status = kv.put(huge).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(status.message(), "etcdserver: request is too large");
    assert_eq!(double.asked("write"), 0);
    // One that only says that it will be.
    let mut prefix = vec![0];
    prefix.extend_from_slice(&(64u32 << 20).to_be_bytes());
    let client = raw::connect(double.client).await;
    let (response, mut stream) = begin(&client, PUT, &[]).await.unwrap();
    for byte in prefix {
        stream.send_data(Bytes::copy_from_slice(&[byte]), false).unwrap();
    }
    let answer = timeout(PATIENCE, finish(response)).await.unwrap().unwrap();
    assert_eq!(answer.code, Some(Code::InvalidArgument), "{answer:?}");
    // One that says less than it sends.
    let (response, mut stream) = begin(&client, PUT, &[]).await.unwrap();
    let message = Bytes::from(vec![0; 3 << 20]);
    stream.send_data(message, true).unwrap();
    let answer = timeout(PATIENCE, finish(response)).await.unwrap();
    assert!(
        answer.as_ref().is_ok_and(|answer| answer.code.is_some_and(|code| code != Code::Ok)),
        "{answer:?}"
    );
    works(&double).await;
    // What is large, but not for this place, is for the driver to judge.
    let large = PutRequest { value: vec![7; 1900 << 10].into(), ..put("a", "") };
    kv.put(large).await.unwrap();
}

#[tokio::test]
async fn requests_that_are_never_finished_end() {
    let limits =
        Limits { request_time: Duration::from_millis(200), streams: 100, ..Limits::default() };
    let double = Double::with(limits);
    let client = raw::connect(double.client).await;
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(begin(&client, PUT, &[]).await.unwrap());
    }
    for (response, _stream) in open {
        let answer = timeout(PATIENCE, finish(response)).await.unwrap().unwrap();
        assert_eq!(answer.code, Some(Code::DeadlineExceeded), "{answer:?}");
    }
    works(&double).await;
}

#[tokio::test]
async fn requests_are_bounded_on_all_connections_together() {
    let double = Double::with(Limits { requests: 3, ..Limits::default() });
    double.mood(Mood::Keeps);
    let message = Bytes::from_static(&[0, 0, 0, 0, 3, 0x0a, 1, b'a']);
    let mut open = Vec::new();
    for _ in 0..3 {
        let client = raw::connect(double.client).await;
        let (response, mut stream) = begin(&client, PUT, &[]).await.unwrap();
        stream.send_data(message.clone(), true).unwrap();
        open.push((client, response));
    }
    while double.asked("write") < 3 {
        tokio::task::yield_now().await;
    }
    let answer = raw::call(double.client, PUT, &[], &message).await;
    assert_eq!(answer.code, Some(Code::ResourceExhausted), "{answer:?}");
    assert_eq!(answer.message, "etcdserver: too many requests");
    drop(open);
    double.mood(Mood::Serves);
    // They leave in their own time.
    while raw::call(double.client, PUT, &[], &message).await.code != Some(Code::Ok) {}
}

#[tokio::test]
async fn bytes_of_unfinished_requests_make_room() {
    let double = Double::with(Limits { received_bytes: 1 << 20, ..Limits::default() });
    // Two thirds of a message that would be just small enough.
    let mut part = vec![0];
    part.extend_from_slice(&(1536u32 << 10).to_be_bytes());
    part.resize(600 << 10, 0);
    let part = Bytes::from(part);
    let first = raw::connect(double.client).await;
    let (unanswered, mut unfinished) = begin(&first, PUT, &[]).await.unwrap();
    unfinished.send_data(part.clone(), false).unwrap();
    while metric(&double, "sraft_grpc_received_bytes").await < part.len() as f64 {}
    let second = raw::connect(double.client).await;
    let (later, mut stream) = begin(&second, PUT, &[]).await.unwrap();
    stream.send_data(part, false).unwrap();
    let answer = timeout(PATIENCE, finish(unanswered)).await.unwrap().unwrap();
    assert_eq!(answer.code, Some(Code::ResourceExhausted), "{answer:?}");
    works(&double).await;
    // What the second holds is free again once it is gone.
    drop((second, later, stream));
    while metric(&double, "sraft_grpc_received_bytes").await > 0.0 {}
}

#[tokio::test]
async fn unfinished_requests_make_room() {
    let limits = Limits { requests: 10, connections: 10, ..Limits::default() };
    let double = Double::with(limits);
    let mut open = Vec::new();
    for _ in 0..5 {
        let client = raw::connect(double.client).await;
        for _ in 0..4 {
            open.push(begin(&client, PUT, &[]).await.unwrap());
        }
    }
    while metric(&double, "sraft_grpc_requests").await < 10.0 {}
    works(&double).await;
    // The first ten had to go, and one for the request that was finished.
    for (response, _stream) in open.drain(..11) {
        let answer = timeout(PATIENCE, finish(response)).await.unwrap().unwrap();
        assert_eq!(answer.code, Some(Code::ResourceExhausted), "{answer:?}");
    }
    // Nor do they keep a place for their connection.
    let _idle = idlers(double.client, 20).await;
    works(&double).await;
}

#[tokio::test]
async fn answers_are_bounded() {
    let double = Double::with(Limits { sent_bytes: 1 << 20, ..Limits::default() });
    let mut kv = double.kv().await;
    for key in ["a", "b"] {
        let large = PutRequest { value: vec![7; 600 << 10].into(), ..put(key, "") };
        kv.put(large).await.unwrap();
    }
    kv.range(range("a", "")).await.unwrap();
    let status = kv.range(range("a", "\0")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("ask with a limit"), "{status}");
    assert_eq!(metric(&double, "sraft_grpc_sent_bytes").await, 0.0);
}

#[tokio::test]
async fn connections_that_do_not_begin_are_closed() {
    let limits = Limits { preface_time: Duration::from_millis(100), ..Limits::default() };
    let double = Double::with(limits);
    let silent = TcpStream::connect(double.client).await.unwrap();
    let mut half = TcpStream::connect(double.client).await.unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let mut other = TcpStream::connect(double.client).await.unwrap();
    other.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(closed(silent).await, "");
    assert_eq!(closed(half).await, "");
    let said = closed(other).await;
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("gRPC"), "{said}");
    let name = "sraft_client_connections_closed_total{reason=\"never_began\"}";
    while metric(&double, name).await < 3.0 {}
    works(&double).await;
}

#[tokio::test]
async fn connections_that_have_died_are_closed() {
    let double =
        Double::with(Limits { keepalive: Duration::from_millis(100), ..Limits::default() });
    let mut dead = TcpStream::connect(double.client).await.unwrap();
    // The preface and empty settings, and not a word more: no ping is answered.
    dead.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    closed(dead).await;
    works(&double).await;
}

/// Connections that are established but say nothing.
async fn idlers(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut idle = Vec::with_capacity(count);
    for _ in 0..count {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    idle
}

#[tokio::test]
async fn idle_connections_make_room() {
    let double = Double::with(Limits { connections: 50, ..Limits::default() });
    let mut kv = double.kv().await;
    kv.put(put("a", "1")).await.unwrap();
    let idle = idlers(double.client, 500).await;
    works(&double).await;
    assert!(metric(&double, "sraft_client_connections").await <= 50.0);
    let name = "sraft_client_connections_closed_total{reason=\"replaced\"}";
    while metric(&double, name).await < 452.0 {}
    // The oldest have gone first.
    closed(idle.into_iter().next().unwrap()).await;
}

#[tokio::test]
async fn connections_at_work_are_not_closed_for_others() {
    let double = Double::with(Limits { connections: 2, ..Limits::default() });
    double.mood(Mood::Keeps);
    let message = Bytes::from_static(&[0, 0, 0, 0, 3, 0x0a, 1, b'a']);
    let mut busy = Vec::new();
    for count in 1..=2 {
        let client = raw::connect(double.client).await;
        let (response, mut stream) = begin(&client, PUT, &[]).await.unwrap();
        stream.send_data(message.clone(), true).unwrap();
        busy.push((client, response));
        while double.asked("write") < count {
            tokio::task::yield_now().await;
        }
    }
    let third = TcpStream::connect(double.client).await.unwrap();
    assert_eq!(closed(third).await, "");
    let name = "sraft_client_connections_closed_total{reason=\"turned_away\"}";
    assert_eq!(metric(&double, name).await, 1.0);
}

#[tokio::test]
async fn the_servers_end_with_connections_open() {
    let mut double = Double::start();
    double.mood(Mood::Keeps);
    let idle = idlers(double.client, 3).await;
    let client = raw::connect(double.client).await;
    let (response, _stream) = begin(&client, PUT, &[]).await.unwrap();
    double.end_server();
    for stream in idle {
        closed(stream).await;
    }
    assert!(timeout(PATIENCE, finish(response)).await.unwrap().is_err());
    assert!(TcpStream::connect(double.client).await.is_err());
}
