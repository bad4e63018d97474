//! Keys and values through gRPC, by etcd's rules.

use bytes::Bytes;
use sraft_node::api::cluster_id;
use sraft_rpc::{
    etcdserverpb::{
        self as pb, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        kv_client::KvClient,
        range_request::{SortOrder, SortTarget},
        request_op::Request,
        response_op::Response,
    },
    mvccpb::KeyValue,
};
use tonic::transport::Channel;

use crate::double::{Double, MEMBER, TERM};

pub(crate) fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

pub(crate) fn range(key: &'static str, end: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), range_end: end.into(), ..RangeRequest::default() }
}

pub(crate) fn delete(key: &'static str, end: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: true }
}

pub(crate) fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

pub(crate) fn compare(key: &'static str, result: CompareResult, given: TargetUnion) -> Compare {
    let target = match given {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    Compare {
        result: result as i32,
        target: target as i32,
        key: key.into(),
        target_union: Some(given),
        range_end: Bytes::new(),
    }
}

async fn put_all(kv: &mut KvClient<Channel>, pairs: &[(&'static str, &'static str)]) {
    for (key, value) in pairs {
        kv.put(put(key, value)).await.unwrap();
    }
}

async fn list(kv: &mut KvClient<Channel>, request: RangeRequest) -> pb::RangeResponse {
    kv.range(request).await.unwrap().into_inner()
}

fn names(response: &pb::RangeResponse) -> Vec<&str> {
    response.kvs.iter().map(|kv| std::str::from_utf8(&kv.key).unwrap()).collect()
}

fn pair(key: &'static str, value: &'static str, revisions: (i64, i64, i64)) -> KeyValue {
    let (create_revision, mod_revision, version) = revisions;
    let (key, value) = (key.into(), value.into());
    KeyValue { key, value, create_revision, mod_revision, version, lease: 0 }
}

#[tokio::test]
async fn revisions_and_headers_are_etcds() {
    let double = Double::start();
    let mut kv = double.kv().await;
    let empty = list(&mut kv, range("a", "")).await;
    let header = |revision| pb::ResponseHeader {
        cluster_id: cluster_id("c"),
        member_id: MEMBER,
        revision,
        raft_term: TERM,
    };
    assert_eq!(empty, pb::RangeResponse { header: Some(header(1)), ..Default::default() });

    let first = kv.put(put("a", "1")).await.unwrap().into_inner();
    assert_eq!(first, pb::PutResponse { header: Some(header(2)), prev_kv: None });
    let second = PutRequest { prev_kv: true, ..put("a", "2") };
    let second = kv.put(second).await.unwrap().into_inner();
    assert_eq!(second.header, Some(header(3)));
    assert_eq!(second.prev_kv, Some(pair("a", "1", (2, 2, 1))));
    kv.put(put("b", "")).await.unwrap();
    let kept = PutRequest { ignore_value: true, ..put("a", "") };
    assert_eq!(kv.put(kept).await.unwrap().into_inner().header, Some(header(5)));
    let found = list(&mut kv, range("a", "")).await;
    assert_eq!(found.header, Some(header(5)));
    assert_eq!((found.kvs, found.count), (vec![pair("a", "2", (2, 5, 3))], 1));

    let none = kv.delete_range(delete("x", "z")).await.unwrap().into_inner();
    assert_eq!((none.header, none.deleted, none.prev_kvs), (Some(header(5)), 0, vec![]));
    let both = kv.delete_range(delete("a", "c")).await.unwrap().into_inner();
    assert_eq!((both.header, both.deleted), (Some(header(6)), 2));
    assert_eq!(both.prev_kvs, [pair("a", "2", (2, 5, 3)), pair("b", "", (4, 4, 1))]);
    let unseen = DeleteRangeRequest { prev_kv: false, ..delete("a", "\0") };
    assert!(kv.delete_range(unseen).await.unwrap().into_inner().prev_kvs.is_empty());
    kv.put(put("a", "3")).await.unwrap();
    let again = list(&mut kv, range("a", "")).await;
    assert_eq!(again.kvs, [pair("a", "3", (7, 7, 1))], "a deletion starts anew");
}

#[tokio::test]
async fn ranges_can_be_cut_and_sorted() {
    let double = Double::start();
    let mut kv = double.kv().await;
    put_all(&mut kv, &[("b", "1"), ("a", "3"), ("c", "2"), ("b", "0"), ("d", "9")]).await;
    assert_eq!(names(&list(&mut kv, range("a", "c")).await), ["a", "b"]);
    assert_eq!(names(&list(&mut kv, range("b", "\0")).await), ["b", "c", "d"]);
    assert_eq!(names(&list(&mut kv, range("\0", "\0")).await), ["a", "b", "c", "d"]);
    assert_eq!(names(&list(&mut kv, range("c", "a")).await), [""; 0]);

    let cut = list(&mut kv, RangeRequest { limit: 2, ..range("a", "\0") }).await;
    assert_eq!((names(&cut), cut.more, cut.count), (vec!["a", "b"], true, 4));
    let all = list(&mut kv, RangeRequest { limit: 4, ..range("a", "\0") }).await;
    assert_eq!((all.kvs.len(), all.more, all.count), (4, false, 4));
    let count = list(&mut kv, RangeRequest { count_only: true, ..range("a", "\0") }).await;
    assert_eq!((count.kvs.len(), count.more, count.count), (0, false, 4));
    let keys = list(&mut kv, RangeRequest { keys_only: true, ..range("a", "\0") }).await;
    assert!(keys.kvs.len() == 4 && keys.kvs.iter().all(|kv| kv.value.is_empty()));

    let sorted = |target: SortTarget, order: SortOrder| RangeRequest {
        sort_target: target as i32,
        sort_order: order as i32,
        limit: 3,
        ..range("a", "\0")
    };
    for (target, order, expected) in [
        (SortTarget::Key, SortOrder::Descend, ["d", "c", "b"]),
        (SortTarget::Version, SortOrder::Descend, ["b", "a", "c"]),
        (SortTarget::Create, SortOrder::Ascend, ["b", "a", "c"]),
        (SortTarget::Mod, SortOrder::Ascend, ["a", "c", "b"]),
        (SortTarget::Value, SortOrder::None, ["b", "c", "a"]),
    ] {
        let found = list(&mut kv, sorted(target, order)).await;
        assert_eq!(names(&found), expected, "{target:?} {order:?}");
        assert!(found.more);
    }
    let window = RangeRequest { min_mod_revision: 4, max_mod_revision: 5, ..range("a", "\0") };
    let window = list(&mut kv, window).await;
    assert_eq!((names(&window), window.count), (vec!["b", "c"], 4));
    let window =
        RangeRequest { min_create_revision: 3, max_create_revision: 3, ..range("a", "\0") };
    assert_eq!(names(&list(&mut kv, window).await), ["a"]);
    let latest = RangeRequest { revision: 6, ..range("a", "") };
    assert_eq!(names(&list(&mut kv, latest).await), ["a"]);
}

#[tokio::test]
async fn keys_are_bytes() {
    let double = Double::start();
    let mut kv = double.kv().await;
    let key = Bytes::from_static(b"\xff\xfe\0\xc3\x28");
    let value: Bytes = (0..=255).collect::<Vec<u8>>().into();
    let put = PutRequest { key: key.clone(), value: value.clone(), ..PutRequest::default() };
    kv.put(put).await.unwrap();
    let one = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    let found = list(&mut kv, one).await.kvs.pop().unwrap();
    assert_eq!((found.key, found.value), (key, value));
}

#[tokio::test]
async fn transactions_compare_and_then_do_all_at_one_revision() {
    let double = Double::start();
    let mut kv = double.kv().await;
    kv.put(put("a", "1")).await.unwrap();
    let request = |compare| TxnRequest {
        compare,
        success: vec![
            op(Request::RequestPut(PutRequest { prev_kv: true, ..put("a", "2") })),
            op(Request::RequestRange(range("a", "\0"))),
            op(Request::RequestDeleteRange(delete("x", ""))),
            op(Request::RequestPut(put("b", "2"))),
        ],
        failure: vec![op(Request::RequestRange(range("a", "")))],
    };
    let holds = vec![
        compare("a", CompareResult::Equal, TargetUnion::Value("1".into())),
        compare("a", CompareResult::Greater, TargetUnion::ModRevision(1)),
        compare("b", CompareResult::Equal, TargetUnion::Version(0)),
        compare("b", CompareResult::Less, TargetUnion::CreateRevision(1)),
    ];
    let done = kv.txn(request(holds.clone())).await.unwrap().into_inner();
    assert!(done.succeeded);
    assert_eq!(done.header.unwrap().revision, 3);
    let responses: Vec<Response> =
        done.responses.into_iter().map(|response| response.response.unwrap()).collect();
    let [
        Response::ResponsePut(first),
        Response::ResponseRange(seen),
        Response::ResponseDeleteRange(nothing),
        Response::ResponsePut(second),
    ] = &responses[..]
    else {
        panic!("{responses:?}")
    };
    assert_eq!(first.prev_kv, Some(pair("a", "1", (2, 2, 1))));
    assert_eq!(seen.kvs, [pair("a", "2", (2, 3, 2))], "after the first, before the last");
    assert_eq!(nothing.deleted, 0);
    assert_eq!(second.header.unwrap().revision, 3);

    let not = kv.txn(request(holds)).await.unwrap().into_inner();
    assert!(!not.succeeded);
    assert_eq!(not.header.unwrap().revision, 3);
    let Some(Response::ResponseRange(found)) = &not.responses[0].response else { panic!() };
    assert_eq!(found.kvs, [pair("a", "2", (2, 3, 2))]);

    // No key has no value, not even an empty one.
    for (result, holds) in [(CompareResult::Equal, false), (CompareResult::NotEqual, false)] {
        let compare = compare("none", result, TargetUnion::Value(Bytes::new()));
        let txn = TxnRequest { compare: vec![compare], ..TxnRequest::default() };
        assert_eq!(kv.txn(txn).await.unwrap().into_inner().succeeded, holds);
    }
    // A comparison with a range holds for each key of it.
    for (version, holds) in [(0, true), (1, false)] {
        let each = compare("a", CompareResult::Greater, TargetUnion::Version(version));
        let each = Compare { range_end: "\0".into(), ..each };
        let txn = TxnRequest { compare: vec![each], ..TxnRequest::default() };
        assert_eq!(kv.txn(txn).await.unwrap().into_inner().succeeded, holds, "{version}");
    }
}

#[tokio::test]
async fn only_what_writes_goes_through_the_log() {
    let double = Double::start();
    let mut kv = double.kv().await;
    list(&mut kv, range("a", "")).await;
    assert_eq!(double.asked("linearizable read"), 1);
    let local = RangeRequest { serializable: true, ..range("a", "") };
    list(&mut kv, local.clone()).await;
    assert_eq!(double.asked("serializable read"), 1);

    let reads = |ranges: &[RangeRequest]| TxnRequest {
        success: ranges.iter().map(|range| op(Request::RequestRange(range.clone()))).collect(),
        ..TxnRequest::default()
    };
    let answer = kv.txn(reads(&[local.clone(), range("b", "")])).await.unwrap().into_inner();
    assert_eq!((answer.succeeded, answer.responses.len()), (true, 2));
    assert_eq!(double.asked("linearizable read"), 2);
    kv.txn(reads(&[local.clone(), local])).await.unwrap();
    assert_eq!(double.asked("serializable read"), 2);
    kv.txn(reads(&[])).await.unwrap();
    assert_eq!(double.asked("linearizable read"), 3, "nothing allows it to be stale");
    assert_eq!(double.asked("write"), 0);
    kv.put(put("a", "")).await.unwrap();
    assert_eq!(double.asked("write"), 1);
}

#[tokio::test]
async fn members_and_their_state_are_told() {
    let double = Double::start();
    let mut kv = double.kv().await;
    kv.put(put("key", "value")).await.unwrap();
    let members = double.cluster().await.member_list(pb::MemberListRequest::default()).await;
    let members = members.unwrap().into_inner();
    assert_eq!(members.header.unwrap().member_id, MEMBER);
    assert_eq!(members.members.len(), 3);
    assert_eq!(members.members[2].name, "node-3");
    assert_eq!(members.members[2].peer_ur_ls, ["http://10.0.0.3:5000"]);
    assert_eq!(members.members[2].client_ur_ls, [format!("http://{}", double.client)]);

    let mut maintenance = double.maintenance().await;
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    let header = status.header.unwrap();
    assert_eq!((header.revision, header.raft_term), (2, TERM));
    assert_eq!((status.leader, status.raft_index, status.raft_applied_index), (MEMBER, 1, 1));
    assert_eq!((status.db_size, status.db_size_in_use), (1024, 8));
    assert_eq!((status.errors.len(), status.raft_term), (0, TERM));
    double.about.lock().unwrap().leader = None;
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.leader, &status.errors[..]), (0, &["etcdserver: no leader".to_owned()][..]));
    let alarms = maintenance.alarm(pb::AlarmRequest::default()).await.unwrap().into_inner();
    assert!(alarms.alarms.is_empty() && alarms.header.unwrap().revision == 2);
}
