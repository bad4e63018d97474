//! Operations as clients recorded them.

use std::collections::BTreeMap;

use crate::model::Model;

/// One operation of one client. Operations that certainly did not happen are no part of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<O> {
    /// Whoever issued it; only to draw it in the right row.
    pub process: u64,
    /// The instant at which it was issued. The unit does not matter, only the order does.
    pub call: u64,
    /// The instant at which its answer arrived. Nothing if its outcome is unknown: then it may
    /// have taken effect at any time after `call`, or never.
    pub back: Option<u64>,
    /// What was asked, and what was answered.
    pub op: O,
}

/// The operations of each key, as positions in `history`, keys in order.
///
/// Linearizability is local (Herlihy and Wing, "Linearizability: a correctness condition for
/// concurrent objects", TOPLAS 12(3), 1990, theorem 1): a history is linearizable if and only if
/// each object's part is. So each key is searched on its own.
pub(crate) fn by_key<'a, M: Model>(
    model: &M,
    history: &'a [Operation<M::Op>],
) -> BTreeMap<&'a str, Vec<usize>> {
    let mut keys: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, operation) in history.iter().enumerate() {
        keys.entry(model.key(&operation.op)).or_default().push(at);
    }
    keys
}
