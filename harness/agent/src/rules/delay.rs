//! Packets held back by `tc netem`. Rules mark them as they leave; on each network device a
//! queueing discipline of our own sends what is marked through netem, and everything else on at
//! once.

use std::{collections::BTreeSet, net::IpAddr};

use serde::Deserialize;

use super::table::MARK;
use crate::{
    program::{find, missing, one_line, privileged, refusal, run},
    protocol::Flow,
};

/// A network device that has our queueing discipline.
#[derive(Debug)]
pub(super) struct Device(String);

/// Nobody else is likely to call a queueing discipline so.
const HANDLE: &str = "5afd:";

/// What the kernel installs by itself, which comes back when ours goes. Its handle is 0.
const UNCONFIGURED: &str = "0:";

/// `tc -json qdisc show` (tc(8)), as far as it matters here.
#[derive(Deserialize)]
struct Queue {
    kind: String,
    handle: String,
    dev: String,
    #[serde(default)]
    root: bool,
}

/// `ip -json route get`.
#[derive(Deserialize)]
struct Route {
    dev: String,
}

/// Whether the kernel has what it takes. Tried in a network namespace that ends with the trial.
pub(super) fn check() -> Result<(), String> {
    for program in ["tc", "ip"] {
        find(program).ok_or_else(|| missing(program))?;
    }
    let tc = find("tc").unwrap_or_default();
    let mut command = privileged("unshare")?;
    command.arg("--net").arg(tc).args(["-batch", "-"]);
    let tried = run(&mut command, Some(&batch("lo", 1000, 0)))?;
    match tried.status.success() {
        true => Ok(()),
        false => Err(format!(
            "this kernel cannot hold packets back ({}): it lacks netem, prio or the fw classifier; \
             load the module sch_netem (on Amazon Linux: dnf install kernel-modules-extra), or take \
             another fault",
            one_line(&String::from_utf8_lossy(&tried.stderr))
        )),
    }
}

/// The devices by which these packets leave.
pub(super) fn devices(flows: &[Flow]) -> Result<Vec<String>, String> {
    let receivers: BTreeSet<IpAddr> = flows.iter().map(|flow| flow.to.ip()).collect();
    let mut devices = BTreeSet::new();
    for receiver in receivers {
        let mut command = privileged("ip")?;
        let output = run(command.args(["-json", "route", "get", &receiver.to_string()]), None)?;
        let routes: Vec<Route> = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let route = routes
            .into_iter()
            .next()
            .ok_or_else(|| format!("no route leads to {receiver}: {}", refusal("ip", &output)))?;
        devices.insert(route.dev);
    }
    Ok(devices.into_iter().collect())
}

/// Gives a device our queueing discipline, if it has none that somebody has set up.
pub(super) fn install(device: &str, delay_us: u64, jitter_us: u64) -> Result<Device, String> {
    let root = queues()?.into_iter().find(|queue| queue.dev == device && queue.root);
    if let Some(queue) = root.filter(|queue| queue.handle != UNCONFIGURED) {
        return Err(format!(
            "{device} has a queueing discipline of its own ({} {}), which is not to be replaced; \
             remove it with `tc qdisc del dev {device} root`, or take another fault",
            queue.kind, queue.handle
        ));
    }
    let mut command = privileged("tc")?;
    let output = run(command.args(["-batch", "-"]), Some(&batch(device, delay_us, jitter_us)))?;
    if !output.status.success() {
        let why = refusal("tc", &output);
        // Of the three commands some may have been carried out.
        let _ = remove(&Device(device.to_owned()));
        return Err(why);
    }
    Ok(Device(device.to_owned()))
}

/// Three of the four bands are those of the kernel's own default (tc-prio(8)); nothing gets into
/// the fourth but what is marked.
fn batch(device: &str, delay_us: u64, jitter_us: u64) -> String {
    format!(
        "qdisc add dev {device} root handle {HANDLE} prio bands 4 \
         priomap 1 2 2 2 1 2 0 0 1 1 1 1 1 1 1 1\n\
         qdisc add dev {device} parent {HANDLE}4 netem delay {delay_us}us {jitter_us}us \
         limit 100000\n\
         filter add dev {device} parent {HANDLE} protocol all prio 1 handle {MARK} fw \
         flowid {HANDLE}4\n"
    )
}

/// Takes it away again; the kernel's default comes back.
pub(super) fn remove(device: &Device) -> Result<(), String> {
    let Device(name) = device;
    if !queues()?.iter().any(|queue| queue.dev == *name && queue.handle == HANDLE) {
        return Ok(());
    }
    let mut command = privileged("tc")?;
    let output = run(command.args(["qdisc", "del", "dev", name, "root"]), None)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("cannot restore the queue of {name}: {}", refusal("tc", &output))),
    }
}

/// Devices that have our queueing discipline though nobody uses it.
pub(super) fn leftovers(remove_them: bool) -> Result<Vec<String>, String> {
    if find("tc").is_none() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for queue in queues()?.into_iter().filter(|queue| queue.handle == HANDLE) {
        found.push(format!("queueing discipline {HANDLE} of {} of an agent that died", queue.dev));
        if remove_them {
            remove(&Device(queue.dev))?;
        }
    }
    Ok(found)
}

fn queues() -> Result<Vec<Queue>, String> {
    let output = run(privileged("tc")?.args(["-json", "qdisc", "show"]), None)?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("`tc -json qdisc show` makes no sense: {error}"))
}
