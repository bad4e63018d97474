//! systemd, where it looks after the host's processes and lets us tell it to.
//!
//! The unit is a transient one (systemd-run(1)): nothing of it is left on the host when it has
//! ended or the host has booted.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{getegid, geteuid};
use sraft_events::NodeId;

use super::{Restart, place::Place};

/// How long systemd itself lets a node take to stop, seconds; who stops it has less patience.
const STOPPED_WITHIN: u32 = 90;

/// Whether there is a systemd (sd_booted(3)) that does what we say.
pub(super) fn is_there() -> bool {
    Path::new("/run/systemd/system").is_dir() && may_sudo().is_ok()
}

/// Whether commands can be run as root without anybody being asked for a password.
pub(super) fn may_sudo() -> Result<(), String> {
    if geteuid().is_root() {
        return Ok(());
    }
    let output = Command::new("sudo").args(["-n", "true"]).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(first_line(&output.stderr)),
        Err(error) => Err(format!("cannot run sudo: {error}")),
    }
}

/// Name of the unit. Several nodes may share a host, each with a folder of its own.
pub(super) fn unit(node: NodeId) -> String {
    format!("sraft-node-{node}.service")
}

/// Starts the node of a folder as a unit.
pub(super) fn start(
    unit: &str,
    place: &Place,
    program: &Path,
    restart: Restart,
) -> Result<(), String> {
    // One that has failed stands in the way of its successor; that there is none is no error.
    let _ = run("systemctl", &["reset-failed", unit].map(str::to_owned));
    run("systemd-run", &arguments(unit, place, program, restart)).map_err(|error| {
        format!("{error}; `systemctl status {unit}` on the host says what stands in the way")
    })
}

fn arguments(unit: &str, place: &Place, program: &Path, restart: Restart) -> Vec<String> {
    let policy = match restart {
        Restart::No => "no",
        Restart::Always => "always",
    };
    let properties = [
        format!("User={}", geteuid().as_raw()),
        format!("Group={}", getegid().as_raw()),
        format!("WorkingDirectory={}", place.path.display()),
        format!("Restart={policy}"),
        "RestartSec=1".to_owned(),
        // However often it dies: who kills it on purpose wants it back each time.
        "StartLimitIntervalSec=0".to_owned(),
        "KillMode=mixed".to_owned(),
        format!("TimeoutStopSec={STOPPED_WITHIN}"),
    ];
    let mut arguments = vec![format!("--unit={unit}"), "--collect".into(), "--quiet".into()];
    arguments.extend(properties.map(|property| format!("--property={property}")));
    arguments.push("--".to_owned());
    arguments.push(program.display().to_string());
    arguments.extend(["keeper", "node", "--dir"].map(str::to_owned));
    arguments.push(place.path.display().to_string());
    arguments
}

/// Has the unit stopped, without waiting for it.
pub(super) fn begin_to_stop(unit: &str) -> Result<(), String> {
    run("systemctl", &["stop", "--no-block", unit].map(str::to_owned))
}

/// Kills the unit's processes.
pub(super) fn kill(unit: &str) -> Result<(), String> {
    run("systemctl", &["kill", "--signal=SIGKILL", unit].map(str::to_owned))
}

/// Whether systemd still has to do with the unit: it runs, or is about to.
pub(super) fn is_active(unit: &str) -> bool {
    let mut command = Command::new("systemctl");
    command.args(["show", "--property=ActiveState", "--value", unit]).stdin(Stdio::null());
    let said = command.output().map(|output| output.stdout).unwrap_or_default();
    !matches!(String::from_utf8_lossy(&said).trim(), "" | "inactive" | "failed")
}

/// Runs a program as root.
fn run(program: &str, arguments: &[String]) -> Result<(), String> {
    let mut command = match geteuid().is_root() {
        true => Command::new(program),
        false => Command::new("sudo"),
    };
    if !geteuid().is_root() {
        command.args(["-n", program]);
    }
    command.args(arguments).stdin(Stdio::null());
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{program} failed: {}", first_line(&output.stderr))),
        Err(error) => Err(format!("cannot run {program}: {error}")),
    }
}

fn first_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or("no reason given").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_says_everything_that_the_node_needs() {
        let place = Place::below(Path::new("/var/tmp/sraft"));
        let program = Path::new("/var/tmp/sraft/bin/x/sraft");
        let line = arguments(&unit(3), &place, program, Restart::Always).join(" ");
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        assert_eq!(
            line,
            format!(
                "--unit=sraft-node-3.service --collect --quiet --property=User={user} \
                 --property=Group={group} --property=WorkingDirectory=/var/tmp/sraft/cluster \
                 --property=Restart=always --property=RestartSec=1 \
                 --property=StartLimitIntervalSec=0 --property=KillMode=mixed \
                 --property=TimeoutStopSec=90 -- /var/tmp/sraft/bin/x/sraft keeper node --dir \
                 /var/tmp/sraft/cluster"
            )
        );
        let line = arguments(&unit(3), &place, program, Restart::No).join(" ");
        assert!(line.contains(" --property=Restart=no "));
    }
}
