//! Plans with other systems, and with a probe.

use super::*;

/// A comparison with etcd in two cells, as `experiments/vs-etcd.toml` has it.
const WITH_ETCD: &str = r#"
[[variant]]
name = "etcd"
system = "etcd"
timings.equal = { heartbeat = "100ms", election_timeout = "1s-2s" }
timings.default = { heartbeat = "100ms", election_timeout = "1s-2s", pre_vote = false }
[matrix]
timings = ["equal", "default"]
[workload]
rate = 300
reads = 0.25
[report]
figure = "outage"
"#;

#[test]
fn other_systems_are_planned_with_what_they_know() {
    let run = plan(&format!("{GOOD}{WITH_ETCD}")).unwrap();
    assert_eq!(run.plan.cells, ["timings=equal", "timings=default"]);
    let etcd = run.plan.setting("timings=default", "etcd").unwrap();
    assert_eq!((etcd.sub_leaders, etcd.log.bound_us, etcd.log.ready), (0, 500.0, false));
    insta::assert_snapshot!(etcd.node, @r#"{"system":"etcd","timing":{"election_timeout":"1s-2s","heartbeat":"100ms","pre_vote":false},"workload":{"after":"3s","before":"1s","cas":0.0,"deadline":"1s","keys":8,"rate":300,"reads":0.25,"value_size":64}}"#);
    assert_eq!(run.launch("timings=equal", "s-raft").cell_sub_leaders, 2);
    let systems: Vec<&str> = run.systems().into_iter().map(System::name).collect();
    assert_eq!(systems, ["etcd", "sraft"]);
    insta::assert_snapshot!(describe(&run), @r"
    kill: kill leader
    How long?
      raft (timings=equal): 25 trials in 3 blocks; 5 nodes, heartbeat 50ms, timeout 300ms-1s, detector silence; probe of 300 operations/s, 25 % reads
      s-raft (timings=equal): 25 trials in 3 blocks; 5 nodes, heartbeat 50ms, timeout 300ms-1s, ranks 150ms-200ms and 250ms-350ms, detector silence; probe of 300 operations/s, 25 % reads
      etcd (timings=equal): 25 trials in 3 blocks; 5 etcd nodes, heartbeat 100ms, timeout 1s-2s, detector silence; probe of 300 operations/s, 25 % reads
      raft (timings=default): 25 trials in 3 blocks; 5 nodes, heartbeat 50ms, timeout 300ms-1s, detector silence; probe of 300 operations/s, 25 % reads
      s-raft (timings=default): 25 trials in 3 blocks; 5 nodes, heartbeat 50ms, timeout 300ms-1s, ranks 150ms-200ms and 250ms-350ms, detector silence; probe of 300 operations/s, 25 % reads
      etcd (timings=default): 25 trials in 3 blocks; 5 etcd nodes, heartbeat 100ms, timeout 1s-2s, detector silence; probe of 300 operations/s, 25 % reads
    150 trials and 12 warm-ups in 18 interleaved blocks, seed 7; about 11m22s
    a difference of medians from raft shows in about so many milliseconds or more (4 times of 5, at the 5 % level): s-raft (timings=equal) 78 ms, etcd (timings=equal) 142 ms, s-raft (timings=default) 78 ms, etcd (timings=default) 142 ms
    ");
    let simulated = format!("{GOOD}{WITH_ETCD}").replace("size = 5", "size = 5\nbackend = \"sim\"");
    let simulated =
        simulated.replace("rate = 300\nreads = 0.25", "").replace("figure = \"outage\"", "");
    insta::assert_snapshot!(plan(&simulated).unwrap_err(), @r#"x.toml, line 27: variant etcd: etcd cannot be simulated; write backend = "local""#);
}

#[test]
fn what_no_system_or_probe_can_do_is_refused_with_its_line_and_the_remedy() {
    let cases = [
        ("[fault]", "[workload]\nrate = 200\nvalue_size = 8\n[fault]"),
        ("[fault]", "[workload]\nrate = -1\n[fault]"),
        ("[fault]", "[workload]\nrate = 200\ndeadline = \"1us\"\n[fault]"),
        ("[fault]", "[workload]\nrate = 200\nkeys = 0\n[fault]"),
        ("[fault]", "[workload]\nrate = 200\nreads = 1.5\n[fault]"),
        ("[fault]", "[workload]\nrate = 200\nreads = 0.5\ncas = 0.5\n[fault]"),
        ("[fault]", "[report]\nfigure = \"outage\"\n[fault]"),
        ("protocol = \"s-raft\"", "timing = {}"),
        ("protocol = \"s-raft\"", "system = \"zookeeper\""),
        ("protocol = \"s-raft\"", "system = \"etcd\"\nprotocol = \"s-raft\""),
        ("protocol = \"s-raft\"", "system = \"etcd\""),
        ("protocol = \"s-raft\"", "system = \"etcd\"\ntiming.rank_timeout = \"1s\""),
        ("protocol = \"s-raft\"", "system = \"etcd\"\ntiming.election_timeout = \"200ms-400ms\""),
        ("protocol = \"s-raft\"", "protocol = \"s-raft\"\ntimings.fast = { heartbeat = \"9ms\" }"),
        ("name = \"kill\"", "name = \"kill\"\ntimings = \"fast\""),
        ("[fault]", "[matrix]\ntimings = [\"fast\"]\n[fault]"),
    ];
    insta::assert_snapshot!(all_refused(&cases), @r#"
    [workload] / rate = 200 / value_size = 8 / [fault]
    x.toml, line 10: workload.value_size is 8; write bytes from 32 to 1048576

    [workload] / rate = -1 / [fault]
    x.toml, line 9: workload.rate is -1; write operations per second from 0 to 20000

    [workload] / rate = 200 / deadline = "1us" / [fault]
    x.toml, line 10: workload.deadline is 1us; write a duration from 10ms to 1m

    [workload] / rate = 200 / keys = 0 / [fault]
    x.toml, line 10: workload.keys is 0; write a number of keys from 1 to 1000

    [workload] / rate = 200 / reads = 1.5 / [fault]
    x.toml, line 10: workload.reads is 1.5; write a share from 0 to 1

    [workload] / rate = 200 / reads = 0.5 / cas = 0.5 / [fault]
    x.toml, line 10: workload.reads and workload.cas are 1 together; leave a share for writes: an outage is the time between two of them

    [report] / figure = "outage" / [fault]
    x.toml, line 8: report.figure is "outage", which nobody feels without a probe; set workload.rate, 200 say

    timing = {}
    x.toml, line 20: variant s-raft: protocol is missing; add protocol = "raft" or "s-raft"

    system = "zookeeper"
    x.toml, line 22: variant s-raft: there is no system `zookeeper`; there are sraft and etcd

    system = "etcd" / protocol = "s-raft"
    x.toml, line 23: variant s-raft: etcd has no choice of protocols; remove protocol

    system = "etcd"
    x.toml, line 6: variant s-raft: election_timeout is 300ms-1s, and etcd always draws from some whole milliseconds to twice as many; write 300ms-600ms, say

    system = "etcd" / timing.rank_timeout = "1s"
    x.toml, line 23: variant s-raft: etcd has no rank_timeout; it has heartbeat, election_timeout and pre_vote

    system = "etcd" / timing.election_timeout = "200ms-400ms"
    x.toml, line 23: variant s-raft: election_timeout is 200ms-400ms with heartbeats of 50ms: etcd wants 5 heartbeats at least and 50s at most; raise election_timeout or lower heartbeat

    protocol = "s-raft" / timings.fast = { heartbeat = "9ms" }
    x.toml, line 23: variant s-raft: nobody asks for its timings.fast; write timings = "fast" above all tables, or list it under [matrix] as one of "timings"

    name = "kill" / timings = "fast"
    x.toml, line 3: no variant has timings of the name `fast`; add timings.fast = { ... } to one

    [matrix] / timings = ["fast"] / [fault]
    x.toml, line 9: with timings=fast: no variant has timings of the name `fast`; add timings.fast = { ... } to one
    "#);
}
