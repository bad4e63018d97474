//! The load generator against a member that stalls, dies or is not there.

mod fake;

use std::{fs, future::pending, time::Duration};

use fake::{Fake, Mode};
use sraft_client::load::{LoadError, Pace, Plan, Report, load};
use tonic::Code;

fn plan(fake: &Fake, pace: Pace, clients: u32) -> Plan {
    Plan {
        endpoints: vec![fake.address.clone()],
        pace,
        clients,
        duration: Duration::from_secs(1),
        warmup: Duration::ZERO,
        value_size: 16,
        keys: 5,
        reads: 0.0,
        seed: 1,
        csv: None,
        hgrm: None,
    }
}

async fn run(plan: &Plan) -> Report {
    load(plan, pending()).await.unwrap()
}

#[tokio::test]
async fn an_open_loop_issues_what_its_schedule_says_and_waits_for_the_last() {
    let fake = Fake::start(1, 1);
    let report = run(&plan(&fake, Pace::Rate(200), 1000)).await;
    assert_eq!((report.operations, report.acknowledged), (200, 200));
    assert_eq!(fake.seen(), 200);
    assert_eq!((report.not_started, report.abandoned), (0, 0));
    assert!(report.throughput <= 200.0 && report.errors.is_empty());
    assert_eq!(report.latency_us.p999, None, "200 values do not support it");
    assert_eq!(fake.keys(), ["load/0", "load/1", "load/2", "load/3", "load/4"]);
}

/// While the member holds everything back, the schedule goes on; what was meant to start meanwhile
/// has to show the wait.
async fn stalled(clients: u32, arrive: u64) -> Report {
    let fake = Fake::start(1, 1);
    let plan = plan(&fake, Pace::Rate(100), clients);
    fake.set(Mode::Hold);
    let (report, ()) = tokio::join!(run(&plan), async {
        fake.wait_for(arrive).await;
        if arrive == 1 {
            // With a single slot nothing else arrives that could be awaited.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        fake.set(Mode::Serve);
    });
    report
}

#[tokio::test]
async fn latencies_count_from_the_intended_start() {
    // The 31st arrives 300 ms after the first was meant to start, at the earliest.
    let report = stalled(1000, 31).await;
    assert_eq!((report.acknowledged, report.not_started), (100, 0));
    let l = &report.latency_us;
    assert!(l.max.unwrap() >= 299_000.0, "{l:?}");
    // Ten more were meant to start in its first 100 ms, and so on: a staircase, not one outlier.
    assert!(l.p90.unwrap() >= 199_000.0, "{l:?}");
}

#[tokio::test]
async fn operations_that_cannot_start_in_time_count_from_then_all_the_same() {
    let report = stalled(1, 1).await;
    assert!(report.latency_us.max.unwrap() >= 299_000.0, "{report}");
    // The second was meant to start 10 ms after the first and did when that was answered.
    assert!(report.histogram.count_between(280_000_000, u64::MAX) >= 2, "{report}");
}

#[tokio::test]
async fn a_rate_that_cannot_be_kept_is_said_to_be_so() {
    let fake = Fake::start(1, 1);
    let mut plan = plan(&fake, Pace::Rate(100), 2);
    plan.duration = Duration::from_millis(300);
    fake.set(Mode::Hold);
    let (report, ()) = tokio::join!(run(&plan), async {
        fake.wait_for(2).await;
        // Beyond the end of the schedule, of which two operations have started.
        tokio::time::sleep(Duration::from_millis(400)).await;
        fake.set(Mode::Serve);
    });
    assert_eq!((report.operations, report.acknowledged), (2, 2));
    assert_eq!(report.not_started, 28);
    assert!(report.to_string().contains("NOT STARTED"), "{report}");
}

#[tokio::test]
async fn a_closed_loop_has_one_operation_per_client_under_way() {
    let fake = Fake::start(1, 1);
    let mut plan = plan(&fake, Pace::Max, 7);
    plan.reads = 0.5;
    fake.set(Mode::Hold);
    let (report, ()) = tokio::join!(run(&plan), async {
        fake.wait_for(7).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(fake.seen(), 7);
        fake.set(Mode::Serve);
    });
    assert!(report.acknowledged >= 7 && report.acknowledged == report.operations);
    assert_eq!(report.acknowledged, fake.seen());
    assert!(report.to_string().contains("service times"), "{report}");
}

#[tokio::test]
async fn what_goes_wrong_is_counted_by_kind() {
    let fake = Fake::start(1, 1);
    fake.set(Mode::Refuse(Code::ResourceExhausted, "etcdserver: too many requests".into()));
    let report = run(&plan(&fake, Pace::Rate(50), 1000)).await;
    assert_eq!((report.operations, report.acknowledged), (50, 0));
    let [errors] = &report.errors[..] else { panic!("{:?}", report.errors) };
    assert_eq!((errors.kind, errors.count), ("RESOURCE_EXHAUSTED", 50));
    assert_eq!(report.latency_us.max, None);
    let text = report.to_string();
    assert!(text.contains("50 x RESOURCE_EXHAUSTED (failed): etcdserver: too many"), "{text}");
}

#[tokio::test]
async fn an_interruption_ends_it_with_what_there_is() {
    let fake = Fake::start(1, 1);
    let mut plan = plan(&fake, Pace::Rate(100), 100);
    plan.duration = Duration::from_secs(3600);
    let report = load(&plan, async {
        fake.wait_for(20).await;
        fake.set(Mode::Hold);
        fake.wait_for(fake.seen() + 3).await;
    });
    let report = report.await.unwrap();
    assert!(report.interrupted && report.acknowledged >= 10, "{report:?}");
    assert!(report.abandoned >= 3 && report.measured_s < 3600.0);
}

#[tokio::test]
async fn seconds_and_percentiles_go_to_their_files() {
    let fake = Fake::start(1, 1);
    let dir = tempfile::tempdir().unwrap();
    let mut plan = plan(&fake, Pace::Rate(100), 1000);
    plan.warmup = Duration::from_millis(200);
    plan.duration = Duration::from_millis(2000);
    plan.csv = Some(dir.path().join("seconds.csv"));
    plan.hgrm = Some(dir.path().join("all.hgrm"));
    let report = run(&plan).await;
    assert_eq!(report.operations, 200);
    let text = fs::read_to_string(dir.path().join("seconds.csv")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "time_s,throughput,errors,p50_us,p99_us,max_us");
    assert!(lines[1].starts_with("0,") && lines[2].starts_with("1,"), "{text}");
    let count = |line: &str| line.split(',').nth(1).unwrap().parse::<u64>().unwrap();
    let counted: u64 = lines[1..].iter().map(|line| count(line)).sum();
    // Those of the warm-up's end may be among them.
    assert!((200..=220).contains(&counted), "{text}");
    let hgrm = fs::read_to_string(dir.path().join("all.hgrm")).unwrap();
    assert!(hgrm.contains("Total count    =          200]"), "{hgrm}");
    let last = hgrm.lines().rfind(|line| !line.starts_with('#')).unwrap();
    assert!(last.contains(" 1.000000000000        200"), "{hgrm}");
}

#[tokio::test]
async fn nobody_there_and_no_room_are_errors() {
    let mut fake = Fake::start(1, 1);
    fake.kill();
    let plan = plan(&fake, Pace::Max, 1);
    let error = load(&plan, pending()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&fake.address.to_string()) && text.contains("refused"), "{text}");
    assert!(matches!(error, LoadError::Unreachable(_)));
    let csv = Some("/no/such/folder/x.csv".into());
    let error = load(&Plan { csv, ..plan }, pending()).await.unwrap_err().to_string();
    assert!(error.contains("/no/such/folder/x.csv"), "{error}");
}
