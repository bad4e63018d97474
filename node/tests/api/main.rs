//! The client-facing servers, before a driver that is a single node and applies at once.

mod abuse;
mod admin;
mod double;
mod etcd;
mod etcdctl;
mod keys;
mod raw;
mod refusals;
