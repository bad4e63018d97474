//! What a user may write about timing, and what is made of it.

use std::time::Duration;

use sraft_core::{
    ConfigError, Detector, Preset, Protocol, Span, TimeoutRange, Timing, TimingKnobs,
};

const FIVE: [u64; 5] = [1, 2, 3, 4, 5];

fn knobs(json: &str) -> Result<TimingKnobs, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn lower(json: &str, protocol: Protocol) -> Result<sraft_core::Config, ConfigError> {
    knobs(json).expect("the knobs are readable").resolve().lower(protocol, 1, &FIVE)
}

#[test]
fn reference_preset_is_the_prototype() {
    let config = Timing::reference().lower(Protocol::SRaft, 1, &FIVE).unwrap();
    assert_eq!(
        config.rank_timeouts,
        [TimeoutRange::millis(150, 200), TimeoutRange::millis(250, 350)]
    );
    assert_eq!(config.timeout, TimeoutRange::millis(300, 1000));
    assert_eq!(config.heartbeat, Duration::from_millis(50));
    assert_eq!(config.lease, Duration::from_secs(3));
    assert!(!config.connection_evidence);
}

#[test]
fn a_duration_beyond_a_year_is_refused() {
    for knob in ["heartbeat", "lease", "stagger", "rank_timeout", "rank_step", "follower_timeout"] {
        let error = knobs(&format!(r#"{{"{knob}":"500000000000y"}}"#)).unwrap_err();
        assert!(error.contains("longer than a year"), "{knob}: {error}");
    }
    assert!(lower(r#"{"lease":"365d"}"#, Protocol::SRaft).is_ok());
}

#[test]
fn protocols_differ_in_knobs_only() {
    let raft = Timing::reference().lower(Protocol::Raft, 1, &FIVE).unwrap();
    let s_raft = Timing::reference().lower(Protocol::SRaft, 1, &FIVE).unwrap();
    assert_eq!(sraft_core::Config { rank_timeouts: vec![], ..s_raft }, raft);
}

#[test]
fn sub_leaders_by_size() {
    let count = |size| Timing::reference().sub_leaders(Protocol::SRaft, size);
    assert_eq!([2, 3, 5, 7, 9].map(count), [0, 1, 2, 2, 3]);
    assert_eq!(Timing::reference().sub_leaders(Protocol::Raft, 5), 0);
}

#[test]
fn paper_heartbeat_follows_the_smallest_timeout() {
    let heartbeat = |json| knobs(json).unwrap().resolve().heartbeat;
    assert_eq!(heartbeat(r#"{"preset":"raft-paper"}"#), Duration::from_millis(75));
    let short = r#"{"preset":"raft-paper","election_timeout":"50-100ms"}"#;
    assert_eq!(heartbeat(short), Duration::from_millis(25));
}

#[test]
fn an_override_keeps_the_rest_but_a_preset_starts_afresh() {
    let base = knobs(r#"{"preset":"lan","heartbeat":"12ms"}"#).unwrap();
    let over = base.overridden_by(&knobs(r#"{"detector":"silence"}"#).unwrap()).resolve();
    assert_eq!((over.heartbeat, over.detector), (Duration::from_millis(12), Detector::Silence));
    let fresh = base.overridden_by(&knobs(r#"{"preset":"reference"}"#).unwrap());
    assert_eq!(fresh.resolve(), Timing::preset(Preset::Reference));
}

#[test]
fn durations_and_ranges_are_read_as_people_write_them() {
    let range = |text: &str| text.parse::<TimeoutRange>();
    assert_eq!(range("150ms-300ms"), Ok(TimeoutRange::millis(150, 300)));
    assert_eq!(range("150-300ms"), Ok(TimeoutRange::millis(150, 300)));
    assert_eq!(range("1s"), Ok(TimeoutRange::millis(1000, 1000)));
    assert_eq!(range("150-300ms").unwrap().to_string(), "150ms-300ms");
    assert!(range("300ms-150ms").unwrap_err().contains("runs backwards"));
    assert!("50".parse::<Span>().unwrap_err().contains("unit"));
    assert!("-5ms".parse::<Span>().is_err());
}

#[test]
fn what_could_not_work_is_refused_with_the_reason() {
    let refused = |json, protocol| lower(json, protocol).unwrap_err().to_string();
    assert_eq!(
        refused(r#"{"election_timeout":"80ms-300ms"}"#, Protocol::Raft),
        "election_timeout may be as short as 80ms, which is less than two heartbeats of 50ms: one \
         late heartbeat would depose a healthy leader; raise election_timeout or lower heartbeat",
    );
    assert!(refused(r#"{"rank_timeout":"60ms"}"#, Protocol::SRaft).starts_with("rank_timeout"));
    assert!(refused(r#"{"lease":"60ms"}"#, Protocol::Raft).starts_with("lease"));
    assert!(refused(r#"{"heartbeat":"0ms"}"#, Protocol::Raft).contains("zero"));
    assert!(refused(r#"{"heartbeat":"1ns"}"#, Protocol::Raft).contains("make it 1ms or longer"));
    assert!(refused(r#"{"rtt_alpha":1.5}"#, Protocol::Raft).contains("rtt_alpha = 1.5"));
    assert!(refused(r#"{"sub_leader_ratio":1.0}"#, Protocol::SRaft).contains("sub_leader_ratio"));
    assert!(refused(r#"{"sub_leader_ratio":-0.1}"#, Protocol::SRaft).contains("out of range"));
    assert!(knobs(r#"{"hartbeat":"50ms"}"#).unwrap_err().contains("unknown field `hartbeat`"));
    // A range that only S-Raft uses does not matter to original Raft.
    assert!(lower(r#"{"rank_timeout":"60ms"}"#, Protocol::Raft).is_ok());
}

#[test]
fn a_node_is_a_member_once() {
    let timing = Timing::reference();
    let missing = timing.lower(Protocol::Raft, 9, &FIVE).unwrap_err();
    assert!(matches!(missing, ConfigError::NotAMember { id: 9, .. }));
    let twice = timing.lower(Protocol::Raft, 1, &[1, 2, 2]).unwrap_err();
    assert_eq!(twice, ConfigError::DuplicateMember(2));
}
