//! How clients are told that they are not served: gRPC statuses, with the texts that etcd's own
//! clients look for (etcd API 3.4, `rpctypes`).

use tonic::Status;

use crate::{desk::Unserved, store::Refusal};

pub(super) fn unserved(reason: &Unserved) -> Status {
    match reason {
        Unserved::NoLeader => Status::unavailable("etcdserver: no leader"),
        Unserved::TooLarge { .. } => too_large(),
        Unserved::Overloaded => too_many(),
        Unserved::TimedOut => Status::unavailable("etcdserver: request timed out"),
        Unserved::Stopping => stopped(),
    }
}

pub(super) fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::KeyNotFound => Status::invalid_argument("etcdserver: key not found"),
        Refusal::OldRevision => {
            Status::out_of_range("etcdserver: mvcc: required revision has been compacted")
        }
        Refusal::FutureRevision => {
            Status::out_of_range("etcdserver: mvcc: required revision is a future revision")
        }
    }
}

pub(super) fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

pub(super) fn too_large() -> Status {
    Status::invalid_argument("etcdserver: request is too large")
}

pub(super) fn too_many() -> Status {
    Status::resource_exhausted("etcdserver: too many requests")
}

pub(super) fn no_key() -> Status {
    Status::invalid_argument("etcdserver: key is not provided")
}

pub(super) fn value_given() -> Status {
    Status::invalid_argument("etcdserver: value is provided")
}

pub(super) fn too_many_operations() -> Status {
    Status::invalid_argument("etcdserver: too many operations in txn request")
}

pub(super) fn duplicate_key() -> Status {
    Status::invalid_argument("etcdserver: duplicate key given in txn request")
}

pub(super) fn bad_sort() -> Status {
    Status::invalid_argument("etcdserver: invalid sort option")
}

pub(super) fn no_leases() -> Status {
    Status::unimplemented("leases are not offered: put keys without one")
}

pub(super) fn no_nesting() -> Status {
    Status::unimplemented(
        "transactions within transactions are not offered: put the comparisons into one",
    )
}

/// The method is not one that is offered.
pub(super) fn not_offered(path: &str) -> Status {
    // A path comes from the client; it is repeated, but not at any length.
    let path: String = path.trim_start_matches('/').chars().take(100).collect();
    Status::unimplemented(format!(
        "{path} is not offered: of etcd's API there are KV Range, Put, DeleteRange and Txn, \
         Maintenance Status, and Cluster MemberList"
    ))
}
