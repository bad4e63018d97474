//! HTTP for administrators.

use std::{collections::BTreeMap, net::SocketAddr};

use sraft_core::Role;
use sraft_node::api::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::double::{About, Double, PATIENCE};

/// Status code, head and body.
async fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let text = timeout(PATIENCE, ask).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, head.to_owned(), body.to_owned())
}

/// The value of a metric, written as in the text, labels included.
pub(crate) async fn metric(double: &Double, name: &str) -> f64 {
    let (_, _, text) = get(double.admin, "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

fn set(double: &Double, change: impl FnOnce(&mut About)) {
    change(&mut double.about.lock().unwrap());
}

#[tokio::test]
async fn status_is_json() {
    let double = Double::start();
    double.kv().await.put(crate::keys::put("key", "value")).await.unwrap();
    let (code, head, body) = get(double.admin, "/status").await;
    assert_eq!(code, 200);
    assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    for (name, expected) in [
        ("id", serde_json::json!(2)),
        ("cluster", "c".into()),
        ("boot_id", "0000000000000abc".into()),
        ("role", "leader".into()),
        ("rank", serde_json::Value::Null),
        ("term", 7.into()),
        ("leader", 2.into()),
        ("ready", true.into()),
        ("commit_index", 1.into()),
        ("revision", 2.into()),
        ("keys", 1.into()),
        ("store_bytes", 8.into()),
        ("uptime_seconds", 1.5.into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("peers", serde_json::json!([{"id": 1, "connected": true}, {"id": 3, "connected": false}])),
    ] {
        assert_eq!(status[name], expected, "{name}");
    }
    set(&double, |about| (about.role, about.leader) = (Role::Follower, None));
    let status: serde_json::Value =
        serde_json::from_str(&get(double.admin, "/status").await.2).unwrap();
    assert_eq!((&status["leader"], &status["rank"]), (&serde_json::Value::Null, &0.into()));
}

#[tokio::test]
async fn metrics_are_what_prometheus_reads() {
    let double = Double::start();
    double.kv().await.put(crate::keys::put("key", "value")).await.unwrap();
    double.kv().await.range(crate::keys::range("", "")).await.unwrap_err();
    let (code, head, text) = get(double.admin, "/metrics").await;
    assert_eq!(code, 200);
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let mut samples = 0;
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("# TYPE ") {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(kinds.insert(name, kind).is_none(), "{name} twice");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        let name = name.split('{').next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|end| name.strip_suffix(end))
            .find(|name| kinds.get(name) == Some(&"histogram"))
            .unwrap_or(name);
        let kind = kinds.get(family).unwrap_or_else(|| panic!("{line} has no type"));
        assert_eq!(name.ends_with("_total"), *kind == "counter", "{line}");
        samples += 1;
    }
    assert!(samples > 50, "{text}");
    for line in [
        "sraft_node_info{node=\"2\",cluster=\"c\",version=\"0.1.0\"} 1",
        "sraft_role{role=\"leader\"} 1",
        "sraft_role{role=\"follower\"} 0",
        "sraft_peer_connected{peer=\"3\"} 0",
        "sraft_uptime_seconds 1.5",
        "sraft_events_seconds_total 2.5",
        "sraft_peer_messages_sent_total 11",
        "sraft_grpc_requests_total{method=\"KV/Put\",code=\"OK\"} 1",
        "sraft_grpc_requests_total{method=\"KV/Range\",code=\"InvalidArgument\"} 1",
        "sraft_grpc_request_duration_seconds_count{method=\"KV/Put\"} 1",
        "sraft_grpc_request_duration_seconds_bucket{method=\"KV/Put\",le=\"+Inf\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(!text.contains("sraft_rank"), "a leader has no rank");
}

#[tokio::test]
async fn health_and_leadership_are_codes() {
    let mut double = Double::start();
    let ask = async |double: &Double, path| {
        let (code, _, text) = get(double.admin, path).await;
        (code, text)
    };
    let told = |code, text: &str| (code, format!("{text}\n"));
    assert_eq!(ask(&double, "/healthz").await, told(200, "ok"));
    assert_eq!(ask(&double, "/leader").await, told(200, "node 2 leads"));
    set(&double, |about| about.ready = false);
    assert_eq!(ask(&double, "/leader").await, told(503, "node 2 is about to lead"));
    set(&double, |about| (about.role, about.leader) = (Role::Follower, Some(3)));
    assert_eq!(ask(&double, "/healthz").await, told(200, "ok"));
    assert_eq!(ask(&double, "/leader").await, told(503, "node 3 leads"));
    set(&double, |about| about.leader = None);
    assert_eq!(ask(&double, "/healthz").await, told(503, "no leader"));
    assert_eq!(ask(&double, "/leader").await, told(503, "no leader"));
    set(&double, |about| about.stopping = true);
    assert_eq!(ask(&double, "/healthz").await, told(503, "the node is stopping"));
    assert_eq!(ask(&double, "/leader").await, told(503, "the node is stopping"));
    assert_eq!(ask(&double, "/").await.0, 404);
    double.end_driver();
    assert_eq!(ask(&double, "/healthz").await, told(503, "the node has stopped"));
    assert_eq!(ask(&double, "/metrics").await.0, 503);
}

#[tokio::test]
async fn connections_are_bounded() {
    let double = Double::with(Limits { admin_connections: 2, ..Limits::default() });
    let one = TcpStream::connect(double.admin).await.unwrap();
    let _two = TcpStream::connect(double.admin).await.unwrap();
    let mut third = TcpStream::connect(double.admin).await.unwrap();
    let mut said = Vec::new();
    let _ = timeout(PATIENCE, third.read_to_end(&mut said)).await.expect("it is closed");
    assert!(said.is_empty());
    drop(one);
    // The place is free as soon as the server has noticed.
    loop {
        let mut stream = TcpStream::connect(double.admin).await.unwrap();
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let mut text = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("it is closed");
        if text.starts_with(b"HTTP/1.1 200 ") {
            break;
        }
    }
}
