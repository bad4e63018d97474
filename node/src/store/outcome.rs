//! What came of a request.

use serde::{Deserialize, Serialize};

use super::{KeyValue, Listed, Query, Revision, View};

/// What came of a request that changes the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Revision of the store after the request, as it belongs into the answer's header.
    pub revision: Revision,
    /// What was done.
    pub done: Done,
}

/// What a request did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Done {
    /// The key is set.
    Put {
        /// The pair that was replaced, if there was one and it was wanted.
        previous: Option<KeyValue>,
    },
    /// The keys are gone.
    Deleted {
        /// How many there were.
        count: u64,
        /// The pairs that were removed, if they were wanted.
        previous: Vec<KeyValue>,
    },
    /// One of the two lists was carried out.
    Txn {
        /// Whether it was that of success.
        succeeded: bool,
        /// What came of each part, in order.
        parts: Vec<Part>,
    },
    /// Nothing was done, for this reason.
    Refused(Refusal),
    /// The request was carried out, but the details are no longer known: it occurred in the log a
    /// second time, and the details were too large to be remembered.
    Forgotten,
}

/// What came of a part of a transaction, with the revision at that point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Part {
    /// The key is set.
    Put {
        /// Revision of the store.
        revision: Revision,
        /// The pair that was replaced, if there was one and it was wanted.
        previous: Option<KeyValue>,
    },
    /// The keys are gone.
    Deleted {
        /// Revision of the store.
        revision: Revision,
        /// How many there were.
        count: u64,
        /// The pairs that were removed, if they were wanted.
        previous: Vec<KeyValue>,
    },
    /// Keys are read. They still have to be looked up, with [`Part::list`], so that long answers
    /// hold up whoever wants them and not the log. Such a part is not remembered.
    #[serde(skip)]
    Range {
        /// Revision of the store.
        revision: Revision,
        /// The store at that point.
        view: View,
        /// What to read.
        query: Query,
    },
}

impl Part {
    /// The keys read, if this is such a part.
    pub fn list(&self) -> Option<Listed> {
        match self {
            Part::Range { view, query, .. } => Some(view.list(query)),
            Part::Put { .. } | Part::Deleted { .. } => None,
        }
    }
}

/// Why a request was not carried out; it changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It was to keep the value of a key that does not exist.
    KeyNotFound,
    /// It was to read a revision that is no longer there.
    OldRevision,
    /// It was to read a revision that is not there yet.
    FutureRevision,
}

impl Outcome {
    /// The outcome as it is remembered: without what is not small.
    pub(super) fn memory(&self, most_bytes: usize) -> Outcome {
        let done = match &self.done {
            done if done.small(most_bytes) => done.clone(),
            _ => Done::Forgotten,
        };
        Outcome { revision: self.revision, done }
    }
}

impl Done {
    fn small(&self, most_bytes: usize) -> bool {
        let pair =
            |pair: &KeyValue| pair.key.len() + pair.record.value.len() + size_of::<KeyValue>();
        let mut bytes = 0;
        match self {
            Done::Put { previous } => bytes += previous.iter().map(pair).sum::<usize>(),
            Done::Deleted { previous, .. } => bytes += previous.iter().map(pair).sum::<usize>(),
            Done::Txn { parts, .. } => {
                for part in parts {
                    bytes += size_of::<Part>();
                    match part {
                        Part::Put { previous, .. } => {
                            bytes += previous.iter().map(pair).sum::<usize>();
                        }
                        Part::Deleted { previous, .. } => {
                            bytes += previous.iter().map(pair).sum::<usize>();
                        }
                        // A view would keep a whole generation of the store alive.
                        Part::Range { .. } => return false,
                    }
                }
            }
            Done::Refused(_) | Done::Forgotten => {}
        }
        bytes <= most_bytes
    }
}
