//! The records of a run, cut into its trials.

use std::collections::BTreeSet;

use sraft_events::{Event, Record, Source};

use crate::clocks::Clocks;

/// The records of one trial, in order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Its number in the plan; 0 for a warm-up.
    pub number: u64,
    /// Whether its figures are to be left out of everything.
    pub warmup: bool,
    /// From its `trial_started` to its `trial_ended`, ordered by time, all on one clock: that of the
    /// reference if there are several hosts.
    pub records: Vec<Record>,
    /// How wrong a span between two hosts may be, nanoseconds; 0 on one host, empty if it is not
    /// known.
    pub clock_bound_ns: Option<u64>,
    /// Records that were written but did not arrive, one note per gap.
    pub gaps: Vec<String>,
}

/// Cuts records, in the order in which they were written to `events.jsonl`, into trials, in the
/// order in which they ran. A trial without an end (the harness was killed) is left out.
///
/// A record belongs to the trial in whose span it *happened*:
/// what the journals deliver late, after `trial_ended` but before the next `trial_started`, still
/// counts, and what happened before `trial_started` does not.
pub fn trials(records: &[Record]) -> Vec<Trial> {
    let is_start = |r: &Record| matches!(r.event, Event::TrialStarted { .. });
    let starts: Vec<usize> =
        (0..records.len()).filter(|position| is_start(&records[*position])).collect();
    let ends = starts.iter().skip(1).copied().chain([records.len()]);
    starts.iter().zip(ends).filter_map(|(start, end)| trial(&records[*start..end])).collect()
}

/// The trial that begins with the first `trial_started` of `records`, if it has ended.
pub fn trial(records: &[Record]) -> Option<Trial> {
    let (first, number, warmup) = records.iter().enumerate().find_map(|(at, r)| match r.event {
        Event::TrialStarted { trial, warmup, .. } => Some((at, trial, warmup)),
        _ => None,
    })?;
    let is_end =
        |r: &&Record| matches!(r.event, Event::TrialEnded { trial, .. } if trial == number);
    let last = first + records[first..].iter().position(|r| is_end(&r))?;
    let end = records[last].mono_ns;
    let start = records[first].mono_ns;
    // The harness's own records are told apart on its own clock, all others on the reference's.
    let of_harness = |r: &&Record| r.source == Source::Harness;
    let own = |r: &&Record| of_harness(r) && (start..=end).contains(&r.mono_ns);
    let clocks = Clocks::of(records.iter().filter(own).map(|record| &record.event));
    let mut notes = BTreeSet::new();
    let mut inside = Vec::new();
    match &clocks {
        None => {
            inside.extend(records.iter().filter(|r| (start..=end).contains(&r.mono_ns)).cloned());
        }
        Some(clocks) => {
            let slack = clocks.harness_bound_ns();
            let edge = |at: usize| clocks.reference_ns(&Source::Harness, &records[at]);
            let (from, to) =
                (edge(first)?.saturating_sub(slack), edge(last)?.saturating_add(slack));
            for (at, record) in records.iter().enumerate() {
                let Some(placed) = clocks.place(record) else {
                    // What follows the trial may be of a larger cluster.
                    if (first..last).contains(&at) {
                        notes.insert(format!("the clock of {} was not compared", record.source));
                    }
                    continue;
                };
                let belongs = match record.source {
                    Source::Harness => (start..=end).contains(&record.mono_ns),
                    _ => (from..=to).contains(&placed.mono_ns),
                };
                if belongs {
                    inside.push(placed);
                }
            }
        }
    }
    let agents: BTreeSet<&Source> =
        inside.iter().map(|r| &r.source).filter(|s| matches!(s, Source::Agent(_))).collect();
    let clock_bound_ns = match &clocks {
        Some(clocks) if notes.is_empty() => Some(clocks.bound_ns()),
        None if agents.len() <= 1 => Some(0),
        _ => None,
    };
    let gaps = gaps(&inside).into_iter().chain(notes).collect();
    // Stable: records of one instant keep the order in which they arrived.
    inside.sort_by_key(|record| record.mono_ns);
    Some(Trial { number, warmup, records: inside, clock_bound_ns, gaps })
}

/// Every process counts its records from 0, so within a source the number goes up by one or
/// starts again.
fn gaps(records: &[Record]) -> Vec<String> {
    let mut last = std::collections::BTreeMap::new();
    let mut gaps = Vec::new();
    for record in records {
        if let Some(last) = last.insert(&record.source, record.seq) {
            let expected = last + 1;
            if record.seq > expected {
                let to = record.seq - 1;
                gaps.push(format!("records {expected} to {to} of {} are missing", record.source));
            }
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::Script;

    #[test]
    fn records_belong_to_the_trial_in_which_they_happened() {
        let mut script = Script::promotion(1, 0, 172);
        script.extend(Script::promotion(2, 10_000, 180));
        let late = script.records().iter().position(|r| matches!(r.event, Event::Ready { .. }));
        let mut records = script.records().to_vec();
        // The first trial's `ready` arrives only after its end.
        let ready = records.remove(late.unwrap());
        let end = records.iter().position(|r| matches!(r.event, Event::TrialEnded { .. }));
        records.insert(end.unwrap() + 1, ready);
        let trials = trials(&records);
        assert_eq!(trials.iter().map(|t| t.number).collect::<Vec<_>>(), [1, 2]);
        assert!(trials[0].records.iter().any(|r| matches!(r.event, Event::Ready { .. })));
        assert!(trials[0].records.is_sorted_by_key(|r| r.mono_ns));
    }

    #[test]
    fn trial_without_an_end_is_left_out() {
        let mut records = Script::promotion(1, 0, 172).records().to_vec();
        records.pop();
        assert_eq!(trials(&records), []);
    }

    #[test]
    fn missing_records_are_noted_and_a_restart_is_not_a_gap() {
        let mut records = Script::promotion(1, 0, 172).records().to_vec();
        assert_eq!(trial(&records).unwrap().gaps, [""; 0]);
        let gone = records.iter().position(|r| matches!(r.event, Event::Elected { .. })).unwrap();
        let lost = records.remove(gone);
        let (seq, source) = (lost.seq, lost.source);
        assert_eq!(
            trial(&records).unwrap().gaps,
            [format!("records {seq} to {seq} of {source} are missing")]
        );
    }

    /// The same trial, with its nodes on hosts whose clocks are far apart.
    fn on_two_hosts(records: &[Record], ahead: u64) -> Vec<Record> {
        let mut apart = Vec::new();
        let mut seq = 1000;
        for record in records {
            let there = record.source == Source::Node(2);
            let mut moved = record.clone();
            moved.mono_ns += if there { ahead } else { 0 };
            apart.push(moved);
            let started = matches!(record.event, Event::TrialStarted { .. });
            if started {
                let hosts: [(&str, &[u64], i64, u64); 3] = [
                    ("local", &[1, 3, 4, 5], 0, 0),
                    ("other", &[2], -(ahead as i64), 25_000),
                    (crate::clocks::HARNESS, &[], 0, 900_000),
                ];
                for (host, nodes, offset_ns, bound_ns) in hosts {
                    let (host, nodes) = (host.to_owned(), nodes.to_vec());
                    let rtt_ns = 2 * bound_ns;
                    let boot = None;
                    let event =
                        Event::ClockMeasured { host, nodes, offset_ns, bound_ns, rtt_ns, boot };
                    seq += 1;
                    apart.push(Record { event, seq, ..record.clone() });
                }
            }
        }
        apart
    }

    #[test]
    fn records_of_several_hosts_are_told_in_the_references_time() {
        let script = Script::promotion(1, 0, 172);
        let here = trial(script.records()).unwrap();
        assert_eq!(here.clock_bound_ns, Some(0));
        let apart = on_two_hosts(script.records(), 77_000_000_000);
        let there = trial(&apart).unwrap();
        assert_eq!(there.clock_bound_ns, Some(25_000));
        let told = |trial: &Trial| -> Vec<Record> {
            let compared = |r: &&Record| !matches!(r.event, Event::ClockMeasured { .. });
            trial.records.iter().filter(compared).cloned().collect()
        };
        assert_eq!(told(&there), told(&here));
    }

    #[test]
    fn a_host_whose_clock_was_not_compared_is_noted() {
        let mut apart = on_two_hosts(Script::promotion(1, 0, 172).records(), 5_000);
        apart.retain(|r| !matches!(&r.event, Event::ClockMeasured { host, .. } if host == "other"));
        let trial = trial(&apart).unwrap();
        assert_eq!(trial.clock_bound_ns, None);
        assert!(trial.gaps.contains(&"the clock of node:2 was not compared".to_owned()));
        assert!(trial.records.iter().all(|record| record.source != Source::Node(2)));
    }
}
