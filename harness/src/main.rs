//! Failure-injection benchmark for leader failover in Raft.
fn main() {}
