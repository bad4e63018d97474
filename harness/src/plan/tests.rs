use std::{collections::BTreeMap, path::Path};

use super::*;

mod systems;

const GOOD: &str = r#"
name = "kill"
question = "How long?"
[cluster]
size = 5
[timing]
preset = "reference"
[fault]
kind = "kill"
target = "leader"
[trials]
count = 25
warmup = 2
timeout = "10s"
block = 10
seed = 7
[[variant]]
name = "raft"
protocol = "raft"
[[variant]]
name = "s-raft"
protocol = "s-raft"
"#;

fn plan(text: &str) -> Result<RunPlan, Refused> {
    RunPlan::new(&File::parse(Path::new("x.toml"), text.to_owned())?, Overrides::default())
}

/// What is said of [`GOOD`] with one line replaced.
fn refused(line: &str, by: &str) -> String {
    assert_eq!(GOOD.matches(line).count(), 1, "`{line}` is to be replaced once");
    plan(&GOOD.replacen(line, by, 1)).expect_err("the experiment is wrong").to_string()
}

/// The same for many.
fn all_refused(cases: &[(&str, &str)]) -> String {
    cases
        .iter()
        .map(|(line, by)| format!("{}\n{}\n\n", by.replace('\n', " / "), refused(line, by)))
        .collect()
}

#[test]
fn an_experiment_becomes_a_plan() {
    let run = plan(GOOD).unwrap();
    assert_eq!(run.plan.cells, [""]);
    assert_eq!(run.plan.variants[0], PlannedVariant { name: "raft".into(), baseline: true });
    assert_eq!(run.plan.settings.iter().map(|s| s.sub_leaders).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(run.launch("", "s-raft").size, 5);
    insta::assert_snapshot!(run.plan.settings[1].node, @r#"{"protocol":"s-raft","timing":{"detector":"silence","election_timeout":"300ms-1s","follower_timeout":"300ms-1s","handover":true,"heartbeat":"50ms","lease":"3s","pre_vote":true,"promotion_timeout":"300ms","rank_step":"100ms-150ms","rank_timeout":"150ms-200ms","read_lease":false,"rtt_alpha":0.3,"stagger":"10ms","sub_leader_ratio":0.4}}"#);
    insta::assert_snapshot!(describe(&run), @r"
    kill: kill leader
    How long?
      raft: 25 trials in 3 blocks; 5 nodes, heartbeat 50ms, timeout 300ms-1s, detector silence
      s-raft: 25 trials in 3 blocks; 5 nodes, heartbeat 50ms, timeout 300ms-1s, ranks 150ms-200ms and 250ms-350ms, detector silence
    50 trials and 4 warm-ups in 6 interleaved blocks, seed 7; about 28s
    a difference of medians from raft shows in about so many milliseconds or more (4 times of 5, at the 5 % level): s-raft 78 ms
    ");
}

#[test]
fn the_lowered_knobs_give_the_same_timing_again() {
    for preset in ["reference", "raft-paper", "lan"] {
        let text = GOOD.replace("\"reference\"", &format!("\"{preset}\""));
        let run = plan(&text).unwrap();
        let timing = &run.launch("", "raft").timing;
        assert_eq!(every_knob(timing).resolve(), *timing);
    }
}

#[test]
fn the_same_seed_gives_the_same_plan_and_another_seed_another() {
    assert_eq!(plan(GOOD).unwrap().plan, plan(GOOD).unwrap().plan);
    let orders: std::collections::BTreeSet<Vec<String>> = (0..20)
        .map(|seed| plan(&GOOD.replace("seed = 7", &format!("seed = {seed}"))).unwrap().plan)
        .map(|plan| plan.blocks.into_iter().map(|block| block.variant).collect())
        .collect();
    assert!(orders.len() > 3, "{orders:?}");
}

#[test]
fn no_variant_is_ever_more_than_a_block_ahead_and_every_trial_is_there_once() {
    for seed in 0..30 {
        let text = GOOD.replace("seed = 7", &format!("seed = {seed}")).replace(
            "[[variant]]\nname = \"s-raft\"",
            "[[variant]]\nname = \"other\"\nprotocol = \"raft\"\n[[variant]]\nname = \"s-raft\"",
        ) + "[matrix]\n\"cluster.size\" = [3, 5]\n";
        let plan = plan(&text).unwrap().plan;
        let mut done: BTreeMap<(String, String), usize> = BTreeMap::new();
        for setting in &plan.settings {
            done.insert((setting.cell.clone(), setting.variant.clone()), 0);
        }
        assert_eq!(done.len(), 6);
        for block in &plan.blocks {
            *done.get_mut(&(block.cell.clone(), block.variant.clone())).unwrap() +=
                block.trials.len();
            let (least, most) = (done.values().min().unwrap(), done.values().max().unwrap());
            assert!(most - least <= 10, "{done:?}");
        }
        assert!(done.values().all(|&count| count == 25));
        let numbers: Vec<u64> = plan.blocks.iter().flat_map(|b| b.trials.clone()).collect();
        assert!(numbers.into_iter().eq(1..=150));
        let warmups: u32 = plan.blocks.iter().map(|block| block.warmup).sum();
        assert_eq!(warmups, 12, "two for each cell and variant");
    }
}

#[test]
fn the_matrix_is_a_product() {
    let text = format!(
        "{GOOD}[matrix]\n\"cluster.size\" = [3, 7]\n\"timing.election_timeout\" = [\"150ms-300ms\", \"300ms-600ms\"]\n"
    );
    let run = plan(&text).unwrap();
    assert_eq!(
        run.plan.cells,
        [
            "cluster.size=3,timing.election_timeout=150ms-300ms",
            "cluster.size=3,timing.election_timeout=300ms-600ms",
            "cluster.size=7,timing.election_timeout=150ms-300ms",
            "cluster.size=7,timing.election_timeout=300ms-600ms",
        ]
    );
    assert_eq!(run.launch(&run.plan.cells[3], "raft").size, 7);
    let timeout = run.launch(&run.plan.cells[2], "raft").timing.election_timeout;
    assert_eq!(timeout.to_string(), "150ms-300ms");
}

#[test]
fn the_command_line_overrides() {
    let file = File::parse(Path::new("x.toml"), GOOD.to_owned()).unwrap();
    let plan = RunPlan::new(&file, Overrides { trials: Some(3), seed: Some(9) }).unwrap().plan;
    assert_eq!((plan.seed, plan.blocks.len()), (9, 2));
    assert_eq!(plan.blocks.iter().map(|block| block.trials.len()).sum::<usize>(), 6);
}

#[test]
fn equal_losses_are_planned_for_all_variants_of_a_cell() {
    let run = plan(&GOOD.replace("\"leader\"", "\"leader+primary\"")).unwrap();
    assert_eq!(run.launch("", "raft").cell_sub_leaders, 2);
    let seven =
        GOOD.replace("size = 5", "size = 7").replace("\"leader\"", "\"leader+all-sub-leaders\"");
    assert!(plan(&seven).is_ok());
}

#[test]
fn bad_input_is_refused_with_its_line_and_the_remedy() {
    let long = format!("name = \"{}\"", "k".repeat(65));
    let wide = format!("[matrix]\n\"workload.rate\" = {:?}\n[fault]", Vec::from_iter(0..201));
    let knob = |name: &str| format!("\"timing.{name}\" = [\"300ms-1000ms\"]\n");
    let deep = ["election_timeout", "rank_timeout", "rank_step", "follower_timeout"].map(knob);
    let deep = format!("[matrix]\n{}\"timing.heartbeat\" = [\"50ms\"]\n[fault]", deep.concat());
    let cases = [
        ("name = \"kill\"", "name = \"../kill\""),
        ("size = 5", "size = -5"),
        ("size = 5", "size = 1"),
        ("size = 5", "sise = 5"),
        ("size = 5", "size = 5\nbackend = \"ssh\""),
        ("size = 5", "size = 5\nbackend = \"cloud\""),
        ("preset = \"reference\"", "preset = \"fast\""),
        ("preset = \"reference\"", "heartbeat = 50"),
        ("preset = \"reference\"", "heartbeat = \"50 parsecs\""),
        ("preset = \"reference\"", "election_timeout = \"300ms-150ms\""),
        ("preset = \"reference\"", "election_timeout = \"60ms-150ms\""),
        ("kind = \"kill\"", "kind = \"partition\""),
        ("kind = \"kill\"", "kind = \"kill\"\nduration = \"1s\""),
        ("kind = \"kill\"", "kind = \"pause\"\nduration = \"10s\""),
        ("target = \"leader\"", "target = \"king\""),
        ("target = \"leader\"", "target = \"leader+all-sub-leaders\""),
        ("count = 25", "count = 0"),
        ("count = 25", "count = -3"),
        ("block = 10", "block = 0"),
        ("seed = 7", "seed = -7"),
        ("timeout = \"10s\"", "timeout = \"0s\""),
        ("timeout = \"10s\"", "timeout = \"soon\""),
        ("name = \"s-raft\"", "name = \"raft\""),
        ("name = \"s-raft\"", "name = \"s/raft\""),
        ("protocol = \"s-raft\"", "protocol = \"paxos\""),
        ("protocol = \"s-raft\"", "protocol = \"s-raft\"\ntiming = { rank_timeout = \"70ms\" }"),
        ("[fault]", "[fault"),
        ("[fault]", "[matrix]\n\"cluster.sise\" = [3]\n[fault]"),
        ("[fault]", "[matrix]\n\"timing.hartbeat\" = [\"50ms\"]\n[fault]"),
        ("[fault]", "[matrix]\n\"timing.heartbeat\" = [\"50ms\", \"200ms\"]\n[fault]"),
        ("[fault]", "[matrix]\n\"cluster.size\" = []\n[fault]"),
        ("[fault]", "[matrix]\n\"cluster.size\" = [3, 3]\n[fault]"),
        ("[fault]", "[matrix]\n\"cluster.size\" = [3, 0]\n[fault]"),
        ("[fault]", "[matrix]\n\"fault.target\" = [\"leader+all-sub-leaders\"]\n[fault]"),
        ("[fault]", "[matrix]\n\"trials.count\" = [3, 4]\n[fault]"),
        ("size = 5", "size = \"five\""),
        ("preset = \"reference\"", "sub_leader_ratio = \"half\""),
        ("kind = \"kill\"", "kind = \"pause\"\nduration = \"0s\""),
        ("count = 25", "count = 1000000000000"),
        ("count = 25", "count = 600000"),
        ("timeout = \"10s\"", "timeout = \"30h\""),
        ("name = \"kill\"", &long),
        ("[fault]", &wide),
        ("[fault]", &deep),
    ];
    insta::assert_snapshot!(all_refused(&cases), @r#"
    name = "../kill"
    x.toml, line 2: `../kill` cannot be part of a file name; use up to 64 letters, digits, `.`, `_` and `-`, and begin with neither a dot nor a dash

    size = -5
    x.toml, line 5: cluster.size is -5; write a number from 2 to 99

    size = 1
    x.toml, line 5: cluster.size is 1; write a number from 2 to 99

    sise = 5
    x.toml, line 5: unknown field `sise`, expected `size` or `backend`

    size = 5 / backend = "ssh"
    x.toml, line 6: backend = "ssh" runs on hosts; say which with --inventory FILE, or write backend = "local"

    size = 5 / backend = "cloud"
    x.toml, line 6: there is no backend `cloud`; write backend = "local", "ssh" or "sim"

    preset = "fast"
    x.toml, line 7: unknown value `fast`, expected one of `reference`, `raft-paper`, `lan`

    heartbeat = 50
    x.toml, line 7: invalid type: integer `50`, expected a string; a duration is written with its unit, such as "50ms"

    heartbeat = "50 parsecs"
    x.toml, line 7: `50 parsecs` is not a duration (unknown time unit "parsecs", supported units: ns, us/µs, ms, sec, min, hours, days, weeks, months, years (and few variations)); write a number and a unit, such as 50ms or 1s

    election_timeout = "300ms-150ms"
    x.toml, line 7: `300ms-150ms` runs backwards; write the shorter duration first

    election_timeout = "60ms-150ms"
    x.toml, line 7: variant raft: election_timeout may be as short as 60ms, which is less than two heartbeats of 50ms: one late heartbeat would depose a healthy leader; raise election_timeout or lower heartbeat

    kind = "partition"
    x.toml, line 10: partition is between groups; write groups = [["leader"], ["others"]], say, in the place of target

    kind = "kill" / duration = "1s"
    x.toml, line 10: fault.duration says how long a fault lasts, and kill has no end; remove it

    kind = "pause" / duration = "10s"
    x.toml, line 10: fault.duration is 10s, which is not below trials.timeout of 10s

    target = "king"
    x.toml, line 10: there is no target `king`; there are leader, primary, secondary, follower, leader+primary, leader+all-sub-leaders and random

    target = "leader+all-sub-leaders"
    x.toml, line 10: target leader+all-sub-leaders strikes 3 of 5 nodes and leaves 2, but a leader needs a majority of 3: nobody could be elected; take a larger cluster, fewer sub-leaders (timing.sub_leader_ratio) or another target

    count = 0
    x.toml, line 12: trials.count is 0; write a number from 1 to 1000000

    count = -3
    x.toml, line 12: trials.count is -3; write a number from 1 to 1000000

    block = 0
    x.toml, line 15: trials.block is 0; write a number from 1 to 1000000

    seed = -7
    x.toml, line 16: trials.seed is -7; write a number from 0

    timeout = "0s"
    x.toml, line 14: trials.timeout is 0s; write a duration from 10ms to 1day, such as 10s

    timeout = "soon"
    x.toml, line 14: `soon` is not a duration (expected number at 0); write a number and a unit, such as 50ms or 1s

    name = "raft"
    x.toml, line 21: there is a variant `raft` already; give this one another name

    name = "s/raft"
    x.toml, line 21: `s/raft` cannot be part of a file name; use up to 64 letters, digits, `.`, `_` and `-`, and begin with neither a dot nor a dash

    protocol = "paxos"
    x.toml, line 22: unknown value `paxos`, expected `raft` or `s-raft`

    protocol = "s-raft" / timing = { rank_timeout = "70ms" }
    x.toml, line 23: variant s-raft: rank_timeout may be as short as 70ms, which is less than two heartbeats of 50ms: one late heartbeat would depose a healthy leader; raise rank_timeout or lower heartbeat

    [fault
    x.toml, line 8: unclosed table, expected `]`

    [matrix] / "cluster.sise" = [3] / [fault]
    x.toml, line 9: the matrix cannot vary `cluster.sise`; it can vary cluster.size, workload.rate, fault, fault.target, fault.direction, fault.percent, fault.delay, fault.iops, timings and timing.KNOB (in quotes)

    [matrix] / "timing.hartbeat" = ["50ms"] / [fault]
    x.toml, line 9: timing.hartbeat=50ms cannot be applied: unknown field `hartbeat`, expected one of `preset`, `heartbeat`, `election_timeout`, `rank_timeout`, `rank_step`, `follower_timeout`, `promotion_timeout`, `lease`, `stagger`, `sub_leader_ratio`, `rtt_alpha`, `detector`, `pre_vote`, `handover`, `read_lease`

    [matrix] / "timing.heartbeat" = ["50ms", "200ms"] / [fault]
    x.toml, line 9: with timing.heartbeat=200ms: variant raft: election_timeout may be as short as 300ms, which is less than two heartbeats of 200ms: one late heartbeat would depose a healthy leader; raise election_timeout or lower heartbeat

    [matrix] / "cluster.size" = [] / [fault]
    x.toml, line 9: `cluster.size` needs an array with one value at least, such as [3, 5]

    [matrix] / "cluster.size" = [3, 3] / [fault]
    x.toml, line 9: the matrix holds cluster.size=3 twice; list every value once

    [matrix] / "cluster.size" = [3, 0] / [fault]
    x.toml, line 9: with cluster.size=0: cluster.size is 0; write a number from 2 to 99

    [matrix] / "fault.target" = ["leader+all-sub-leaders"] / [fault]
    x.toml, line 9: with fault.target=leader+all-sub-leaders: target leader+all-sub-leaders strikes 3 of 5 nodes and leaves 2, but a leader needs a majority of 3: nobody could be elected; take a larger cluster, fewer sub-leaders (timing.sub_leader_ratio) or another target

    [matrix] / "trials.count" = [3, 4] / [fault]
    x.toml, line 9: the matrix cannot vary `trials.count`; it can vary cluster.size, workload.rate, fault, fault.target, fault.direction, fault.percent, fault.delay, fault.iops, timings and timing.KNOB (in quotes)

    size = "five"
    x.toml, line 5: invalid type: string "five", expected a whole number

    sub_leader_ratio = "half"
    x.toml, line 7: invalid type: string "half", expected a number

    kind = "pause" / duration = "0s"
    x.toml, line 10: fault.duration is zero: nothing would happen; write 1s, say

    count = 1000000000000
    x.toml, line 12: trials.count is 1000000000000; write a number from 1 to 1000000

    count = 600000
    x.toml, line 12: 600000 trials and 2 warm-ups for each variant in each cell (2 in all) are 1200004, more than 1000000; lower trials.count or --trials, or divide the experiment

    timeout = "30h"
    x.toml, line 14: trials.timeout is 1day6h; write a duration from 10ms to 1day, such as 10s

    name = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
    x.toml, line 2: `kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk` cannot be part of a file name; use up to 64 letters, digits, `.`, `_` and `-`, and begin with neither a dot nor a dash

    [matrix] / "workload.rate" = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115, 116, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 141, 142, 143, 144, 145, 146, 147, 148, 149, 150, 151, 152, 153, 154, 155, 156, 157, 158, 159, 160, 161, 162, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172, 173, 174, 175, 176, 177, 178, 179, 180, 181, 182, 183, 184, 185, 186, 187, 188, 189, 190, 191, 192, 193, 194, 195, 196, 197, 198, 199, 200] / [fault]
    x.toml, line 9: with `workload.rate` the matrix has 201 cells, more than 200; list fewer values, or divide the experiment

    [matrix] / "timing.election_timeout" = ["300ms-1000ms"] / "timing.rank_timeout" = ["300ms-1000ms"] / "timing.rank_step" = ["300ms-1000ms"] / "timing.follower_timeout" = ["300ms-1000ms"] / "timing.heartbeat" = ["50ms"] / [fault]
    x.toml, line 9: timing.election_timeout=300ms-1000ms,timing.rank_timeout=300ms-1000ms,timing.rank_step=300ms-1000ms,timing.follower_timeout=300ms-1000ms,timing.heartbeat=50ms is too long for the names of files; vary fewer things at once, 150 letters have room
    "#);
}

#[test]
fn sub_leaders_that_do_not_exist_cannot_be_struck() {
    let raft = GOOD.replace("protocol = \"s-raft\"", "protocol = \"raft\"");
    let text = raft.replace("\"leader\"", "\"leader+primary\"");
    insta::assert_snapshot!(plan(&text).unwrap_err(), @"x.toml, line 10: target leader+primary needs 1 sub-leader(s), but no variant designates more than 0 among 5 nodes; take a larger cluster or another target");
    let text = GOOD.replace("size = 5", "size = 3").replace("\"leader\"", "\"secondary\"");
    insta::assert_snapshot!(plan(&text).unwrap_err(), @"x.toml, line 10: target secondary needs 2 sub-leader(s), but no variant designates more than 1 among 3 nodes; take a larger cluster or another target");
    let none = GOOD.split("[[variant]]").next().unwrap();
    insta::assert_snapshot!(plan(none).unwrap_err(), @r#"x.toml: there is no [[variant]]; add one with a name and protocol = "raft" or "s-raft""#);
}

/// A good experiment for the simulator.
fn simulated() -> String {
    GOOD.replace("size = 5\n", "size = 5\nbackend = \"sim\"\n")
        .replace("[fault]", "[sim]\nlatency = \"1ms-2ms\"\n[fault]")
}

#[test]
fn a_simulated_cluster_is_planned_with_its_surroundings() {
    let text = simulated().replace("size = 5", "size = 101")
        + "[matrix]\n\"sim.latency\" = [\"1ms\", { median = \"2ms\", sigma = 0.3 }, [\"1ms\", \"3ms\"]]\n";
    let run = plan(&text).unwrap();
    assert_eq!(run.backend, Backend::Sim);
    let latencies: Vec<&serde_json::Value> =
        run.plan.settings.iter().step_by(2).map(|s| &s.node["sim"]["latency"]).collect();
    insta::assert_snapshot!(
        serde_json::to_string(&latencies).unwrap(),
        @r#"["1ms",{"median":"2ms","sigma":0.3},["1ms","3ms"]]"#
    );
    assert_eq!(plan(GOOD).unwrap().backend, Backend::Local);
}

#[test]
fn impossible_surroundings_are_refused_with_their_line_and_the_remedy() {
    let regions = "regions = { here = [1, 2], there = [3, 4, 5] }";
    let cases = [
        "latency = \"-1ms\"",
        "latency = \"3ms-1ms\"",
        "latency = \"1h\"",
        "latency = 5",
        "latency = []",
        "latency = { median = \"1ms\", sigma = -1.0 }",
        "latency = { mean = \"1ms\" }",
        "write = \"soon\"",
        "loss = 1.5",
        "duplication = -0.1",
        "reordering = 3",
        "jitter = \"1ms\"",
        "clock_error = 1000000",
        "laggards = 4",
        "laggards = -1",
        "crash_phase = 0.5",
        "heartbeats_synchronised = true\ncrash_phase = 1.5",
        "heartbeats_synchronised = true\ncrash_phase = \"late\"",
        "stagger = \"1day\"",
        "leader = 6",
        "leader = \"mars\"",
        "link = [{ from = 1, to = 9, latency = \"1ms\" }]",
        "link = [{ from = 1, to = 1, latency = \"1ms\" }]",
        "cut = [{ from = [1], to = [0] }]",
        "cut = [{ from = [1], to = [] }]",
        "cut = [{ from = [1, 2], to = [2, 3] }]",
        "regions = { here = [1, 2], there = [3, 4, 6] }",
        "regions = { here = [1, 2], there = [2, 3, 4, 5] }",
        "regions = { here = [1, 2], there = [3, 4] }",
        regions,
        &format!("{regions}\nround_trip = {{ here = {{ elsewhere = \"80ms\" }} }}"),
        &format!(
            "{regions}\nround_trip = {{ here = {{ there = \"80ms\" }}, there = {{ here = \"8ms\" }} }}"
        ),
    ];
    let refusal = |by: &str| {
        let text = simulated().replace("latency = \"1ms-2ms\"", by);
        plan(&text).expect_err(by).to_string()
    };
    let mut said: String = cases
        .iter()
        .map(|by| format!("{}\n{}\n\n", by.replace('\n', " / "), refusal(by)))
        .collect();
    for (what, text) in [
        ("[sim] of processes", GOOD.replace("[fault]", "[sim]\nloss = 0.1\n[fault]")),
        ("workload", simulated().replace("[sim]", "[workload]\nrate = 5\n[sim]")),
        ("stop", simulated().replace("\"kill\"\nt", "\"stop\"\nt")),
        ("size", simulated().replace("size = 5", "size = 102")),
        ("matrix", simulated() + "[matrix]\n\"sim.loss\" = [0.1, 2.0]\n"),
        ("matrix of processes", GOOD.to_owned() + "[matrix]\n\"sim.loss\" = [0.1, 2.0]\n"),
        ("report", GOOD.to_owned() + "[report]\nfigure = \"announced\"\npanels = [[\"paxos\"]]\n"),
    ] {
        let refused = plan(&text).expect_err(what);
        said += &format!("{what}\n{refused}\n\n");
    }
    insta::assert_snapshot!(said, @r#"
    latency = "-1ms"
    x.toml, line 10: `-1ms` is negative; write a duration such as 2ms

    latency = "3ms-1ms"
    x.toml, line 10: `3ms-1ms` runs backwards; write the shorter duration first

    latency = "1h"
    x.toml, line 10: sim.latency: 1h is longer than the ten minutes that the simulator allows

    latency = 5
    x.toml, line 10: invalid type: integer `5`, expected "2ms", "2ms-3ms", { median = "2ms", sigma = 0.3 } or a list of durations

    latency = []
    x.toml, line 10: sim.latency: samples is empty; list at least one duration

    latency = { median = "1ms", sigma = -1.0 }
    x.toml, line 10: sim.latency: log-normal sigma = -1 is out of range; it must be from 0 to 5

    latency = { mean = "1ms" }
    x.toml, line 10: unknown field `mean`, expected `median` or `sigma`

    write = "soon"
    x.toml, line 10: `soon` is not a duration (expected number at 0); write a number and a unit, such as 50ms or 1s

    loss = 1.5
    x.toml, line 10: sim.loss is 1.5, no probability; write a number from 0 to 1

    duplication = -0.1
    x.toml, line 10: sim.duplication is -0.1, no probability; write a number from 0 to 1

    reordering = 3
    x.toml, line 10: invalid type: integer `3`, expected a boolean

    jitter = "1ms"
    x.toml, line 10: unknown field `jitter`, expected one of `latency`, `regions`, `round_trip`, `link`, `cut`, `loss`, `duplication`, `reordering`, `write`, `closed`, `refused`, `connect`, `clock_error`, `laggards`, `heartbeats_synchronised`, `crash_phase`, `stagger`, `settle`, `leader`

    clock_error = 1000000
    x.toml, line 10: sim.clock_error is 1000000; write parts per million, from 0 to 100000

    laggards = 4
    x.toml, line 10: sim.laggards is 4; of 4 survivors at most 3 may lag, or nobody could win

    laggards = -1
    x.toml, line 10: sim.laggards is -1; of 4 survivors at most 3 may lag, or nobody could win

    crash_phase = 0.5
    x.toml, line 10: sim.crash_phase counts from a heartbeat; add heartbeats_synchronised = true

    heartbeats_synchronised = true / crash_phase = 1.5
    x.toml, line 11: sim.crash_phase is 1.5; write "uniform", or the part of the heartbeat interval, from 0 to 1

    heartbeats_synchronised = true / crash_phase = "late"
    x.toml, line 11: sim.crash_phase is `late`; write "uniform", or the part of the heartbeat interval, from 0 to 1

    stagger = "1day"
    x.toml, line 10: sim.stagger is 1day; write a duration up to 10m

    leader = 6
    x.toml, line 10: sim.leader names node 6, but the nodes are 1 to 5

    leader = "mars"
    x.toml, line 10: sim.leader is `mars`, but sim.regions has no such region with a node in it; name one of them, or a node by its number

    link = [{ from = 1, to = 9, latency = "1ms" }]
    x.toml, line 10: sim.link names node 9, but the nodes are 1 to 5

    link = [{ from = 1, to = 1, latency = "1ms" }]
    x.toml, line 10: sim.link leads from node 1 to itself; it joins two nodes

    cut = [{ from = [1], to = [0] }]
    x.toml, line 10: sim.cut names node 0, but the nodes are 1 to 5

    cut = [{ from = [1], to = [] }]
    x.toml, line 10: sim.cut has an empty list; name one node at least

    cut = [{ from = [1, 2], to = [2, 3] }]
    x.toml, line 10: sim.cut has node 2 on both sides; a link joins two different nodes

    regions = { here = [1, 2], there = [3, 4, 6] }
    x.toml, line 10: the region there names node 6, but the nodes are 1 to 5

    regions = { here = [1, 2], there = [2, 3, 4, 5] }
    x.toml, line 10: node 2 is in the regions here and there; put every node into one

    regions = { here = [1, 2], there = [3, 4] }
    x.toml, line 10: node 5 is in no region; put every node from 1 to 5 into one

    regions = { here = [1, 2], there = [3, 4, 5] }
    x.toml, line 9: sim.round_trip has nothing for here and there; give the round trip of every pair of regions

    regions = { here = [1, 2], there = [3, 4, 5] } / round_trip = { here = { elsewhere = "80ms" } }
    x.toml, line 11: sim.round_trip names the region `elsewhere`, which is not in sim.regions (here, there); add it there with its nodes

    regions = { here = [1, 2], there = [3, 4, 5] } / round_trip = { here = { there = "80ms" }, there = { here = "8ms" } }
    x.toml, line 11: the round trip between there and here is given twice; give every pair of regions once

    [sim] of processes
    x.toml, line 8: [sim] says what is simulated, and only backend = "sim" simulates; remove it, or write backend = "sim"

    workload
    x.toml, line 10: workload.rate is 5; there is nobody to ask in a simulated cluster; remove it

    stop
    x.toml, line 12: the sim backend cannot do stop; it can do kill, pause, isolate, partition and link

    size
    x.toml, line 5: cluster.size is 102; write a number from 2 to 101

    matrix
    x.toml, line 27: with sim.loss=2.0: sim.loss is 2, no probability; write a number from 0 to 1

    matrix of processes
    x.toml, line 24: the matrix cannot vary `sim.loss`; it can vary cluster.size, workload.rate, fault, fault.target, fault.direction, fault.percent, fault.delay, fault.iops, timings and timing.KNOB (in quotes)

    report
    x.toml, line 23: report.panels: panel 1 names the variant `paxos`, which the experiment does not have; it has raft, s-raft
    "#);
}

#[test]
fn the_simulated_experiments_can_be_planned() {
    for name in ["raft-fig16", "scale", "wan"] {
        let path = format!("{}/../experiments/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let file = File::read(Path::new(&path)).unwrap();
        let run = RunPlan::new(&file, Overrides::default()).unwrap();
        assert_eq!((run.plan.experiment.as_str(), run.backend), (name, Backend::Sim));
    }
}
