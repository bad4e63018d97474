//! The operations of a run's probe, as `ops.csv` has them.

use std::{collections::HashMap, sync::Arc};

use serde::Deserialize;

/// The columns that are read here. The file may have more, in any order.
pub const COLUMNS: [&str; 10] = [
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
];

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpKind {
    /// A key was set.
    Put,
    /// A key was read.
    Get,
    /// A key was to be set if it held what was expected.
    Cas,
    /// After the trial: a key that is not there although it was written, or, without a key, the
    /// end of the audit.
    Audit,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was answered.
    Ok,
    /// It has certainly not happened, and never will.
    Failed,
    /// It may have happened, or may yet.
    Unknown,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its trial; 0 for a warm-up.
    pub trial: u64,
    /// What was asked for.
    pub op: OpKind,
    /// The key; empty at the end of an audit.
    pub key: Arc<str>,
    /// What was written or read; at the end of an audit, how many keys were found.
    pub value: Option<Arc<str>>,
    /// What a compare-and-set compared with; nothing: with the absence of the key.
    pub expected: Option<Arc<str>>,
    /// When it was sent, nanoseconds on the monotonic clock of the probe's host; when it was meant
    /// to be, if that is all that is known.
    pub start_ns: u64,
    /// When its answer had arrived.
    pub end_ns: Option<u64>,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether a read found the key, a compare-and-set has swapped.
    pub found: Option<bool>,
}

/// `ops.csv` is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpsError {
    /// A line cannot be understood.
    #[error("line {line}: {problem}; restore the file")]
    Line {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A column is not there.
    #[error("there is no column `{0}` in the first line; restore the file")]
    NoColumn(&'static str),
}

/// A row as it stands in the file.
#[derive(Debug, Deserialize)]
struct Raw {
    trial: u64,
    op: OpKind,
    key: String,
    value: Option<String>,
    expected: Option<String>,
    intended_ns: Option<u64>,
    start_ns: Option<u64>,
    end_ns: Option<u64>,
    outcome: Option<Outcome>,
    found: Option<bool>,
}

/// Reads the bytes of `ops.csv`. A last line without a line end is left out: the harness was ended
/// while it wrote it.
///
/// # Errors
/// [`OpsError`] with the first line that cannot be understood.
pub fn parse(bytes: &[u8]) -> Result<Vec<Row>, OpsError> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(&bytes[..whole]);
    let line = |error: &csv::Error| error.position().map_or(1, csv::Position::line);
    let wrong = |error: csv::Error| OpsError::Line { line: line(&error), problem: said(&error) };
    let header = reader.headers().map_err(wrong)?.clone();
    if whole > 0
        && let Some(gone) = COLUMNS.iter().find(|column| !header.iter().any(|has| has == **column))
    {
        return Err(OpsError::NoColumn(gone));
    }
    let mut texts = Texts::default();
    let mut rows = Vec::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(wrong)? {
        let line = record.position().map_or(0, csv::Position::line);
        let raw: Raw = record.deserialize(Some(&header)).map_err(wrong)?;
        let row = texts.row(raw).map_err(|problem| OpsError::Line { line, problem })?;
        rows.push(row);
    }
    Ok(rows)
}

fn said(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => match err.field() {
            Some(field) => {
                let column = COLUMNS.get(field as usize).copied().unwrap_or("a column");
                format!("{column}: {}", err.kind())
            }
            None => err.kind().to_string(),
        },
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("there are {len} cells, not {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".into(),
        _ => error.to_string(),
    }
}

/// Keys and values recur.
#[derive(Debug, Default)]
struct Texts(HashMap<String, Arc<str>>);

impl Texts {
    fn of(&mut self, text: String) -> Arc<str> {
        self.0.entry(text).or_insert_with_key(|text| Arc::from(text.as_str())).clone()
    }

    fn row(&mut self, raw: Raw) -> Result<Row, String> {
        let outcome = raw.outcome.unwrap_or(Outcome::Unknown);
        let start = raw.start_ns.or(raw.intended_ns);
        if raw.op != OpKind::Audit {
            let start = start.ok_or("it has neither start_ns nor intended_ns")?;
            match (raw.end_ns, outcome) {
                (Some(end), _) if end < start => return Err("it ends before it starts".into()),
                (None, Outcome::Ok) => return Err("it is ok, but has no end_ns".into()),
                _ => {}
            }
            let must_tell = matches!(raw.op, OpKind::Get | OpKind::Cas) && outcome == Outcome::Ok;
            if must_tell && raw.found.is_none() {
                return Err("it is ok, but `found` is empty".into());
            }
            if raw.op != OpKind::Get && raw.value.is_none() {
                return Err("it writes, but `value` is empty".into());
            }
        }
        Ok(Row {
            trial: raw.trial,
            op: raw.op,
            key: self.of(raw.key),
            value: raw.value.map(|value| self.of(value)),
            expected: raw.expected.map(|value| self.of(value)),
            start_ns: start.or(raw.end_ns).unwrap_or(0),
            end_ns: raw.end_ns,
            outcome,
            found: raw.found,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "trial,op,key,value,expected,intended_ns,start_ns,end_ns,outcome,found,\
                          revision,endpoint,error\n";

    fn read(lines: &str) -> Result<Vec<Row>, String> {
        parse(format!("{HEADER}{lines}").as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_kind_of_line_is_read() {
        let rows = read(
            "3,put,w/3/1,3.1,,1,2,9,ok,,7,a:1,\n\
             3,get,r/0,,,1,2,9,ok,false,7,a:1,\n\
             3,cas,r/0,b,,1,2,,unknown,,,,\"lost, it seems\"\n\
             3,audit,,17,,,,10,ok,,,,\n",
        )
        .unwrap();
        assert_eq!((&*rows[0].key, rows[0].start_ns, rows[0].end_ns), ("w/3/1", 2, Some(9)));
        assert_eq!((rows[1].found, &rows[1].value), (Some(false), &None));
        assert_eq!((rows[2].outcome, &rows[2].expected), (Outcome::Unknown, &None));
        assert_eq!((rows[3].op, rows[3].value.as_deref()), (OpKind::Audit, Some("17")));
    }

    #[test]
    fn torn_end_is_left_out_and_an_empty_file_has_no_rows() {
        assert_eq!(read("3,put,k,v,,1,2,9,ok,,7,a:1,\n3,put,k,v,,1,2").unwrap().len(), 1);
        assert_eq!(parse(b""), Ok(Vec::new()));
        assert_eq!(parse(b"trial,op"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_told_with_the_line() {
        for (line, told) in [
            ("x,put,k,v,,1,2,9,ok,,7,a:1,", "line 2: trial: invalid digit"),
            ("3,pat,k,v,,1,2,9,ok,,7,a:1,", "unknown variant `pat`"),
            ("3,put,k,v", "line 2: there are 4 cells, not 13"),
            ("3,put,k,v,,1,20,9,ok,,7,a:1,", "line 2: it ends before it starts"),
            ("3,put,k,v,,1,2,,ok,,7,a:1,", "line 2: it is ok, but has no end_ns"),
            ("3,get,k,v,,1,2,9,ok,,7,a:1,", "line 2: it is ok, but `found` is empty"),
        ] {
            let error = read(&format!("{line}\n")).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let error = parse(b"trial,op\n").unwrap_err().to_string();
        assert!(error.starts_with("there is no column `key`"), "{error}");
    }
}
