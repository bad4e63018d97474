//! Stamps of several hosts on one clock.
//!
//! Every record carries the monotonic clock of its own host. Where there is more than one, the
//! agents compare their clocks with that of the first host, the reference, before and after each
//! trial ([`Event::ClockMeasured`]), and everything is told in its time here. A host's offset is
//! the middle of what was measured: so spans between two stamps of one host are exact, and the error
//! of the others is at most the bound of the comparison and half of the drift seen between the two.

use std::collections::BTreeMap;

use sraft_events::{Event, Record, Source};

/// The harness's own name in [`Event::ClockMeasured`].
pub const HARNESS: &str = "harness";

/// How the clocks of all writers of records stand to that of the reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    offsets: BTreeMap<Source, Offset>,
    bound_ns: u64,
}

/// What is to be added to a clock, and how wrong that may be, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offset {
    offset_ns: i64,
    bound_ns: u64,
}

impl Clocks {
    /// What these comparisons say, in any order. Nothing without any: then there is one clock only.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Option<Clocks> {
        let mut measured: BTreeMap<&str, Vec<(i64, u64)>> = BTreeMap::new();
        let mut clocks = Clocks::default();
        let mut nodes = Vec::new();
        for event in events {
            let Event::ClockMeasured { host, nodes: here, offset_ns, bound_ns, .. } = event else {
                continue;
            };
            measured.entry(host).or_default().push((*offset_ns, *bound_ns));
            nodes.extend(here.iter().map(|node| (*node, host.as_str())));
        }
        let middle = |found: &Vec<(i64, u64)>| {
            let least = found.iter().map(|(offset, _)| *offset).min()?;
            let most = found.iter().map(|(offset, _)| *offset).max()?;
            let bound = found.iter().map(|(_, bound)| *bound).max()?;
            let drift = most.abs_diff(least);
            // The half, rounded down, never leaves the range.
            let offset_ns = least.saturating_add_unsigned(drift / 2);
            Some(Offset { offset_ns, bound_ns: bound.saturating_add(drift.div_ceil(2)) })
        };
        let by_host: BTreeMap<&str, Offset> =
            measured.iter().filter_map(|(host, found)| Some((*host, middle(found)?))).collect();
        for (host, offset) in &by_host {
            let source = match *host {
                HARNESS => Source::Harness,
                host => {
                    clocks.bound_ns = clocks.bound_ns.max(offset.bound_ns);
                    Source::Agent(host.to_owned())
                }
            };
            clocks.offsets.insert(source, *offset);
        }
        for (node, host) in nodes {
            clocks.offsets.insert(Source::Node(node), by_host[host]);
        }
        (!clocks.offsets.is_empty()).then_some(clocks)
    }

    /// A stamp of `source` in the reference's time, nanoseconds. Nothing if its clock was never
    /// compared.
    pub fn reference_ns(&self, source: &Source, mono_ns: u64) -> Option<u64> {
        let offset = self.offsets.get(source)?;
        u64::try_from(i128::from(mono_ns) + i128::from(offset.offset_ns)).ok()
    }

    /// The same record, stamped in the reference's time.
    pub fn place(&self, record: &Record) -> Option<Record> {
        let mono_ns = self.reference_ns(&record.source, record.mono_ns)?;
        Some(Record { mono_ns, ..record.clone() })
    }

    /// How wrong a stamp of any host may be, nanoseconds.
    pub fn bound_ns(&self) -> u64 {
        self.bound_ns
    }

    /// How wrong a stamp of this host may be, nanoseconds.
    pub fn host_bound_ns(&self, host: &str) -> u64 {
        let source = Source::Agent(host.to_owned());
        self.offsets.get(&source).map_or(0, |offset| offset.bound_ns)
    }

    /// How wrong a stamp of the harness may be, nanoseconds. Nothing is measured with its clock; it
    /// only says what belongs to a trial.
    pub fn harness_bound_ns(&self) -> u64 {
        self.offsets.get(&Source::Harness).map_or(0, |offset| offset.bound_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(host: &str, nodes: &[u64], offset_ns: i64, bound_ns: u64) -> Event {
        let (host, nodes) = (host.to_owned(), nodes.to_vec());
        Event::ClockMeasured { host, nodes, offset_ns, bound_ns, rtt_ns: 2 * bound_ns }
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
            assert_eq!(clocks.reference_ns(&source, 10), Some(1025));
        }
        assert_eq!(clocks.reference_ns(&Source::Agent("a".into()), 10), Some(10));
        assert_eq!(clocks.reference_ns(&Source::Harness, 600), Some(100));
        assert_eq!(clocks.bound_ns(), 50 + 16);
        assert_eq!(clocks.harness_bound_ns(), 9000);
    }

    #[test]
    fn clocks_that_were_never_compared_place_nothing() {
        let clocks = Clocks::of(&[measured("a", &[1], 5, 1)]).unwrap();
        assert_eq!(clocks.reference_ns(&Source::Node(2), 10), None);
        let behind = Clocks::of(&[measured("a", &[1], -50, 1)]).unwrap();
        assert_eq!(behind.reference_ns(&Source::Node(1), 10), None);
    }

    #[test]
    fn the_widest_offsets_there_are_do_no_harm() {
        let events =
            [measured("a", &[1], i64::MIN, u64::MAX / 2), measured("a", &[1], i64::MAX, 0)];
        let clocks = Clocks::of(&events).unwrap();
        assert_eq!(clocks.bound_ns(), u64::MAX);
        let source = Source::Node(1);
        assert_eq!(clocks.reference_ns(&source, 100), Some(99));
    }
}
