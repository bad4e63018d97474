//! Keys and values, and what requests do to them.

use std::ops::Bound;

use bytes::Bytes;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{
    Action, Compare, Delete, Done, KeyRange, Op, Outcome, Part, Put, Query, Refusal, Relation,
    Test, Txn,
};

/// A revision of the store, as etcd counts them. The empty store is at 1.
pub type Revision = i64;

/// A value and its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The value.
    pub value: Bytes,
    /// Revision at which the key was created.
    pub created: Revision,
    /// Revision at which it was last changed.
    pub modified: Revision,
    /// Changes since it was created; 1 is the creation.
    pub version: i64,
}

/// A key with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// What belongs to it.
    pub record: Record,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The pairs.
    pub pairs: Vec<KeyValue>,
    /// Whether the limit kept pairs out.
    pub more: bool,
    /// Keys in the range, whatever else is asked.
    pub count: u64,
}

/// The keys and values of a store at one moment. Cloning it takes constant time.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    revision: Revision,
    records: OrdMap<Bytes, Record>,
    /// Bytes of all keys and values.
    bytes: u64,
}

impl Default for View {
    fn default() -> View {
        View { revision: 1, records: OrdMap::new(), bytes: 0 }
    }
}

impl View {
    /// Keys and values from elsewhere.
    pub(super) fn restore(revision: Revision, records: OrdMap<Bytes, Record>) -> View {
        let bytes = records.iter().map(|(key, record)| size(key, record)).sum();
        View { revision, records, bytes }
    }

    /// Every pair, in the order of the keys.
    pub(super) fn records(&self) -> impl Iterator<Item = (&Bytes, &Record)> {
        self.records.iter()
    }

    /// Revision of the store.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of all keys and values together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What belongs to this key.
    pub fn get(&self, key: &[u8]) -> Option<&Record> {
        self.records.get(key)
    }

    /// Every pair in the range, in the order of the keys.
    pub fn range<'a>(
        &'a self,
        keys: &'a KeyRange,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Record)> {
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = match keys {
            KeyRange::One(key) => (Bound::Included(key), Bound::Included(key)),
            // A range that ends before it begins is empty.
            KeyRange::Between(from, to) => (Bound::Included(from), Bound::Excluded(to.max(from))),
            KeyRange::From(from) => (Bound::Included(from), Bound::Unbounded),
        };
        self.records.range::<_, [u8]>(bounds)
    }

    /// Answers a query. Its revision is not looked at: see [`View::refusal`].
    pub fn list(&self, query: &Query) -> Listed {
        let limit = match query.limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        if query.count_only {
            return Listed { pairs: Vec::new(), more: false, count: self.count(&query.keys) };
        }
        let pair = |(key, record): (&Bytes, &Record)| KeyValue {
            key: key.clone(),
            record: record.clone(),
        };
        let (mut pairs, more, count);
        if query.is_plain() {
            let mut range = self.range(&query.keys);
            pairs = range.by_ref().take(limit).map(pair).collect::<Vec<_>>();
            let rest = range.count();
            more = rest > 0;
            count = (pairs.len() + rest) as u64;
        } else {
            let mut total = 0;
            let range = self.range(&query.keys).inspect(|_| total += 1);
            pairs = range.filter(|(_, record)| query.admits(record)).map(pair).collect();
            query.order.sort(&mut pairs);
            more = pairs.len() > limit;
            pairs.truncate(limit);
            count = total;
        }
        if query.keys_only {
            for pair in &mut pairs {
                pair.record.value = Bytes::new();
            }
        }
        Listed { pairs, more, count }
    }

    fn count(&self, keys: &KeyRange) -> u64 {
        match keys {
            // The usual way to ask for everything; between no bytes and a zero byte is nothing.
            KeyRange::From(from) if from[..] == [0] => {
                self.records.len() as u64 - u64::from(self.records.contains_key(&b""[..]))
            }
            keys => self.range(keys).count() as u64,
        }
    }

    /// Why a query as of this revision cannot be answered from here, if it cannot: only the latest
    /// revision is kept.
    pub fn refusal(&self, revision: Revision) -> Option<Refusal> {
        match revision {
            revision if revision <= 0 || revision == self.revision => None,
            revision if revision < self.revision => Some(Refusal::OldRevision),
            _ => Some(Refusal::FutureRevision),
        }
    }

    /// What comes of a transaction that only reads.
    pub fn read(&self, txn: Txn) -> Outcome {
        // On a copy, so that even a transaction that does not only read changes nothing.
        self.clone().perform(Op::Txn(txn))
    }

    /// Carries out a request.
    pub(super) fn perform(&mut self, op: Op) -> Outcome {
        // What is changed is changed at the next revision; if nothing is, there is none.
        let next = self.revision + 1;
        let done = match op {
            Op::Put(put) => match self.put_refusal(&put) {
                Some(refusal) => Done::Refused(refusal),
                None => Done::Put { previous: self.put(put, next) },
            },
            Op::Delete(delete) => {
                let (count, previous) = self.delete(&delete, next);
                Done::Deleted { count, previous }
            }
            Op::Txn(txn) => self.txn(txn, next),
        };
        Outcome { revision: self.revision, done }
    }

    fn put_refusal(&self, put: &Put) -> Option<Refusal> {
        let refused = put.ignore_value && !self.records.contains_key(&put.key);
        refused.then_some(Refusal::KeyNotFound)
    }

    fn put(&mut self, put: Put, revision: Revision) -> Option<KeyValue> {
        let Put { key, value, ignore_value, previous: wanted } = put;
        self.revision = revision;
        // To go down the tree is most of the work, so a key that is there is changed in its place.
        let Some(record) = self.records.get_mut(&key) else {
            let record = Record { value, created: revision, modified: revision, version: 1 };
            self.bytes += size(&key, &record);
            self.records.insert(key, record);
            return None;
        };
        let new = Record {
            value: if ignore_value { record.value.clone() } else { value },
            created: record.created,
            modified: revision,
            version: record.version + 1,
        };
        let old = std::mem::replace(record, new);
        self.bytes += size(&key, record);
        self.bytes -= size(&key, &old);
        wanted.then_some(KeyValue { key, record: old })
    }

    fn delete(&mut self, delete: &Delete, revision: Revision) -> (u64, Vec<KeyValue>) {
        let keys: Vec<Bytes> = self.range(&delete.keys).map(|(key, _)| key.clone()).collect();
        let count = keys.len() as u64;
        let mut previous = Vec::new();
        for key in keys {
            let Some(record) = self.records.remove(&key) else { continue };
            self.bytes -= size(&key, &record);
            if delete.previous {
                previous.push(KeyValue { key, record });
            }
        }
        if count > 0 {
            self.revision = revision;
        }
        (count, previous)
    }

    fn txn(&mut self, txn: Txn, next: Revision) -> Done {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let actions = if succeeded { txn.success } else { txn.failure };
        let refusal = actions.iter().find_map(|action| match action {
            Action::Range(query) => self.refusal(query.revision),
            Action::Put(put) => self.put_refusal(put),
            Action::Delete(_) => None,
        });
        if let Some(refusal) = refusal {
            return Done::Refused(refusal);
        }
        let before = self.clone();
        let parts = actions.into_iter().map(|action| match action {
            Action::Range(query) => {
                // Whoever names the revision from before the transaction means that.
                let named = query.revision == before.revision;
                let view = if named { before.clone() } else { self.clone() };
                Part::Range { revision: self.revision, view, query }
            }
            Action::Put(put) => {
                let previous = self.put(put, next);
                Part::Put { revision: self.revision, previous }
            }
            Action::Delete(delete) => {
                let (count, previous) = self.delete(&delete, next);
                Part::Deleted { revision: self.revision, count, previous }
            }
        });
        Done::Txn { succeeded, parts: parts.collect() }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut range = self.range(&compare.keys).map(|(_, record)| Some(record)).peekable();
        match range.peek() {
            Some(_) => range.all(|record| compare.holds(record)),
            None => compare.holds(None),
        }
    }
}

impl Compare {
    fn holds(&self, record: Option<&Record>) -> bool {
        let number = |of: fn(&Record) -> i64| record.map_or(0, of);
        let order = match &self.test {
            Test::Version(given) => number(|record| record.version).cmp(given),
            Test::Created(given) => number(|record| record.created).cmp(given),
            Test::Modified(given) => number(|record| record.modified).cmp(given),
            // There is no way to say "no value", so nothing holds of it.
            Test::Value(given) => match record {
                Some(record) => record.value.cmp(given),
                None => return false,
            },
        };
        match self.relation {
            Relation::Equal => order.is_eq(),
            Relation::NotEqual => order.is_ne(),
            Relation::Greater => order.is_gt(),
            Relation::Less => order.is_lt(),
        }
    }
}

fn size(key: &Bytes, record: &Record) -> u64 {
    (key.len() + record.value.len()) as u64
}
