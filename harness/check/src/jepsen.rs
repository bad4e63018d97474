//! Histories as Jepsen's logs have them.
//!
//! One event a line. An operation is invoked and then ends `:ok`, `:fail` or `:info`:
//!
//! * `:fail` of a compare-and-set is a *completed* operation: the value was another one.
//! * Any other `:fail` did not happen; a read that failed says nothing.
//! * `:info`, or no end at all, may have happened at any time since, or never.
//!
//! Instants are the numbers of the lines.

mod edn;

use std::{collections::HashMap, sync::Arc};

use crate::{
    history::Operation,
    model::{Action, RegisterOp, StoreAction, StoreOp, Value},
};
use edn::Edn;

/// A line that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct JepsenError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

/// Reads `jepsen-register`: one register with read, write and cas, nil at first. A line is the
/// process, the type, the function and the value, with tabs (here `->`) between them, behind
/// whatever the logger has put in front:
///
/// ```text
/// INFO  jepsen.util - 3 -> :invoke -> :cas -> [3 0]
/// ```
///
/// # Errors
/// [`JepsenError`] with the first line that cannot be understood.
pub fn register(text: &str) -> Result<Vec<Operation<RegisterOp>>, JepsenError> {
    let mut pairs = Pairs::default();
    for (line, text) in lines(text) {
        let event = register_event(text).map_err(|problem| JepsenError { line, problem })?;
        pairs.take(line, event)?;
    }
    pairs.history(|call, end| {
        let action = match (&*call.f, end) {
            ("read", Outcome::Ok(value)) => Action::Read(value.scalar()?),
            ("read", _) => return Ok(None),
            ("write", Outcome::Fail) => return Ok(None),
            ("write", _) => Action::Write(call.value.scalar()?.ok_or("a write needs a value")?),
            ("cas", end) => {
                let (expected, new) = call.value.pair()?;
                let new = new.ok_or("a cas needs a new value")?;
                Action::Cas { expected, new, swapped: !matches!(end, Outcome::Fail) }
            }
            (other, _) => return Err(format!("`:{other}` is none of :read, :write and :cas")),
        };
        Ok(Some(RegisterOp { key: Arc::from(""), action }))
    })
}

/// Reads `jepsen-kv`: a key-value store of strings with get, put, append and cas; a missing key is
/// the empty string. A line is a map in EDN:
///
/// ```text
/// {:process 0, :type :invoke, :f :append, :key "4", :value "x 0 1 y"}
/// ```
///
/// # Errors
/// [`JepsenError`] with the first line that cannot be understood.
pub fn store(text: &str) -> Result<Vec<Operation<StoreOp>>, JepsenError> {
    let mut pairs = Pairs::default();
    for (line, text) in lines(text) {
        let event = store_event(text).map_err(|problem| JepsenError { line, problem })?;
        pairs.take(line, event)?;
    }
    let or_empty = |value: Value| value.unwrap_or_else(|| Arc::from(""));
    pairs.history(|call, end| {
        let action = match (&*call.f, end) {
            ("get", Outcome::Ok(value)) => StoreAction::Get(or_empty(value.scalar()?)),
            ("get", _) => return Ok(None),
            ("put" | "append", Outcome::Fail) => return Ok(None),
            ("put", _) => StoreAction::Put(or_empty(call.value.scalar()?)),
            ("append", _) => StoreAction::Append(or_empty(call.value.scalar()?)),
            ("cas", end) => {
                let (expected, new) = call.value.pair()?;
                let (expected, new) = (or_empty(expected), or_empty(new));
                StoreAction::Cas { expected, new, swapped: !matches!(end, Outcome::Fail) }
            }
            (other, _) => {
                return Err(format!("`:{other}` is none of :get, :put, :append and :cas"));
            }
        };
        Ok(Some(StoreOp { key: call.key.clone(), action }))
    })
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty())
}

/// A line.
#[derive(Debug)]
struct Line {
    process: u64,
    kind: Kind,
    f: String,
    key: Arc<str>,
    value: Edn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Invoke,
    Ok,
    Fail,
    Info,
}

impl Kind {
    fn of(word: &str) -> Result<Kind, String> {
        match word {
            "invoke" => Ok(Kind::Invoke),
            "ok" => Ok(Kind::Ok),
            "fail" => Ok(Kind::Fail),
            "info" => Ok(Kind::Info),
            other => Err(format!("`:{other}` is none of :invoke, :ok, :fail and :info")),
        }
    }
}

fn register_event(line: &str) -> Result<Line, String> {
    let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
    let [first, kind, f, value] = fields[..] else {
        return Err(format!(
            "{} fields instead of process, type, function and value with tabs between them",
            fields.len()
        ));
    };
    let process = first.split_whitespace().next_back().unwrap_or_default();
    let process = process.parse().map_err(|_| format!("`{process}` is no process number"))?;
    let kind = Kind::of(&edn::parse(kind)?.keyword()?)?;
    let f = edn::parse(f)?.keyword()?;
    Ok(Line { process, kind, f, key: Arc::from(""), value: edn::parse(value)? })
}

fn store_event(line: &str) -> Result<Line, String> {
    let Edn::Map(pairs) = edn::parse(line)? else {
        return Err("not a map like {:process 0, :type :invoke, ...}".into());
    };
    let mut fields: HashMap<String, Edn> = HashMap::new();
    for (name, value) in pairs {
        let name = name.keyword()?;
        if fields.insert(name.clone(), value).is_some() {
            return Err(format!("`:{name}` stands there twice"));
        }
    }
    let mut field =
        |name: &str| fields.remove(name).ok_or_else(|| format!("there is no `:{name}`"));
    let process = match field("process")? {
        Edn::Integer(process) => u64::try_from(process).map_err(|_| "a negative process")?,
        other => return Err(format!("`{other}` is no process number")),
    };
    let kind = Kind::of(&field("type")?.keyword()?)?;
    let f = field("f")?.keyword()?;
    let key = field("key")?.scalar()?.ok_or("the key is nil")?;
    Ok(Line { process, kind, f, key, value: field("value")? })
}

/// How an operation ended.
#[derive(Debug)]
enum Outcome {
    Ok(Edn),
    Fail,
    Unknown,
}

/// An invocation and its end, with their lines.
#[derive(Debug)]
struct Pair {
    line: usize,
    call: Line,
    end: Option<(usize, Outcome)>,
}

/// Invocations and their ends.
#[derive(Debug, Default)]
struct Pairs {
    calls: Vec<Pair>,
    /// The call that each process waits for.
    waiting: HashMap<u64, usize>,
}

impl Pairs {
    fn take(&mut self, line: usize, event: Line) -> Result<(), JepsenError> {
        let wrong = |problem: String| Err(JepsenError { line, problem });
        let process = event.process;
        if event.kind == Kind::Invoke {
            if let Some(other) = self.waiting.insert(process, self.calls.len()) {
                return wrong(format!(
                    "process {process} invokes `:{}` although the operation that it invoked in \
                     line {} has not ended; give each client its own process",
                    event.f, self.calls[other].line
                ));
            }
            self.calls.push(Pair { line, call: event, end: None });
            return Ok(());
        }
        let Some(call) = self.waiting.remove(&process) else {
            return wrong(format!("process {process} ends an operation that it never invoked"));
        };
        let Pair { line: invoked, call, end } = &mut self.calls[call];
        if (&call.f, &call.key) != (&event.f, &event.key) {
            return wrong(format!(
                "process {process} ends another operation than it invoked in line {invoked}"
            ));
        }
        // `:fail` with a keyword (`:timed-out`) in the place of a pair did not compare anything.
        let compared = !matches!(event.value, Edn::Keyword(_));
        *end = match event.kind {
            Kind::Ok => Some((line, Outcome::Ok(event.value))),
            Kind::Fail if call.f == "cas" && !compared => Some((line, Outcome::Unknown)),
            Kind::Fail => Some((line, Outcome::Fail)),
            Kind::Info | Kind::Invoke => Some((line, Outcome::Unknown)),
        };
        Ok(())
    }

    /// The operations that happened, or may have.
    fn history<O>(
        self,
        op: impl Fn(&Line, &Outcome) -> Result<Option<O>, String>,
    ) -> Result<Vec<Operation<O>>, JepsenError> {
        let mut history = Vec::new();
        for Pair { line, call, end } in &self.calls {
            let (ended, outcome) = match end {
                Some((ended, outcome)) => (*ended, outcome),
                None => (*line, &Outcome::Unknown),
            };
            // What is wrong with a value shows in the line that has it.
            let at = if matches!(outcome, Outcome::Ok(_)) { ended } else { *line };
            let done = op(call, outcome).map_err(|problem| JepsenError { line: at, problem })?;
            let back = (!matches!(outcome, Outcome::Unknown)).then_some(ended as u64);
            history.extend(done.map(|op| Operation {
                process: call.process,
                call: *line as u64,
                back,
                op,
            }));
        }
        Ok(history)
    }
}

#[cfg(test)]
mod tests;
