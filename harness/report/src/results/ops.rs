use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{ResultsError, TornTail};

/// The columns of `ops.csv`, in order.
pub const OPS_HEADER: [&str; 13] = [
    "trial",
    "op",
    "key",
    "value",
    "expected",
    "intended_ns",
    "start_ns",
    "end_ns",
    "outcome",
    "found",
    "revision",
    "endpoint",
    "error",
];

/// What the probe asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// A write.
    Put,
    /// A read.
    Get,
    /// A write that is to happen only if the key still has the expected value.
    Cas,
    /// What a look at everything written found, after the trial.
    Audit,
}

/// What became of an operation, as far as the probe can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpOutcome {
    /// It was acknowledged.
    Ok,
    /// It has certainly not been carried out.
    Failed,
    /// It may have been carried out, or still be.
    Unknown,
}

/// One operation of the probe: as much of its line as figures need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The trial that it belongs to; 0 for a warm-up.
    pub trial: u64,
    /// What was asked for.
    pub kind: OpKind,
    /// The key; empty in the line that closes an audit.
    pub key: Box<str>,
    /// When the schedule meant it to start, nanoseconds on the clock of the probe's host.
    pub intended_ns: u64,
    /// When it ended; empty if no answer ever came.
    pub end_ns: Option<u64>,
    /// What became of it.
    pub outcome: OpOutcome,
    /// Of a compare-and-set whether it has swapped, of a read or an audit whether the key was there.
    pub found: Option<bool>,
}

impl Op {
    /// Reads one line of `ops.csv`, without its line end.
    ///
    /// # Errors
    /// Which column is wrong, and why.
    pub fn parse(line: &str) -> Result<Op, String> {
        // Quoted cells are rare: only errors hold commas.
        if !line.contains('"') {
            return Op::of(line.split(','));
        }
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
        let mut record = csv::StringRecord::new();
        match reader.read_record(&mut record) {
            Ok(true) => Op::of(record.iter()),
            Ok(false) => Err("the line is empty".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn of<'a>(cells: impl Iterator<Item = &'a str>) -> Result<Op, String> {
        let mut found = [""; OPS_HEADER.len()];
        let mut count = 0;
        for cell in cells {
            *found.get_mut(count).ok_or("there are more than 13 cells")? = cell;
            count += 1;
        }
        if count != found.len() {
            return Err(format!("there are {count} cells, not {}", found.len()));
        }
        let [trial, op, key, .., revision, _endpoint, _error] = found;
        let [intended, start, end, outcome, there] =
            [found[5], found[6], found[7], found[8], found[9]];
        let wrong = |column: &str, cell: &str| format!("{column} is `{cell}`");
        let number =
            |column: &str, cell: &str| cell.parse::<u64>().map_err(|_| wrong(column, cell));
        let maybe =
            |column: &str, cell: &str| (!cell.is_empty()).then(|| number(column, cell)).transpose();
        maybe("revision", revision)?;
        maybe("start_ns", start)?;
        Ok(Op {
            trial: number("trial", trial)?,
            kind: match op {
                "put" => OpKind::Put,
                "get" => OpKind::Get,
                "cas" => OpKind::Cas,
                "audit" => OpKind::Audit,
                _ => return Err(wrong("op", op)),
            },
            key: key.into(),
            // An audit is not on the schedule.
            intended_ns: maybe("intended_ns", intended)?.unwrap_or(0),
            end_ns: maybe("end_ns", end)?,
            outcome: match outcome {
                "ok" => OpOutcome::Ok,
                "failed" => OpOutcome::Failed,
                "unknown" | "" => OpOutcome::Unknown,
                _ => return Err(wrong("outcome", outcome)),
            },
            found: match there {
                "" => None,
                "true" => Some(true),
                "false" => Some(false),
                _ => return Err(wrong("found", there)),
            },
        })
    }

    /// Whether it asks for a change of the store.
    pub fn writes(&self) -> bool {
        matches!(self.kind, OpKind::Put | OpKind::Cas)
    }

    /// Whether it has changed the store and the probe was told so. A compare-and-set that found
    /// another value has been answered, but is no write.
    pub fn acknowledged_write(&self) -> bool {
        self.outcome == OpOutcome::Ok
            && self.end_ns.is_some()
            && match self.kind {
                OpKind::Put => true,
                OpKind::Cas => self.found == Some(true),
                OpKind::Get | OpKind::Audit => false,
            }
    }
}

/// `ops.csv`, read back: the operations of complete trials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ops {
    by_trial: BTreeMap<u64, Vec<Op>>,
    /// Length of the file up to the end of the last operation of a complete trial, in bytes.
    pub complete_bytes: u64,
    /// What could not be read at the end of the file, if anything.
    pub torn: Option<TornTail>,
}

impl Ops {
    /// The operations of a trial in the order in which they ended; none if it had no probe.
    pub fn of(&self, trial: u64) -> &[Op] {
        self.by_trial.get(&trial).map_or(&[], Vec::as_slice)
    }

    /// Whether no trial had a probe.
    pub fn is_empty(&self) -> bool {
        self.by_trial.is_empty()
    }

    /// Reads the bytes of the file at `path` (which only serves to name it in errors). Operations of
    /// trials that are not `complete` are left out: they are what a harness that was killed has left.
    ///
    /// # Errors
    /// [`ResultsError::Damaged`] if it does not begin with its header, [`ResultsError::CorruptLine`]
    /// if a line cannot be read, or belongs to no complete trial, although operations of a complete
    /// trial follow it.
    pub fn parse(path: &Path, bytes: &[u8], complete: &BTreeSet<u64>) -> Result<Ops, ResultsError> {
        let mut ops = Ops::default();
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').enumerate();
        let header = OPS_HEADER.join(",") + "\n";
        let mut offset = match lines.next() {
            None => return Ok(ops),
            Some((_, first)) if first == header.as_bytes() => first.len() as u64,
            // The harness was killed while it wrote the very first line.
            Some((_, first)) if !first.ends_with(b"\n") && header.as_bytes().starts_with(first) => {
                return Ok(ops);
            }
            Some(_) => {
                return Err(ResultsError::Damaged {
                    path: path.into(),
                    error: format!("it does not begin with the line {}", header.trim_end()),
                });
            }
        };
        ops.complete_bytes = offset;
        // The first line that has no place before a complete trial.
        let mut stray: Option<(usize, String)> = None;
        for (number, raw) in lines {
            let (line, start) = (number + 1, offset);
            offset += raw.len() as u64;
            let op = match read_line(raw) {
                Ok(op) => op,
                Err(error) => {
                    stray.get_or_insert((line, error.clone()));
                    let bytes = bytes.len() as u64 - start;
                    ops.torn.get_or_insert(TornTail { line, offset: start, bytes, error });
                    continue;
                }
            };
            if !complete.contains(&op.trial) {
                let error = format!("trial {} has not ended", op.trial);
                stray.get_or_insert((line, error));
                continue;
            }
            if let Some((line, error)) = stray {
                return Err(ResultsError::CorruptLine { path: path.into(), line, error });
            }
            ops.complete_bytes = offset;
            ops.by_trial.entry(op.trial).or_default().push(op);
        }
        Ok(ops)
    }
}

fn read_line(raw: &[u8]) -> Result<Op, String> {
    let line = raw.strip_suffix(b"\n").ok_or("the line is cut off: it has no line end")?;
    let line = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    Op::parse(line).map_err(|error| format!("not an operation: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: &str = "3,put,w/3/1,v1,,1000,1001,2000,ok,,7,127.0.0.1:2379,";

    fn parse(text: &str, complete: &[u64]) -> Result<Ops, ResultsError> {
        Ops::parse(Path::new("ops.csv"), text.as_bytes(), &complete.iter().copied().collect())
    }

    fn file(lines: &[&str]) -> String {
        let header = OPS_HEADER.join(",");
        [header.as_str()].iter().chain(lines).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn lines_are_read_cell_by_cell() {
        let op = Op::parse(PUT).unwrap();
        assert_eq!((op.trial, op.kind, &*op.key), (3, OpKind::Put, "w/3/1"));
        assert_eq!((op.intended_ns, op.end_ns, op.outcome), (1000, Some(2000), OpOutcome::Ok));
        assert!(op.writes() && op.acknowledged_write());
        let quoted = "3,cas,r/1,b,a,1000,1001,,unknown,,,x:1,\"closed, \"\"reset\"\"\"";
        let op = Op::parse(quoted).unwrap();
        assert_eq!((op.kind, op.outcome, op.end_ns), (OpKind::Cas, OpOutcome::Unknown, None));
        let lost = Op::parse("3,cas,r/1,b,a,1000,1001,1500,ok,false,9,x:1,").unwrap();
        assert!(lost.writes() && !lost.acknowledged_write(), "it has swapped nothing");
        let closing = Op::parse("3,audit,,17,,,,2500,ok,,9,x:1,").unwrap();
        assert_eq!((closing.kind, &*closing.key), (OpKind::Audit, ""));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, said) in [
            ("3,put", "there are 2 cells, not 13"),
            (&*PUT.replace("put", "post"), "op is `post`"),
            (&PUT.replace("1000", "-1"), "intended_ns is `-1`"),
            (&PUT.replace(",ok,", ",fine,"), "outcome is `fine`"),
            (&PUT.replace("ok,,", "ok,maybe,"), "found is `maybe`"),
            (&format!("{PUT},more"), "there are more than 13 cells"),
        ] {
            assert_eq!(Op::parse(line).unwrap_err(), said);
        }
    }

    #[test]
    fn every_truncation_is_survived_and_loses_only_the_last_trial() {
        let first = file(&[PUT, PUT]);
        let text = first.clone() + &PUT.replacen('3', "4", 1) + "\n";
        for cut in first.len()..text.len() {
            let ops = parse(&text[..cut], &[3]).unwrap();
            assert_eq!((ops.of(3).len(), ops.of(4).len()), (2, 0));
            assert_eq!(ops.complete_bytes, first.len() as u64, "cut at {cut}");
            assert_eq!(ops.torn.is_some(), !text[..cut].ends_with('\n'), "cut at {cut}");
        }
        for cut in 0..OPS_HEADER.join(",").len() {
            assert_eq!(parse(&text[..cut], &[3]).unwrap().complete_bytes, 0, "cut at {cut}");
        }
        assert_eq!(parse(&text, &[3, 4]).unwrap().complete_bytes, text.len() as u64);
    }

    #[test]
    fn what_stands_before_a_complete_trial_must_be_readable() {
        let other = PUT.replacen('3', "4", 1);
        let error = parse(&file(&["nonsense", PUT]), &[3]).unwrap_err().to_string();
        assert!(error.starts_with("ops.csv, line 2: not an operation: there are 1"), "{error}");
        let error = parse(&file(&[&other, PUT]), &[3]).unwrap_err().to_string();
        assert!(error.starts_with("ops.csv, line 2: trial 4 has not ended"), "{error}");
        let error = parse("trial,op\n", &[]).unwrap_err().to_string();
        assert!(error.contains("does not begin with the line trial,op,key"), "{error}");
    }
}
