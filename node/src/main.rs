//! The S-Raft node alone; `sraft node` is the same program.
fn main() {}
