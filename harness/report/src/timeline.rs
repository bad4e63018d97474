//! The records of a run, cut into its trials.

use sraft_events::{Event, Record};

/// The records of one trial, in order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Its number in the plan; 0 for a warm-up.
    pub number: u64,
    /// Whether its figures are to be left out of everything.
    pub warmup: bool,
    /// From its `trial_started` to its `trial_ended`, ordered by time.
    pub records: Vec<Record>,
    /// Records that were written but did not arrive, one note per gap.
    pub gaps: Vec<String>,
}

/// Cuts records, in the order in which they were written to `events.jsonl`, into trials, in the
/// order in which they ran. A trial without an end (the harness was killed) is left out.
///
/// The records must be on one clock. A record belongs to the trial in whose span it *happened*:
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
    let end = records[first..].iter().find(is_end)?.mono_ns;
    let start = records[first].mono_ns;
    let mut inside: Vec<Record> =
        records.iter().filter(|r| (start..=end).contains(&r.mono_ns)).cloned().collect();
    let gaps = gaps(&inside);
    // Stable: records of one instant keep the order in which they arrived.
    inside.sort_by_key(|record| record.mono_ns);
    Some(Trial { number, warmup, records: inside, gaps })
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
}
