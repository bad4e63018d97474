//! From what came of a request to etcd's answers.

use sraft_rpc::{
    etcdserverpb::{self as pb, response_op::Response},
    mvccpb,
};

use crate::store::{KeyValue, Listed, Part, Revision};

/// A header within a transaction's answer: etcd leaves all but the revision empty there.
fn inner(revision: Revision) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() })
}

fn pair(pair: KeyValue) -> mvccpb::KeyValue {
    let KeyValue { key, record } = pair;
    mvccpb::KeyValue {
        key,
        create_revision: record.created,
        mod_revision: record.modified,
        version: record.version,
        value: record.value,
        lease: 0,
    }
}

pub(super) fn range(header: Option<pb::ResponseHeader>, listed: Listed) -> pb::RangeResponse {
    pb::RangeResponse {
        header,
        kvs: listed.pairs.into_iter().map(pair).collect(),
        more: listed.more,
        count: number(listed.count),
    }
}

pub(super) fn put(
    header: Option<pb::ResponseHeader>,
    previous: Option<KeyValue>,
) -> pb::PutResponse {
    pb::PutResponse { header, prev_kv: previous.map(pair) }
}

pub(super) fn delete(
    header: Option<pb::ResponseHeader>,
    count: u64,
    previous: Vec<KeyValue>,
) -> pb::DeleteRangeResponse {
    let prev_kvs = previous.into_iter().map(pair).collect();
    pb::DeleteRangeResponse { header, deleted: number(count), prev_kvs }
}

pub(super) fn txn(
    header: Option<pb::ResponseHeader>,
    succeeded: bool,
    parts: Vec<Part>,
) -> pb::TxnResponse {
    let responses = parts.into_iter().map(|part| {
        let response = match part {
            Part::Put { revision, previous } => {
                Response::ResponsePut(put(inner(revision), previous))
            }
            Part::Deleted { revision, count, previous } => {
                Response::ResponseDeleteRange(delete(inner(revision), count, previous))
            }
            Part::Range { revision, view, query } => {
                Response::ResponseRange(range(inner(revision), view.list(&query)))
            }
        };
        pb::ResponseOp { response: Some(response) }
    });
    pb::TxnResponse { header, succeeded, responses: responses.collect() }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
