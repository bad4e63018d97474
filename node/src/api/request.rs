//! From etcd's requests to the store's: what can be refused without looking at the store is
//! refused here, for etcd's reasons (etcd 3.4, `v3rpc/key.go`) and in its words.

use bytes::Bytes;
use sraft_rpc::etcdserverpb::{
    self as pb,
    compare::{CompareResult, CompareTarget, TargetUnion},
    range_request::{SortOrder, SortTarget},
    request_op::Request,
};
use tonic::Status;

use super::status;
use crate::store::{
    Action, Compare, Delete, KeyRange, Order, Put, Query, Relation, SortKey, Test, Txn,
};

/// Most comparisons, and most operations in either list, of a transaction (etcd's default).
const MAX_OPERATIONS: usize = 128;

/// What to read, and whether this node may answer from what it has.
pub(super) fn range(request: pb::RangeRequest) -> Result<(Query, bool), Status> {
    if request.key.is_empty() {
        return Err(status::no_key());
    }
    let by = match request.sort_target() {
        SortTarget::Key => SortKey::Key,
        SortTarget::Version => SortKey::Version,
        SortTarget::Create => SortKey::Created,
        SortTarget::Mod => SortKey::Modified,
        SortTarget::Value => SortKey::Value,
    };
    let known = SortTarget::try_from(request.sort_target).is_ok()
        && SortOrder::try_from(request.sort_order).is_ok();
    if !known {
        return Err(status::bad_sort());
    }
    let descending = request.sort_order() == SortOrder::Descend;
    let query = Query {
        keys: KeyRange::new(request.key, request.range_end),
        // What is not positive is no limit, as in etcd.
        limit: u64::try_from(request.limit).unwrap_or(0),
        revision: request.revision,
        order: Order { by, descending },
        keys_only: request.keys_only,
        count_only: request.count_only,
        modified: (request.min_mod_revision, request.max_mod_revision),
        created: (request.min_create_revision, request.max_create_revision),
    };
    Ok((query, request.serializable))
}

pub(super) fn put(request: pb::PutRequest) -> Result<Put, Status> {
    if request.key.is_empty() {
        return Err(status::no_key());
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(status::value_given());
    }
    if request.lease != 0 || request.ignore_lease {
        return Err(status::no_leases());
    }
    let pb::PutRequest { key, value, prev_kv: previous, ignore_value, .. } = request;
    Ok(Put { key, value, ignore_value, previous })
}

pub(super) fn delete(request: pb::DeleteRangeRequest) -> Result<Delete, Status> {
    if request.key.is_empty() {
        return Err(status::no_key());
    }
    let keys = KeyRange::new(request.key, request.range_end);
    Ok(Delete { keys, previous: request.prev_kv })
}

/// The transaction, and whether this node may answer it from what it has.
pub(super) fn txn(request: pb::TxnRequest) -> Result<(Txn, bool), Status> {
    let pb::TxnRequest { compare, success, failure } = request;
    if [compare.len(), success.len(), failure.len()].into_iter().any(|n| n > MAX_OPERATIONS) {
        return Err(status::too_many_operations());
    }
    let mut ranges = Ranges::default();
    let txn = Txn {
        compares: compare.into_iter().map(self::compare).collect::<Result<_, _>>()?,
        success: actions(success, &mut ranges)?,
        failure: actions(failure, &mut ranges)?,
    };
    disjoint(&txn.success)?;
    disjoint(&txn.failure)?;
    // Reads that only compare must be linearizable: nothing in them says that they need not.
    let serializable = ranges.total > 0 && ranges.serializable == ranges.total;
    Ok((txn, serializable))
}

#[derive(Default)]
struct Ranges {
    total: usize,
    serializable: usize,
}

fn actions(requests: Vec<pb::RequestOp>, ranges: &mut Ranges) -> Result<Vec<Action>, Status> {
    let mut actions = Vec::with_capacity(requests.len());
    for request in requests {
        actions.push(match request.request {
            Some(Request::RequestRange(request)) => {
                let (query, serializable) = range(request)?;
                ranges.total += 1;
                ranges.serializable += usize::from(serializable);
                Action::Range(query)
            }
            Some(Request::RequestPut(request)) => Action::Put(put(request)?),
            Some(Request::RequestDeleteRange(request)) => Action::Delete(delete(request)?),
            Some(Request::RequestTxn(_)) => return Err(status::no_nesting()),
            // etcd: an operation without content is refused as one without a key.
            None => return Err(status::no_key()),
        });
    }
    Ok(actions)
}

/// All puts and deletions of a list happen at one revision, so no key may be in two of them.
fn disjoint(actions: &[Action]) -> Result<(), Status> {
    let mut written: Vec<&Bytes> = actions.iter().filter_map(put_key).collect();
    written.sort_unstable();
    let twice = written.windows(2).any(|pair| pair[0] == pair[1]);
    let deleted = actions.iter().any(|action| match action {
        Action::Delete(delete) => written.iter().any(|key| delete.keys.contains(key)),
        Action::Range(_) | Action::Put(_) => false,
    });
    if twice || deleted {
        return Err(status::duplicate_key());
    }
    Ok(())
}

fn put_key(action: &Action) -> Option<&Bytes> {
    match action {
        Action::Put(put) => Some(&put.key),
        Action::Range(_) | Action::Delete(_) => None,
    }
}

fn compare(request: pb::Compare) -> Result<Compare, Status> {
    if request.key.is_empty() {
        return Err(status::no_key());
    }
    let (Ok(target), Ok(result)) =
        (CompareTarget::try_from(request.target), CompareResult::try_from(request.result))
    else {
        return Err(Status::invalid_argument(
            "a comparison has a target or a result that is not known: use those of etcd 3.4",
        ));
    };
    // What is compared with a value that is not given, or is given as another target's, is
    // compared with nothing: 0, or no bytes.
    let given = request.target_union;
    let test = match target {
        CompareTarget::Version => Test::Version(match given {
            Some(TargetUnion::Version(version)) => version,
            _ => 0,
        }),
        CompareTarget::Create => Test::Created(match given {
            Some(TargetUnion::CreateRevision(revision)) => revision,
            _ => 0,
        }),
        CompareTarget::Mod => Test::Modified(match given {
            Some(TargetUnion::ModRevision(revision)) => revision,
            _ => 0,
        }),
        CompareTarget::Value => Test::Value(match given {
            Some(TargetUnion::Value(value)) => value,
            _ => Bytes::new(),
        }),
        CompareTarget::Lease => return Err(status::no_leases()),
    };
    let relation = match result {
        CompareResult::Equal => Relation::Equal,
        CompareResult::NotEqual => Relation::NotEqual,
        CompareResult::Greater => Relation::Greater,
        CompareResult::Less => Relation::Less,
    };
    Ok(Compare { keys: KeyRange::new(request.key, request.range_end), test, relation })
}
