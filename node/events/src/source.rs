use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::NodeId;

/// Who wrote a record: `node:3`, `agent:local` or `harness`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The harness.
    Harness,
    /// The agent on the host of this name.
    Agent(String),
    /// A consensus node.
    Node(NodeId),
}

/// A source that is none of `node:N`, `agent:NAME`, `harness`.
#[derive(Debug, PartialEq, Eq)]
pub struct ParseSourceError(String);

impl fmt::Display for ParseSourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a record source; expected node:N, agent:NAME or harness", self.0)
    }
}

impl std::error::Error for ParseSourceError {}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Harness => f.write_str("harness"),
            Source::Agent(host) => write!(f, "agent:{host}"),
            Source::Node(id) => write!(f, "node:{id}"),
        }
    }
}

impl FromStr for Source {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseSourceError(text.to_owned());
        match text.split_once(':') {
            None if text == "harness" => Ok(Source::Harness),
            Some(("agent", host)) if !host.is_empty() => Ok(Source::Agent(host.to_owned())),
            Some(("node", id)) => id.parse().map(Source::Node).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
