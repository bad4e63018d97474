//! `sraft check` and `sraft check-history`: what is read, what is said, what is written. The
//! verdicts themselves are `sraft-check`'s.

use std::{
    fmt::Write,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use sraft_check::{
    Budget, Checked, KeyValue, Model, Operation, Register, Verdict, drawing, jepsen, ops,
    run::{History, Judgement, RunCheck},
};
use sraft_report::results::RunDir;

use crate::{
    cli::{CheckArgs, CheckHistoryArgs, HistoryFormat},
    say,
};

/// What a run's verdicts are written to.
const CHECK: &str = "check.json";
/// The probe's operations.
const OPS: &str = "ops.csv";

/// Time for the histories of each cluster, as `sraft check` has it if nothing else is said.
const PATIENCE: Duration = Duration::from_secs(60);

/// `sraft check-history`.
pub(crate) fn histories(args: &CheckHistoryArgs) -> anyhow::Result<ExitCode> {
    if let Some(dir) = &args.svg {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let mut all = true;
    for path in &args.files {
        let verdict = match args.format {
            HistoryFormat::JepsenRegister => {
                history(args, path, &Register::absent(), jepsen::register)?
            }
            HistoryFormat::JepsenKv => history(args, path, &KeyValue, jepsen::store)?,
        };
        all &= verdict == Verdict::Linearizable;
        let word = match verdict {
            Verdict::Linearizable => "linearizable",
            Verdict::NotLinearizable => "not-linearizable",
            Verdict::Undecided(_) => "undecided",
        };
        say(&format!("{} {word}\n", path.display()))?;
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

type Parsed<O> = Result<Vec<Operation<O>>, jepsen::JepsenError>;

fn history<M: Model>(
    args: &CheckHistoryArgs,
    path: &Path,
    model: &M,
    parse: impl Fn(&str) -> Parsed<M::Op>,
) -> anyhow::Result<Verdict> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        anyhow::anyhow!("{}, line {line}: it is not UTF-8", path.display())
    })?;
    let history = parse(&text).with_context(|| path.display().to_string())?;
    let budget = Budget { time: args.budget.into(), ..Budget::default() };
    let checked = sraft_check::check(model, &history, &budget);
    if let Some(dir) = &args.svg {
        draw(dir, path, &history, &checked)?;
    }
    Ok(checked.verdict())
}

fn draw<O: std::fmt::Display>(
    dir: &Path,
    path: &Path,
    history: &[Operation<O>],
    checked: &Checked,
) -> anyhow::Result<()> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let stuck = checked.keys.iter().filter(|key| key.verdict == Verdict::NotLinearizable);
    for key in stuck {
        let Some(prefix) = &key.prefix else { continue };
        let (title, file) = match &*key.key {
            "" => (name.to_string(), format!("{name}.svg")),
            key => (
                format!("{name}, key {key}"),
                format!("{name}.{}.svg", sraft_check::run::file_name(key)),
            ),
        };
        let svg = drawing::draw(&format!("{title}: not linearizable"), history, prefix);
        let file = dir.join(file);
        fs::write(&file, svg).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// `sraft check`.
pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let dir = RunDir::open(&args.run)?;
    // A harness at work appends to the same files.
    let _lock = dir.lock()?;
    let budget = Budget { time: args.budget.into(), ..Budget::default() };
    let checked = check(&dir, &budget)?;
    match args.json {
        true => say(&(serde_json::to_string_pretty(&checked)? + "\n"))?,
        false => say(&table(&checked, &dir))?,
    }
    Ok(if checked.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The verdicts on a run that has just ended, as a table, and whether every promise was kept.
pub(crate) fn judge(dir: &RunDir) -> anyhow::Result<(String, bool)> {
    let budget = Budget { time: PATIENCE, ..Budget::default() };
    let checked = check(dir, &budget).with_context(|| {
        format!("cannot check the run (`sraft check {}`)", dir.results().display())
    })?;
    Ok((table(&checked, dir), checked.passed))
}

/// Checks a run that nobody works on and leaves `check.json` in its folder, with drawings of what
/// cannot be explained.
pub(crate) fn check(dir: &RunDir, budget: &Budget) -> anyhow::Result<RunCheck> {
    let events = dir.read_events()?;
    let path = dir.results().join(OPS);
    let ops = match fs::read(&path) {
        Ok(bytes) => Some(ops::parse(&bytes).with_context(|| path.display().to_string())?),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => bail!("cannot read {}: {error}", path.display()),
    };
    let checked = sraft_check::run::check(&events.records, ops.as_deref(), budget);
    for (name, svg) in &checked.drawings {
        dir.write_result(name, svg.as_bytes())?;
    }
    let mut json = serde_json::to_vec_pretty(&checked)?;
    json.push(b'\n');
    dir.write_result(CHECK, &json)?;
    for old in drawings(dir.results())? {
        let kept = checked.drawings.iter().any(|(name, _)| old.ends_with(name));
        if !kept {
            fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    Ok(checked)
}

/// The drawings of this check and of earlier ones.
fn drawings(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(sraft_check::run::DRAWING) && name.ends_with(".svg")
    };
    Ok(paths.filter(ours).collect())
}

fn table(checked: &RunCheck, dir: &RunDir) -> String {
    let mut text = String::new();
    let mut line = |name: &str, told: String, good: Option<bool>| {
        let verdict = match good {
            Some(true) => "ok",
            Some(false) => "VIOLATED",
            None => "not known",
        };
        let _ = writeln!(text, "{name:<20} {verdict:<10} {told}");
    };
    let leaders = &checked.leaders;
    let good = leaders.violations.is_empty();
    let told = match checked.trials.len() {
        0 => "no trial has ended".to_owned(),
        trials => format!("at most {} in {trials} trials", leaders.most_per_term),
    };
    line("leaders per term", told, (!checked.trials.is_empty()).then_some(good));
    for two in &leaders.violations {
        let nodes: Vec<String> = two.leaders.iter().map(ToString::to_string).collect();
        let told = format!("trial {}, term {}: nodes {}", two.trial, two.term, nodes.join(" and "));
        line("", told, Some(false));
    }
    match &checked.writes {
        None => line("lost writes", format!("there is no {OPS}: the run had no probe"), None),
        Some(writes) => {
            let not_audited = match writes.not_audited {
                0 => String::new(),
                trials => format!("; {trials} trials without an audit, of which nothing is known"),
            };
            let told = format!(
                "{} of {} acknowledged in {} audited trials{not_audited}",
                writes.lost, writes.acknowledged, writes.audited
            );
            line("lost writes", told, (writes.audited > 0).then_some(writes.lost == 0));
            if writes.undead > 0 {
                let told =
                    format!("{} writes were told to have failed, and are there", writes.undead);
                line("failed writes", told, Some(false));
            }
        }
    }
    match checked.histories.as_deref() {
        None => line("linearizability", format!("there is no {OPS}: the run had no probe"), None),
        Some([]) => {
            let told = "no key was read or compared: give the workload reads or cas".to_owned();
            line("linearizability", told, None);
        }
        Some(histories) => {
            let operations: usize = histories.iter().map(|history| history.operations).sum();
            let count = |verdict| checked.count(verdict);
            let told = format!(
                "{} histories of {operations} operations: {} linearizable, {} not, {} undecided",
                histories.len(),
                count(Judgement::Linearizable),
                count(Judgement::NotLinearizable),
                count(Judgement::Undecided),
            );
            let violated = count(Judgement::NotLinearizable) > 0;
            let good = count(Judgement::Linearizable) > 0 || violated;
            line("linearizability", told, good.then_some(!violated));
            for history in histories {
                if let Some(told) = not_explained(history, dir) {
                    let violated = history.verdict == Judgement::NotLinearizable;
                    line("", told, violated.then_some(false));
                }
            }
        }
    }
    let _ = writeln!(text, "{}", dir.results().join(CHECK).display());
    text
}

fn not_explained(history: &History, dir: &RunDir) -> Option<String> {
    let variant = match &*history.cell {
        "" => history.variant.clone(),
        cell => format!("{}, {cell}", history.variant),
    };
    match history.verdict {
        Judgement::Linearizable => None,
        Judgement::NotLinearizable => {
            let violation = history.violation.as_deref().unwrap_or_default();
            let drawing = history.drawing.iter().map(|name| dir.results().join(name));
            let drawing: Vec<String> = drawing.map(|path| path.display().to_string()).collect();
            Some(format!("{variant}: {violation}; {}", drawing.join("")))
        }
        Judgement::Undecided => Some(format!(
            "{variant}: {} of {} operations in trials {} to {} is undecided; a larger --budget may \
             tell",
            history.key, history.operations, history.trials.0, history.trials.1
        )),
    }
}
