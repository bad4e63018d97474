//! The probe of a trial, by way of the agent on the reference: the others' clocks are measured against
//! that host's, so what it stamps needs no conversion.

use std::time::{Duration, Instant};

use rand::RngExt;
use sraft_agent::protocol::Call;
use sraft_core::Span;
use sraft_report::results::Op;

use super::{Cluster, Halt};
use crate::plan::Probe;

const CONFIG: &str = "probe.toml";
const OPS: &str = "ops.csv";

/// How long a first write may take on a cluster that has settled.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// How long its end may take: what is under way, and a look at everything written.
const STOPPED_WITHIN: Duration = Duration::from_secs(20);

/// What has come of the probe of the current trial.
#[derive(Debug, Default)]
pub(super) struct Felt {
    /// Rows of `ops.csv`, as the probe wrote them.
    lines: Vec<String>,
    /// The acknowledged writes: when they were meant to start, and when they ended.
    acked: Vec<(u64, u64)>,
}

/// The probe's configuration file.
#[derive(serde::Serialize)]
struct Config {
    trial: u64,
    endpoints: Vec<String>,
    rate: u32,
    value_size: u32,
    deadline: String,
    keys: u32,
    reads: f64,
    cas: f64,
    seed: u64,
}

impl Felt {
    /// Takes rows up.
    pub(super) fn take(&mut self, lines: Vec<String>) -> Result<(), Halt> {
        for line in lines {
            let op = Op::parse(&line).map_err(|error| {
                Halt::Stuck(format!("the probe's row `{line}` is no operation: {error}"))
            })?;
            let end = op.end_ns.filter(|_| op.acknowledged_write());
            self.acked.extend(end.map(|end| (op.intended_ns, end)));
            self.lines.push(line);
        }
        Ok(())
    }

    /// Whether a write that was meant to start after this instant has been acknowledged.
    fn served_since(&self, fault_ns: u64) -> bool {
        self.acked.iter().any(|(intended, _)| *intended > fault_ns)
    }
}

impl Cluster {
    /// Starts the probe and waits until it has acknowledged a first write.
    pub(crate) fn start_probe(&mut self, probe: &Probe, trial: u64) -> Result<(), Halt> {
        self.felt = Felt::default();
        let nodes = self.membership.nodes.iter();
        let config = Config {
            trial,
            endpoints: nodes.map(|at| format!("{}:{}", at.host, at.client)).collect(),
            rate: probe.rate,
            value_size: probe.value_size,
            deadline: Span(probe.deadline).to_string(),
            keys: probe.keys,
            reads: probe.reads,
            cas: probe.cas,
            // TOML has no number beyond this.
            seed: self.rng.random::<u64>() & i64::MAX as u64,
        };
        let config = toml::to_string(&config).expect("plain data can be written as TOML");
        let args = ["probe", "--config", CONFIG, "--ops", OPS, "--die-with-parent", "{agent_pid}"];
        let call = Call::StartProbe {
            program: None,
            args: args.map(str::to_owned).to_vec(),
            files: vec![(CONFIG.to_owned(), config)],
            ops_file: OPS.to_owned(),
        };
        let asked = self.send_all(vec![(self.reference, call)])?;
        self.probing = true;
        match self.answers(&asked, Instant::now() + READY_WITHIN) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Halt::Stuck(format!(
                "no write of the probe was acknowledged within {} s",
                READY_WITHIN.as_secs()
            ))),
            Err(Halt::Stuck(why)) => {
                // Its agent has told of its end.
                self.probing = false;
                Err(Halt::Stuck(why))
            }
            Err(halt) => Err(halt),
        }
    }

    /// Ends the probe, if one has been started. All its rows have been taken up afterwards.
    pub(crate) fn stop_probe(&mut self) -> Result<(), Halt> {
        if !std::mem::take(&mut self.probing) {
            return Ok(());
        }
        let asked = self.send_all(vec![(self.reference, Call::StopProbe {})])?;
        let deadline = Instant::now() + STOPPED_WITHIN;
        let mut died = Ok(());
        loop {
            match self.answers(&asked, deadline) {
                Ok(Ok(_)) => return died,
                Ok(Err(agent)) => {
                    let why = format!("the probe has not ended for {} s", STOPPED_WITHIN.as_secs());
                    return Err(self.lost(agent, why));
                }
                // That is bad news, but not the answer.
                Err(Halt::Died(why)) => died = Err(Halt::Died(why)),
                Err(other) => return Err(other),
            }
        }
    }

    /// Waits until a write has been acknowledged that was meant to start after the fault of the
    /// current trial, or until `deadline`.
    pub(crate) fn wait_served(&mut self, fault_ns: u64, deadline: Instant) -> Result<bool, Halt> {
        loop {
            while self.next(Instant::now())?.is_some() {}
            if self.felt.served_since(fault_ns) {
                return Ok(true);
            }
            if self.next(deadline)?.is_none() {
                return Ok(false);
            }
        }
    }

    /// Hands out the rows of the current trial.
    pub(crate) fn take_ops(&mut self) -> Vec<String> {
        std::mem::take(&mut self.felt).lines
    }
}
