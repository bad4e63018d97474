//! `sraft load`: its options, and where its results go.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{ArgGroup, Args};
use sraft_client::{
    address::Address,
    load::{self, Pace, Plan},
};

/// Exit code of a run that was interrupted: what shells give for SIGINT.
const INTERRUPTED: u8 = 130;

/// Clients of a closed loop, unless said otherwise.
const CLIENTS: u32 = 16;

/// Operations under way in an open loop, unless said otherwise.
const UNDER_WAY: u32 = 1024;

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("pace").required(true).args(["rate", "max"]))]
pub(crate) struct LoadArgs {
    /// Where the system is reached: its members' client ports
    #[arg(long, value_name = "HOST:PORT,...", required = true, value_delimiter = ',')]
    endpoints: Vec<Address>,
    /// Operations per second, started at set times whatever became of earlier ones (open loop);
    /// latencies count from the time at which an operation was meant to start
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// As fast as the clients can, each with one operation at a time (closed loop); latencies are
    /// service times
    #[arg(long)]
    max: bool,
    /// With --max: clients [default: 16]; with --rate: operations under way at once, at most
    /// [default: 1024]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    clients: Option<u32>,
    /// Measured time
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Time before, in which the same happens without being counted
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration_or_none)]
    warmup: Duration,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_size: u32,
    /// Keys, drawn evenly
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// Share of linearizable reads; the rest are puts
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    reads: f64,
    /// Seed of keys, values and the mix
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Write one row per second: throughput, errors, latencies
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write all percentiles, in the format that HdrHistogram's plotters read
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Write the result to standard output as JSON
    #[arg(long)]
    json: bool,
}

fn duration_or_none(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("write a time such as 10s or 1m 30s: {error}"))?;
    match duration <= Duration::from_secs(24 * 3600) {
        true => Ok(duration),
        false => Err("one day at most".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_none(text)? {
        duration if duration < Duration::from_millis(100) => Err("100ms at least".to_owned()),
        duration => Ok(duration),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("write a share from 0 to 1".to_owned()),
    }
}

/// Runs it and shows what came out.
pub(crate) fn run(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let (pace, clients) = match args.rate {
        Some(rate) => (Pace::Rate(rate), UNDER_WAY),
        None => (Pace::Max, CLIENTS),
    };
    let plan = Plan {
        endpoints: args.endpoints.clone(),
        pace,
        clients: args.clients.unwrap_or(clients),
        duration: args.duration,
        warmup: args.warmup,
        value_size: args.value_size as usize,
        keys: args.keys,
        reads: args.reads,
        seed: args.seed,
        csv: args.csv.clone(),
        hgrm: args.hgrm.clone(),
    };
    let report = load::run(&plan)?;
    match args.json {
        true => crate::say(&(serde_json::to_string_pretty(&report)? + "\n"))?,
        false => crate::say(&report.to_string())?,
    }
    anyhow::ensure!(report.acknowledged > 0 || report.interrupted, "no operation was acknowledged");
    Ok(match report.interrupted {
        true => ExitCode::from(INTERRUPTED),
        false => ExitCode::SUCCESS,
    })
}
