//! What happens to packets: nftables rules in a table of this agent's own, and `tc netem` where
//! they are to be held back.
//!
//! # How quickly
//! A fault's stamp is taken before its rules are in force, so what lies between is an error of
//! every figure. Therefore `nft` is started and given its rules beforehand (`Armed::prepare`);
//! it reads to the end of its input before it does anything, so that closing the pipe is the
//! trigger (`Armed::strike`). One transaction of the kernel then installs everything at once.
//!
//! # How they end
//! `Installed::remove` takes the whole table away. If nobody is left to do that, the kernel does:
//! addresses stand in sets whose elements expire after the lease (nft(8), "timeout"), and a rule
//! without addresses does nothing. The empty table is found by its name, which holds the process
//! id and the start time of the agent that made it, and is removed by the next agent
//! ([`leftovers`]). A table that is not called so is never touched.

mod delay;
mod table;

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, geteuid, pidfd_open},
};

use crate::{
    process::start_time,
    protocol::{Effect, Flow, Needs},
};

/// What the names of our tables begin with.
const PREFIX: &str = "sraft_agent_";

/// What the text of a table ends with; a text without it does nothing.
const TRIGGER: &str = "}\n";

/// Longest wait for `nft`, `tc` or `ip`: each takes some milliseconds.
const DONE_WITHIN: Duration = Duration::from_secs(5);

/// Rules that are ready and not yet in force.
#[derive(Debug)]
pub(crate) struct Armed {
    nft: Child,
    input: Option<ChildStdin>,
    installed: Installed,
}

/// Rules in force, or what of them has been made so far.
#[derive(Debug)]
pub(crate) struct Installed {
    table: String,
    delayed: Vec<delay::Device>,
}

impl Armed {
    /// Starts `nft` and gives it the rules.
    pub(crate) fn prepare(flows: &[Flow], effect: Effect, lease: Duration) -> Result<Self, String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let start = start_time(pid).ok_or("cannot read /proc/self/stat; is /proc mounted?")?;
        let table = format!("{PREFIX}{pid}_{start}_{nth}");
        let text = table::text(&table, flows, effect, lease)?;
        let mut installed = Installed { table, delayed: Vec::new() };
        if let Effect::Delay { delay_us, jitter_us } = effect {
            for device in delay::devices(flows)? {
                match delay::install(&device, delay_us, jitter_us) {
                    Ok(device) => installed.delayed.push(device),
                    Err(why) => {
                        let undone = installed.remove();
                        return Err(undone
                            .err()
                            .map_or(why.clone(), |and| format!("{why}; {and}")));
                    }
                }
            }
        }
        let started = privileged("nft").and_then(|mut command| {
            command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
            command.stderr(Stdio::piped());
            command.spawn().map_err(|error| format!("cannot start nft: {error}"))
        });
        let mut nft = match started {
            Ok(nft) => nft,
            Err(why) => {
                let undone = installed.remove();
                return Err(undone.err().map_or(why.clone(), |and| format!("{why}; {and}")));
            }
        };
        let mut input = nft.stdin.take();
        let text = text.strip_suffix(TRIGGER).unwrap_or(&text);
        let written = input.as_mut().map(|input| input.write_all(text.as_bytes()));
        let armed = Armed { nft, input, installed };
        match written {
            Some(Ok(())) => Ok(armed),
            _ => Err("nft does not take its rules".to_owned()),
        }
    }

    /// Puts the rules in force. Returns when they are.
    pub(crate) fn strike(mut self) -> Result<Installed, (Installed, String)> {
        // Should nft be gone already, its exit code tells.
        let _ = self.input.take().map(|mut input| input.write_all(TRIGGER.as_bytes()));
        let ended = within(&mut self.nft, DONE_WITHIN);
        let mut said = String::new();
        if let Some(mut errors) = self.nft.stderr.take() {
            // It has ended, so this does not wait.
            let _ = errors.read_to_string(&mut said);
        }
        let table = self.installed.table.clone();
        let delayed = std::mem::take(&mut self.installed.delayed);
        let installed = Installed { table, delayed };
        match ended {
            Ok(true) => Ok(installed),
            Ok(false) => Err((installed, format!("nft refused the rules: {}", one_line(&said)))),
            Err(why) => Err((installed, why)),
        }
    }

    /// Gives up what was prepared.
    pub(crate) fn disarm(mut self) -> Result<(), String> {
        self.input = None;
        // It fails, as it should: its input was not complete.
        within(&mut self.nft, DONE_WITHIN)?;
        self.installed.remove()
    }
}

impl Installed {
    /// Takes everything away again. May be called again if it failed.
    pub(crate) fn remove(&mut self) -> Result<(), String> {
        let tables = tables()?;
        if tables.contains(&self.table) {
            remove_table(&self.table)?;
        }
        while let Some(device) = self.delayed.last() {
            delay::remove(device)?;
            self.delayed.pop();
        }
        Ok(())
    }
}

/// Whether this host can do what is needed; the error says what is missing and how to get it.
/// What agents that died have left is removed.
///
/// # Errors
/// One sentence that names what is missing, and the remedy.
pub fn check(needs: Needs) -> Result<(), String> {
    if needs.rules || needs.delay {
        leftovers(true)?;
    }
    able(needs)
}

/// The same, and nothing is removed.
///
/// # Errors
/// One sentence that names what is missing, and the remedy.
pub fn able(needs: Needs) -> Result<(), String> {
    if !needs.rules && !needs.delay {
        return Ok(());
    }
    let nft = run(privileged("nft")?.args(["list", "tables"]), None)?;
    if !nft.status.success() {
        return Err(refusal("nft", &nft));
    }
    // Whether the kernel knows what our rules are made of: tried, and not put in force.
    let trial = table::trial();
    let nft = run(privileged("nft")?.args(["--check", "-f", "-"]), Some(&trial))?;
    if !nft.status.success() {
        return Err(format!(
            "this kernel's packet filter cannot do what is needed ({}); use a kernel with nf_tables \
             (5.4 or later)",
            one_line(&String::from_utf8_lossy(&nft.stderr))
        ));
    }
    if needs.delay { delay::check() } else { Ok(()) }
}

/// What agents that are dead have left in the packet filter, one phrase each; removed if asked
/// for. Nothing if there is no `nft`: then nobody can have left anything.
///
/// # Errors
/// One sentence: what failed.
pub fn leftovers(remove: bool) -> Result<Vec<String>, String> {
    if find("nft").is_none() {
        return Ok(Vec::new());
    }
    let dead: Vec<String> = tables()?.into_iter().filter(|name| is_orphan(name)).collect();
    let mut found: Vec<String> =
        dead.iter().map(|name| format!("table inet {name} of an agent that died")).collect();
    for name in dead.iter().filter(|_| remove) {
        remove_table(name)?;
    }
    // A queue carries no process id. It is an orphan if no agent has a table.
    if tables()?.iter().all(|name| !name.starts_with(PREFIX)) {
        found.extend(delay::leftovers(remove)?);
    }
    Ok(found)
}

/// Whether the agent that made the table is dead. False for tables of anybody else.
fn is_orphan(table: &str) -> bool {
    let Some(rest) = table.strip_prefix(PREFIX) else { return false };
    let mut parts = rest.split('_').map(str::parse::<u64>);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Ok(pid)), Some(Ok(start)), Some(Ok(_)), None) => {
            u32::try_from(pid).ok().and_then(start_time) != Some(start)
        }
        _ => false,
    }
}

/// Our tables.
fn tables() -> Result<BTreeSet<String>, String> {
    let nft = run(privileged("nft")?.args(["list", "tables"]), None)?;
    if !nft.status.success() {
        return Err(refusal("nft", &nft));
    }
    let text = String::from_utf8_lossy(&nft.stdout);
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("table inet "));
    Ok(names.filter(|name| name.starts_with(PREFIX)).map(str::to_owned).collect())
}

fn remove_table(name: &str) -> Result<(), String> {
    let nft = run(privileged("nft")?.args(["delete", "table", "inet", name]), None)?;
    match nft.status.success() {
        true => Ok(()),
        false => Err(format!("cannot remove table inet {name}: {}", refusal("nft", &nft))),
    }
}

fn refusal(program: &str, output: &Output) -> String {
    let said = one_line(&String::from_utf8_lossy(&output.stderr));
    if geteuid().is_root() {
        return format!("{program} failed: {said}");
    }
    format!(
        "faults of links need root, or sudo without a password for {program} ({said}); start sraft \
         as root, or allow it in sudoers"
    )
}

/// A program to be run with root's rights: as it is, or by `sudo`, which must not ask anything.
fn privileged(program: &str) -> Result<Command, String> {
    let path = find(program).ok_or_else(|| missing(program))?;
    if geteuid().is_root() {
        return Ok(Command::new(path));
    }
    let sudo = find("sudo").ok_or_else(|| {
        "faults of links need root, and there is no sudo; start sraft as root".to_owned()
    })?;
    let mut command = Command::new(sudo);
    command.arg("-n").arg(path);
    Ok(command)
}

fn missing(program: &str) -> String {
    let package = match program {
        "nft" => "nftables",
        "unshare" => "util-linux",
        _ => "iproute2 (iproute on Fedora and Amazon Linux)",
    };
    format!(
        "{program} is not installed on this host; install the package {package}, with apt-get or \
         dnf"
    )
}

/// Where a program is. Shells of other users than root do not always look where root's tools are.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(usual)
        .map(|dir| dir.join(program))
        .find(|path: &PathBuf| Path::is_file(path))
}

/// Runs a program to its end.
fn run(command: &mut Command, input: Option<&str>) -> Result<Output, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |error: io::Error| format!("cannot run {name}: {error}");
    let mut child = command.spawn().map_err(failed)?;
    if let (Some(mut stdin), Some(text)) = (child.stdin.take(), input) {
        // It may have ended without reading; then its exit code tells.
        let _ = stdin.write_all(text.as_bytes());
    }
    within(&mut child, DONE_WITHIN)?;
    // What these programs print fits into their pipes, so they could end.
    child.wait_with_output().map_err(failed)
}

/// Waits for the end of a program, but not for ever. Returns whether it succeeded.
fn within(child: &mut Child, time: Duration) -> Result<bool, String> {
    let failed = |error: io::Error| format!("cannot wait for a program: {error}");
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())
        .map_err(|errno| failed(errno.into()))?;
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    let timeout = Timespec::try_from(time).ok();
    let ready = rustix::io::retry_on_intr(|| poll(&mut ended, timeout.as_ref()));
    if ready.map_err(|errno| failed(errno.into()))? == 0 {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("a program has not ended after {} s and was killed", time.as_secs()));
    }
    child.wait().map(|status| status.success()).map_err(failed)
}

/// Errors of `nft` run over several lines, with the rule and carets below it.
fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("no reason given")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tables_of_dead_agents_are_orphans() {
        let pid = std::process::id();
        let start = start_time(pid).unwrap();
        assert!(!is_orphan(&format!("sraft_agent_{pid}_{start}_0")), "it lives");
        assert!(is_orphan(&format!("sraft_agent_{pid}_{}_0", start + 1)), "another process");
        assert!(is_orphan(&format!("sraft_agent_{}_{start}_3", u32::MAX)), "no process");
        for others in ["filter", "sraft_agent_", "sraft_agent_1_2", "sraft_agent_x_1_0", "sraft"] {
            assert!(!is_orphan(others), "{others}");
        }
    }
}
