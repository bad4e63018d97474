//! What a client may ask of the store, and how it stands in the log.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{KeyValue, Record, Revision};

/// First byte of every command: the format of the rest. Also what keeps a command from being
/// empty, which would be the no-op.
const FORMAT: u8 = 1;

/// Names a request once and for all, however often it is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// The session: the boot id of the node that took the request in.
    pub session: u64,
    /// The request's number in its session; none is used twice.
    pub seq: u64,
}

/// A request in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Which request it is.
    pub id: RequestId,
    /// Lowest number in the session that may still be waited for. What came of the requests before
    /// it may be forgotten, and none of them is applied any more.
    pub oldest: u64,
    /// What is asked.
    pub op: Op,
}

impl Command {
    /// The bytes that go into a log entry; never empty.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![FORMAT])
            .expect("plain data always encodes into a growing buffer")
    }

    /// Reads the bytes of a log entry; nothing if they are no command of this version.
    pub fn decode(bytes: &[u8]) -> Option<Command> {
        let (&FORMAT, rest) = bytes.split_first()? else { return None };
        match postcard::take_from_bytes(rest) {
            Ok((command, [])) => Some(command),
            _ => None,
        }
    }
}

/// A request that changes the store. The API refuses, as etcd does, what can be refused without
/// looking at the store; so an operation here is well formed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Sets a key.
    Put(Put),
    /// Removes keys.
    Delete(Delete),
    /// Does one of two lists of things, depending on comparisons, as one step.
    Txn(Txn),
}

impl Op {
    /// Sets `key` to `value`.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
        let (key, value) = (key.into(), value.into());
        Op::Put(Put { key, value, ignore_value: false, previous: false })
    }

    /// Removes one key.
    pub fn delete(key: impl Into<Bytes>) -> Op {
        Op::Delete(Delete { keys: KeyRange::One(key.into()), previous: false })
    }
}

/// Sets a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// Its new value.
    pub value: Bytes,
    /// Keep the value that the key has; the request is refused if there is no such key.
    pub ignore_value: bool,
    /// Whether the pair that is replaced is wanted.
    pub previous: bool,
}

/// Removes keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// Which.
    pub keys: KeyRange,
    /// Whether the pairs that are removed are wanted.
    pub previous: bool,
}

/// Does `success` if every comparison holds, else `failure`; as one step, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// The comparisons; none is true.
    pub compares: Vec<Compare>,
    /// What is done, in this order, if all hold.
    pub success: Vec<Action>,
    /// What is done, in this order, if one does not.
    pub failure: Vec<Action>,
}

impl Txn {
    /// Whether neither of its lists changes anything.
    pub fn only_reads(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|action| matches!(action, Action::Range(_)))
    }
}

/// A part of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Reads keys, as they are after the parts before it.
    Range(Query),
    /// Sets a key.
    Put(Put),
    /// Removes keys.
    Delete(Delete),
}

/// A comparison: holds if it holds for every key of its range. If there is no key in the range, it
/// is made once with versions and revisions of 0, and one of values does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// Whose.
    pub keys: KeyRange,
    /// What of it, and with what.
    pub test: Test,
    /// How the key's side must stand to the given one.
    pub relation: Relation,
}

/// What a comparison looks at, and what it is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Test {
    /// Changes since the key was created.
    Version(i64),
    /// Revision at which it was created.
    Created(Revision),
    /// Revision at which it was last changed.
    Modified(Revision),
    /// The value, compared byte by byte.
    Value(Bytes),
}

/// How the key's side must stand to the given one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// More.
    Greater,
    /// Less.
    Less,
}

/// Some keys, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyRange {
    /// This key.
    One(Bytes),
    /// Every key from the first on and before the second.
    Between(Bytes, Bytes),
    /// Every key from this one on.
    From(Bytes),
}

impl KeyRange {
    /// As etcd writes it: no end is the single key, an end of one zero byte is no end to the
    /// range.
    pub fn new(key: Bytes, end: Bytes) -> KeyRange {
        match &end[..] {
            [] => KeyRange::One(key),
            [0] => KeyRange::From(key),
            _ => KeyRange::Between(key, end),
        }
    }

    /// Every key that begins with these bytes.
    pub fn prefix(prefix: impl Into<Bytes>) -> KeyRange {
        let prefix = prefix.into();
        // The end is the next string that does not begin so; there is none after 0xff...
        let Some(last) = prefix.iter().rposition(|byte| *byte < u8::MAX) else {
            return KeyRange::From(prefix);
        };
        let mut end = prefix[..=last].to_vec();
        end[last] += 1;
        KeyRange::Between(prefix, end.into())
    }

    /// Whether the key is one of them.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::One(one) => one == key,
            KeyRange::Between(from, to) => from <= key && key < &to[..],
            KeyRange::From(from) => from <= key,
        }
    }
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Which keys.
    pub keys: KeyRange,
    /// Most pairs wanted; 0 is all.
    pub limit: u64,
    /// As of which revision; 0 is the latest, which is the only one there is.
    pub revision: Revision,
    /// In which order.
    pub order: Order,
    /// Leave the values out.
    pub keys_only: bool,
    /// Leave the pairs out.
    pub count_only: bool,
    /// Least and most revision of the last change; 0 is any.
    pub modified: (Revision, Revision),
    /// Least and most revision of the creation; 0 is any.
    pub created: (Revision, Revision),
}

impl Query {
    /// All of these keys, ascending, with their values.
    pub fn all(keys: KeyRange) -> Query {
        Query {
            keys,
            limit: 0,
            revision: 0,
            order: Order { by: SortKey::Key, descending: false },
            keys_only: false,
            count_only: false,
            modified: (0, 0),
            created: (0, 0),
        }
    }

    /// Whether the pair has the revisions asked for.
    pub(super) fn admits(&self, record: &Record) -> bool {
        let within = |(least, most): (Revision, Revision), revision: Revision| {
            (least == 0 || revision >= least) && (most == 0 || revision <= most)
        };
        within(self.modified, record.modified) && within(self.created, record.created)
    }

    /// Whether every key of the range is in the answer, in the order of the store.
    pub(super) fn is_plain(&self) -> bool {
        self.order == Order { by: SortKey::Key, descending: false }
            && self.modified == (0, 0)
            && self.created == (0, 0)
    }
}

/// The order of an answer. Equal pairs stand in the order of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// By what.
    pub by: SortKey,
    /// Whether the greatest comes first.
    pub descending: bool,
}

impl Order {
    /// Puts pairs that are in the order of their keys into this one.
    pub(super) fn sort(self, pairs: &mut [KeyValue]) {
        let by = |a: &KeyValue, b: &KeyValue| match self.by {
            SortKey::Key => a.key.cmp(&b.key),
            SortKey::Version => a.record.version.cmp(&b.record.version),
            SortKey::Created => a.record.created.cmp(&b.record.created),
            SortKey::Modified => a.record.modified.cmp(&b.record.modified),
            SortKey::Value => a.record.value.cmp(&b.record.value),
        };
        match self.descending {
            false => pairs.sort_by(by),
            true => pairs.sort_by(|a, b| by(b, a)),
        }
    }
}

/// What pairs are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SortKey {
    /// The key.
    Key,
    /// Changes since the creation.
    Version,
    /// Revision of the creation.
    Created,
    /// Revision of the last change.
    Modified,
    /// The value.
    Value,
}
