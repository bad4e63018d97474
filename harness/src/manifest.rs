//! Who runs what where, for `manifest.json`.

use std::{fmt::Write as _, io, time::SystemTime};

use serde::Serialize;
use sha2::{Digest, Sha256};
use sraft_report::results::{Host, Manifest, Plan, Session};

/// The manifest of a run that begins.
pub(crate) fn new(
    plan: &Plan,
    run: &str,
    hosts: &[(&str, impl Serialize)],
) -> anyhow::Result<Manifest> {
    let host = |(name, facts): &(&str, _)| {
        let facts = serde_json::to_value(facts)?;
        // Every process of one host reads the same clock.
        anyhow::Ok(Host { name: (*name).to_owned(), facts, clock_bound_us: 0.0 })
    };
    let hosts = hosts.iter().map(host).collect::<Result<_, _>>()?;
    Ok(Manifest {
        schema: sraft_events::SCHEMA,
        experiment: plan.experiment.clone(),
        run: run.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: option_env!("SRAFT_GIT_COMMIT").map(str::to_owned),
        git_dirty: option_env!("SRAFT_GIT_DIRTY").map(|dirty| dirty == "true"),
        binary_sha256: binary_sha256()?,
        // Where the program lies is nobody's business; which one it was, its hash says.
        command: std::iter::once("sraft".to_owned()).chain(std::env::args().skip(1)).collect(),
        seed: plan.seed,
        hosts,
        sessions: Vec::new(),
    })
}

/// A stretch of work that begins now.
pub(crate) fn session() -> Session {
    Session { started_at: now(), ended_at: None, end: None }
}

/// The time, RFC 3339 in UTC, to the second.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// A name for a run that begins now: `20260102-030405`.
pub(crate) fn run_name() -> String {
    now().replace(['-', ':'], "").replace('T', "-").replace('Z', "")
}

/// SHA-256 of this very program, in hexadecimal.
fn binary_sha256() -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = std::fs::File::open("/proc/self/exe")?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_run_is_named_after_its_second() {
        let name = super::run_name();
        assert_eq!(name.len(), "20260102-030405".len());
        assert!(name.chars().enumerate().all(|(at, c)| (at == 8) == (c == '-')), "{name}");
    }
}
