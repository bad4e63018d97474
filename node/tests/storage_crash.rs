//! A process that does nothing but write is killed at random moments. Whatever it said was durable
//! must be there, and the directory must open.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use sraft_core::{Entry, HardState, Index, Persist, PersistSnapshot, Restored, Snapshot};
use sraft_node::storage::{Disk, Identity, Report, Storage};

/// Names the directory, and tells the child that it is the child.
const DIR: &str = "SRAFT_TEST_CRASH_DIR";

fn open(dir: &Path) -> (Disk, Restored) {
    Disk::open(dir, &Identity { cluster: "c".to_owned(), node: 2 })
        .unwrap_or_else(|error| panic!("{error}"))
}

fn state(index: Index) -> Arc<[u8]> {
    // Several pieces long, so that a kill may come between them.
    let mut state = vec![index as u8; 3 << 20];
    state[..8].copy_from_slice(&index.to_le_bytes());
    state.into()
}

/// Every entry of the log follows from its index.
fn expected(index: Index) -> Entry {
    let command = format!("command {index}").repeat(20).into_bytes();
    Entry { index, term: 1 + index / 50, command }
}

/// The child: writes on from where it was, and says what is durable, until it is killed.
fn write_on(dir: &Path) {
    let (disk, restored) = open(dir);
    let covered = restored.snapshot.map_or(0, |snapshot| snapshot.last_index);
    let mut last = restored.entries.last().map_or(covered, |entry| entry.index);
    let (reporter, mut reports) = tokio::sync::mpsc::unbounded_channel();
    let storage = Storage::start(disk, reporter).unwrap();
    let mut ends = std::collections::BTreeMap::new();
    for ticket in 1.. {
        let leap = ticket % 23 == 0;
        let first = if leap { last + 40 } else { last + 1 };
        let new: Vec<Entry> = (first..first + 1 + ticket % 9).map(expected).collect();
        let term = new[new.len() - 1].term;
        let at = first - 1;
        let reset = leap;
        let snapshot = (leap || (ticket % 7 == 0 && at > 0)).then(|| PersistSnapshot {
            snapshot: Snapshot { last_index: at, last_term: expected(at).term, data: state(at) },
            first_index: first,
            reset,
        });
        last = new[new.len() - 1].index;
        ends.insert(ticket, last);
        let hard_state = Some(HardState { term, voted_for: Some(1) });
        storage.persist(Persist { ticket, hard_state, snapshot, entries: new });
        // A few at a time are under way.
        while ends.len() > 3 {
            match reports.blocking_recv().unwrap() {
                Report::Durable { ticket, .. } => {
                    let durable = ends[&ticket];
                    ends = ends.split_off(&(ticket + 1));
                    let mut out = std::io::stdout();
                    writeln!(out, "durable {durable}").and_then(|()| out.flush()).unwrap();
                }
                Report::Snapshot { .. } => {}
                Report::Failed(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_durable() {
    // The child is this very test, started anew with the variable set.
    if let Some(dir) = std::env::var_os(DIR) {
        return write_on(Path::new(&dir));
    }
    let rounds = if std::env::var_os("SRAFT_AT_LENGTH").is_some() { 300 } else { 15 };
    let dir = tempfile::tempdir().unwrap();
    let mut luck = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut promised, mut snapshots) = (0, 0);
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_kill_at_any_moment_loses_nothing_that_was_durable", "--nocapture"])
            .env(DIR, dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let durable = |line: &str| line.split_once("durable ")?.1.parse::<Index>().ok();
        let mut count = (luck >> 33) % 60;
        while count > 0 {
            let line = lines.next().expect("it writes until it is killed").unwrap();
            if let Some(index) = durable(&line) {
                promised = promised.max(index);
                count -= 1;
            }
        }
        // Not only at the moments at which something was said.
        std::thread::sleep(Duration::from_micros((luck >> 20) % 20_000));
        child.kill().unwrap();
        for line in lines {
            promised = promised.max(durable(&line.unwrap()).unwrap_or(0));
        }
        child.wait().unwrap();
        let (disk, restored) = open(dir.path());
        let covered = restored.snapshot.as_ref().map_or(0, |snapshot| snapshot.last_index);
        if let Some(snapshot) = restored.snapshot {
            assert_eq!(snapshot.data, state(covered), "round {round}");
            snapshots += 1;
        }
        let last = restored.entries.last().map_or(covered, |entry| entry.index);
        assert!(last >= promised, "round {round}: {promised} was durable, {last} is there");
        let found = restored.entries;
        assert_eq!(found, (covered + 1..=last).map(expected).collect::<Vec<_>>());
        drop(disk);
    }
    assert!(snapshots > 0 && promised > 100, "{snapshots} snapshots, {promised} entries");
}
