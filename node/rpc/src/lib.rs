//! The part of etcd v3's API that a node offers and that the probe and the load generator speak:
//! the same messages, field numbers and method names, so that etcd's own clients work with a node
//! and ours work with etcd.
//!
//! The `.proto` files beside this crate are our own, reduced to what is used here.

/// Requests, responses, clients and servers (package `etcdserverpb`).
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// Key-value pairs (package `mvccpb`).
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}
