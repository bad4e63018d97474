use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Events, Manifest, OPS_HEADER, Ops, Plan, ResultsError};
use crate::measure::TrialRow;

const MANIFEST: &str = "manifest.json";
const PLAN: &str = "plan.json";
const EXPERIMENT: &str = "experiment.toml";
const EVENTS: &str = "events.jsonl";
const TORN: &str = "events.torn.jsonl";
const TRIALS: &str = "trials.csv";
const OPS: &str = "ops.csv";
const TORN_OPS: &str = "ops.torn.csv";

/// The two folders of a run: `OUT/results/EXPERIMENT/RUN` and `OUT/plots/EXPERIMENT/RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    results: PathBuf,
    plots: PathBuf,
    experiment: String,
    run: String,
}

/// Held by the harness that works on a run; released when it is dropped or its process ends.
#[derive(Debug)]
pub struct RunLock {
    _events: File,
}

/// What [`RunDir::resume`] found.
#[derive(Debug)]
pub struct Resumed {
    /// The records of the complete trials, and what lies around them.
    pub events: Events,
    /// Bytes that belonged to no complete trial and now stand in `events.torn.jsonl` and
    /// `ops.torn.csv`.
    pub set_aside: u64,
}

impl RunDir {
    /// Makes the folders of a new run under `out`.
    ///
    /// # Errors
    /// [`ResultsError::Exists`] if there is such a run, [`ResultsError::BadName`] if a name would
    /// leave its folder, [`ResultsError::Io`] if the folders cannot be made.
    pub fn create(out: &Path, experiment: &str, run: &str) -> Result<RunDir, ResultsError> {
        for name in [experiment, run] {
            let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if name.is_empty() || name.starts_with('.') || !name.chars().all(fits) {
                return Err(ResultsError::BadName { name: name.into() });
            }
        }
        let under = |kind: &str| out.join(kind).join(experiment);
        let dir = RunDir {
            results: under("results").join(run),
            plots: under("plots").join(run),
            experiment: experiment.into(),
            run: run.into(),
        };
        for (parent, path) in [("results", &dir.results), ("plots", &dir.plots)] {
            fs::create_dir_all(under(parent)).map_err(io("make", &under(parent)))?;
            fs::create_dir(path).map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => ResultsError::Exists { path: path.clone() },
                _ => io("make", path)(error),
            })?;
            sync_parent(path)?;
        }
        let events = dir.results.join(EVENTS);
        File::create_new(&events).map_err(io("make", &events))?;
        sync_parent(&events)?;
        Ok(dir)
    }

    /// Opens the run in the folder `results` (`.../results/EXPERIMENT/RUN`). The folder of its
    /// figures is made if it is gone.
    ///
    /// # Errors
    /// [`ResultsError::NoRun`] if the folder holds no run, [`ResultsError::Io`] if it cannot be
    /// read.
    pub fn open(results: &Path) -> Result<RunDir, ResultsError> {
        let results = fs::canonicalize(results).map_err(io("open the run", results))?;
        for missing in [PLAN, EVENTS] {
            if !results.join(missing).is_file() {
                return Err(ResultsError::NoRun { path: results, missing });
            }
        }
        let name = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.map(str::to_owned)
                .ok_or_else(|| ResultsError::BadName { name: path.display().to_string() })
        };
        let (run, parent) = (name(&results)?, results.parent().unwrap_or(Path::new("/")));
        let experiment = name(parent)?;
        // A run that was copied elsewhere, without a `results` folder above it, keeps its figures
        // within itself rather than in a folder that nobody expects.
        let plots = match parent.parent().filter(|above| above.ends_with("results")) {
            Some(above) => above.with_file_name("plots").join(&experiment).join(&run),
            None => results.join("plots"),
        };
        fs::create_dir_all(&plots).map_err(io("make", &plots))?;
        Ok(RunDir { results, plots, experiment, run })
    }

    /// The folder with the records and the tables.
    pub fn results(&self) -> &Path {
        &self.results
    }

    /// The folder with the figures.
    pub fn plots(&self) -> &Path {
        &self.plots
    }

    /// Name of the experiment.
    pub fn experiment(&self) -> &str {
        &self.experiment
    }

    /// Name of the run.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Claims the run for this process (`flock` on `events.jsonl`).
    ///
    /// # Errors
    /// [`ResultsError::Locked`] if another process works on it.
    pub fn lock(&self) -> Result<RunLock, ResultsError> {
        let path = self.results.join(EVENTS);
        let events = OpenOptions::new().append(true).open(&path).map_err(io("open", &path))?;
        match events.try_lock() {
            Ok(()) => Ok(RunLock { _events: events }),
            Err(fs::TryLockError::WouldBlock) => {
                Err(ResultsError::Locked { path: self.results.clone() })
            }
            Err(fs::TryLockError::Error(error)) => Err(io("lock", &path)(error)),
        }
    }

    /// Writes `manifest.json`, whole or not at all.
    ///
    /// # Errors
    /// [`ResultsError::Io`].
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<(), ResultsError> {
        self.write_json(MANIFEST, manifest)
    }

    /// Reads `manifest.json`.
    ///
    /// # Errors
    /// [`ResultsError::Io`], or [`ResultsError::Damaged`] if it is not a manifest.
    pub fn read_manifest(&self) -> Result<Manifest, ResultsError> {
        self.read_json(MANIFEST)
    }

    /// Writes `plan.json`, whole or not at all.
    ///
    /// # Errors
    /// [`ResultsError::Io`].
    pub fn write_plan(&self, plan: &Plan) -> Result<(), ResultsError> {
        self.write_json(PLAN, plan)
    }

    /// Reads `plan.json`.
    ///
    /// # Errors
    /// [`ResultsError::Io`], or [`ResultsError::Damaged`] if it is not a plan, or wishes for a
    /// figure that cannot be.
    pub fn read_plan(&self) -> Result<Plan, ResultsError> {
        let plan: Plan = self.read_json(PLAN)?;
        if let Some(wish) = &plan.report {
            let names = plan.variants.iter().map(|variant| variant.name.as_str());
            wish.check(names).map_err(|error| ResultsError::Damaged {
                path: self.results.join(PLAN),
                error: error.to_string(),
            })?;
        }
        Ok(plan)
    }

    /// Writes `experiment.toml`, the experiment as it was given.
    ///
    /// # Errors
    /// [`ResultsError::Io`].
    pub fn write_experiment(&self, text: &str) -> Result<(), ResultsError> {
        self.write_result(EXPERIMENT, text.as_bytes())
    }

    /// Appends the probe's operations (lines of `ops.csv` without line ends), then raw records (one
    /// JSON object each) to `events.jsonl`, then the row derived from both, if any, to `trials.csv`,
    /// and makes each durable before it goes on. A row can be derived again, so it comes last; the
    /// record that ends the trial says that it is complete, so its operations come before it.
    ///
    /// # Errors
    /// [`ResultsError::Io`]; what was written then is set aside by [`RunDir::resume`].
    pub fn append_trial(
        &self,
        lines: &[String],
        ops: &[String],
        row: Option<&TrialRow>,
    ) -> Result<(), ResultsError> {
        append(&self.results.join(OPS), &joined(ops), &csv([OPS_HEADER]))?;
        self.append_trials(lines, row.map_or(&[], std::slice::from_ref))
    }

    /// Like [`RunDir::append_trial`], for several trials without a probe that become durable together.
    ///
    /// # Errors
    /// As [`RunDir::append_trial`].
    pub fn append_trials(&self, lines: &[String], rows: &[TrialRow]) -> Result<(), ResultsError> {
        append(&self.results.join(EVENTS), &joined(lines), b"")?;
        // A warm-up leaves its records and no row.
        let rows = csv(rows.iter().filter(|row| row.trial > 0).map(TrialRow::fields));
        append(&self.results.join(TRIALS), &rows, &csv([TrialRow::HEADER]))
    }

    /// Reads `events.jsonl`.
    ///
    /// # Errors
    /// [`ResultsError::Io`], or [`ResultsError::CorruptLine`] if a line cannot be read although
    /// complete trials follow it.
    pub fn read_events(&self) -> Result<Events, ResultsError> {
        let path = self.results.join(EVENTS);
        let bytes = fs::read(&path).map_err(io("read", &path))?;
        Events::parse(&path, &bytes)
    }

    /// Reads the operations of complete trials from `ops.csv`; there are none without the file.
    ///
    /// # Errors
    /// As [`Ops::parse`], and [`ResultsError::Io`].
    pub fn read_ops(&self, complete: &BTreeSet<u64>) -> Result<Ops, ResultsError> {
        let path = self.results.join(OPS);
        Ops::parse(&path, &self.ops_bytes()?, complete)
    }

    fn ops_bytes(&self) -> Result<Vec<u8>, ResultsError> {
        let path = self.results.join(OPS);
        match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            result => result.map_err(io("read", &path)),
        }
    }

    /// Brings the files back to the end of the last complete trial: whatever follows it in
    /// `events.jsonl` and `ops.csv` is moved to the end of `events.torn.jsonl` and `ops.torn.csv`,
    /// and `trials.csv` is written anew from what stays. If the process ends in between, a tail may
    /// stand in both files; calling this again is safe.
    ///
    /// # Errors
    /// As [`RunDir::read_events`], and [`ResultsError::Io`].
    pub fn resume(&self, _lock: &RunLock) -> Result<Resumed, ResultsError> {
        let path = self.results.join(EVENTS);
        let bytes = fs::read(&path).map_err(io("read", &path))?;
        let mut events = Events::parse(&path, &bytes)?;
        let tail = &bytes[events.complete_bytes as usize..];
        if !tail.is_empty() {
            append(&self.results.join(TORN), tail, b"")?;
            self.truncate_to(events.complete_bytes)?;
            events.records.truncate(events.complete_records);
            events.torn = None;
        }
        let bytes = self.ops_bytes()?;
        let ops = Ops::parse(&self.results.join(OPS), &bytes, &events.completed())?;
        let torn_ops = &bytes[ops.complete_bytes as usize..];
        if !torn_ops.is_empty() {
            append(&self.results.join(TORN_OPS), torn_ops, b"")?;
            truncate(&self.results.join(OPS), ops.complete_bytes)?;
        }
        let plan = self.read_plan()?;
        self.write_trials(&crate::measure::rows(&plan, &events.records, &ops))?;
        Ok(Resumed { events, set_aside: (tail.len() + torn_ops.len()) as u64 })
    }

    /// Cuts `events.jsonl` off after `bytes` bytes.
    ///
    /// # Errors
    /// [`ResultsError::Io`].
    pub fn truncate_to(&self, bytes: u64) -> Result<(), ResultsError> {
        truncate(&self.results.join(EVENTS), bytes)
    }

    /// Writes `trials.csv` anew.
    ///
    /// # Errors
    /// [`ResultsError::Io`].
    pub fn write_trials(&self, rows: &[TrialRow]) -> Result<(), ResultsError> {
        let mut text = csv([TrialRow::HEADER]);
        text.extend(csv(rows.iter().map(TrialRow::fields)));
        self.write_result(TRIALS, &text)
    }

    /// Writes a file into the results folder, whole or not at all.
    ///
    /// # Errors
    /// [`ResultsError::Io`].
    pub fn write_result(&self, name: &str, bytes: &[u8]) -> Result<(), ResultsError> {
        write_atomically(&self.results.join(name), bytes)
    }

    /// Writes a file into the folder of the figures, whole or not at all.
    ///
    /// # Errors
    /// [`ResultsError::Io`].
    pub fn write_plot(&self, name: &str, bytes: &[u8]) -> Result<(), ResultsError> {
        write_atomically(&self.plots.join(name), bytes)
    }

    /// Removes figures of an earlier report that this one does not have: those whose name begins, up to
    /// the first point, with one of `stems` and is none of `names`. Other files stay.
    ///
    /// # Errors
    /// [`ResultsError::Io`].
    pub fn remove_other_plots(&self, stems: &[&str], names: &[&str]) -> Result<(), ResultsError> {
        let entries = match fs::read_dir(&self.plots) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(io("read", &self.plots))?,
        };
        for entry in entries {
            let path = entry.map_err(io("read", &self.plots))?.path();
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let drawn = path.extension().is_some_and(|ending| ending == "svg" || ending == "png");
            let ours = name.split('.').next().is_some_and(|stem| stems.contains(&stem));
            if drawn && ours && !names.contains(&name) {
                fs::remove_file(&path).map_err(io("remove", &path))?;
            }
        }
        Ok(())
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), ResultsError> {
        let mut text = serde_json::to_vec_pretty(value).map_err(|error| ResultsError::Damaged {
            path: self.results.join(name),
            error: error.to_string(),
        })?;
        text.push(b'\n');
        self.write_result(name, &text)
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T, ResultsError> {
        let path = self.results.join(name);
        let bytes = fs::read(&path).map_err(io("read", &path))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| ResultsError::Damaged { path, error: error.to_string() })
    }
}

fn io<'a>(doing: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> ResultsError + 'a {
    move |source| ResultsError::Io { doing, path: path.into(), source }
}

fn truncate(path: &Path, bytes: u64) -> Result<(), ResultsError> {
    let file = OpenOptions::new().write(true).open(path).map_err(io("open", path))?;
    file.set_len(bytes).and_then(|()| file.sync_all()).map_err(io("truncate", path))
}

/// Lines with their line ends.
fn joined(lines: &[String]) -> Vec<u8> {
    let mut text = Vec::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
    for line in lines {
        debug_assert!(!line.contains('\n'), "one line is one");
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    text
}

/// Lines of CSV (RFC 4180, but with bare line feeds).
pub(crate) fn csv<T, R>(rows: impl IntoIterator<Item = R>) -> Vec<u8>
where
    T: AsRef<[u8]>,
    R: IntoIterator<Item = T>,
{
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).expect("writing to memory does not fail");
    }
    writer.into_inner().expect("writing to memory does not fail")
}

/// Appends and syncs; a file that is empty gets `header` first.
fn append(path: &Path, bytes: &[u8], header: &[u8]) -> Result<(), ResultsError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let known = path.exists();
    let mut file =
        OpenOptions::new().append(true).create(true).open(path).map_err(io("open", path))?;
    let end = file.seek(SeekFrom::End(0)).map_err(io("read", path))?;
    let text = if end == 0 { [header, bytes].concat() } else { bytes.to_vec() };
    file.write_all(&text).and_then(|()| file.sync_data()).map_err(io("write", path))?;
    if known { Ok(()) } else { sync_parent(path) }
}

/// A reader sees the old file or the new one, also after a power failure.
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ResultsError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let staged = path.with_file_name(name);
    let mut file = File::create(&staged).map_err(io("make", &staged))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io("write", &staged))?;
    fs::rename(&staged, path).map_err(io("replace", path))?;
    sync_parent(path)
}

/// Makes the name of a new file durable.
fn sync_parent(path: &Path) -> Result<(), ResultsError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(io("sync", parent))
}
