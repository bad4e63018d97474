//! The probe against a member that serves, stalls, loses and dies.

mod fake;

use std::{collections::BTreeMap, fs, future::Future, path::PathBuf, time::Duration};

use fake::{Fake, Mode};
use sraft_client::probe::{Config, probe};
use tempfile::TempDir;

/// A row by its columns.
type Row = BTreeMap<String, String>;

struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Files {
        Files { dir: tempfile::tempdir().unwrap() }
    }

    fn ops(&self) -> PathBuf {
        self.dir.path().join("ops.csv")
    }

    fn config(&self, fakes: &[&Fake], rest: &str) -> Config {
        let endpoints: Vec<String> =
            fakes.iter().map(|fake| format!("\"{}\"", fake.address)).collect();
        let text = format!("trial = 7\nendpoints = [{}]\n{rest}", endpoints.join(","));
        let path = self.dir.path().join("probe.toml");
        fs::write(&path, text).unwrap();
        Config::read(&path).unwrap()
    }

    fn text(&self) -> String {
        fs::read_to_string(self.ops()).unwrap()
    }

    fn rows(&self) -> Vec<Row> {
        let text = self.text();
        let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
        reader.deserialize().map(|row| row.unwrap()).collect()
    }

    /// Runs the probe until `stop` is over.
    async fn run(&self, config: &Config, stop: impl Future<Output = ()>) {
        let ops = self.ops();
        let run = probe(config, &ops, stop);
        tokio::time::timeout(Duration::from_secs(40), run).await.unwrap().unwrap();
    }
}

fn of<'a>(rows: &'a [Row], op: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row["op"] == op).collect()
}

fn number(row: &Row, column: &str) -> u64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} of {row:?}"))
}

#[tokio::test]
async fn rows_keep_to_the_schedule_and_the_audit_finds_everything() {
    let (fake, files) = (Fake::start(1, 1), Files::new());
    let config = files.config(&[&fake], "rate = 200\nvalue_size = 20\ndeadline = \"30s\"\n");
    files.run(&config, fake.wait_for(50)).await;
    let text = files.text();
    let mut lines = text.lines();
    assert_eq!(
        lines.next().unwrap(),
        "trial,op,key,value,expected,intended_ns,start_ns,end_ns,outcome,found,revision,endpoint,error"
    );
    // The line of readiness comes after the first row, and once.
    assert!(lines.next().unwrap().starts_with("7,put,w/7/0000000000,7.0,,"), "{text}");
    assert_eq!(text.lines().filter(|line| *line == "# ready").count(), 1);

    let rows = files.rows();
    let mut puts = of(&rows, "put");
    puts.sort_by_key(|row| number(row, "intended_ns"));
    assert!(puts.len() >= 50);
    let first = number(puts[0], "intended_ns");
    for (n, row) in puts.iter().enumerate() {
        assert_eq!(row["key"], format!("w/7/{n:010}"));
        assert_eq!(row["value"], format!("7.{n}"));
        assert_eq!(number(row, "intended_ns"), first + n as u64 * 5_000_000);
        assert!(number(row, "start_ns") >= number(row, "intended_ns"));
        assert!(number(row, "end_ns") >= number(row, "start_ns"));
        assert_eq!((&*row["outcome"], &*row["error"]), ("ok", ""));
        assert_eq!(row["endpoint"], fake.address.to_string());
    }
    let [closing] = &of(&rows, "audit")[..] else { panic!("{text}") };
    assert_eq!((&*closing["key"], &*closing["outcome"]), ("", "ok"));
    assert_eq!(number(closing, "value"), puts.len() as u64);
    assert!(fake.keys().is_empty(), "the probe cleans up");
}

#[tokio::test]
async fn a_stall_shows_in_every_operation_that_was_meant_to_start_in_it() {
    let (fake, files) = (Fake::start(1, 1), Files::new());
    let config = files.config(&[&fake], "rate = 100\ndeadline = \"20s\"\n");
    files
        .run(&config, async {
            fake.wait_for(10).await;
            fake.set(Mode::Hold);
            // 300 ms of the schedule at least.
            fake.wait_for(fake.seen() + 31).await;
            fake.set(Mode::Serve);
        })
        .await;
    let rows = files.rows();
    let latency = |row: &&Row| (number(row, "end_ns") - number(row, "intended_ns")) / 1_000_000;
    let mut latencies: Vec<u64> = of(&rows, "put").iter().map(latency).collect();
    latencies.sort_unstable();
    latencies.reverse();
    assert!(latencies[0] >= 290 && latencies[9] >= 200 && latencies[19] >= 100, "{latencies:?}");
}

#[tokio::test]
async fn a_lost_write_is_named_and_one_without_an_answer_is_unknown() {
    let (fake, files) = (Fake::start(1, 1), Files::new());
    let config = files.config(&[&fake], "rate = 100\ndeadline = \"100ms\"\n");
    files
        .run(&config, async {
            fake.wait_for(20).await;
            assert!(fake.lose("w/7/0000000003"));
            assert!(fake.lose("w/7/0000000011"));
            fake.set(Mode::Hold);
            fake.wait_for(fake.seen() + 15).await;
            fake.set(Mode::Serve);
            fake.wait_for(fake.seen() + 5).await;
        })
        .await;
    let rows = files.rows();
    let missing: Vec<&str> = of(&rows, "audit")
        .into_iter()
        .filter(|row| row["found"] == "false")
        .map(|row| &*row["key"])
        .collect();
    assert!(missing.starts_with(&["w/7/0000000003", "w/7/0000000011"]), "{missing:?}");
    // What was given up is dropped by the fake, so it is missing, too, and nobody was promised it.
    let puts = of(&rows, "put");
    let unknown: Vec<_> = puts.iter().filter(|row| row["outcome"] == "unknown").collect();
    for row in &unknown {
        assert_eq!(row["end_ns"], "");
        assert!(row["error"].starts_with("deadline: "), "{row:?}");
    }
    assert!(!unknown.is_empty());
    let promised: Vec<&&str> = missing
        .iter()
        .filter(|key| puts.iter().any(|row| row["key"] == **key && row["outcome"] == "ok"))
        .collect();
    assert_eq!(promised.len(), 2, "{promised:?}");
    let found = number(rows.last().unwrap(), "value") as usize;
    assert_eq!(found + missing.len(), puts.len());
}

#[tokio::test]
async fn reads_and_swaps_tell_what_they_found() {
    let (fake, files) = (Fake::start(1, 1), Files::new());
    // What an earlier trial left, and what somebody else put there.
    fake.insert("r/0", "6.9------");
    fake.insert("r/1", "not\nours");
    let config = files
        .config(&[&fake], "rate = 500\nreads = 0.3\ncas = 0.3\nkeys = 3\ndeadline = \"30s\"\n");
    files.run(&config, fake.wait_for(400)).await;
    let rows = files.rows();
    let mut held: BTreeMap<&str, String> = BTreeMap::new();
    held.insert("r/0", "6.9".into());
    held.insert("r/1", "not ours".into());
    let mut registers: Vec<&Row> = rows.iter().filter(|row| row["key"].starts_with("r/")).collect();
    assert!(of(&rows, "get").len() > 60 && of(&rows, "cas").len() > 60);
    assert!(registers.iter().any(|row| row["op"] == "put"));
    // The fake carries them out one by one in the order in which it counts revisions; reads between
    // two writes have the revision of the first.
    let rank = |row: &Row| (number(row, "revision"), row["op"] == "get" || row["found"] == "false");
    registers.sort_by_key(|row| rank(row));
    for row in registers {
        let key = &*row["key"];
        let before = held.get(key).cloned();
        match (&*row["op"], &*row["found"]) {
            ("get", "true") => assert_eq!(Some(&row["value"]), before.as_ref(), "{row:?}"),
            ("get", "false") => assert_eq!((None, ""), (before, &*row["value"]), "{row:?}"),
            ("cas", found) => {
                let holds = row["expected"] == before.unwrap_or_default();
                assert_eq!(found == "true", holds, "{row:?}");
                if holds {
                    held.insert(key, row["value"].clone());
                }
            }
            ("put", "") => drop(held.insert(key, row["value"].clone())),
            _ => panic!("{row:?}"),
        }
    }
}

#[tokio::test]
async fn an_outage_is_seen_with_the_resolution_of_the_rate() {
    let (mut fake, files) = (Fake::start(1, 1), Files::new());
    let config = files.config(&[&fake], "rate = 200\n");
    let ops = files.ops();
    files
        .run(&config, async {
            fake.wait_for(20).await;
            fake.kill();
            // Until 40 operations have failed; the rows are the only witness.
            while fs::read_to_string(&ops).unwrap().matches(",failed,").count() < 40 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            fake.restart();
            fake.wait_for(fake.seen() + 20).await;
        })
        .await;
    let rows = files.rows();
    let mut puts = of(&rows, "put");
    puts.sort_by_key(|row| number(row, "intended_ns"));
    let gap = |pair: &[&Row]| number(pair[1], "intended_ns") - number(pair[0], "intended_ns");
    assert!(puts.windows(2).all(|pair| gap(pair) == 5_000_000));
    for row in puts.iter().filter(|row| row["outcome"] == "failed") {
        assert_eq!((&*row["end_ns"], &*row["endpoint"]), ("", ""));
        assert!(row["error"].contains("no connection"), "{row:?}");
    }
    assert!(puts.last().unwrap()["outcome"] == "ok");
}

#[tokio::test]
async fn an_audit_that_cannot_be_made_leaves_no_closing_row() {
    let (mut fake, files) = (Fake::start(1, 1), Files::new());
    let config = files.config(&[&fake], "rate = 100\ndeadline = \"50ms\"\n");
    files
        .run(&config, async {
            fake.wait_for(20).await;
            fake.kill();
        })
        .await;
    assert!(of(&files.rows(), "audit").is_empty());
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_an_error() {
    let (fake, files) = (Fake::start(1, 1), Files::new());
    let config = files.config(&[&fake], "rate = 1\n");
    let path = files.dir.path().join("no/such/ops.csv");
    let error = probe(&config, &path, std::future::pending()).await.unwrap_err().to_string();
    assert!(error.contains("no/such/ops.csv"), "{error}");
}
