use std::{collections::BTreeSet, path::Path};

use sraft_events::{Event, Record};

use super::ResultsError;

/// `events.jsonl`, read back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Events {
    /// Every record that could be read, in the order of the file.
    pub records: Vec<Record>,
    /// Length of the file up to the end of the last trial that is complete, in bytes.
    pub complete_bytes: u64,
    /// How many of `records` lie before that.
    pub complete_records: usize,
    /// What could not be read at the end of the file, if anything: the harness was killed, or the
    /// disk ran full, while it was written.
    pub torn: Option<TornTail>,
}

/// The unreadable end of an event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Its first line, from 1.
    pub line: usize,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// Why its first line cannot be read.
    pub error: String,
}

impl Events {
    /// Numbers of the trials that are complete; warm-ups have none.
    pub fn completed(&self) -> BTreeSet<u64> {
        let ended = |record: &Record| match record.event {
            Event::TrialEnded { trial, .. } if trial > 0 => Some(trial),
            _ => None,
        };
        self.records.iter().filter_map(ended).collect()
    }

    /// Reads the bytes of the file at `path` (which only serves to name it in errors).
    ///
    /// # Errors
    /// [`ResultsError::CorruptLine`] if a line cannot be read although a complete trial follows.
    /// The same in the tail is no error: see [`Events::torn`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Events, ResultsError> {
        let mut events = Events::default();
        let mut trials = BTreeSet::new();
        let mut offset = 0;
        for (number, raw) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let (line, start) = (number + 1, offset);
            offset += raw.len() as u64;
            let record = match read_line(raw) {
                Ok(record) => record,
                Err(error) => {
                    let bytes = bytes.len() as u64 - start;
                    events.torn.get_or_insert(TornTail { line, offset: start, bytes, error });
                    continue;
                }
            };
            let ended = matches!(record.event, Event::TrialEnded { .. });
            match &events.torn {
                Some(torn) if ended => {
                    let (line, error) = (torn.line, torn.error.clone());
                    return Err(ResultsError::CorruptLine { path: path.into(), line, error });
                }
                // Nothing after a line that cannot be read is trusted.
                Some(_) => {}
                None => {
                    if let Event::TrialEnded { trial: trial @ 1.., .. } = record.event
                        && !trials.insert(trial)
                    {
                        let path = path.into();
                        return Err(ResultsError::RepeatedTrial { path, line, trial });
                    }
                    events.records.push(record);
                    if ended {
                        events.complete_bytes = offset;
                        events.complete_records = events.records.len();
                    }
                }
            }
        }
        Ok(events)
    }
}

fn read_line(raw: &[u8]) -> Result<Record, String> {
    let Some(line) = raw.strip_suffix(b"\n") else {
        return Err("the line is cut off: it has no line end".into());
    };
    serde_json::from_slice(line).map_err(|error| format!("not an event record: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::Script;

    fn lines(script: &Script) -> String {
        script.lines().iter().map(|line| format!("{line}\n")).collect()
    }

    fn parse(text: &str) -> Result<Events, ResultsError> {
        Events::parse(Path::new("events.jsonl"), text.as_bytes())
    }

    #[test]
    fn file_that_holds_a_trial_twice_is_refused() {
        let text = lines(&Script::promotion(1, 0, 172));
        let error = parse(&text.repeat(2)).unwrap_err();
        assert!(matches!(error, ResultsError::RepeatedTrial { trial: 1, .. }), "{error}");
    }

    #[test]
    fn complete_file_has_no_torn_tail() {
        let text = lines(&Script::promotion(1, 0, 172));
        let events = parse(&text).unwrap();
        assert_eq!(events.torn, None);
        assert_eq!(events.complete_bytes, text.len() as u64);
        assert_eq!(events.completed().into_iter().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn every_truncation_is_survived_and_loses_only_the_last_trial() {
        let first = lines(&Script::promotion(1, 0, 172));
        let text = first.clone() + &lines(&Script::promotion(2, 10_000, 180));
        for cut in first.len()..text.len() {
            let events = parse(&text[..cut]).unwrap();
            assert_eq!(events.complete_bytes, first.len() as u64, "cut at {cut}");
            assert_eq!(events.torn.is_some(), !text[..cut].ends_with('\n'), "cut at {cut}");
        }
    }

    #[test]
    fn corrupt_line_in_the_tail_is_reported() {
        let text = lines(&Script::promotion(1, 0, 172));
        let torn = text.clone() + "{\"source\":\"node:1\",\"seq\"\n";
        let events = parse(&torn).unwrap();
        assert_eq!(events.complete_bytes, text.len() as u64);
        let tail = events.torn.unwrap();
        assert_eq!((tail.offset, tail.line), (text.len() as u64, text.lines().count() + 1));
    }

    #[test]
    fn corrupt_line_before_a_complete_trial_is_an_error_with_its_number() {
        let text = lines(&Script::promotion(1, 0, 172)).replacen("\"seq\"", "\"sqe\"", 1);
        let error = parse(&text).unwrap_err();
        assert!(matches!(error, ResultsError::CorruptLine { line: 1, .. }), "{error}");
        assert!(error.to_string().starts_with("events.jsonl, line 1: not an event record"));
    }
}
