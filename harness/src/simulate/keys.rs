//! The `[sim]` table of an experiment, and the model that it stands for.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use sraft_core::{NodeId, Span, TimeoutRange};
use sraft_sim::{
    ClockModel, Cut, DiskModel, Distribution, EvidenceModel, Fault, LinkModel, LogNormal, Model,
    ModelError, Network, ScheduledFault, Uniform,
};

use crate::plan::{Launch, every_knob};

/// The surroundings of a simulated cluster. What is left out is as in one data centre.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sim {
    /// How long a message takes one way.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<Delay>,
    /// Nodes of each region.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    regions: BTreeMap<String, Vec<i64>>,
    /// Round trips between regions, each pair once.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    round_trip: BTreeMap<String, BTreeMap<String, Delay>>,
    /// Single directions that differ from all of the above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    link: Vec<Link>,
    /// Links that break together with the fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cut: Vec<Broken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplication: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reordering: Option<bool>,
    /// How long a durable write takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<Delay>,
    /// From a process's death until its peers see their connections close.
    #[serde(skip_serializing_if = "Option::is_none")]
    closed: Option<Delay>,
    /// From there until a new connection is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Delay>,
    /// Until a connection stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<Delay>,
    /// Most parts per million that a clock gains or loses.
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_error: Option<i64>,
    /// Survivors whose logs are shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    laggards: Option<i64>,
    /// Whether the crash phase counts from a heartbeat that all followers have got.
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeats_synchronised: Option<bool>,
    /// The part of the heartbeat interval that has passed when the fault strikes.
    #[serde(skip_serializing_if = "Option::is_none")]
    crash_phase: Option<Phase>,
    /// How long after the one before it a node starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    stagger: Option<Span>,
    /// How long a settled cluster runs before the fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    settle: Option<Span>,
    /// Who leads when the fault strikes: a node, or any node of a region.
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<Place>,
}

/// The latency of one direction between two nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    from: i64,
    to: i64,
    latency: Delay,
}

/// Directions between nodes that carry nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Broken {
    from: Vec<i64>,
    to: Vec<i64>,
    #[serde(default)]
    both_ways: bool,
}

/// A node or a region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a node's number or a region's name")]
enum Place {
    Node(i64),
    Region(String),
}

/// A part of the heartbeat interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "\"uniform\" or a number from 0 to 1")]
enum Phase {
    Part(f64),
    Word(String),
}

/// What is wrong with a `[sim]` table: the key under `sim`, and what would be right.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) keys: Vec<String>,
    pub(crate) message: String,
}

fn wrong<T>(keys: &[&str], message: String) -> Result<T, Wrong> {
    Err(Wrong { keys: keys.iter().map(|key| (*key).to_owned()).collect(), message })
}

/// A simulated cluster and how its trials go.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) model: Model,
    /// Survivors that never get the last entry.
    pub(crate) laggards: usize,
    pub(crate) heartbeats_synchronised: bool,
    /// Empty is drawn for every trial.
    pub(crate) crash_phase: Option<f64>,
    pub(crate) stagger: Duration,
    pub(crate) settle: Duration,
    /// Empty is whoever comes to lead.
    pub(crate) leaders: Vec<NodeId>,
    /// Most parts per million that a clock gains or loses; drawn for every trial and node.
    pub(crate) clock_error: u32,
    /// What breaks together with the fault.
    pub(crate) cuts: Vec<Cut>,
}

/// Clocks of real machines are a hundred times better.
const WORST_CLOCK: i64 = 100_000;

/// Longest time before a fault.
const LONGEST_SETTLE: Duration = Duration::from_secs(600);

impl Sim {
    /// The set-up of a variant in a cell.
    pub(crate) fn setup(&self, launch: &Launch) -> Result<Setup, Wrong> {
        let nodes = launch.size;
        let base = Network::default();
        let evidence = EvidenceModel::default();
        let or = |given: &Option<Delay>, other: Distribution| {
            given.as_ref().map_or(other, |delay| delay.0.clone())
        };
        let cuts = self.cuts(nodes)?;
        let model = Model {
            nodes,
            protocol: launch.protocol,
            timing: every_knob(&launch.timing),
            network: Network {
                latency: or(&self.latency, base.latency),
                links: self.links(nodes)?,
                loss: self.loss.unwrap_or(0.0),
                duplication: self.duplication.unwrap_or(0.0),
                reordering: self.reordering.unwrap_or(false),
            },
            disk: DiskModel { write: or(&self.write, DiskModel::default().write) },
            evidence: EvidenceModel {
                closed: or(&self.closed, evidence.closed),
                refused: or(&self.refused, evidence.refused),
                connect: or(&self.connect, evidence.connect),
            },
            // Checked with the rest of the model, and struck when the time has come.
            faults: cuts.iter().cloned().map(now).collect(),
            ..Model::default()
        };
        model.validate().or_else(refused)?;
        Ok(Setup {
            model: Model { faults: Vec::new(), ..model },
            laggards: self.laggards(launch)?,
            heartbeats_synchronised: self.heartbeats_synchronised.unwrap_or(false),
            crash_phase: self.phase()?,
            stagger: self.span("stagger", self.stagger)?,
            settle: self.span("settle", self.settle)?,
            leaders: self.leaders(nodes)?,
            clock_error: self.clock_error()?,
            cuts,
        })
    }

    fn links(&self, nodes: u32) -> Result<Vec<LinkModel>, Wrong> {
        let homes = self.homes(nodes)?;
        let mut links = BTreeMap::new();
        let mut pairs: BTreeMap<(&str, &str), &Distribution> = BTreeMap::new();
        for (here, others) in &self.round_trip {
            for (there, delay) in others {
                let keys = ["round_trip", here.as_str(), there.as_str()];
                for region in [here, there] {
                    if !self.regions.contains_key(region) {
                        let known: Vec<&str> = self.regions.keys().map(String::as_str).collect();
                        let known = if known.is_empty() { "none" } else { &known.join(", ") };
                        return wrong(
                            &keys,
                            format!(
                                "sim.round_trip names the region `{region}`, which is not in \
                                 sim.regions ({known}); add it there with its nodes"
                            ),
                        );
                    }
                }
                let pair = (here.as_str().min(there), here.as_str().max(there));
                fits("sim.round_trip", &keys, &delay.0)?;
                if pairs.insert(pair, &delay.0).is_some() {
                    let message = format!(
                        "the round trip between {here} and {there} is given twice; give every \
                         pair of regions once"
                    );
                    return wrong(&keys, message);
                }
            }
        }
        for (&a, &here) in &homes {
            for (&b, &there) in &homes {
                let pair = (here.min(there), here.max(there));
                let Some(round_trip) = pairs.get(&pair) else {
                    if here == there {
                        continue;
                    }
                    let message = format!(
                        "sim.round_trip has nothing for {here} and {there}; give the round trip \
                         of every pair of regions"
                    );
                    return wrong(&["round_trip"], message);
                };
                if a != b {
                    links.insert((a, b), half(round_trip));
                }
            }
        }
        for (index, link) in self.link.iter().enumerate() {
            let keys = ["link", &index.to_string()];
            let from = node("sim.link", &keys, link.from, nodes)?;
            let to = node("sim.link", &keys, link.to, nodes)?;
            fits("sim.link", &keys, &link.latency.0)?;
            links.insert((from, to), link.latency.0.clone());
        }
        let link = |((from, to), latency)| LinkModel { from, to, latency };
        Ok(links.into_iter().map(link).collect())
    }

    /// The region of each node; empty without regions.
    fn homes(&self, nodes: u32) -> Result<BTreeMap<NodeId, &str>, Wrong> {
        let mut homes = BTreeMap::new();
        for (region, members) in &self.regions {
            let keys = ["regions", region.as_str()];
            for &member in members {
                let id = node(&format!("the region {region}"), &keys, member, nodes)?;
                if let Some(other) = homes.insert(id, region.as_str()) {
                    let message = format!(
                        "node {id} is in the regions {other} and {region}; put every node into one"
                    );
                    return wrong(&keys, message);
                }
            }
        }
        let lost = (1..=NodeId::from(nodes)).find(|id| !homes.contains_key(id));
        match lost {
            Some(id) if !self.regions.is_empty() => wrong(
                &["regions"],
                format!("node {id} is in no region; put every node from 1 to {nodes} into one"),
            ),
            _ => Ok(homes),
        }
    }

    fn cuts(&self, nodes: u32) -> Result<Vec<Cut>, Wrong> {
        let cuts = self.cut.iter().enumerate().map(|(index, cut)| {
            let index = index.to_string();
            let keys = ["cut", index.as_str()];
            let side = |ids: &[i64]| -> Result<Vec<NodeId>, Wrong> {
                ids.iter().map(|&id| node("sim.cut", &keys, id, nodes)).collect()
            };
            let cut = Cut { from: side(&cut.from)?, to: side(&cut.to)?, both_ways: cut.both_ways };
            if cut.from.is_empty() || cut.to.is_empty() {
                return wrong(&keys, "sim.cut has an empty list; name one node at least".into());
            }
            if let Some(both) = cut.from.iter().find(|id| cut.to.contains(id)) {
                let message = format!(
                    "sim.cut has node {both} on both sides; a link joins two different nodes"
                );
                return wrong(&keys, message);
            }
            Ok(cut)
        });
        cuts.collect()
    }

    fn laggards(&self, launch: &Launch) -> Result<usize, Wrong> {
        let given = self.laggards.unwrap_or(0);
        // Who wins needs a majority, and no laggard gives a vote that it needs less.
        let survivors = launch.size - launch.fault.target.strikes(launch.cell_sub_leaders);
        match u32::try_from(given) {
            Ok(laggards) if laggards < survivors || laggards == 0 => Ok(laggards as usize),
            _ => wrong(
                &["laggards"],
                format!(
                    "sim.laggards is {given}; of {survivors} survivors at most {} may lag, or \
                     nobody could win",
                    survivors.saturating_sub(1)
                ),
            ),
        }
    }

    fn phase(&self) -> Result<Option<f64>, Wrong> {
        let keys = ["crash_phase"];
        let part = match &self.crash_phase {
            None => return Ok(None),
            Some(Phase::Word(word)) if word == "uniform" => return Ok(None),
            Some(Phase::Part(part)) if (0.0..=1.0).contains(part) => *part,
            Some(other) => {
                let given = match other {
                    Phase::Part(part) => part.to_string(),
                    Phase::Word(word) => format!("`{word}`"),
                };
                let message = format!(
                    "sim.crash_phase is {given}; write \"uniform\", or the part of the heartbeat \
                     interval, from 0 to 1"
                );
                return wrong(&keys, message);
            }
        };
        if !self.heartbeats_synchronised.unwrap_or(false) {
            let message = "sim.crash_phase counts from a heartbeat; add \
                           heartbeats_synchronised = true";
            return wrong(&keys, message.to_owned());
        }
        Ok(Some(part))
    }

    fn span(&self, key: &str, given: Option<Span>) -> Result<Duration, Wrong> {
        match given {
            Some(span) if span.0 > LONGEST_SETTLE => {
                let most = Span(LONGEST_SETTLE);
                wrong(&[key], format!("sim.{key} is {span}; write a duration up to {most}"))
            }
            other => Ok(other.map_or(Duration::ZERO, |span| span.0)),
        }
    }

    fn leaders(&self, nodes: u32) -> Result<Vec<NodeId>, Wrong> {
        let keys = ["leader"];
        match &self.leader {
            None => Ok(Vec::new()),
            Some(Place::Node(id)) => Ok(vec![node("sim.leader", &keys, *id, nodes)?]),
            Some(Place::Region(region)) => match self.regions.get(region) {
                Some(members) if !members.is_empty() => {
                    members.iter().map(|id| node("sim.leader", &keys, *id, nodes)).collect()
                }
                _ => wrong(
                    &keys,
                    format!(
                        "sim.leader is `{region}`, but sim.regions has no such region with a node \
                         in it; name one of them, or a node by its number"
                    ),
                ),
            },
        }
    }

    fn clock_error(&self) -> Result<u32, Wrong> {
        let given = self.clock_error.unwrap_or(0);
        match u32::try_from(given) {
            Ok(ppm) if given <= WORST_CLOCK => Ok(ppm),
            _ => wrong(
                &["clock_error"],
                format!(
                    "sim.clock_error is {given}; write parts per million, from 0 to {WORST_CLOCK}"
                ),
            ),
        }
    }
}

impl Setup {
    /// The model of one trial, with the clocks that it has drawn.
    pub(crate) fn model(&self, mut ppm: impl FnMut(i32) -> i32) -> Model {
        let mut model = self.model.clone();
        if self.clock_error > 0 {
            let clock = |node| ClockModel { node, ppm: ppm(self.clock_error as i32) };
            model.clocks = (1..=NodeId::from(model.nodes)).map(clock).collect();
        }
        model
    }
}

fn now(cut: Cut) -> ScheduledFault {
    ScheduledFault { at: Span(Duration::ZERO), fault: Fault::Cut(cut) }
}

fn node(place: &str, keys: &[&str], given: i64, nodes: u32) -> Result<NodeId, Wrong> {
    match NodeId::try_from(given) {
        Ok(id) if (1..=NodeId::from(nodes)).contains(&id) => Ok(id),
        _ => wrong(keys, format!("{place} names node {given}, but the nodes are 1 to {nodes}")),
    }
}

/// Refuses a latency that is none.
fn fits(place: &str, keys: &[&str], latency: &Distribution) -> Result<(), Wrong> {
    let network = Network { latency: latency.clone(), ..Network::default() };
    match (Model { network, ..Model::default() }).validate() {
        Err(ModelError::Distribution { source, .. }) => wrong(keys, format!("{place}: {source}")),
        _ => Ok(()),
    }
}

/// The model's own refusals, in the words of the table.
fn refused<T>(error: ModelError) -> Result<T, Wrong> {
    let (key, message) = match &error {
        ModelError::Probability { knob, value } => {
            let key = knob.rsplit('.').next().unwrap_or(knob);
            (key, format!("sim.{key} is {value}, no probability; write a number from 0 to 1"))
        }
        ModelError::Distribution { place, source } => {
            let key = match *place {
                "network.latency" => "latency",
                "disk.write" => "write",
                "evidence.closed" => "closed",
                "evidence.refused" => "refused",
                "evidence.connect" => "connect",
                // Those of links have been checked one by one.
                _ => "",
            };
            (key, format!("sim.{key}: {source}"))
        }
        ModelError::Itself { node, .. } => {
            ("link", format!("sim.link leads from node {node} to itself; it joins two nodes"))
        }
        other => ("", other.to_string()),
    };
    wrong(if key.is_empty() { &[] } else { std::slice::from_ref(&key) }, message)
}

/// Half of every value: what one direction has of a round trip.
fn half(round_trip: &Distribution) -> Distribution {
    let half = |span: Span| Span(span.0 / 2);
    match round_trip {
        Distribution::Constant(span) => Distribution::Constant(half(*span)),
        Distribution::Uniform(Uniform { min, max }) => {
            Distribution::Uniform(Uniform { min: half(*min), max: half(*max) })
        }
        Distribution::LogNormal(LogNormal { median, sigma }) => {
            Distribution::LogNormal(LogNormal { median: half(*median), sigma: *sigma })
        }
        Distribution::Samples(spans) => {
            Distribution::Samples(spans.iter().copied().map(half).collect())
        }
    }
}

/// A distribution of durations as one writes it: `"2ms"`, `"2ms-3ms"`, `{ median = "2ms", sigma =
/// 0.3 }` (log-normal), or `["2ms", "3ms", "9ms"]` (measured values, each as likely as any other).
#[derive(Clone, Debug, PartialEq)]
struct Delay(Distribution);

impl Serialize for Delay {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Distribution::Constant(span) => span.serialize(serializer),
            Distribution::Uniform(Uniform { min, max }) => {
                serializer.collect_str(&TimeoutRange { min: min.0, max: max.0 })
            }
            Distribution::LogNormal(log_normal) => log_normal.serialize(serializer),
            Distribution::Samples(spans) => spans.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Delay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Delay, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Delay;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "\"2ms\", \"2ms-3ms\", { median = \"2ms\", sigma = 0.3 } or a list of durations",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Delay, E> {
                if text.trim_start().starts_with('-') {
                    let message = format!("`{text}` is negative; write a duration such as 2ms");
                    return Err(E::custom(message));
                }
                let range: TimeoutRange = text.parse().map_err(E::custom)?;
                let (min, max) = (Span(range.min), Span(range.max));
                Ok(Delay(match min == max {
                    true => Distribution::Constant(min),
                    false => Distribution::Uniform(Uniform { min, max }),
                }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Delay, A::Error> {
                let log_normal = LogNormal::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Delay(Distribution::LogNormal(log_normal)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Delay, A::Error> {
                let mut samples = Vec::new();
                while let Some(sample) = seq.next_element()? {
                    samples.push(sample);
                }
                Ok(Delay(Distribution::Samples(samples)))
            }
        }
        deserializer.deserialize_any(Form)
    }
}
