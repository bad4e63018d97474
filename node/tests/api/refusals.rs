//! What is refused, with which code and in which words.

use sraft_node::desk::Unserved;
use sraft_rpc::etcdserverpb::{
    self as pb, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest,
    compare::{CompareResult, TargetUnion},
    request_op::Request,
};
use tonic::{Code, Status};

use crate::{
    double::{Double, Mood},
    keys::{compare, delete, op, put, range},
};

fn check(status: Status, code: Code, text: &str) {
    assert_eq!((status.code(), status.message()), (code, text));
}

#[tokio::test]
async fn what_etcd_refuses_is_refused_in_its_words() {
    let double = Double::start();
    let mut kv = double.kv().await;
    kv.put(put("a", "1")).await.unwrap();
    let invalid = Code::InvalidArgument;
    let no_key = "etcdserver: key is not provided";
    check(kv.range(RangeRequest::default()).await.unwrap_err(), invalid, no_key);
    check(kv.put(PutRequest::default()).await.unwrap_err(), invalid, no_key);
    check(kv.delete_range(DeleteRangeRequest::default()).await.unwrap_err(), invalid, no_key);
    let both = PutRequest { ignore_value: true, ..put("a", "1") };
    check(kv.put(both).await.unwrap_err(), invalid, "etcdserver: value is provided");
    let none = PutRequest { ignore_value: true, ..put("none", "") };
    check(kv.put(none).await.unwrap_err(), invalid, "etcdserver: key not found");
    let odd = RangeRequest { sort_order: 9, ..range("a", "") };
    check(kv.range(odd).await.unwrap_err(), invalid, "etcdserver: invalid sort option");
    let old = RangeRequest { revision: 1, ..range("a", "") };
    let text = "etcdserver: mvcc: required revision has been compacted";
    check(kv.range(old).await.unwrap_err(), Code::OutOfRange, text);
    let future = RangeRequest { revision: 3, ..range("a", "") };
    let text = "etcdserver: mvcc: required revision is a future revision";
    check(kv.range(future.clone()).await.unwrap_err(), Code::OutOfRange, text);

    let txn = |success: Vec<Request>| TxnRequest {
        success: success.into_iter().map(op).collect(),
        ..TxnRequest::default()
    };
    let twice = vec![Request::RequestPut(put("a", "1")), Request::RequestPut(put("a", "2"))];
    let text = "etcdserver: duplicate key given in txn request";
    check(kv.txn(txn(twice)).await.unwrap_err(), invalid, text);
    for end in ["", "b", "\0"] {
        let both =
            vec![Request::RequestPut(put("a", "1")), Request::RequestDeleteRange(delete("a", end))];
        check(kv.txn(txn(both)).await.unwrap_err(), invalid, text);
    }
    let many = vec![Request::RequestRange(range("a", "")); 129];
    let text = "etcdserver: too many operations in txn request";
    kv.txn(txn(many[1..].to_vec())).await.unwrap();
    check(kv.txn(txn(many)).await.unwrap_err(), invalid, text);
    let empty = TxnRequest { success: vec![pb::RequestOp { request: None }], ..txn(vec![]) };
    check(kv.txn(empty).await.unwrap_err(), invalid, no_key);
    let no_key_compared = compare("", CompareResult::Equal, TargetUnion::Version(1));
    let unnamed = TxnRequest { compare: vec![no_key_compared], ..txn(vec![]) };
    check(kv.txn(unnamed).await.unwrap_err(), invalid, no_key);
    // What depends on the store is refused as a whole, by reads and by writes.
    let text = "etcdserver: mvcc: required revision is a future revision";
    let read = Request::RequestRange(future);
    check(kv.txn(txn(vec![read.clone()])).await.unwrap_err(), Code::OutOfRange, text);
    let write = vec![Request::RequestPut(put("b", "1")), read];
    check(kv.txn(txn(write)).await.unwrap_err(), Code::OutOfRange, text);
    let found = kv.range(range("b", "")).await.unwrap().into_inner();
    assert_eq!((found.count, found.header.unwrap().revision), (0, 2));
}

#[tokio::test]
async fn what_is_not_offered_says_so() {
    let double = Double::start();
    let mut kv = double.kv().await;
    let nested = TxnRequest {
        success: vec![op(Request::RequestTxn(TxnRequest::default()))],
        ..TxnRequest::default()
    };
    let leased = PutRequest { lease: 5, ..put("a", "") };
    let compared = compare("a", CompareResult::Equal, TargetUnion::Lease(0));
    let compared = TxnRequest { compare: vec![compared], ..TxnRequest::default() };
    let activate = pb::AlarmRequest { action: 1, ..pb::AlarmRequest::default() };
    let mut maintenance = double.maintenance().await;
    for (status, word) in [
        (kv.txn(nested).await.unwrap_err(), "transactions within"),
        (kv.put(leased).await.unwrap_err(), "leases"),
        (kv.txn(compared).await.unwrap_err(), "leases"),
        (kv.compact(pb::CompactionRequest::default()).await.unwrap_err(), "latest revision"),
        (maintenance.alarm(activate).await.unwrap_err(), "alarms"),
        (
            maintenance.move_leader(pb::MoveLeaderRequest::default()).await.unwrap_err(),
            "successors",
        ),
    ] {
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
        assert!(status.message().contains(word), "{status}");
    }
    // Services and methods that there are not.
    for path in [
        "/etcdserverpb.Watch/Watch",
        "/etcdserverpb.Lease/LeaseGrant",
        "/etcdserverpb.Auth/AuthStatus",
        "/etcdserverpb.Maintenance/Snapshot",
        "/etcdserverpb.Cluster/MemberAdd",
        "/etcdserverpb.KV/Nonsense",
        "/nonsense",
    ] {
        let answer = crate::raw::call(double.client, path, &[], &[0; 5]).await;
        assert_eq!(answer.code, Some(Code::Unimplemented), "{path}: {answer:?}");
        assert!(answer.message.starts_with(&path[1..]), "{path}: {answer:?}");
        assert!(answer.message.contains("not offered"), "{answer:?}");
    }
}

#[tokio::test]
async fn what_the_driver_cannot_serve_is_told_in_etcds_words() {
    let mut double = Double::start();
    let mut kv = double.kv().await;
    for (reason, code, text) in [
        (Unserved::NoLeader, Code::Unavailable, "etcdserver: no leader"),
        (
            Unserved::TooLarge { bytes: 9, most: 8 },
            Code::InvalidArgument,
            "etcdserver: request is too large",
        ),
        (Unserved::Overloaded, Code::ResourceExhausted, "etcdserver: too many requests"),
        (Unserved::TimedOut, Code::Unavailable, "etcdserver: request timed out"),
        (Unserved::Stopping, Code::Unavailable, "etcdserver: server stopped"),
    ] {
        double.mood(Mood::Refuses(reason));
        check(kv.put(put("a", "1")).await.unwrap_err(), code, text);
        check(kv.range(range("a", "")).await.unwrap_err(), code, text);
    }
    double.end_driver();
    let status = kv.put(put("a", "1")).await.unwrap_err();
    check(status, Code::Unavailable, "etcdserver: server stopped");
}

#[tokio::test]
async fn a_client_that_has_lost_patience_is_not_waited_for() {
    let mut double = Double::start();
    double.mood(Mood::Keeps);
    let path = "/etcdserverpb.KV/Put";
    // A put of key "a": its first field, one byte long.
    let message = [0, 0, 0, 0, 3, 0x0a, 1, b'a'];
    let answer = crate::raw::call(double.client, path, &[("grpc-timeout", "50m")], &message).await;
    assert_eq!(answer.code, Some(Code::DeadlineExceeded), "{answer:?}");
    assert!(answer.message.contains("within 50 ms"), "{answer:?}");
    // The driver learns that nobody waits any more.
    tokio::time::timeout(crate::double::PATIENCE, double.gone.recv()).await.unwrap().unwrap();
    // Nor is one that has gone away.
    let call = crate::raw::call(double.client, path, &[], &message);
    tokio::select! {
        answer = call => panic!("{answer:?}"),
        () = async {
            while double.asked("write") < 2 {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    tokio::time::timeout(crate::double::PATIENCE, double.gone.recv()).await.unwrap().unwrap();
}
