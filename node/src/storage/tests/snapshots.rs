use sraft_core::{PersistSnapshot, Snapshot};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;

fn state(index: Index) -> Arc<[u8]> {
    format!("the state after entry {index}").repeat(3).into_bytes().into()
}

fn snapshot(last_index: Index, last_term: Term) -> Snapshot {
    Snapshot { last_index, last_term, data: state(last_index) }
}

fn own(ticket: u64, index: Index, term: Term) -> Persist {
    let snapshot = snapshot(index, term);
    let persist = PersistSnapshot { first_index: index + 1, reset: false, snapshot };
    Persist { snapshot: Some(persist), ..write(ticket, None, Vec::new()) }
}

fn from_leader(ticket: u64, index: Index, term: Term, entries: Vec<Entry>) -> Persist {
    let snapshot = snapshot(index, term);
    let persist = PersistSnapshot { first_index: index + 1, reset: true, snapshot };
    Persist { snapshot: Some(persist), ..write(ticket, Some((term, 1)), entries) }
}

struct Running {
    storage: Storage,
    reports: UnboundedReceiver<Report>,
}

fn start(dir: &Path) -> Running {
    let (disk, _) = open(dir).unwrap();
    let (reporter, reports) = tokio::sync::mpsc::unbounded_channel();
    Running { storage: Storage::start(disk, reporter).unwrap(), reports }
}

impl Running {
    /// Persists, and waits until that is durable, and a snapshot of the node's own too.
    fn persist(&mut self, persist: Persist) {
        let ticket = persist.ticket;
        let wanted = persist.snapshot.as_ref().filter(|snapshot| !snapshot.reset);
        let wanted = wanted.map_or(0, |wanted| wanted.snapshot.last_index);
        self.storage.persist(persist);
        let (mut durable, mut covered) = (0, 0);
        while durable < ticket || covered < wanted {
            match self.reports.blocking_recv().unwrap() {
                Report::Durable { ticket, .. } => durable = ticket,
                Report::Snapshot { index, bytes, .. } => {
                    assert_eq!(bytes, state(index).len() as u64);
                    covered = index;
                }
                Report::Failed(error) => panic!("{error}"),
            }
        }
    }
}

/// Names of the snapshot files.
fn files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("snapshot")).collect();
    names.sort();
    names
}

fn file(index: Index) -> String {
    format!("snapshot-{index:020}")
}

/// Ten entries of term 3, of which a snapshot covers seven.
fn covered() -> tempfile::TempDir {
    let dir = filled();
    start(dir.path()).persist(own(4, 7, 3));
    dir
}

#[test]
fn a_snapshot_and_the_log_after_it_are_restored() {
    let dir = covered();
    assert_eq!(files(dir.path()), [file(7)]);
    let (mut disk, restored) = open(dir.path()).unwrap();
    assert_eq!(restored.snapshot, Some(snapshot(7, 3)));
    assert_eq!(restored.entries, entries(8, 10, 3));
    // What it covers goes bit by bit, even if that was interrupted.
    while disk.trim().unwrap() {}
    disk.write(vec![write(1, None, entries(11, 12, 3))]).unwrap();
    drop(disk);
    let mut running = start(dir.path());
    running.persist(own(1, 9, 3));
    running.persist(own(2, 12, 3));
    running.persist(write(3, None, entries(13, 13, 3)));
    drop(running);
    assert_eq!(files(dir.path()), [file(12)]);
    let (disk, restored) = open(dir.path()).unwrap();
    assert_eq!(restored.snapshot, Some(snapshot(12, 3)));
    assert_eq!(restored.entries, entries(13, 13, 3));
    drop(disk);
}

#[test]
fn a_snapshot_from_the_leader_replaces_the_log() {
    // It may end within the log, of which the end is another history, or far beyond it.
    for (index, then) in [(6, 8), (10, 10), (10, 12), (500, 500), (500, 501)] {
        let dir = filled();
        let entries = entries(index + 1, then, 5);
        start(dir.path()).persist(from_leader(4, index, 5, entries.clone()));
        let (mut disk, restored) = open(dir.path()).unwrap();
        assert_eq!(restored.snapshot, Some(snapshot(index, 5)));
        assert_eq!(restored.entries, entries);
        assert_eq!(restored.hard_state, HardState { term: 5, voted_for: Some(1) });
        assert_eq!(files(dir.path()), [file(index)]);
        while disk.trim().unwrap() {}
        drop(disk);
        assert_eq!(open(dir.path()).unwrap().1.entries, entries);
    }
}

#[test]
fn the_end_of_the_log_is_replaced_down_to_the_snapshot() {
    let dir = covered();
    let (mut disk, _) = open(dir.path()).unwrap();
    disk.write(vec![write(1, Some((4, 2)), entries(8, 8, 4))]).unwrap();
    drop(disk);
    let (_disk, restored) = open(dir.path()).unwrap();
    assert_eq!(restored.entries, entries(8, 8, 4));
}

#[test]
fn a_snapshot_that_another_has_overtaken_is_dropped() {
    let dir = filled();
    let (mut disk, _) = open(dir.path()).unwrap();
    disk.replace_by(&snapshot(20, 4), Some(HardState { term: 4, voted_for: None })).unwrap();
    // The thread that wrote it was slower than the leader.
    let abandoned = AtomicBool::new(false);
    assert!(super::super::snapshots::write(dir.path(), &snapshot(10, 3), &abandoned).unwrap());
    assert!(!disk.continue_from(Base { index: 10, term: 3 }).unwrap());
    assert_eq!(files(dir.path()), [file(20)]);
    drop(disk);
    assert_eq!(open(dir.path()).unwrap().1.snapshot, Some(snapshot(20, 4)));
}

#[test]
fn a_snapshot_that_was_not_finished_is_as_if_it_had_not_begun() {
    let dir = covered();
    let abandoned = AtomicBool::new(true);
    assert!(!super::super::snapshots::write(dir.path(), &snapshot(9, 3), &abandoned).unwrap());
    assert_eq!(files(dir.path()), [file(7)]);
    // Killed while it was written, and killed before the log was told.
    fs::write(dir.path().join(file(9) + ".new"), b"half").unwrap();
    abandoned.store(false, Ordering::Relaxed);
    assert!(super::super::snapshots::write(dir.path(), &snapshot(10, 3), &abandoned).unwrap());
    // Killed before the one before was removed.
    fs::copy(dir.path().join(file(7)), dir.path().join(file(5))).unwrap();
    fs::write(dir.path().join("snapshot-notes.txt"), b"not ours").unwrap();
    let (_disk, restored) = open(dir.path()).unwrap();
    assert_eq!(restored.snapshot, Some(snapshot(7, 3)));
    assert_eq!(restored.entries, entries(8, 10, 3));
    assert_eq!(files(dir.path()), [file(7), "snapshot-notes.txt".to_owned()]);
}

#[test]
fn a_damaged_snapshot_keeps_the_node_from_starting() {
    let dir = covered();
    let path = dir.path().join(file(7));
    let whole = fs::read(&path).unwrap();
    let refused = |what: &str| {
        let error = open(dir.path()).unwrap_err();
        assert!(matches!(error, StorageError::Damaged { .. }), "{what}: {error}");
        let text = error.to_string();
        assert!(text.contains(&file(7)) && text.contains("backup"), "{what}: {text}");
        assert!(!text.contains('\n'), "{text}");
    };
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&path, &flipped).unwrap();
        refused(&format!("byte {at}"));
    }
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        refused(&format!("{length} bytes"));
    }
    fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
    refused("one byte more");
    fs::remove_file(&path).unwrap();
    refused("missing");
    fs::create_dir(&path).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.to_string().contains(&file(7)), "{error}");
    fs::remove_dir(&path).unwrap();
    // A whole one of another place does not do either.
    let other = covered();
    start(other.path()).persist(own(1, 9, 3));
    fs::copy(other.path().join(file(9)), &path).unwrap();
    refused("another place");
    fs::write(&path, &whole).unwrap();
    assert_eq!(open(dir.path()).unwrap().1.snapshot, Some(snapshot(7, 3)));
}

#[test]
fn a_log_that_does_not_reach_as_far_as_promised_is_missed() {
    let dir = covered();
    let (mut disk, _) = open(dir.path()).unwrap();
    let before = copy(dir.path());
    disk.write(vec![write(1, None, entries(11, 11, 3))]).unwrap();
    drop(disk);
    fs::copy(dir.path().join("watermark"), before.path().join("watermark")).unwrap();
    let error = open(before.path()).unwrap_err();
    assert!(error.to_string().contains("entry 11 was durable"), "{error}");
    // A disk that forgets the change from one snapshot to the next has also lost what only the
    // older one could replace.
    let before = copy(dir.path());
    start(dir.path()).persist(own(1, 11, 3));
    fs::remove_file(before.path().join(file(7))).unwrap();
    fs::copy(dir.path().join(file(11)), before.path().join(file(11))).unwrap();
    let error = open(before.path()).unwrap_err();
    assert!(error.to_string().contains("is not there"), "{error}");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write { back: u64, count: u64, rise: u64 },
    Own { back: u64 },
    Leader { beyond: u64, back: u64 },
    Trim,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..5, 1u64..400, 0u64..3)
            .prop_map(|(back, count, rise)| Step::Write { back, count, rise }),
        2 => (0u64..5).prop_map(|back| Step::Own { back }),
        1 => (0u64..300, 0u64..5).prop_map(|(beyond, back)| Step::Leader { beyond, back }),
        1 => Just(Step::Trim),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_history_with_snapshots_is_restored(steps in prop::collection::vec(step(), 1..25)) {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = open(dir.path()).unwrap().0;
        // The model: where the log begins, its entries, the term.
        let (mut base, mut log, mut term) = (Base::default(), Vec::<Entry>::new(), 1);
        let steps = steps.into_iter().chain([Step::Reopen]);
        for step in steps {
            let last = base.index + log.len() as u64;
            match step {
                Step::Write { back, count, rise } => {
                    term += rise;
                    let from = (last + 1).saturating_sub(back).max(base.index + 1);
                    let new = entries(from, from + count - 1, term);
                    log.truncate((from - base.index) as usize - 1);
                    log.extend(new.clone());
                    disk.write(vec![write(1, Some((term, 1)), new)]).unwrap();
                }
                Step::Own { back } => {
                    let index = last.saturating_sub(back);
                    if index <= base.index {
                        continue;
                    }
                    let covered: Vec<Entry> = log.drain(..(index - base.index) as usize).collect();
                    base = Base { index, term: covered.last().unwrap().term };
                    let snapshot = snapshot(base.index, base.term);
                    super::super::snapshots::write(dir.path(), &snapshot, &false.into()).unwrap();
                    assert!(disk.continue_from(base).unwrap());
                }
                Step::Leader { beyond, back } => {
                    let index = (last + beyond).saturating_sub(back).max(base.index + 1);
                    term += 1;
                    (base, log) = (Base { index, term }, Vec::new());
                    let hard_state = HardState { term, voted_for: None };
                    disk.replace_by(&snapshot(index, term), Some(hard_state)).unwrap();
                }
                Step::Trim => {
                    disk.trim().unwrap();
                }
                Step::Reopen => {
                    drop(disk);
                    let (opened, restored) = open(dir.path()).unwrap();
                    disk = opened;
                    let expected = (base.index > 0).then(|| snapshot(base.index, base.term));
                    prop_assert_eq!(restored.snapshot, expected);
                    prop_assert_eq!(restored.entries, log.clone());
                }
            }
        }
    }
}

fn bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let sizes = fs::read_dir(dir).unwrap().map(|file| {
        let file = file.unwrap();
        // The engine may remove it at any time.
        let Ok(data) = file.metadata() else { return 0 };
        if data.is_dir() { bytes(&file.path()) } else { data.blocks() * 512 }
    });
    sizes.sum()
}

#[test]
fn the_disk_holds_no_more_however_much_is_written() {
    const MIB: u64 = 1 << 20;
    let at_length = std::env::var_os("SRAFT_AT_LENGTH").is_some();
    let total = if at_length { 4096 * MIB } else { 320 * MIB };
    let dir = tempfile::tempdir().unwrap();
    let mut running = start(dir.path());
    let command = vec![7; 4096];
    let (mut index, mut most) = (0, 0);
    for ticket in 1..=total / MIB {
        let next = (index + 1..=index + 256).map(|index| entry(index, 1, &command)).collect();
        index += 256;
        running.persist(write(2 * ticket, Some((1, 1)), next));
        if ticket % 8 == 0 {
            running.persist(own(2 * ticket + 1, index, 1));
            most = most.max(bytes(dir.path()));
        }
    }
    drop(running);
    // Two of the engine's journals of 64 MiB, its tables, and 8 MiB of log.
    assert!(most < 200 * MIB, "{} MiB", most / MIB);
    let (_disk, restored) = open(dir.path()).unwrap();
    assert_eq!(restored.snapshot.unwrap().last_index, index);
    assert!(restored.entries.is_empty());
}
