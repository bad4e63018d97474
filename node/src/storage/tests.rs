use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use sraft_core::{Entry, HardState, Index, Restored, Term};

use super::*;

mod snapshots;

fn identity() -> Identity {
    Identity { cluster: "c".to_owned(), node: 2 }
}

fn open(dir: &Path) -> Result<(Disk, Restored), StorageError> {
    Disk::open(dir, &identity())
}

fn entry(index: Index, term: Term, command: &[u8]) -> Entry {
    Entry { index, term, command: command.to_vec() }
}

fn entries(from: Index, to: Index, term: Term) -> Vec<Entry> {
    (from..=to).map(|index| entry(index, term, format!("command {index}").as_bytes())).collect()
}

fn write(ticket: u64, hard_state: Option<(Term, u64)>, entries: Vec<Entry>) -> Persist {
    let hard_state = hard_state.map(|(term, vote)| HardState { term, voted_for: Some(vote) });
    Persist { ticket, hard_state, snapshot: None, entries }
}

/// A directory with ten entries of term 3, written in three groups.
fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut disk, restored) = open(dir.path()).unwrap();
    assert!(restored.entries.is_empty());
    disk.write(vec![write(1, Some((3, 1)), entries(1, 4, 3))]).unwrap();
    disk.write(vec![write(2, None, entries(5, 9, 3))]).unwrap();
    disk.write(vec![write(3, Some((3, 1)), entries(10, 10, 3))]).unwrap();
    dir
}

/// The engine's write-ahead journal: where everything is until a first flush.
fn engine_journal(dir: &Path) -> PathBuf {
    let mut all: Vec<PathBuf> = fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn position(bytes: &[u8], of: &[u8]) -> usize {
    bytes.windows(of.len()).position(|window| window == of).unwrap()
}

fn copy(from: &Path) -> tempfile::TempDir {
    fn walk(from: &Path, to: &Path) {
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            let to = to.join(file.file_name());
            if file.file_type().unwrap().is_dir() {
                fs::create_dir(&to).unwrap();
                walk(&file.path(), &to);
            } else {
                fs::copy(file.path(), to).unwrap();
            }
        }
    }
    let to = tempfile::tempdir().unwrap();
    walk(from, to.path());
    to
}

#[test]
fn what_was_written_is_restored() {
    let dir = filled();
    let (mut disk, restored) = open(dir.path()).unwrap();
    assert_eq!(restored.hard_state, HardState { term: 3, voted_for: Some(1) });
    assert_eq!(restored.entries, entries(1, 10, 3));
    // A new leader replaces the end, by fewer entries than there were.
    disk.write(vec![write(1, Some((5, 4)), entries(8, 8, 5))]).unwrap();
    drop(disk);
    let (_disk, restored) = open(dir.path()).unwrap();
    assert_eq!(restored.hard_state, HardState { term: 5, voted_for: Some(4) });
    let mut expected = entries(1, 7, 3);
    expected.extend(entries(8, 8, 5));
    assert_eq!(restored.entries, expected);
}

#[test]
fn a_group_is_one_state_whatever_its_writes_replace() {
    let dir = filled();
    let (mut disk, _) = open(dir.path()).unwrap();
    let group = vec![
        write(4, Some((4, 2)), entries(9, 12, 4)),
        write(5, None, entries(11, 11, 4)),
        write(6, Some((6, 3)), entries(7, 8, 6)),
        write(7, None, entries(9, 9, 6)),
    ];
    assert_eq!(disk.write(group).unwrap(), 7);
    drop(disk);
    let (_disk, restored) = open(dir.path()).unwrap();
    let mut expected = entries(1, 6, 3);
    expected.extend(entries(7, 9, 6));
    assert_eq!(restored.entries, expected);
    assert_eq!(restored.hard_state, HardState { term: 6, voted_for: Some(3) });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_history_of_writes_is_restored(
        steps in prop::collection::vec((0u64..6, 1u64..5, 1usize..4, any::<bool>()), 1..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = open(dir.path()).unwrap();
        let mut log: Vec<Entry> = Vec::new();
        let mut term = 1;
        let mut group = Vec::new();
        for (ticket, (back, count, rise, flush)) in steps.into_iter().enumerate() {
            term += rise as u64;
            let from = (log.len() as u64 + 1).saturating_sub(back).max(1);
            let new = entries(from, from + count - 1, term);
            log.truncate(from as usize - 1);
            log.extend(new.clone());
            group.push(write(ticket as u64, Some((term, 1)), new));
            if flush {
                disk.write(std::mem::take(&mut group)).unwrap();
            }
        }
        if !group.is_empty() {
            disk.write(group).unwrap();
        }
        drop(disk);
        let (_disk, restored) = open(dir.path()).unwrap();
        prop_assert_eq!(restored.entries, log);
        prop_assert_eq!(restored.hard_state.term, term);
    }
}

#[test]
fn a_torn_tail_that_was_never_acknowledged_is_dropped() {
    let dir = filled();
    let journal = engine_journal(dir.path());
    let watermark = dir.path().join("watermark");
    let before = fs::read(&watermark).unwrap();
    let (mut disk, _) = open(dir.path()).unwrap();
    disk.write(vec![write(4, None, entries(11, 11, 3))]).unwrap();
    drop(disk);
    // As after a kill within the write: half of it is there, and the watermark is the older one.
    let length = fs::metadata(&journal).unwrap().len();
    fs::OpenOptions::new().write(true).open(&journal).unwrap().set_len(length - 9).unwrap();
    fs::write(&watermark, before).unwrap();
    let (_disk, restored) = open(dir.path()).unwrap();
    assert_eq!(restored.entries, entries(1, 10, 3));
}

#[test]
fn a_tail_that_was_acknowledged_is_missed() {
    let dir = filled();
    let journal = engine_journal(dir.path());
    let bytes = fs::read(&journal).unwrap();
    let cut = position(&bytes, b"command 10") as u64;
    fs::OpenOptions::new().write(true).open(&journal).unwrap().set_len(cut).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, StorageError::Lost { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("entry 10 was durable") && text.contains("watermark"), "{text}");
}

#[test]
fn every_flipped_byte_is_noticed_or_harmless() {
    let dir = filled();
    // The engine cuts what it has allocated ahead when it reopens: less to copy below.
    drop(open(dir.path()).unwrap());
    let bytes = fs::read(engine_journal(dir.path())).unwrap();
    let end = position(&bytes, b"command 10") + b"command 10".len();
    let mut refused = 0;
    for at in (0..end).step_by(7) {
        let copy = copy(dir.path());
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x20;
        fs::write(engine_journal(copy.path()), &flipped).unwrap();
        match open(copy.path()) {
            Ok((_disk, restored)) => {
                assert_eq!(restored.entries, entries(1, 10, 3), "byte {at}");
                assert_eq!(restored.hard_state.term, 3, "byte {at}");
            }
            Err(error @ (StorageError::Damaged { .. } | StorageError::Lost { .. })) => {
                refused += 1;
                assert!(error.to_string().contains("log"), "byte {at}: {error}");
            }
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn a_flipped_byte_in_a_command_is_damage() {
    let dir = filled();
    let journal = engine_journal(dir.path());
    let mut bytes = fs::read(&journal).unwrap();
    let at = position(&bytes, b"command 6");
    bytes[at] ^= 1;
    fs::write(&journal, &bytes).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[test]
fn missing_and_garbled_files_of_the_engine_are_errors() {
    let dir = filled();
    drop(open(dir.path()).unwrap());
    for file in ["version", "lock", "keyspaces", "keyspaces/0", "keyspaces/1"] {
        for garble in [false, true] {
            let copy = copy(dir.path());
            let path = copy.path().join("log").join(file);
            if !path.exists() {
                continue;
            }
            if path.is_dir() {
                fs::remove_dir_all(&path).unwrap();
                if garble {
                    fs::write(&path, b"garbage").unwrap();
                }
            } else if garble {
                fs::write(&path, b"garbage").unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
            // A lost lock file takes nothing with it; all else must be noticed.
            match open(copy.path()) {
                Ok((_disk, restored)) => {
                    assert_eq!(restored.entries, entries(1, 10, 3), "{file} {garble}");
                }
                Err(error) => assert!(!error.to_string().contains('\n'), "{file}: {error}"),
            }
        }
    }
}

#[test]
fn a_disk_that_forgets_a_vote_is_noticed() {
    let dir = filled();
    let old = copy(dir.path());
    let (mut disk, _) = open(dir.path()).unwrap();
    disk.write(vec![write(1, Some((4, 5)), Vec::new())]).unwrap();
    drop(disk);
    // The log of before, the watermark of after.
    fs::copy(dir.path().join("watermark"), old.path().join("watermark")).unwrap();
    let error = open(old.path()).unwrap_err();
    assert!(error.to_string().contains("term 4 was durable"), "{error}");
    // The remedy that the message names works.
    fs::remove_file(old.path().join("watermark")).unwrap();
    open(old.path()).unwrap();
}

#[test]
fn a_damaged_watermark_is_an_error() {
    let dir = filled();
    fs::write(dir.path().join("watermark"), b"SRAFTWM1").unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("watermark is damaged"), "{error}");
}

#[test]
fn a_directory_serves_one_process_and_one_identity() {
    let dir = filled();
    let (disk, _) = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, StorageError::Locked { .. }), "{error}");
    drop(disk);
    for other in [
        Identity { cluster: "d".to_owned(), node: 2 },
        Identity { cluster: "c".to_owned(), node: 1 },
    ] {
        let error = Disk::open(dir.path(), &other).unwrap_err();
        assert!(matches!(error, StorageError::OtherIdentity { .. }), "{error}");
    }
    fs::remove_file(dir.path().join("identity.toml")).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("identity.toml is damaged"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = open(&file).unwrap_err();
    assert!(error.to_string().contains("/file"), "{error}");

    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let result = open(&closed);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    // The superuser may read everything.
    if !rustix::process::geteuid().is_root() {
        let error = result.unwrap_err();
        assert!(error.to_string().contains("closed"), "{error}");
    }
}

#[test]
fn the_thread_reports_tickets_in_order_and_covers_all_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, _) = open(dir.path()).unwrap();
    let (reporter, mut reports) = tokio::sync::mpsc::unbounded_channel();
    let storage = Storage::start(disk, reporter).unwrap();
    for ticket in 1..=200 {
        storage.persist(write(ticket, Some((1, 1)), entries(ticket, ticket, 1)));
    }
    let (mut last, mut tickets, mut groups) = (0, 0, 0);
    while last < 200 {
        match reports.blocking_recv().unwrap() {
            Report::Durable { ticket, tickets: written, .. } => {
                assert!(ticket > last);
                last = ticket;
                tickets += written;
                groups += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(tickets, 200);
    assert!(groups < 200, "the first sync takes far longer than queueing the rest");
    drop(storage);
    assert_eq!(open(dir.path()).unwrap().1.entries.len(), 200);
}

#[test]
fn a_failed_write_is_the_last_thing_that_is_reported() {
    let dir = filled();
    let (disk, _) = open(dir.path()).unwrap();
    disk.lose_entry(9);
    let (reporter, mut reports) = tokio::sync::mpsc::unbounded_channel();
    let storage = Storage::start(disk, reporter).unwrap();
    storage.persist(write(1, None, entries(10, 12, 3)));
    let error = match reports.blocking_recv() {
        Some(Report::Failed(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(error.to_string().contains("entry 9 cannot be read"), "{error}");
    storage.persist(write(2, Some((4, 1)), Vec::new()));
    assert!(reports.blocking_recv().is_none());
}

#[test]
fn a_panic_of_the_engine_is_an_error() {
    let failed = |path, what| StorageError::Write { path, what };
    let error = unpanicked(Path::new("/d/log"), failed, || -> Result<(), _> { panic!("lost") });
    let text = error.unwrap_err().to_string();
    assert!(text.contains("/d/log: the storage engine gave up: lost"), "{text}");
}
