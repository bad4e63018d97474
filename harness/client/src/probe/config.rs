//! What the probe is told to do: a TOML file.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::address::{Address, BadAddress};

/// Operations that may be under way at once, at most: above it the slots do not grow with rate and
/// deadline any more, and operations start late while all of them wait.
pub const MOST_SLOTS: usize = 4096;

/// Largest rate, operations per second.
pub const MOST_RATE: u32 = 100_000;

/// Largest value, bytes: what etcd accepts in one request, less some room for the rest.
pub const MOST_VALUE: usize = 1 << 20;

/// Most register keys.
pub const MOST_KEYS: u32 = 100_000;

/// Why a probe cannot be configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadConfig {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not TOML, or holds what nobody asked for.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// One of its values cannot be.
    #[error("{}: `{key}` {why}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What it has to be.
        why: String,
    },
    /// One of its endpoints cannot be.
    #[error("{}: `endpoints`: {source}", path.display())]
    Endpoint {
        /// The file.
        path: PathBuf,
        /// Which and why.
        source: BadAddress,
    },
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    trial: u64,
    endpoints: Vec<String>,
    rate: u32,
    #[serde(default = "value_size")]
    value_size: usize,
    #[serde(default = "deadline")]
    deadline: String,
    #[serde(default = "keys")]
    keys: u32,
    #[serde(default)]
    reads: f64,
    #[serde(default)]
    cas: f64,
    #[serde(default)]
    seed: u64,
}

fn value_size() -> usize {
    64
}

fn deadline() -> String {
    "1s".to_owned()
}

fn keys() -> u32 {
    8
}

/// What the probe does.
#[derive(Clone, Debug)]
pub struct Config {
    /// The trial that its rows are of, and part of its keys.
    pub trial: u64,
    /// Where the system is reached.
    pub endpoints: Vec<Address>,
    /// Operations per second.
    pub rate: u32,
    /// Bytes of a value, filled up with `-` (see [`super`]).
    pub value_size: usize,
    /// How long an operation is waited for.
    pub deadline: Duration,
    /// Number of registers.
    pub keys: u32,
    /// Share of reads among the operations.
    pub reads: f64,
    /// Share of compare-and-sets.
    pub cas: f64,
    /// Seed of the mix.
    pub seed: u64,
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// See [`BadConfig`].
    pub fn read(path: &Path) -> Result<Config, BadConfig> {
        let text = fs::read_to_string(path)
            .map_err(|source| BadConfig::Unreadable { path: path.to_owned(), source })?;
        Config::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Config, BadConfig> {
        let place = || path.to_owned();
        let file: File = toml::from_str(text)
            .map_err(|source| BadConfig::Malformed { path: place(), source: source.into() })?;
        let wrong = |key, why: String| BadConfig::Value { path: place(), key, why };
        let mut endpoints = Vec::new();
        for text in &file.endpoints {
            let address = text.parse();
            endpoints
                .push(address.map_err(|source| BadConfig::Endpoint { path: place(), source })?);
        }
        if endpoints.is_empty() {
            return Err(wrong("endpoints", "names no endpoint".to_owned()));
        }
        if !(1..=MOST_RATE).contains(&file.rate) {
            return Err(wrong("rate", format!("has to be from 1 to {MOST_RATE} a second")));
        }
        if file.value_size > MOST_VALUE {
            return Err(wrong("value_size", format!("may be {MOST_VALUE} bytes at most")));
        }
        if !(1..=MOST_KEYS).contains(&file.keys) {
            return Err(wrong("keys", format!("has to be from 1 to {MOST_KEYS}")));
        }
        for (key, share) in [("reads", file.reads), ("cas", file.cas)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(wrong(key, "is a share, from 0 to 1".to_owned()));
            }
        }
        if file.reads + file.cas > 1.0 {
            return Err(wrong("cas", "and `reads` may be 1 together at most".to_owned()));
        }
        let deadline = humantime::parse_duration(&file.deadline)
            .map_err(|error| wrong("deadline", format!("is no duration such as 1s: {error}")))?;
        if !(Duration::from_millis(1)..=Duration::from_secs(60)).contains(&deadline) {
            return Err(wrong("deadline", "has to be from 1ms to 60s".to_owned()));
        }
        let File { trial, rate, value_size, keys, reads, cas, seed, .. } = file;
        Ok(Config { trial, endpoints, rate, value_size, deadline, keys, reads, cas, seed })
    }

    /// Operations that may be under way at once: so many as start within a deadline, so that a free
    /// slot is there whenever one is meant to start.
    pub fn slots(&self) -> usize {
        let slots = (f64::from(self.rate) * self.deadline.as_secs_f64()).ceil() as usize;
        // One ends at its deadline a moment after the next is due.
        (slots + 1).min(MOST_SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "trial = 7\nendpoints = [\"a:1\", \"b:2\"]\nrate = 200\n";

    fn parse(text: &str) -> Result<Config, BadConfig> {
        Config::parse(Path::new("probe.toml"), text)
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let config = parse(LEAST).unwrap();
        assert_eq!((config.trial, config.endpoints.len(), config.keys), (7, 2, 8));
        assert_eq!((config.value_size, config.deadline.as_millis()), (64, 1000));
        assert_eq!((config.reads, config.cas, config.slots()), (0.0, 0.0, 201));
        assert_eq!(parse(&LEAST.replace("200", "9000")).unwrap().slots(), MOST_SLOTS);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        for (line, place) in [
            ("rate = 0", "`rate`"),
            ("endpoints = []", "`endpoints`"),
            ("endpoints = [\"a\"]", "HOST:PORT"),
            ("reads = 1.5", "`reads`"),
            ("cas = -1", "`cas`"),
            ("reads = 0.6\ncas = 0.6", "together"),
            ("deadline = \"soon\"", "`deadline`"),
            ("deadline = \"0s\"", "`deadline`"),
            ("keys = 0", "`keys`"),
            ("value_size = 10000000", "`value_size`"),
            ("speed = 3", "unknown field"),
            ("trial = -1", "trial"),
        ] {
            let key = line.split_whitespace().next().unwrap();
            let kept: String =
                LEAST.lines().filter(|l| !l.starts_with(key)).map(|l| format!("{l}\n")).collect();
            let error = parse(&format!("{kept}{line}\n")).unwrap_err().to_string();
            assert!(error.contains("probe.toml") && error.contains(place), "{error}");
        }
    }
}
