//! A cluster that is up already and is used as it is.
//!
//! It has one protocol and one timing, so of an experiment's variants only those take part that say
//! exactly what its nodes run with.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::bail;
use serde::Deserialize;
use sraft_core::{Protocol, Timing, TimingKnobs};

use super::Reached;
use crate::{
    host::ssh,
    keeper::{Answer, NodeState, Request, Restart},
    plan::{Launch, RunPlan, every_knob},
    standing,
};

/// How long a host may take to say how its node is.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

const START: &str = "`sraft cluster start` it";

/// The parts of a node's configuration that all nodes have in common.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Running {
    cluster: String,
    protocol: Protocol,
    peers: Vec<String>,
    #[serde(default)]
    timing: TimingKnobs,
}

impl Running {
    fn timing(&self) -> Timing {
        self.timing.resolve()
    }
}

/// Refuses faults that need nodes which the run has started itself, before anybody logs in.
pub(super) fn suits(plan: &RunPlan) -> anyhow::Result<()> {
    let needs = plan.needs();
    if needs.own_disk {
        bail!(
            "disk-full fills disks that nodes have to themselves, and nodes that run already are on \
             their hosts' disks; leave out --attach"
        );
    }
    if needs.reboot {
        bail!(
            "after a reboot, only the nodes of a run's own are started again; leave out --attach"
        );
    }
    if needs.slow_disk {
        bail!(
            "slow-disk is undone by an agent, and a node that outlives its agent would stay slow if \
             that were killed; leave out --attach"
        );
    }
    Ok(())
}

/// Reduces a plan to what the running cluster can do, and returns the names of the variants that are
/// left out.
pub(super) fn fit(plan: &mut RunPlan, hosts: &[Reached]) -> anyhow::Result<Vec<String>> {
    let running = running(hosts)?;
    let mut fitting = BTreeSet::new();
    let (mut left_out, mut why) = (Vec::new(), Vec::new());
    for variant in plan.plan.variants.iter().map(|variant| variant.name.clone()) {
        let wrong = plan.plan.cells.iter().find_map(|cell| {
            let wrong = differs(plan.launch(cell, &variant), &running)?;
            Some(match cell.is_empty() {
                true => format!("variant {variant} {wrong}"),
                false => format!("variant {variant} with {cell} {wrong}"),
            })
        });
        match wrong {
            None => drop(fitting.insert(variant)),
            Some(wrong) => {
                why.push(wrong);
                left_out.push(variant);
            }
        }
    }
    if fitting.is_empty() {
        bail!(
            "cluster {} cannot be used for this experiment: {}; start it as a variant says \
             (`sraft cluster start --protocol ... --preset ...`), or leave out --attach",
            running.cluster,
            why.join("; ")
        );
    }
    plan.attach(&running.cluster, &fitting);
    Ok(left_out)
}

/// What a variant would have otherwise, if anything.
fn differs(launch: &Launch, running: &Running) -> Option<String> {
    if launch.system.name() != "sraft" {
        return Some(format!("is of {}, and the nodes are sraft's", launch.system.name()));
    }
    if launch.size as usize != running.peers.len() {
        return Some(format!(
            "has cluster.size = {}, and {} nodes run",
            launch.size,
            running.peers.len()
        ));
    }
    if launch.protocol != running.protocol {
        let name = |protocol| match protocol {
            Protocol::Raft => "raft",
            Protocol::SRaft => "s-raft",
        };
        let (wanted, there) = (name(launch.protocol), name(running.protocol));
        return Some(format!("is {wanted}, and the nodes run {there}"));
    }
    let knobs = |timing: &Timing| {
        serde_json::to_value(every_knob(timing)).expect("plain data can be written as JSON")
    };
    let (wanted, there) = (knobs(&launch.timing), knobs(&running.timing()));
    let wanted = wanted.as_object().into_iter().flatten();
    let other: Vec<String> = wanted
        .filter(|(knob, value)| there.get(knob) != Some(value))
        .map(|(knob, value)| {
            let there = there.get(knob).cloned().unwrap_or_default();
            format!("timing.{knob} = {value}, and the nodes run with {there}")
        })
        .collect();
    (!other.is_empty()).then(|| format!("has {}", other.join(" and ")))
}

/// What the nodes run with: all must run, and be of one cluster.
fn running(hosts: &[Reached]) -> anyhow::Result<Running> {
    let asked = ssh::for_all(&hosts.iter().collect::<Vec<_>>(), |(host, target)| {
        let dir = PathBuf::from(&target.survey.dir);
        let status = Request::Status { dir };
        match standing::ask(target, "asking for the node's status", &status, ANSWERED_WITHIN) {
            Ok(Answer::Status(state)) => of(&state),
            Ok(other) => Err(format!("the host answered something else: {other:?}")),
            Err(why) => Err(why),
        }
        .map_err(|why| format!("host {}: {why}", host.name))
    });
    let (good, bad): (Vec<_>, Vec<_>) = asked.into_iter().partition(Result::is_ok);
    let bad: Vec<String> = bad.into_iter().filter_map(Result::err).collect();
    if !bad.is_empty() {
        bail!("{}", bad.join("; "));
    }
    let mut good = good.into_iter().filter_map(Result::ok);
    let Some(first) = good.next() else { bail!("the inventory has no hosts") };
    if good.any(|other| other != first) {
        bail!(
            "the nodes run with different settings; `sraft cluster stop` them all and {START} anew"
        );
    }
    if first.peers.len() != hosts.len() {
        bail!(
            "the nodes are {}, and the inventory has {} hosts; give the inventory that the cluster \
             was started with",
            first.peers.len(),
            hosts.len()
        );
    }
    Ok(first)
}

/// What a node runs with, if it can be used.
fn of(state: &NodeState) -> Result<Running, String> {
    if state.process.is_none() {
        return Err(format!("its node does not run; {START}"));
    }
    if let Some(why) = &state.silent {
        return Err(format!("its node runs, but {why}"));
    }
    if state.restart == Some(Restart::Always) {
        return Err(
            "its node is started again by systemd whenever it dies, which is the experiment's \
             work; `sraft cluster stop` it, and start it with --restart no"
                .to_owned(),
        );
    }
    let config = state.config.as_deref().ok_or("nobody knows what its node runs with")?;
    toml::from_str(config).map_err(|error| format!("its node's configuration: {error}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{experiment::File, inventory::Inventory, plan::Overrides};

    const EXPERIMENT: &str = "name = \"e\"\nquestion = \"?\"\n[cluster]\nsize = 3\nbackend = \"local\"\n\
        [fault]\nkind = \"kill\"\ntarget = \"leader\"\n[trials]\ncount = 3\nblock = 2\nseed = 1\n\
        [[variant]]\nname = \"raft\"\nprotocol = \"raft\"\nbaseline = true\n\
        [[variant]]\nname = \"s-raft\"\nprotocol = \"s-raft\"\n\
        [[variant]]\nname = \"quick\"\nprotocol = \"s-raft\"\ntiming.heartbeat = \"20ms\"\n";

    fn plan() -> RunPlan {
        let file = File::parse(Path::new("e.toml"), EXPERIMENT.to_owned()).unwrap();
        RunPlan::new(&file, Overrides::default()).unwrap()
    }

    fn config(protocol: &str) -> Running {
        toml::from_str(&format!(
            "cluster = \"c\"\nprotocol = \"{protocol}\"\nnode_id = 1\n\
             peers = [\"1=a:1\", \"2=b:1\", \"3=c:1\"]\n[timing]\npreset = \"reference\"\n"
        ))
        .unwrap()
    }

    #[test]
    fn what_differs_from_the_running_nodes_is_named() {
        let (plan, running) = (plan(), config("s-raft"));
        assert_eq!(differs(plan.launch("", "s-raft"), &running), None);
        let said = differs(plan.launch("", "raft"), &running).unwrap();
        assert_eq!(said, "is raft, and the nodes run s-raft");
        let said = differs(plan.launch("", "quick"), &running).unwrap();
        assert!(
            said.contains("timing.heartbeat = \"20ms\", and the nodes run with \"50ms\""),
            "{said}"
        );
        let two = Running { peers: vec!["1=a:1".into(), "2=b:1".into()], ..running };
        let said = differs(plan.launch("", "s-raft"), &two).unwrap();
        assert_eq!(said, "has cluster.size = 3, and 2 nodes run");
    }

    #[test]
    fn faults_of_disks_need_nodes_of_the_runs_own() {
        let mut said = String::new();
        for fault in ["\"slow-disk\"\niops = 20", "\"disk-full\"", "\"pause\""] {
            let text = EXPERIMENT.replace("\"kill\"", fault);
            let text = text.replace("[fault]", "[workload]\nrate = 50\n[fault]");
            let file = File::parse(Path::new("e.toml"), text).unwrap();
            let plan = RunPlan::new(&file, Overrides::default()).unwrap();
            let found = suits(&plan).map_or_else(|why| why.to_string(), |()| "goes".to_owned());
            said += &format!("{found}\n");
        }
        insta::assert_snapshot!(said, @r"
        slow-disk is undone by an agent, and a node that outlives its agent would stay slow if that were killed; leave out --attach
        disk-full fills disks that nodes have to themselves, and nodes that run already are on their hosts' disks; leave out --attach
        goes
        ");
    }

    #[test]
    fn only_nodes_of_a_runs_own_are_brought_back_after_a_reboot() {
        let hosts = "[[host]]\nssh = \"a\"\n[[host]]\nssh = \"b\"\n[[host]]\nssh = \"c\"\n";
        let hosts = Inventory::parse(Path::new("hosts.toml"), hosts).unwrap();
        let text = EXPERIMENT.replace("\"kill\"", "\"reboot\"");
        let file = File::parse(Path::new("e.toml"), text).unwrap();
        let plan = RunPlan::on(&file, Overrides::default(), Some(&hosts)).unwrap();
        assert!(plan.needs().reboot);
        insta::assert_snapshot!(suits(&plan).unwrap_err(), @"after a reboot, only the nodes of a run's own are started again; leave out --attach");
    }

    #[test]
    fn a_reduced_plan_has_the_trials_of_what_is_left() {
        let mut plan = plan();
        plan.attach("c", &BTreeSet::from(["s-raft".to_owned()]));
        let trials: Vec<_> = plan.plan.blocks.iter().flat_map(|block| &block.trials).collect();
        assert_eq!(trials, [&1, &2, &3]);
        assert_eq!(plan.plan.variants.len(), 1);
        assert!(plan.plan.variants[0].baseline);
        assert_eq!(plan.plan.settings.len(), 1);
        assert_eq!(plan.plan.attached.as_deref(), Some("c"));
    }

    #[test]
    fn a_node_that_is_down_or_comes_back_by_itself_is_not_used() {
        let down = NodeState::default();
        assert!(of(&down).unwrap_err().contains("does not run"));
        let process = Some(serde_json::from_str(r#"{"pid":1,"start":1,"boot":"b"}"#).unwrap());
        let back = NodeState { process, restart: Some(Restart::Always), ..down };
        assert!(of(&back).unwrap_err().contains("--restart no"));
    }
}
