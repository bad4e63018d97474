//! What is asked of a store, as requests of etcd's API.

use bytes::Bytes;
use sraft_rpc::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    kv_client::KvClient,
    request_op, response_op,
};
use tonic::Status;

use crate::wire::Wire;

/// A client of one connection.
pub(crate) type Kv = KvClient<Wire>;

/// One operation. Reads are linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Reads a key.
    Get {
        /// The key.
        key: Bytes,
    },
    /// Sets a key if it holds what is expected: a transaction that compares once, puts on success
    /// and reads otherwise.
    Swap {
        /// The key.
        key: Bytes,
        /// What it has to hold; `None`: it must be absent.
        expected: Option<Bytes>,
        /// Its new value.
        value: Bytes,
    },
}

/// What an operation was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Get: whether the key exists. Swap: whether it swapped. Put: nothing.
    pub found: Option<bool>,
    /// Get: the value. Swap that did not swap: the value that was there instead.
    pub value: Option<Bytes>,
    /// Revision of the store in the answer's header.
    pub revision: i64,
    /// Term in the answer's header.
    pub(crate) term: u64,
}

impl Answer {
    fn new(header: Option<ResponseHeader>, found: Option<bool>, value: Option<Bytes>) -> Answer {
        let header = header.unwrap_or_default();
        Answer { found, value, revision: header.revision, term: header.raft_term }
    }
}

impl Operation {
    /// Sends it, once.
    pub(crate) async fn send(&self, kv: &mut Kv) -> Result<Answer, Status> {
        match self {
            Operation::Put { key, value } => {
                let request =
                    PutRequest { key: key.clone(), value: value.clone(), ..Default::default() };
                let answer = kv.put(request).await?.into_inner();
                Ok(Answer::new(answer.header, None, None))
            }
            Operation::Get { key } => {
                let request = RangeRequest { key: key.clone(), ..Default::default() };
                let answer = kv.range(request).await?.into_inner();
                let value = answer.kvs.into_iter().next().map(|kv| kv.value);
                Ok(Answer::new(answer.header, Some(value.is_some()), value))
            }
            Operation::Swap { key, expected, value } => {
                let answer = kv.txn(swap(key, expected.as_ref(), value)).await?.into_inner();
                let found = answer.responses.into_iter().find_map(|op| match op.response {
                    Some(response_op::Response::ResponseRange(range)) => Some(range),
                    _ => None,
                });
                let value = found.and_then(|range| range.kvs.into_iter().next());
                Ok(Answer::new(answer.header, Some(answer.succeeded), value.map(|kv| kv.value)))
            }
        }
    }
}

fn swap(key: &Bytes, expected: Option<&Bytes>, value: &Bytes) -> TxnRequest {
    // A key that does not exist has no value to compare; it has never been created.
    let (target, union) = match expected {
        Some(value) => (CompareTarget::Value, TargetUnion::Value(value.clone())),
        None => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
    };
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.clone(),
        target_union: Some(union),
        range_end: Bytes::new(),
    };
    let put = PutRequest { key: key.clone(), value: value.clone(), ..Default::default() };
    let read = RangeRequest { key: key.clone(), ..Default::default() };
    let op = |request| vec![RequestOp { request: Some(request) }];
    TxnRequest {
        compare: vec![compare],
        success: op(request_op::Request::RequestPut(put)),
        failure: op(request_op::Request::RequestRange(read)),
    }
}
