//! The S-Raft node alone; `sraft node` is the same program.

use clap::Parser;
use sraft_node::cli::NodeArgs;

#[global_allocator]
static ALLOCATOR: sraft_node::Allocator = sraft_node::ALLOCATOR;

#[derive(Parser)]
#[command(name = "sraft-node", version, about = "One node of an S-Raft cluster")]
struct Cli {
    #[command(flatten)]
    node: NodeArgs,
}

fn main() -> std::process::ExitCode {
    sraft_node::exit_code(sraft_node::run(Cli::parse().node))
}
