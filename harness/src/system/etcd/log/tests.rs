use std::fmt::Write;

use super::*;

const REAL: &str = include_str!("etcd-3.4.23.txt");

fn membership() -> Membership {
    let at = |peer| Endpoint { host: "127.0.0.1".into(), peer, client: 0, admin: 0 };
    Membership { cluster: "tok".into(), nodes: [21101, 21102, 21103].map(at).to_vec() }
}

/// 2026-11-23T00:02:50Z on the wall clock, when the monotonic one shows 100 s.
const WALL: u64 = 1_795_392_170_000_000_000;
const CLOCKS: Clocks = Clocks { mono_ns: 100_000_000_000, wall_ns: WALL };

fn read_one(log: &mut Log, node: NodeId, line: &str) -> Vec<Record> {
    log.read(node, 7, CLOCKS, &[line.to_owned()])
}

fn read(text: &str) -> Vec<Record> {
    let mut log = Log::new(&membership());
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .flat_map(|line| {
            let (node, line) = line.split_once(' ').unwrap();
            read_one(&mut log, node.parse().unwrap(), line)
        })
        .collect()
}

fn line(ts: &str, msg: &str) -> String {
    format!(r#"{{"level":"info","ts":"{ts}","caller":"raft/raft.go:706","msg":"{msg}"}}"#)
}

#[test]
fn what_etcd_writes_becomes_records() {
    let mut told = String::new();
    for record in read(REAL) {
        let event = serde_json::to_value(&record.event).unwrap();
        let Some(serde_json::Value::String(name)) = event.get("event") else { panic!("{event}") };
        let fields = event.as_object().unwrap().iter();
        let left_out = ["event", "members", "schema", "boot_id", "cluster", "pid", "sub_leaders"];
        let fields: Vec<String> = fields
            .filter(|(key, value)| !left_out.contains(&key.as_str()) && !value.is_null())
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let ms = (record.mono_ns as f64 - CLOCKS.mono_ns as f64) / 1e6;
        let _ = writeln!(told, "{ms} {} {} {name} {}", record.source, record.seq, fields.join(" "));
    }
    insta::assert_snapshot!(told);
}

#[test]
fn stamps_are_the_middle_of_their_millisecond_on_the_monotonic_clock() {
    let msg = "cc68606c20556276 became candidate at term 3";
    let mut log = Log::new(&membership());
    for (ts, after_ms) in [
        ("2026-11-23T00:02:51.250Z", 1250),
        ("2026-11-23T01:02:51.250+0100", 1250),
        ("2026-11-22T18:32:49.000-0530", -1000),
    ] {
        let record = &read_one(&mut log, 3, &line(ts, msg))[0];
        let expected = i64::try_from(CLOCKS.mono_ns).unwrap() + after_ms * 1_000_000 + 500_000;
        assert_eq!(i64::try_from(record.mono_ns).unwrap(), expected, "{ts}");
        assert_eq!(record.wall_ns.wrapping_sub(WALL), record.mono_ns.wrapping_sub(CLOCKS.mono_ns));
    }
}

#[test]
fn ids_are_those_that_etcd_gives() {
    let log = Log::new(&membership());
    let ids: Vec<&str> = log.ids.keys().map(String::as_str).collect();
    // One digit short: etcd writes no leading zeros.
    assert_eq!(ids, ["907d1d4b1f75a362", "c95ef83803ad544", "cc68606c20556276"]);
}

#[test]
fn what_is_no_line_of_zap_is_passed_over() {
    let mut log = Log::new(&membership());
    let at = "2026-11-23T00:02:51.250Z";
    for strange in [
        "",
        "{",
        "[WARNING] Deprecated '--logger=capnslog' flag is set",
        "{\"msg\":\"became leader\"}",
        &line("yesterday", "cc68606c20556276 became leader at term 3"),
        &line("", "cc68606c20556276 became leader at term 3"),
        &line("é+01é0", "cc68606c20556276 became leader at term 3"),
        &line(at, "cc68606c20556276 became leader at term many"),
        &line(at, "cc68606c20556276 became king at term 3"),
        &line(at, "raft.node: cc68606c20556276 elected leader 1234 at term 3"),
        &line("9999-12-31T23:59:59.000Z", "cc68606c20556276 became leader at term 3"),
    ] {
        assert_eq!(read_one(&mut log, 3, strange), [], "{strange}");
    }
}

proptest::proptest! {
    #[test]
    fn no_line_breaks_the_reader(ts in ".{0,30}", msg in ".{0,60}", node in 0_u64..5) {
        let mut log = Log::new(&membership());
        let line = serde_json::json!({ "ts": ts, "msg": msg, "peer-id": msg }).to_string();
        let _ = read_one(&mut log, node, &line);
        let _ = read_one(&mut log, node, &msg);
    }
}
