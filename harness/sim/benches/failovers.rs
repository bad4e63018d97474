//! How many failovers a second on one core, by cluster size: `cargo bench -p sraft-sim`. A trial is
//! the whole of it: a cluster starts, elects a leader, loses it, and all survivors know the next.

#![allow(clippy::print_stdout, reason = "a benchmark prints what it measures")]

use std::time::{Duration, Instant};

use sraft_core::Protocol;
use sraft_sim::{Failover, Model, Observe, Trial};

fn main() {
    println!("{:<8} {:>5} {:>12} {:>14}", "protocol", "nodes", "trials/s", "check: trials/s");
    for protocol in [Protocol::SRaft, Protocol::Raft] {
        for nodes in [3, 5, 9, 21, 51, 101] {
            let model = Model { nodes, protocol, ..Model::default() };
            let failover = Failover {
                model,
                laggards: 0,
                stagger: Duration::ZERO,
                timeout: Duration::from_secs(60),
            };
            let [plain, checked] = [false, true].map(|check| {
                let observe = Observe { check, ..Observe::default() };
                let trials = if nodes > 9 { 100 } else { 5000 };
                let start = Instant::now();
                let done = (0..trials).filter(|seed| {
                    matches!(failover.run(*seed, observe).unwrap(), Trial::Announced(_))
                });
                done.count() as f64 / start.elapsed().as_secs_f64()
            });
            println!("{protocol:<8?} {nodes:>5} {plain:>12.0} {checked:>14.0}");
        }
    }
}
