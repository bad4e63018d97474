//! What of the trial's writes is there in the end.

use std::time::Duration;

use bytes::Bytes;
use sraft_rpc::etcdserverpb::{DeleteRangeRequest, RangeRequest, range_request::SortOrder};

use super::{
    ops::{Ops, Row, Unwritable},
    workload::{key, prefix},
};
use crate::{client::Client, clock, outcome::Outcome};

/// How long the audit may take, with its repetitions.
const AUDITED_WITHIN: Duration = Duration::from_secs(5);

/// How long the removal of the trial's keys may take, likewise.
const REMOVED_WITHIN: Duration = Duration::from_secs(2);

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// Keys per request, so that an answer stays far below gRPC's customary limit of 4 MiB.
const PAGE: i64 = 2000;

/// A page of the keys that are there.
struct Page {
    keys: Vec<Bytes>,
    more: bool,
    revision: Option<i64>,
    start_ns: u64,
    end_ns: u64,
}

/// Compares the keys that are there with those that were ever written, `key(0)` to
/// `key(written - 1)`: a row per key that is not there, then a closing row with the number of those
/// that are. Without the closing row, the audit has not come to its end. Reading may be repeated,
/// so unlike the operations it is, until [`AUDITED_WITHIN`] is over.
pub(super) async fn audit(
    client: &Client,
    trial: u64,
    written: u64,
    deadline: Duration,
    ops: &mut Ops,
) -> Result<(), Unwritable> {
    let give_up = clock::now() + AUDITED_WITHIN.as_nanos() as u64;
    let mut from: Bytes = prefix(trial).into();
    let (mut next, mut found) = (0, 0_u64);
    loop {
        let page = loop {
            match page(client, trial, from.clone(), deadline).await {
                Some(page) => break page,
                None if clock::now() > give_up => return Ok(()),
                None => tokio::time::sleep(PAUSE).await,
            }
        };
        let row = |key: String, value: Option<String>, found: Option<bool>| Row {
            trial,
            op: "audit",
            key,
            value,
            expected: None,
            intended_ns: None,
            start_ns: page.start_ns,
            end_ns: Some(page.end_ns),
            outcome: Outcome::Ok,
            found,
            revision: page.revision,
            endpoint: None,
            error: None,
        };
        for present in &page.keys {
            // Both go upwards, so what has been passed over is missing.
            while next < written && key(trial, next).as_bytes() < &present[..] {
                ops.write(&row(key(trial, next), None, Some(false)))?;
                next += 1;
            }
            if next < written && key(trial, next).as_bytes() == &present[..] {
                next += 1;
                found += 1;
            }
        }
        if let (true, Some(last)) = (page.more, page.keys.last()) {
            from = [last, &b"\0"[..]].concat().into();
            continue;
        }
        for missing in next..written {
            ops.write(&row(key(trial, missing), None, Some(false)))?;
        }
        ops.write(&row(String::new(), Some(found.to_string()), None))?;
        return ops.flush();
    }
}

/// Keys of the trial in order, from `from` on; `None` if there was no answer.
async fn page(client: &Client, trial: u64, from: Bytes, deadline: Duration) -> Option<Page> {
    let mut kv = client.any()?;
    let request = RangeRequest {
        key: from,
        range_end: end(trial),
        limit: PAGE,
        keys_only: true,
        sort_order: SortOrder::None.into(),
        ..Default::default()
    };
    let start_ns = clock::now();
    let answer = tokio::time::timeout(deadline, kv.range(request)).await.ok()?.ok()?.into_inner();
    Some(Page {
        keys: answer.kvs.into_iter().map(|kv| kv.key).collect(),
        more: answer.more,
        revision: answer.header.map(|header| header.revision),
        start_ns,
        end_ns: clock::now(),
    })
}

/// Removes the trial's keys, as far as that succeeds in time.
pub(super) async fn remove(client: &Client, trial: u64, deadline: Duration) {
    let give_up = clock::now() + REMOVED_WITHIN.as_nanos() as u64;
    loop {
        if let Some(mut kv) = client.any() {
            let (key, range_end) = (prefix(trial).into(), end(trial));
            let request = DeleteRangeRequest { key, range_end, ..Default::default() };
            if let Ok(Ok(_)) = tokio::time::timeout(deadline, kv.delete_range(request)).await {
                return;
            }
        }
        if clock::now() > give_up {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The end of the range of the trial's keys: '0' follows the '/' that they all have.
fn end(trial: u64) -> Bytes {
    format!("w/{trial}0").into()
}
