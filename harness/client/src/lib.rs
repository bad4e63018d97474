//! Open-loop clients of etcd v3's API: the outage probe and the load generator.
//!
//! ```text
//! address      where a system is reached
//! wire         one HTTP/2 connection
//! member       one endpoint: its connections, whether it says anything
//! client       all of them: where an operation goes
//! operation    put, get, compare-and-set as requests
//! outcome      what is known of an operation that was not answered
//! schedule     when operations are meant to start
//! probe        operations at a set rate, one row each: what a client feels of a failover
//! load         the load generator: throughput and latencies
//! clock        the monotonic clock and an alarm
//! ```
//!
//! Nothing here knows which system is at the other end.

pub mod address;
pub mod client;
pub mod clock;
pub mod load;
mod member;
pub mod operation;
pub mod outcome;
pub mod probe;
mod process;
mod schedule;
mod wire;
