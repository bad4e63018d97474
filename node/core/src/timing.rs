//! The timing knobs as a user writes them, their presets, and how they are lowered.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sraft_events::NodeId;

use crate::config::{Config, ConfigError};

/// Which protocol the cluster runs. It is lowered to [`Config`] and never compared afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Original Raft: no sub-leaders.
    #[serde(rename = "raft")]
    Raft,
    /// Raft with designated successors.
    #[default]
    #[serde(rename = "s-raft")]
    SRaft,
}

/// Where a preset's numbers come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Preset {
    /// The Python prototype's timings.
    #[default]
    #[serde(rename = "reference")]
    Reference,
    /// The Raft paper's: 150-300 ms, heartbeats of half the smallest timeout.
    #[serde(rename = "raft-paper")]
    RaftPaper,
    /// For one data centre: everything some five times faster, closed connections as evidence.
    #[serde(rename = "lan")]
    Lan,
}

/// What makes a node hold its leader for gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Detector {
    /// Only silence.
    #[serde(rename = "silence")]
    Silence,
    /// Silence, and the certainty that the leader's process has died, won from its connection.
    #[serde(rename = "connection")]
    Connection,
}

/// The longest duration that is accepted, so that sums and multiples of durations stay in range.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A duration written with its unit: `50ms`, `1s 500ms`, `250us`; at most a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = humantime::parse_duration(text.trim()).map_err(|error| {
            format!("`{text}` is not a duration ({error}); write a number and a unit, such as 50ms or 1s")
        })?;
        if span > LONGEST {
            return Err(format!("`{text}` is longer than a year; write a shorter duration"));
        }
        Ok(Span(span))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = humantime::format_duration(self.0).to_string();
        f.pad(&text.replace(' ', ""))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A range from which timeouts are drawn uniformly: `150ms-300ms`, or one fixed value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeoutRange {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl TimeoutRange {
    /// From `min` to `max` milliseconds.
    pub const fn millis(min: u64, max: u64) -> Self {
        TimeoutRange { min: Duration::from_millis(min), max: Duration::from_millis(max) }
    }

    /// How far apart the two ends are.
    pub fn width(&self) -> Duration {
        self.max.saturating_sub(self.min)
    }
}

impl FromStr for TimeoutRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        // `150-300ms` is how one says it: a unit at the end holds for both.
        let unit = max.trim().trim_start_matches(|c: char| c.is_ascii_digit());
        let min = if min.trim().ends_with(|c: char| c.is_ascii_digit()) {
            format!("{}{unit}", min.trim())
        } else {
            min.to_owned()
        };
        let range = TimeoutRange { min: min.parse::<Span>()?.0, max: max.parse::<Span>()?.0 };
        if range.min > range.max {
            return Err(format!("`{text}` runs backwards; write the shorter duration first"));
        }
        Ok(range)
    }
}

impl fmt::Display for TimeoutRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", Span(self.min))
        } else {
            write!(f, "{}-{}", Span(self.min), Span(self.max))
        }
    }
}

impl Serialize for TimeoutRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeoutRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The `[timing]` table: a preset and what overrides it. Everything may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimingKnobs {
    /// Where the values that are not given come from; `reference` if it is not given itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Interval between heartbeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Span>,
    /// Original Raft's election timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub election_timeout: Option<TimeoutRange>,
    /// S-Raft's timeout of the Primary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank_timeout: Option<TimeoutRange>,
    /// What each further rank adds to the two ends of `rank_timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank_step: Option<TimeoutRange>,
    /// S-Raft's timeout of followers without a rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follower_timeout: Option<TimeoutRange>,
    /// A promotion that has no majority by then gives up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promotion_timeout: Option<Span>,
    /// A leader that no majority has acknowledged for this long steps down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<Span>,
    /// After a certain death, how long rank r waits per rank before it for those before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stagger: Option<Span>,
    /// The share of the cluster that is designated, rounded down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_leader_ratio: Option<f64>,
    /// Weight of a new sample in the moving average of round trips.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_alpha: Option<f64>,
    /// What counts as evidence against the leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detector: Option<Detector>,
    /// Whether silence is checked with a pre-vote round before a node stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_vote: Option<bool>,
    /// Whether a leader that is told to stop hands over first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handover: Option<bool>,
    /// Whether reads rely on clocks: the leader answers them without a round of messages while a
    /// majority has acknowledged it within nine tenths of the smallest timeout. In return nobody
    /// votes, or stands, before that timeout has passed since it heard a leader or started, also
    /// when the leader's connection is closed or the leader itself hands over: takeovers are as
    /// slow as with silence alone. Reads are linearizable as long as any two clocks of the cluster
    /// differ in rate by less than a tenth, no clock stands still while its machine is suspended, and
    /// all nodes run with the same timeouts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_lease: Option<bool>,
}

impl TimingKnobs {
    /// These knobs with those of `over` on top. A preset in `over` starts afresh: what was given
    /// under another preset does not leak into it.
    pub fn overridden_by(&self, over: &TimingKnobs) -> TimingKnobs {
        let base = if over.preset.is_some() { &TimingKnobs::default() } else { self };
        TimingKnobs {
            preset: over.preset.or(base.preset),
            heartbeat: over.heartbeat.or(base.heartbeat),
            election_timeout: over.election_timeout.or(base.election_timeout),
            rank_timeout: over.rank_timeout.or(base.rank_timeout),
            rank_step: over.rank_step.or(base.rank_step),
            follower_timeout: over.follower_timeout.or(base.follower_timeout),
            promotion_timeout: over.promotion_timeout.or(base.promotion_timeout),
            lease: over.lease.or(base.lease),
            stagger: over.stagger.or(base.stagger),
            sub_leader_ratio: over.sub_leader_ratio.or(base.sub_leader_ratio),
            rtt_alpha: over.rtt_alpha.or(base.rtt_alpha),
            detector: over.detector.or(base.detector),
            pre_vote: over.pre_vote.or(base.pre_vote),
            handover: over.handover.or(base.handover),
            read_lease: over.read_lease.or(base.read_lease),
        }
    }

    /// Fills in what was left out from the preset.
    pub fn resolve(&self) -> Timing {
        let mut timing = Timing::preset(self.preset.unwrap_or_default());
        macro_rules! take {
            ($($knob:ident),+) => { $(if let Some(value) = self.$knob { timing.$knob = value.into(); })+ };
        }
        take!(election_timeout, rank_timeout, rank_step, follower_timeout, promotion_timeout);
        take!(stagger, sub_leader_ratio, rtt_alpha, detector, pre_vote, handover, read_lease);
        match (self.heartbeat, self.preset) {
            (Some(heartbeat), _) => timing.heartbeat = heartbeat.0,
            // The paper ties the heartbeat to the smallest timeout, so it follows an override.
            (None, Some(Preset::RaftPaper)) => {
                timing.heartbeat = timing.election_timeout.min.min(timing.rank_timeout.min) / 2;
            }
            (None, _) => {}
        }
        match (self.lease, self.preset.unwrap_or_default()) {
            (Some(lease), _) => timing.lease = lease.0,
            // The prototype's rule: 30 heartbeats, but at least 3 s.
            (None, Preset::Reference) => {
                timing.lease = (timing.heartbeat * 30).max(Duration::from_secs(3));
            }
            (None, _) => {}
        }
        timing
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Duration {
        span.0
    }
}

/// Every timing knob with its value. See [`TimingKnobs`] for what each means.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each field has the name and the meaning of a field of TimingKnobs")]
pub struct Timing {
    pub heartbeat: Duration,
    pub election_timeout: TimeoutRange,
    pub rank_timeout: TimeoutRange,
    pub rank_step: TimeoutRange,
    pub follower_timeout: TimeoutRange,
    pub promotion_timeout: Duration,
    pub lease: Duration,
    pub stagger: Duration,
    pub sub_leader_ratio: f64,
    pub rtt_alpha: f64,
    pub detector: Detector,
    pub pre_vote: bool,
    pub handover: bool,
    pub read_lease: bool,
}

impl Timing {
    /// The Python prototype's timings.
    pub fn reference() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(50),
            election_timeout: TimeoutRange::millis(300, 1000),
            rank_timeout: TimeoutRange::millis(150, 200),
            rank_step: TimeoutRange::millis(100, 150),
            follower_timeout: TimeoutRange::millis(300, 1000),
            promotion_timeout: Duration::from_millis(300),
            lease: Duration::from_secs(3),
            stagger: Duration::from_millis(10),
            sub_leader_ratio: 0.4,
            rtt_alpha: 0.3,
            detector: Detector::Silence,
            pre_vote: true,
            handover: true,
            read_lease: false,
        }
    }

    /// A preset's timings.
    pub fn preset(preset: Preset) -> Timing {
        match preset {
            Preset::Reference => Timing::reference(),
            Preset::RaftPaper => Timing {
                heartbeat: Duration::from_millis(75),
                election_timeout: TimeoutRange::millis(150, 300),
                follower_timeout: TimeoutRange::millis(300, 600),
                lease: Duration::from_secs(1),
                ..Timing::reference()
            },
            Preset::Lan => Timing {
                heartbeat: Duration::from_millis(10),
                election_timeout: TimeoutRange::millis(60, 120),
                rank_timeout: TimeoutRange::millis(30, 40),
                rank_step: TimeoutRange::millis(20, 20),
                follower_timeout: TimeoutRange::millis(80, 160),
                promotion_timeout: Duration::from_millis(50),
                lease: Duration::from_millis(500),
                detector: Detector::Connection,
                ..Timing::reference()
            },
        }
    }

    /// How many sub-leaders a cluster of `size` nodes has under `protocol`.
    pub fn sub_leaders(&self, protocol: Protocol, size: usize) -> usize {
        match protocol {
            Protocol::Raft => 0,
            // The small addend keeps 0.4 x 5 from being 1.9999999999999998.
            Protocol::SRaft => (size as f64 * self.sub_leader_ratio + 1e-9).floor() as usize,
        }
    }

    /// Lowers the knobs to what node `id` of `members` runs with.
    ///
    /// # Errors
    /// A configuration that could not work is refused with the reason: see [`ConfigError`].
    pub fn lower(
        &self,
        protocol: Protocol,
        id: NodeId,
        members: &[NodeId],
    ) -> Result<Config, ConfigError> {
        if !(0.0..1.0).contains(&self.sub_leader_ratio) {
            return Err(ConfigError::OutOfRange {
                knob: "sub_leader_ratio",
                value: self.sub_leader_ratio,
                range: "at least 0 and below 1: somebody has to be the leader",
            });
        }
        let ranks = self.sub_leaders(protocol, members.len());
        let rank_timeouts = (0..ranks as u32).map(|rank| TimeoutRange {
            min: self.rank_timeout.min + self.rank_step.min * rank,
            max: self.rank_timeout.max + self.rank_step.max * rank,
        });
        let config = Config {
            id,
            members: members.to_vec(),
            heartbeat: self.heartbeat,
            timeout: match protocol {
                Protocol::Raft => self.election_timeout,
                Protocol::SRaft => self.follower_timeout,
            },
            rank_timeouts: rank_timeouts.collect(),
            promotion_timeout: self.promotion_timeout,
            lease: self.lease,
            stagger: self.stagger,
            rtt_alpha: self.rtt_alpha,
            connection_evidence: self.detector == Detector::Connection,
            pre_vote: self.pre_vote,
            handover: self.handover,
            read_lease: self.read_lease,
            max_append_entries: 1024,
            max_append_bytes: 1 << 20,
            max_inflight: 64,
            snapshot_chunk_bytes: 256 << 10,
            retained_entries: 5000,
            #[cfg(feature = "mutants")]
            mutation: None,
        };
        config.validated()
    }
}
