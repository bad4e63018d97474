//! A store as the bytes of a snapshot, and back.
//!
//! ```text
//! magic (8 bytes, the format's number included)
//! header: applied, revision, keys, sessions
//! keys x { key, record }                          keys ascending
//! sessions x { id, floor, used, requests, requests x { number, outcome } }   both ascending
//! CRC-32 of all that (4 bytes, little endian)
//! ```
//! Everything between the first and the last is in postcard's format.

use bytes::Bytes;
use imbl::OrdMap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sraft_core::Index;

use super::{
    Outcome, Record, Revision, Store, View,
    sessions::{Session, Sessions},
};

const MAGIC: &[u8; 8] = b"sraftkv1";

/// Bytes of the checksum at the end.
const CHECKSUM: usize = 4;

/// No log gets as far as this: a million entries a second for 100,000 years. So there is always a
/// next index and a next revision.
const MAX_APPLIED: Index = 1 << 62;

/// Why bytes are not a store. Nothing of them is used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// They are not from this program, or from another version of it.
    #[error("this is no snapshot of this version; remove it and let the node fetch one")]
    Foreign,
    /// They are not what was written.
    #[error(
        "the snapshot of {bytes} bytes is damaged: its checksum is {found:08x}, its content has \
         {expected:08x}; remove it and let the node fetch another"
    )]
    Checksum {
        /// How many there are.
        bytes: usize,
        /// The checksum at the end.
        found: u32,
        /// The checksum of what is before it.
        expected: u32,
    },
    /// The checksum is right, but what was written is no store.
    #[error(
        "the snapshot is no store: {what}, at byte {at}; report this, it is a mistake in the program"
    )]
    Content {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    applied: Index,
    revision: Revision,
    keys: u64,
    sessions: u64,
}

#[derive(Serialize, Deserialize)]
struct SessionHeader {
    id: u64,
    floor: u64,
    used: Index,
    requests: u64,
}

impl Store {
    /// The store as bytes. Takes a time in proportion to its size: run it on a clone, beside the
    /// protocol.
    pub fn encode(&self) -> Vec<u8> {
        let view = &self.view;
        let about = view.bytes() as usize + 32 * view.len();
        let mut out = Vec::with_capacity(MAGIC.len() + about + CHECKSUM);
        out.extend_from_slice(MAGIC);
        let header = Header {
            applied: self.applied,
            revision: view.revision(),
            keys: view.len() as u64,
            sessions: self.sessions.iter().count() as u64,
        };
        out = put(out, &header);
        for pair in view.records() {
            out = put(out, &pair);
        }
        for (id, session) in self.sessions.iter() {
            let requests = session.outcomes.len() as u64;
            let Session { floor, used, .. } = *session;
            out = put(out, &SessionHeader { id, floor, used, requests });
            for request in &session.outcomes {
                out = put(out, &request);
            }
        }
        let checksum = crc32fast::hash(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads what [`Store::encode`] has written.
    ///
    /// # Errors
    /// It is not that, to the last bit.
    pub fn decode(bytes: &[u8]) -> Result<Store, Damaged> {
        let body = bytes.strip_prefix(MAGIC).ok_or(Damaged::Foreign)?;
        let cut = |found| Damaged::Checksum { bytes: bytes.len(), found, expected: 0 };
        let (body, checksum) = body.split_last_chunk::<CHECKSUM>().ok_or(cut(0))?;
        let found = u32::from_le_bytes(*checksum);
        let expected = crc32fast::hash(&bytes[..bytes.len() - CHECKSUM]);
        if found != expected {
            return Err(Damaged::Checksum { bytes: bytes.len(), found, expected });
        }
        Reader { rest: body, end: bytes.len() - CHECKSUM }.store()
    }
}

fn put<T: Serialize>(out: Vec<u8>, value: &T) -> Vec<u8> {
    postcard::to_extend(value, out)
        .expect("plain data always encodes into a growing buffer, and views are not remembered")
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Where the rest ends, counted from the beginning of the snapshot.
    end: usize,
}

impl Reader<'_> {
    fn take<T: DeserializeOwned>(&mut self, what: &'static str) -> Result<T, Damaged> {
        let Ok((value, rest)) = postcard::take_from_bytes(self.rest) else {
            return Err(self.wrong(what));
        };
        self.rest = rest;
        Ok(value)
    }

    fn wrong(&self, what: &'static str) -> Damaged {
        Damaged::Content { what, at: self.end - self.rest.len() }
    }

    fn store(mut self) -> Result<Store, Damaged> {
        let header: Header = self.take("the header cannot be read")?;
        if header.applied > MAX_APPLIED {
            return Err(self.wrong("the last entry is impossible"));
        }
        // Every entry raises the revision by one at most.
        let possible = u64::try_from(header.revision)
            .is_ok_and(|revision| 1 <= revision && revision - 1 <= header.applied);
        if !possible {
            return Err(self.wrong("the revision is impossible"));
        }
        let mut records: OrdMap<Bytes, Record> = OrdMap::new();
        for _ in 0..header.keys {
            let (key, record): (Bytes, Record) = self.take("a key cannot be read")?;
            let history = 1..=header.revision;
            if !(history.contains(&record.created)
                && (record.created..=header.revision).contains(&record.modified)
                && history.contains(&record.version))
            {
                return Err(self.wrong("the history of a key is impossible"));
            }
            if records.get_max().is_some_and(|(last, _)| *last >= key) {
                return Err(self.wrong("the keys are not ascending"));
            }
            records.insert(key, record);
        }
        let mut sessions = Sessions::default();
        let mut last = None;
        for _ in 0..header.sessions {
            let header: SessionHeader = self.take("a session cannot be read")?;
            if last.is_some_and(|last| last >= header.id) {
                return Err(self.wrong("the sessions are not ascending"));
            }
            last = Some(header.id);
            let mut outcomes: OrdMap<u64, Outcome> = OrdMap::new();
            for _ in 0..header.requests {
                let (seq, outcome) = self.take("a request cannot be read")?;
                if outcomes.get_max().is_some_and(|(last, _)| *last >= seq) {
                    return Err(self.wrong("the requests are not ascending"));
                }
                outcomes.insert(seq, outcome);
            }
            let SessionHeader { id, floor, used, .. } = header;
            sessions.restore(id, Session { floor, used, outcomes });
        }
        if !self.rest.is_empty() {
            return Err(self.wrong("there is more than belongs to it"));
        }
        let view = View::restore(header.revision, records);
        Ok(Store { applied: header.applied, view, sessions })
    }
}
