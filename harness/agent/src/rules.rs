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
//! without addresses does nothing. The empty table is found by its name, which tells whose it is
//! ([`label`]), and is removed by the next agent ([`leftovers`]).

mod delay;
mod table;

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    process::{Child, ChildStdin, Stdio},
    time::Duration,
};

use crate::{
    label,
    program::{DONE_WITHIN, both, find, one_line, privileged, refusal, run, within},
    protocol::{Effect, Flow, Needs},
};

/// What the text of a table ends with; a text without it does nothing.
const TRIGGER: &str = "}\n";

/// Rules that are ready and not yet in force.
#[derive(Debug)]
pub(crate) struct Armed {
    /// Until it has ended.
    nft: Option<Child>,
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
        let table = label::new()?;
        let text = table::text(&table, flows, effect, lease)?;
        let mut installed = Installed { table, delayed: Vec::new() };
        if let Effect::Delay { delay_us, jitter_us } = effect {
            installed
                .delay(flows, delay_us, jitter_us)
                .map_err(|why| both(why, installed.remove()))?;
        }
        let started = privileged("nft").and_then(|mut command| {
            command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
            command.stderr(Stdio::piped());
            command.spawn().map_err(|error| format!("cannot start nft: {error}"))
        });
        let mut nft = match started {
            Ok(nft) => nft,
            Err(why) => return Err(both(why, installed.remove())),
        };
        let mut input = nft.stdin.take();
        let text = text.strip_suffix(TRIGGER).unwrap_or(&text);
        let written = input.as_mut().map(|input| input.write_all(text.as_bytes()));
        let mut armed = Armed { nft: Some(nft), input, installed };
        match written {
            Some(Ok(())) => Ok(armed),
            _ => Err(both("nft does not take its rules".to_owned(), armed.disarm())),
        }
    }

    /// Puts the rules in force. Returns when they are.
    pub(crate) fn strike(mut self) -> Result<Installed, (Installed, String)> {
        // Should nft be gone already, its exit code tells.
        let _ = self.input.take().map(|mut input| input.write_all(TRIGGER.as_bytes()));
        let Some(mut nft) = self.nft else {
            return Err((self.installed, "nft has been told to give up".to_owned()));
        };
        match within(&mut nft, DONE_WITHIN) {
            Ok(true) => Ok(self.installed),
            Ok(false) => {
                let mut said = String::new();
                // It has ended, so this does not wait.
                let _ = nft.stderr.take().map(|mut errors| errors.read_to_string(&mut said));
                let why = format!("nft refused the rules: {}", one_line(&said));
                Err((self.installed, why))
            }
            Err(why) => Err((self.installed, why)),
        }
    }

    /// Gives up what was prepared. May be called again if it failed.
    pub(crate) fn disarm(&mut self) -> Result<(), String> {
        self.input = None;
        // It fails, as it should: its input was not complete.
        let ended = self.nft.take().map_or(Ok(false), |mut nft| within(&mut nft, DONE_WITHIN));
        self.installed.remove()?;
        ended.map(drop)
    }
}

impl Installed {
    /// Gives the devices by which these packets leave queues that hold back what the rules mark.
    fn delay(&mut self, flows: &[Flow], delay_us: u64, jitter_us: u64) -> Result<(), String> {
        // A queue does not tell whose it is. A table does, so it is there first and goes last.
        add_table(&self.table)?;
        for device in delay::devices(flows)? {
            self.delayed.push(delay::install(&device, delay_us, jitter_us)?);
        }
        Ok(())
    }

    /// Takes everything away again. May be called again if it failed.
    pub(crate) fn remove(&mut self) -> Result<(), String> {
        while let Some(device) = self.delayed.last() {
            delay::remove(device)?;
            self.delayed.pop();
        }
        let tables = tables()?;
        if tables.contains(&self.table) {
            remove_table(&self.table)?;
        }
        Ok(())
    }
}

/// Whether this host can do what is needed; the error says what is missing and how to get it.
pub(crate) fn able(needs: Needs) -> Result<(), String> {
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
pub(crate) fn leftovers(remove: bool) -> Result<Vec<String>, String> {
    if find("nft").is_none() {
        return Ok(Vec::new());
    }
    let dead: Vec<String> = tables()?.into_iter().filter(|name| label::is_orphan(name)).collect();
    let mut found: Vec<String> =
        dead.iter().map(|name| format!("table inet {name} of an agent that died")).collect();
    for name in dead.iter().filter(|_| remove) {
        remove_table(name)?;
    }
    // A queue carries no process id. It is an orphan if no agent has a table.
    if tables()?.iter().all(|name| !name.starts_with(label::PREFIX)) {
        found.extend(delay::leftovers(remove)?);
    }
    Ok(found)
}

/// Our tables.
fn tables() -> Result<BTreeSet<String>, String> {
    let nft = run(privileged("nft")?.args(["list", "tables"]), None)?;
    if !nft.status.success() {
        return Err(refusal("nft", &nft));
    }
    let text = String::from_utf8_lossy(&nft.stdout);
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("table inet "));
    Ok(names.filter(|name| name.starts_with(label::PREFIX)).map(str::to_owned).collect())
}

fn add_table(name: &str) -> Result<(), String> {
    let nft = run(privileged("nft")?.args(["add", "table", "inet", name]), None)?;
    match nft.status.success() {
        true => Ok(()),
        false => Err(format!("cannot make table inet {name}: {}", refusal("nft", &nft))),
    }
}

fn remove_table(name: &str) -> Result<(), String> {
    let nft = run(privileged("nft")?.args(["delete", "table", "inet", name]), None)?;
    match nft.status.success() {
        true => Ok(()),
        false => Err(format!("cannot remove table inet {name}: {}", refusal("nft", &nft))),
    }
}
