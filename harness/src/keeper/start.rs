//! Starting a node so that it outlives the connection over which it was asked for.

use std::{
    fs::{self, OpenOptions},
    io,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::stdio::{dup2_stderr, dup2_stdout};
use sraft_node::cli::NodeArgs;

use super::{
    Answer, Restart, Start,
    place::{CONFIG, DATA, EVENT_LOG, OUTPUT, Place, Process, Started},
    service, status,
};

/// Variables that a node inherits. No others: it must not matter who has started it, and nodes
/// read some variables as options.
const INHERITED: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "RUST_BACKTRACE"];

/// Pause between two attempts to reach a node: nothing tells when it has begun to listen.
const KNOCK_AGAIN: Duration = Duration::from_millis(50);

/// Starts the node and waits until it answers.
pub(super) fn start(how: &Start) -> Result<Answer, String> {
    let place = Place::below(&how.dir);
    let _lock = place.lock()?;
    let systemd = !how.detach && service::is_there();
    if how.restart == Restart::Always && !systemd {
        return Err(
            "--restart always is systemd's work, and there is none here, or no sudo without a \
             password to tell it; use --restart no"
                .to_owned(),
        );
    }
    let started = Started {
        config: how.config.clone(),
        program: sraft_agent::own_executable(),
        restart: how.restart,
        unit: systemd.then(|| service::unit(how.node)),
    };
    launch(&place, &started, how.fresh, how.within_ms)
}

/// Starts the node of a host's folder again as it was started last, by the same program.
pub(super) fn revive(dir: &Path, within_ms: u64) -> Result<Answer, String> {
    let place = Place::below(dir);
    let _lock = place.lock()?;
    let started = place
        .started()
        .ok_or_else(|| format!("{} does not say how the node was started", place.path.display()))?;
    launch(&place, &started, false, within_ms)
}

fn launch(place: &Place, started: &Started, fresh: bool, within_ms: u64) -> Result<Answer, String> {
    if let Some((process, _)) = place.process() {
        return match place.started().as_ref().and_then(|before| difference(before, started)) {
            None => {
                Ok(Answer::Started { pid: process.pid, already: true, unit: started.unit.clone() })
            }
            Some(what) => Err(format!(
                "it already runs (process {}) with another {what}; `sraft cluster stop` it first",
                process.pid
            )),
        };
    }
    prepare(place, fresh, started)
        .map_err(|error| format!("cannot write to {}: {error}", place.path.display()))?;
    let said = place.words();
    let child = match &started.unit {
        Some(unit) => {
            service::start(unit, place, &started.program, started.restart)?;
            None
        }
        None => Some(detach(place, &started.program)?),
    };
    let process = await_node(place, child, Duration::from_millis(within_ms), said)?;
    Ok(Answer::Started { pid: process.pid, already: false, unit: started.unit.clone() })
}

/// What two ways to start a node differ in, if they do.
fn difference(before: &Started, now: &Started) -> Option<String> {
    let table = |text: &str| text.parse::<toml::Table>().unwrap_or_default();
    let (old, new) = (table(&before.config), table(&now.config));
    let mut keys: Vec<&String> =
        old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).collect();
    keys.sort();
    keys.dedup();
    let mut what: Vec<String> = keys.into_iter().map(|key| key.replace('_', " ")).collect();
    if before.program != now.program {
        what.push("version of the program".to_owned());
    }
    if before.restart != now.restart {
        what.push("restart policy".to_owned());
    }
    (!what.is_empty()).then(|| what.join(" and "))
}

fn prepare(place: &Place, fresh: bool, started: &Started) -> io::Result<()> {
    if fresh {
        match fs::remove_dir_all(place.file(DATA)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match fs::remove_file(place.file(EVENT_LOG)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    place.forget_process()?;
    fs::write(place.file(CONFIG), &started.config)?;
    place.write_started(started)
}

/// Starts the node as a process that has nothing to do with this one.
fn detach(place: &Place, program: &Path) -> Result<Child, String> {
    let failed = |error: io::Error| format!("cannot start {}: {error}", program.display());
    let output = place.file(OUTPUT);
    // Until it opens the file itself, and for what the system says of it before that.
    let output = OpenOptions::new().append(true).create(true).open(&output).map_err(failed)?;
    let errors = output.try_clone().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(["keeper", "node", "--dir"]).arg(&place.path).current_dir(&place.path);
    command.env_clear();
    command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    command.spawn().map_err(failed)
}

/// Waits until the node answers, or has ended.
fn await_node(
    place: &Place,
    mut child: Option<Child>,
    within: Duration,
    said: u64,
) -> Result<Process, String> {
    let deadline = Instant::now() + within;
    let ended = |how: String| {
        Err(format!("the node {how} right after it was started: {}", place.last_words(said)))
    };
    let mut seen = false;
    loop {
        let now = place.process();
        if let Some((process, handle)) = now {
            seen = true;
            if status::ask(place).is_ok() {
                return Ok(process);
            }
            handle.ends_within(KNOCK_AGAIN)?;
        } else if let Some(child) = &mut child {
            match child.try_wait() {
                Ok(Some(status)) => return ended(format!("ended ({status})")),
                Ok(None) => std::thread::sleep(KNOCK_AGAIN),
                Err(error) => return Err(format!("cannot wait for the node: {error}")),
            }
        } else if seen {
            return ended("ended".to_owned());
        } else {
            std::thread::sleep(KNOCK_AGAIN);
        }
        if Instant::now() > deadline {
            return Err(format!(
                "the node does not answer {} s after it was started: {}; look at `sraft cluster \
                 logs`",
                within.as_secs(),
                place.last_words(said)
            ));
        }
    }
}

/// Becomes the node of a folder, and is it until it is told to stop.
pub(super) fn become_node(dir: &Path) -> anyhow::Result<()> {
    std::env::set_current_dir(dir).with_context(|| format!("cannot enter {}", dir.display()))?;
    // A session of its own, so that no terminal and no connection ends it. systemd has seen to that
    // already if it says that this process leads one.
    let _ = rustix::process::setsid();
    let output = OpenOptions::new().append(true).create(true).open(OUTPUT);
    let output = output.with_context(|| format!("cannot write {OUTPUT}"))?;
    dup2_stdout(&output).and_then(|()| dup2_stderr(&output)).context("cannot share its output")?;
    let process = Process::own().context("cannot tell which process this is")?;
    Place::at(dir).write_process(&process).context("cannot write down which process this is")?;
    sraft_node::run(NodeArgs {
        config: Some(CONFIG.into()),
        log_file: Some(EVENT_LOG.into()),
        data_dir: Some(DATA.into()),
        ..NodeArgs::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let started = |config: &str, program: &str, restart| Started {
            config: config.to_owned(),
            program: program.into(),
            restart,
            unit: None,
        };
        let old = started("protocol = \"raft\"\nclient_port = 1\n", "/a", Restart::No);
        assert_eq!(difference(&old, &old), None);
        let new = started("protocol = \"s-raft\"\nclient_port = 1\n[timing]\n", "/a", Restart::No);
        assert_eq!(difference(&old, &new).unwrap(), "protocol and timing");
        let new = started(&old.config, "/b", Restart::Always);
        assert_eq!(difference(&old, &new).unwrap(), "version of the program and restart policy");
    }
}
