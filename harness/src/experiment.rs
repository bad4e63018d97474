//! An experiment as its author wrote it, and where in the file each thing stands.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sraft_core::{Protocol, Span, TimingKnobs};
use sraft_report::results::Wish;
use toml::de::{DeTable, DeValue};

use crate::simulate::Sim;

/// The file, field by field. Numbers are signed so that a negative one gets a proper answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Experiment {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) question: String,
    pub(crate) cluster: Cluster,
    #[serde(default)]
    pub(crate) timing: TimingKnobs,
    #[serde(default)]
    pub(crate) workload: Workload,
    /// Which of the variants' `timings` are in force; usually the matrix says so.
    pub(crate) timings: Option<String>,
    pub(crate) fault: Fault,
    pub(crate) trials: Trials,
    pub(crate) sim: Option<Sim>,
    pub(crate) report: Option<Wish>,
    #[serde(default, rename = "variant")]
    pub(crate) variants: Vec<Variant>,
    #[serde(default)]
    pub(crate) matrix: toml::Table,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    pub(crate) size: i64,
    #[serde(default = "local")]
    pub(crate) backend: String,
}

fn local() -> String {
    "local".to_owned()
}

/// What the probe asks of the cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workload {
    #[serde(default)]
    pub(crate) rate: i64,
    pub(crate) value_size: Option<i64>,
    pub(crate) deadline: Option<Span>,
    pub(crate) keys: Option<i64>,
    #[serde(default)]
    pub(crate) reads: f64,
    #[serde(default)]
    pub(crate) cas: f64,
    pub(crate) before: Option<Span>,
    pub(crate) after: Option<Span>,
    /// Whether the run ends with the verdicts of `sraft check`.
    #[serde(default)]
    pub(crate) check: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    pub(crate) kind: String,
    pub(crate) target: Option<String>,
    pub(crate) groups: Option<Vec<Vec<String>>>,
    pub(crate) direction: Option<String>,
    pub(crate) duration: Option<Span>,
    pub(crate) percent: Option<f64>,
    pub(crate) delay: Option<Span>,
    pub(crate) jitter: Option<Span>,
    pub(crate) count: Option<i64>,
    pub(crate) iops: Option<i64>,
}

impl Fault {
    /// Whom it is aimed at, in the author's words.
    pub(crate) fn aim(&self) -> String {
        match (&self.target, &self.groups) {
            (Some(target), _) => target.clone(),
            (None, Some(groups)) => {
                groups.iter().map(|group| group.join("+")).collect::<Vec<_>>().join(" | ")
            }
            (None, None) => String::new(),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trials {
    pub(crate) count: i64,
    #[serde(default)]
    pub(crate) warmup: i64,
    #[serde(default = "ten_seconds")]
    pub(crate) timeout: Span,
    #[serde(default = "ten")]
    pub(crate) block: i64,
    #[serde(default)]
    pub(crate) seed: i64,
}

fn ten_seconds() -> Span {
    Span(std::time::Duration::from_secs(10))
}

fn ten() -> i64 {
    10
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variant {
    pub(crate) name: String,
    #[serde(default = "own")]
    pub(crate) system: String,
    pub(crate) protocol: Option<Protocol>,
    #[serde(default)]
    pub(crate) baseline: bool,
    #[serde(default)]
    pub(crate) timing: TimingKnobs,
    /// Timings by name, of which the experiment's `timings` picks one.
    #[serde(default)]
    pub(crate) timings: BTreeMap<String, TimingKnobs>,
}

fn own() -> String {
    "sraft".to_owned()
}

/// What is wrong with an experiment: the file, the line, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {message}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub(crate) struct Refused {
    path: PathBuf,
    line: Option<usize>,
    message: String,
}

/// An experiment and the text that it was read from.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) experiment: Experiment,
    table: toml::Table,
}

impl File {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<File, Refused> {
        let refuse = |line, message| Refused { path: path.to_owned(), line, message };
        let bytes = std::fs::read(path)
            .map_err(|error| refuse(None, format!("cannot read the experiment: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let line = line_of(error.as_bytes(), at);
            refuse(Some(line), "this is not UTF-8; save the file as UTF-8".to_owned())
        })?;
        File::parse(path, text)
    }

    pub(crate) fn parse(path: &Path, text: String) -> Result<File, Refused> {
        let refuse = |error: toml::de::Error| {
            let line = error.span().map(|span| line_of(text.as_bytes(), span.start));
            Refused { path: path.to_owned(), line, message: sentence(error.message()) }
        };
        let experiment = toml::from_str(&text).map_err(refuse)?;
        let table = toml::from_str(&text).map_err(refuse)?;
        Ok(File { path: path.to_owned(), text, experiment, table })
    }

    /// A refusal that names the line where the value at `keys` stands, or the nearest thing above
    /// it that is in the file.
    pub(crate) fn refuse(&self, keys: &[&str], message: impl Into<String>) -> Refused {
        let root = DeTable::parse(&self.text);
        let line = root.ok().and_then(|root| {
            let mut value = &DeValue::Table(root.get_ref().clone());
            let mut found = None;
            for key in keys {
                let next = match value {
                    DeValue::Table(table) => {
                        table.iter().find(|(name, _)| name.get_ref() == key).map(|(name, value)| {
                            let is_table = matches!(value.get_ref(), DeValue::Table(_));
                            let at = if is_table { value.span() } else { name.span() };
                            (at.start, value.get_ref())
                        })
                    }
                    DeValue::Array(array) => key
                        .parse::<usize>()
                        .ok()
                        .and_then(|index| array.get(index))
                        .map(|value| (value.span().start, value.get_ref())),
                    _ => None,
                };
                let Some((at, inner)) = next else { break };
                found = Some(line_of(self.text.as_bytes(), at));
                value = inner;
            }
            found
        });
        Refused { path: self.path.clone(), line, message: message.into() }
    }

    /// The experiment with other values at some dotted paths, as the matrix asks for. The error
    /// says what is wrong with the result.
    pub(crate) fn with(&self, values: &[(&str, &toml::Value)]) -> Result<Experiment, String> {
        let mut root = self.table.clone();
        for (path, value) in values {
            let mut table = &mut root;
            let mut keys = path.split('.').peekable();
            while let Some(key) = keys.next() {
                if keys.peek().is_none() {
                    table.insert(key.to_owned(), (*value).clone());
                    break;
                }
                let inner = table
                    .entry(key)
                    .or_insert_with(|| toml::Value::Table(toml::Table::new()))
                    .as_table_mut();
                table = inner.ok_or_else(|| format!("`{key}` is not a table"))?;
            }
        }
        root.try_into().map_err(|error: toml::de::Error| sentence(error.message()))
    }
}

fn line_of(text: &[u8], at: usize) -> usize {
    text[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// Errors of parsers may run over several lines; ours are one sentence.
fn sentence(message: &str) -> String {
    let mut sentence = message.lines().map(str::trim).collect::<Vec<_>>().join(", ");
    // Names of Rust's types say nothing to who writes TOML, and a variant is something else here.
    for (theirs, ours) in [
        ("expected i64", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected a map", "expected a table"),
        ("unknown variant", "unknown value"),
    ] {
        sentence = sentence.replace(theirs, ours);
    }
    if let Some((before, _)) = sentence.split_once("expected struct ") {
        sentence = format!("{before}expected a table");
    }
    // The usual slip: a duration without its unit.
    let number = ["invalid type: integer", "invalid type: floating point"];
    match number.iter().any(|start| sentence.starts_with(start)) && sentence.ends_with("a string") {
        true => format!("{sentence}; a duration is written with its unit, such as \"50ms\""),
        false => sentence,
    }
}
