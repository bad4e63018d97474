//! Stamps of several hosts on one clock.
//!
//! Every record carries the monotonic clock of its own host. Where there is more than one, the
//! agents compare their clocks with that of one host, the reference, before and after each trial
//! ([`Event::ClockMeasured`]), and everything is told in its time here. A host's offset is the middle
//! of what was measured: so spans between two stamps of one host are exact, and the error of the
//! others is at most the bound of the comparison and half of the drift seen between the two.
//!
//! A monotonic clock begins anew with every boot, so a host that was reset within a trial has an
//! offset for each of its boots. Every record carries the wall clock as well, and the difference of
//! the two tells in which of them it was written.

use std::collections::BTreeMap;

use sraft_events::{Boot, Event, Record, Source};

/// The harness's own name in [`Event::ClockMeasured`].
pub const HARNESS: &str = "harness";

/// How the clocks of all writers of records stand to that of the reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// By boot; a source whose boots are not known has one.
    offsets: BTreeMap<Source, Vec<Offset>>,
    bound_ns: u64,
}

/// What is to be added to a clock, and how wrong that may be, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offset {
    offset_ns: i64,
    bound_ns: u64,
    /// What the wall clock showed when this one began, nanoseconds; 0 if that is not known.
    zero_wall_ns: u64,
}

impl Clocks {
    /// What these comparisons say, in any order. Nothing without any: then there is one clock only.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Option<Clocks> {
        let mut measured: BTreeMap<(&str, &str), Measured> = BTreeMap::new();
        let mut clocks = Clocks::default();
        let mut nodes = Vec::new();
        for event in events {
            let Event::ClockMeasured { host, nodes: here, offset_ns, bound_ns, boot, .. } = event
            else {
                continue;
            };
            let boot = boot.as_ref();
            let id = boot.map_or("", |boot| boot.id.as_str());
            measured.entry((host, id)).or_default().add(*offset_ns, *bound_ns, boot);
            nodes.extend(here.iter().map(|node| (*node, host.as_str())));
        }
        for ((host, _), found) in &measured {
            let offset = found.middle();
            if *host != HARNESS {
                clocks.bound_ns = clocks.bound_ns.max(offset.bound_ns);
            }
            clocks.offsets.entry(source(host)).or_default().push(offset);
        }
        for (node, host) in nodes {
            let offsets = clocks.offsets[&source(host)].clone();
            clocks.offsets.insert(Source::Node(node), offsets);
        }
        (!clocks.offsets.is_empty()).then_some(clocks)
    }

    /// What `record` is stamped with in the reference's time, nanoseconds, if it is one of `source`.
    /// Nothing if that clock was never compared.
    pub fn reference_ns(&self, source: &Source, record: &Record) -> Option<u64> {
        // The wall clock may have been set since, but not by half of what lies between two boots.
        let zero = record.wall_ns.saturating_sub(record.mono_ns);
        let offsets = self.offsets.get(source)?.iter();
        let offset = offsets.min_by_key(|offset| offset.zero_wall_ns.abs_diff(zero))?;
        u64::try_from(i128::from(record.mono_ns) + i128::from(offset.offset_ns)).ok()
    }

    /// The same record, stamped in the reference's time.
    pub fn place(&self, record: &Record) -> Option<Record> {
        let mono_ns = self.reference_ns(&record.source, record)?;
        Some(Record { mono_ns, ..record.clone() })
    }

    /// How wrong a stamp of any host may be, nanoseconds.
    pub fn bound_ns(&self) -> u64 {
        self.bound_ns
    }

    /// How wrong a stamp of this host may be, nanoseconds.
    pub fn host_bound_ns(&self, host: &str) -> u64 {
        self.widest(&Source::Agent(host.to_owned()))
    }

    /// How wrong a stamp of the harness may be, nanoseconds. Nothing is measured with its clock; it
    /// only says what belongs to a trial.
    pub fn harness_bound_ns(&self) -> u64 {
        self.widest(&Source::Harness)
    }

    fn widest(&self, source: &Source) -> u64 {
        let offsets = self.offsets.get(source).into_iter().flatten();
        offsets.map(|offset| offset.bound_ns).max().unwrap_or(0)
    }
}

fn source(host: &str) -> Source {
    match host {
        HARNESS => Source::Harness,
        host => Source::Agent(host.to_owned()),
    }
}

/// The comparisons of one clock.
#[derive(Debug)]
struct Measured {
    least: i64,
    most: i64,
    bound_ns: u64,
    zero_wall_ns: u64,
}

impl Default for Measured {
    fn default() -> Measured {
        Measured { least: i64::MAX, most: i64::MIN, bound_ns: 0, zero_wall_ns: 0 }
    }
}

impl Measured {
    fn add(&mut self, offset_ns: i64, bound_ns: u64, boot: Option<&Boot>) {
        self.least = self.least.min(offset_ns);
        self.most = self.most.max(offset_ns);
        self.bound_ns = self.bound_ns.max(bound_ns);
        self.zero_wall_ns = boot.map_or(self.zero_wall_ns, |boot| boot.zero_wall_ns);
    }

    fn middle(&self) -> Offset {
        let drift = self.most.abs_diff(self.least);
        Offset {
            // The half, rounded down, never leaves the range.
            offset_ns: self.least.saturating_add_unsigned(drift / 2),
            bound_ns: self.bound_ns.saturating_add(drift.div_ceil(2)),
            zero_wall_ns: self.zero_wall_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(host: &str, nodes: &[u64], offset_ns: i64, bound_ns: u64) -> Event {
        let (host, nodes) = (host.to_owned(), nodes.to_vec());
        Event::ClockMeasured { host, nodes, offset_ns, bound_ns, rtt_ns: 2 * bound_ns, boot: None }
    }

    fn stamped(source: Source, mono_ns: u64, wall_ns: u64) -> Record {
        Record { source, seq: 0, mono_ns, wall_ns, event: Event::ClusterStopped {} }
    }

    fn told(clocks: &Clocks, source: Source, mono_ns: u64) -> Option<u64> {
        clocks.reference_ns(&source, &stamped(source.clone(), mono_ns, mono_ns))
    }

    #[test]
    fn a_host_that_was_reset_has_a_clock_for_each_boot() {
        let booted = |id: &str, zero_wall_ns, offset, bound| {
            let Event::ClockMeasured { host, nodes, offset_ns, bound_ns, rtt_ns, .. } =
                measured("b", &[2], offset, bound)
            else {
                unreachable!()
            };
            let boot = Some(Boot { id: id.to_owned(), zero_wall_ns });
            Event::ClockMeasured { host, nodes, offset_ns, bound_ns, rtt_ns, boot }
        };
        // Its clock is 700 behind the reference's before it goes down at 5,000 there, and 6,000
        // behind once it is up.
        let events = [
            measured("a", &[1], 0, 0),
            booted("one", 1_000_000, 700, 10),
            booted("two", 1_005_300, 6_000, 30),
            booted("one", 1_000_000, 702, 10),
        ];
        let clocks = Clocks::of(&events).unwrap();
        for source in [Source::Node(2), Source::Agent("b".into())] {
            let placed =
                |mono, wall| clocks.reference_ns(&source, &stamped(source.clone(), mono, wall));
            assert_eq!(placed(4_000, 1_004_000), Some(4_701));
            assert_eq!(placed(200, 1_005_500), Some(6_200));
            // Somebody has set the wall clock meanwhile.
            assert_eq!(placed(300, 1_005_300), Some(6_300));
        }
        assert_eq!(clocks.host_bound_ns("b"), 30);
    }

    #[test]
    fn without_comparisons_there_is_one_clock() {
        assert_eq!(Clocks::of(&[Event::ClusterStopped {}]), None);
    }

    #[test]
    fn an_offset_is_the_middle_and_its_bound_carries_half_the_drift() {
        let events = [
            measured("a", &[1], 0, 0),
            measured("b", &[2, 3], 1000, 40),
            measured(HARNESS, &[], -500, 9000),
            measured("a", &[1], 0, 0),
            measured("b", &[2, 3], 1031, 50),
        ];
        let clocks = Clocks::of(&events).unwrap();
        for source in [Source::Node(2), Source::Node(3), Source::Agent("b".into())] {
            assert_eq!(told(&clocks, source, 10), Some(1025));
        }
        assert_eq!(told(&clocks, Source::Agent("a".into()), 10), Some(10));
        assert_eq!(told(&clocks, Source::Harness, 600), Some(100));
        assert_eq!(clocks.bound_ns(), 50 + 16);
        assert_eq!(clocks.harness_bound_ns(), 9000);
    }

    #[test]
    fn clocks_that_were_never_compared_place_nothing() {
        let clocks = Clocks::of(&[measured("a", &[1], 5, 1)]).unwrap();
        assert_eq!(told(&clocks, Source::Node(2), 10), None);
        let behind = Clocks::of(&[measured("a", &[1], -50, 1)]).unwrap();
        assert_eq!(told(&behind, Source::Node(1), 10), None);
    }

    #[test]
    fn the_widest_offsets_there_are_do_no_harm() {
        let events =
            [measured("a", &[1], i64::MIN, u64::MAX / 2), measured("a", &[1], i64::MAX, 0)];
        let clocks = Clocks::of(&events).unwrap();
        assert_eq!(clocks.bound_ns(), u64::MAX);
        assert_eq!(told(&clocks, Source::Node(1), 100), Some(99));
    }
}
