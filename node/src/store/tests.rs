//! The store against a model that keeps the whole history as a list and derives everything by
//! walking it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use sraft_core::Entry;

use super::*;

/// Every change there ever was: at which revision, of which key, to what.
#[derive(Clone, Debug, Default)]
struct Model {
    history: Vec<(Revision, Bytes, Option<Bytes>)>,
}

impl Model {
    fn revision(&self) -> Revision {
        self.history.last().map_or(1, |(revision, ..)| *revision)
    }

    fn pairs(&self, keys: &KeyRange) -> Vec<KeyValue> {
        let mut alive: BTreeMap<Bytes, Record> = BTreeMap::new();
        for (revision, key, value) in self.history.clone() {
            let old = alive.remove(&key);
            let Some(value) = value else { continue };
            let (created, version) =
                old.map_or((revision, 1), |old| (old.created, old.version + 1));
            alive.insert(key, Record { value, created, modified: revision, version });
        }
        let pairs = alive.into_iter().map(|(key, record)| KeyValue { key, record });
        pairs.filter(|pair| keys.contains(&pair.key)).collect()
    }

    fn list(&self, query: &Query) -> Listed {
        let mut pairs = self.pairs(&query.keys);
        let count = pairs.len() as u64;
        if query.count_only {
            return Listed { pairs: Vec::new(), more: false, count };
        }
        pairs.retain(|pair| {
            let (min, max) = query.modified;
            let modified = pair.record.modified;
            (min == 0 || modified >= min) && (max == 0 || modified <= max)
        });
        pairs.retain(|pair| {
            let (min, max) = query.created;
            let created = pair.record.created;
            (min == 0 || created >= min) && (max == 0 || created <= max)
        });
        // Insertion of each pair behind all that are not greater: stable by construction.
        let mut sorted: Vec<KeyValue> = Vec::new();
        for pair in pairs {
            let before = |other: &KeyValue| {
                let order = match query.order.by {
                    SortKey::Key => pair.key.cmp(&other.key),
                    SortKey::Version => pair.record.version.cmp(&other.record.version),
                    SortKey::Created => pair.record.created.cmp(&other.record.created),
                    SortKey::Modified => pair.record.modified.cmp(&other.record.modified),
                    SortKey::Value => pair.record.value.cmp(&other.record.value),
                };
                if query.order.descending { order.is_gt() } else { order.is_lt() }
            };
            let place = sorted.iter().position(before).unwrap_or(sorted.len());
            sorted.insert(place, pair);
        }
        let limit = if query.limit == 0 { sorted.len() } else { query.limit as usize };
        let more = sorted.len() > limit;
        sorted.truncate(limit);
        if query.keys_only {
            sorted.iter_mut().for_each(|pair| pair.record.value = Bytes::new());
        }
        Listed { pairs: sorted, more, count }
    }

    fn get(&self, key: &Bytes) -> Option<KeyValue> {
        self.pairs(&KeyRange::One(key.clone())).pop()
    }

    fn action(&mut self, action: &Action, at: Revision, before: &Model) -> Told {
        match action {
            Action::Range(query) => {
                let model = if query.revision == before.revision() { before } else { &*self };
                Told::Range(self.revision(), model.list(query))
            }
            Action::Put(put) => {
                let old = self.get(&put.key);
                let value = match &old {
                    Some(old) if put.ignore_value => old.record.value.clone(),
                    _ => put.value.clone(),
                };
                self.history.push((at, put.key.clone(), Some(value)));
                Told::Put(self.revision(), old.filter(|_| put.previous))
            }
            Action::Delete(delete) => {
                let old = self.pairs(&delete.keys);
                self.history.extend(old.iter().map(|pair| (at, pair.key.clone(), None)));
                let count = old.len() as u64;
                Told::Deleted(self.revision(), count, if delete.previous { old } else { vec![] })
            }
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let pairs = self.pairs(&compare.keys);
        let check = |version: i64, created: i64, modified: i64, value: Option<&Bytes>| {
            let order = match &compare.test {
                Test::Version(given) => version.cmp(given),
                Test::Created(given) => created.cmp(given),
                Test::Modified(given) => modified.cmp(given),
                Test::Value(given) => match value {
                    None => return false,
                    Some(value) => value.cmp(given),
                },
            };
            let relations: &[Relation] = match order {
                std::cmp::Ordering::Equal => &[Relation::Equal],
                std::cmp::Ordering::Less => &[Relation::Less, Relation::NotEqual],
                std::cmp::Ordering::Greater => &[Relation::Greater, Relation::NotEqual],
            };
            relations.contains(&compare.relation)
        };
        if pairs.is_empty() {
            return check(0, 0, 0, None);
        }
        pairs.iter().all(|KeyValue { record, .. }| {
            check(record.version, record.created, record.modified, Some(&record.value))
        })
    }

    fn perform(&mut self, op: &Op) -> (Revision, Result<(bool, Vec<Told>), Refusal>) {
        let before = self.clone();
        let (succeeded, actions) = match op {
            Op::Put(put) => (true, vec![Action::Put(put.clone())]),
            Op::Delete(delete) => (true, vec![Action::Delete(delete.clone())]),
            Op::Txn(txn) => {
                let holds = txn.compares.iter().all(|compare| self.holds(compare));
                (holds, if holds { txn.success.clone() } else { txn.failure.clone() })
            }
        };
        for action in &actions {
            let refusal = match action {
                Action::Put(put) if put.ignore_value && self.get(&put.key).is_none() => {
                    Refusal::KeyNotFound
                }
                Action::Range(query) if query.revision > self.revision() => Refusal::FutureRevision,
                Action::Range(query) if query.revision > 0 && query.revision < self.revision() => {
                    Refusal::OldRevision
                }
                _ => continue,
            };
            return (self.revision(), Err(refusal));
        }
        let at = before.revision() + 1;
        let told = actions.iter().map(|action| self.action(action, at, &before)).collect();
        (self.revision(), Ok((succeeded, told)))
    }
}

/// What a part of a request is answered with.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Range(Revision, Listed),
    Put(Revision, Option<KeyValue>),
    Deleted(Revision, u64, Vec<KeyValue>),
}

/// The same of an outcome of the store.
fn told(outcome: &Outcome) -> (Revision, Result<(bool, Vec<Told>), Refusal>) {
    let revision = outcome.revision;
    let parts = match outcome.done.clone() {
        Done::Put { previous } => (true, vec![Told::Put(revision, previous)]),
        Done::Deleted { count, previous } => (true, vec![Told::Deleted(revision, count, previous)]),
        Done::Txn { succeeded, parts } => {
            let parts = parts.into_iter().map(|part| match &part {
                Part::Range { revision, .. } => Told::Range(*revision, part.list().unwrap()),
                Part::Put { revision, previous } => Told::Put(*revision, previous.clone()),
                Part::Deleted { revision, count, previous } => {
                    Told::Deleted(*revision, *count, previous.clone())
                }
            });
            (succeeded, parts.collect())
        }
        Done::Refused(refusal) => return (revision, Err(refusal)),
        Done::Forgotten => panic!("the first answer is never forgotten"),
    };
    (revision, Ok(parts))
}

fn key() -> impl Strategy<Value = Bytes> {
    const KNOWN: &[&[u8]] = &[b"a", b"aa", b"ab", b"b", b"\0", b"\xff", b"\xff\xfe\0"];
    prop_oneof![
        8 => proptest::sample::select(KNOWN).prop_map(Bytes::from_static),
        1 => vec(any::<u8>(), 0..3).prop_map(Bytes::from),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..3).prop_map(Bytes::from)
}

fn keys() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(KeyRange::One),
        2 => (key(), key()).prop_map(|(from, to)| KeyRange::new(from, to)),
        1 => key().prop_map(KeyRange::From),
        1 => key().prop_map(KeyRange::prefix),
    ]
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 0..8i64, 1 => any::<i64>()]
}

prop_compose! {
    fn query()(
        keys in keys(),
        limit in 0..4u64,
        revision in prop_oneof![8 => Just(0), 1 => number()],
        by in proptest::sample::select(vec![
            SortKey::Key, SortKey::Version, SortKey::Created, SortKey::Modified, SortKey::Value,
        ]),
        (descending, keys_only, count_only) in any::<(bool, bool, bool)>(),
        modified in prop_oneof![Just((0, 0)), (number(), number())],
        created in prop_oneof![Just((0, 0)), (number(), number())],
    ) -> Query {
        let order = Order { by, descending };
        Query { keys, limit, revision, order, keys_only, count_only, modified, created }
    }
}

prop_compose! {
    fn put()(key in key(), value in value(), ignore_value: bool, previous: bool) -> Put {
        Put { key, value, ignore_value, previous }
    }
}

fn delete() -> impl Strategy<Value = Delete> {
    (keys(), any::<bool>()).prop_map(|(keys, previous)| Delete { keys, previous })
}

fn compare() -> impl Strategy<Value = Compare> {
    let test = prop_oneof![
        number().prop_map(Test::Version),
        number().prop_map(Test::Created),
        number().prop_map(Test::Modified),
        value().prop_map(Test::Value),
    ];
    let relation = proptest::sample::select(vec![
        Relation::Equal,
        Relation::NotEqual,
        Relation::Greater,
        Relation::Less,
    ]);
    (keys(), test, relation).prop_map(|(keys, test, relation)| Compare { keys, test, relation })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        query().prop_map(Action::Range),
        put().prop_map(Action::Put),
        delete().prop_map(Action::Delete),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let txn = (vec(compare(), 0..3), vec(action(), 0..4), vec(action(), 0..4))
        .prop_map(|(compares, success, failure)| Op::Txn(Txn { compares, success, failure }));
    prop_oneof![
        3 => put().prop_map(Op::Put),
        1 => delete().prop_map(Op::Delete),
        2 => txn,
    ]
}

fn command(session: u64, seq: u64, oldest: u64, op: Op) -> Command {
    Command { id: RequestId { session, seq }, oldest, op }
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let one = (0..3u64, 0..30u64, 0..30u64, op())
        .prop_map(|(session, seq, back, op)| command(session, seq, seq.saturating_sub(back), op));
    vec(one, 0..60)
}

fn apply(store: &mut Store, bytes: Vec<u8>) -> Option<(RequestId, Outcome)> {
    store.apply(&Entry { index: store.applied() + 1, term: 1, command: bytes })
}

fn filled(commands: &[Command]) -> Store {
    let mut store = Store::default();
    for command in commands {
        apply(&mut store, command.encode());
    }
    store
}

proptest! {
    #[test]
    fn the_store_does_as_the_model_does(
        ops in vec(op(), 0..40),
        queries in vec(query(), 0..8),
        reads in vec(action(), 0..3),
    ) {
        let (mut store, mut model) = (Store::default(), Model::default());
        for (seq, op) in ops.into_iter().enumerate() {
            let before = store.view();
            let command = command(7, seq as u64, seq as u64, op.clone());
            let (id, outcome) = apply(&mut store, command.encode()).unwrap();
            prop_assert_eq!(id, command.id);
            prop_assert_eq!(told(&outcome), model.perform(&op));
            let view = store.view();
            prop_assert_eq!(view.revision(), model.revision());
            let all = KeyRange::From(Bytes::new());
            let pairs = model.pairs(&all);
            prop_assert_eq!(view.len(), pairs.len());
            let bytes: usize = pairs.iter().map(|p| p.key.len() + p.record.value.len()).sum();
            prop_assert_eq!(view.bytes(), bytes as u64);
            prop_assert_eq!(view.list(&Query::all(all)).pairs, pairs);
            // A view taken earlier stands still.
            prop_assert!(before.revision() == view.revision() || before != view);
        }
        for query in queries {
            prop_assert_eq!(store.view().list(&query), model.list(&query), "{:?}", query);
        }
        let before = store.view();
        let only_reads: Vec<Action> =
            reads.into_iter().filter(|action| matches!(action, Action::Range(_))).collect();
        let txn = Txn { success: only_reads, ..Txn::default() };
        prop_assert_eq!(told(&before.read(txn.clone())), model.perform(&Op::Txn(txn)));
        prop_assert_eq!(before, store.view());
    }

    #[test]
    fn no_request_is_applied_twice(commands in commands()) {
        let (mut store, mut model) = (Store::default(), Model::default());
        let mut floors: BTreeMap<u64, u64> = BTreeMap::new();
        let mut first: BTreeMap<RequestId, Outcome> = BTreeMap::new();
        for command in commands {
            let before = store.view();
            let applied = apply(&mut store, command.encode());
            let floor = floors.entry(command.id.session).or_default();
            *floor = (*floor).max(command.oldest);
            if command.id.seq < *floor {
                prop_assert_eq!(applied, None);
                prop_assert_eq!(before, store.view());
            } else if let Some(outcome) = first.get(&command.id) {
                let (id, again) = applied.unwrap();
                prop_assert_eq!(id, command.id);
                prop_assert_eq!(again.revision, outcome.revision);
                if again.done != Done::Forgotten {
                    prop_assert_eq!(&again, outcome);
                }
                prop_assert_eq!(before, store.view());
            } else {
                let (id, outcome) = applied.unwrap();
                prop_assert_eq!(id, command.id);
                prop_assert_eq!(told(&outcome), model.perform(&command.op));
                first.insert(id, outcome);
            }
        }
        prop_assert_eq!(store.revision(), model.revision());
    }

    #[test]
    fn a_snapshot_is_the_store(commands in commands(), more in commands()) {
        let mut store = filled(&commands);
        let bytes = store.encode();
        let mut copy = Store::decode(&bytes).unwrap();
        prop_assert_eq!(&copy, &store);
        prop_assert_eq!(copy.encode(), bytes);
        // Nor can the future tell them apart: sessions are part of it.
        for command in more {
            let (one, other) =
                (apply(&mut store, command.encode()), apply(&mut copy, command.encode()));
            prop_assert_eq!(one, other);
        }
        prop_assert_eq!(copy.encode(), store.encode());
    }

    #[test]
    fn damage_is_noticed(commands in commands(), bit: prop::sample::Index, cut: prop::sample::Index) {
        let bytes = filled(&commands).encode();
        let mut flipped = bytes.clone();
        let bit = bit.index(bytes.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Store::decode(&flipped).is_err());
        prop_assert!(Store::decode(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn content_that_is_no_store_is_refused_without_panic(
        commands in commands(),
        places in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = filled(&commands).encode();
        let end = bytes.len() - 4;
        for (place, byte) in places {
            bytes[8 + place.index(end - 8)] = byte;
        }
        let checksum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        match Store::decode(&bytes) {
            // It may be another store; then it works as one.
            Ok(mut store) => {
                apply(&mut store, command(1, 1, 0, Op::put("k", "v")).encode());
            }
            Err(Damaged::Content { .. }) => {}
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn an_entry_of_any_bytes_is_applied_without_panic(
        entries in vec(
            prop_oneof![
                vec(any::<u8>(), 0..40),
                (commands(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(all, at, byte)| {
                    let mut bytes = all.first().map_or(vec![1], Command::encode);
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                    bytes
                }),
            ],
            0..20,
        ),
    ) {
        let (mut store, mut same) = (Store::default(), Store::default());
        for entry in entries {
            prop_assert_eq!(apply(&mut store, entry.clone()), apply(&mut same, entry));
        }
        prop_assert_eq!(store.encode(), same.encode());
    }

    #[test]
    fn commands_survive_the_log_and_are_never_empty(op in op(), session: u64, seq: u64, oldest: u64) {
        let command = command(session, seq, oldest, op);
        let mut bytes = command.encode();
        prop_assert!(!bytes.is_empty());
        prop_assert_eq!(Command::decode(&bytes), Some(command));
        bytes.push(0);
        prop_assert_eq!(Command::decode(&bytes), None);
    }

    #[test]
    fn a_prefix_is_the_range_of_what_begins_with_it(prefix in key(), key in key()) {
        let range = KeyRange::prefix(prefix.clone());
        prop_assert_eq!(range.contains(&key), key.starts_with(&prefix));
    }
}

#[test]
fn other_entries_are_passed_over() {
    let mut store = Store::default();
    assert_eq!(apply(&mut store, Vec::new()), None);
    assert_eq!(apply(&mut store, vec![9, 9, 9]), None);
    assert_eq!((store.applied(), store.revision()), (2, 1));
    let bytes = command(1, 1, 0, Op::put("a", "b")).encode();
    assert_eq!(apply(&mut store, bytes).unwrap().1.revision, 2);
}

#[test]
fn large_answers_are_forgotten_and_small_ones_are_not() {
    let mut store = Store::default();
    let large = Bytes::from(vec![7; 5000]);
    let replace =
        Op::Put(Put { key: "k".into(), value: large.clone(), ignore_value: false, previous: true });
    let first = command(1, 1, 0, replace.clone()).encode();
    let second = command(1, 2, 0, replace).encode();
    let small = apply(&mut store, first.clone()).unwrap().1;
    let (_, answer) = apply(&mut store, second.clone()).unwrap();
    let Done::Put { previous: Some(previous) } = &answer.done else { panic!("{answer:?}") };
    assert_eq!(previous.record.value, large);
    assert_eq!(apply(&mut store, first).unwrap().1, small);
    let again = apply(&mut store, second).unwrap().1;
    assert_eq!(again, Outcome { revision: 3, done: Done::Forgotten });
    assert_eq!(store.revision(), 3);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut store = Store::default();
    let op = Op::delete("nothing");
    let mut outcomes = BTreeSet::new();
    // A node that never gives anything up.
    for seq in 0..MAX_PENDING as u64 + 10 {
        outcomes.insert(apply(&mut store, command(1, seq, 0, op.clone()).encode()).is_some());
    }
    assert_eq!(outcomes, BTreeSet::from([true]));
    assert_eq!(apply(&mut store, command(1, 9, 0, op.clone()).encode()), None, "given up");
    assert!(apply(&mut store, command(1, 10, 0, op.clone()).encode()).is_some(), "remembered");
    // Many nodes that never do.
    for session in 2..8 {
        for seq in 0..MAX_PENDING as u64 {
            apply(&mut store, command(session, seq, 0, op.clone()).encode());
        }
    }
    let size = store.encode().len();
    assert!(size < 6 * MAX_PENDING * 8, "{size}");
    // The first has been silent longest: all of it is given up, and not applied again.
    let put = Op::put("k", "v");
    assert_eq!(apply(&mut store, command(1, MAX_PENDING as u64, 0, put.clone()).encode()), None);
    assert!(apply(&mut store, command(1, MAX_PENDING as u64 + 10, 0, put).encode()).is_some());
    // Many lives of nodes.
    for session in 100..100 + 2 * MAX_SESSIONS as u64 {
        apply(&mut store, command(session, 1, 0, op.clone()).encode());
    }
    assert!(store.encode().len() < 64 * MAX_SESSIONS);
}
