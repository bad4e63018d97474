//! What an experiment says of its fault, checked.

use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sraft_agent::protocol::Effect;
use sraft_core::Span;

use super::{Backend, Fault, Probe, cells::Cell};
use crate::{
    experiment::{File, Refused},
    fault::{self, Direction, Kind, Links, Role, Standing, Target},
    system::System,
};

/// Most times in a row that a node is killed.
const LONGEST_STORM: i64 = 100;

/// Most writes in a second that a slow disk may have: beyond it, it would be a quick one.
const MOST_WRITES: i64 = 10_000;

/// Longest time that a packet is held back: beyond it, it might as well be lost.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// What is wrong, and the key in `[fault]` that it is about.
struct Wrong(&'static str, String);

/// What is done to whom in a cell.
pub(super) fn fault(file: &File, cell: &Cell, backend: Backend) -> Result<Fault, Refused> {
    read(cell, backend).map_err(|Wrong(key, why)| cell.blame(file, &["fault", key], why))
}

fn read(cell: &Cell, backend: Backend) -> Result<Fault, Wrong> {
    let given = &cell.experiment.fault;
    let kind = Kind::parse(&given.kind, backend).map_err(|why| Wrong("kind", why))?;
    let superfluous = |key, what: &str| {
        Err(Wrong(key, format!("fault.{key} says {what}, which {kind} does not ask; remove it")))
    };
    let links = links(cell, kind)?;
    let target = match (&given.target, &given.groups) {
        (Some(_), Some(_)) => {
            let why = "fault.target and fault.groups both say whom it strikes; remove one of them";
            return Err(Wrong("groups", why.to_owned()));
        }
        (None, Some(_)) if links.is_none() || kind == Kind::Isolate => {
            return superfluous("groups", "between whom links are cut");
        }
        (None, Some(_)) => Target::Groups,
        (Some(_), None) if matches!(kind, Kind::Partition | Kind::Link) => {
            let why = format!(
                "{kind} is between groups; write groups = [[\"leader\"], [\"{}\"]], say, in the \
                 place of target",
                if kind == Kind::Link { "primary" } else { "others" }
            );
            return Err(Wrong("target", why));
        }
        (Some(target), None) => Target::parse(target).map_err(|why| Wrong("target", why))?,
        (None, None) if matches!(kind, Kind::Partition | Kind::Link) => {
            let why = format!("{kind} is between groups; write groups = [[\"leader\"], ...]");
            return Err(Wrong("kind", why));
        }
        (None, None) => {
            let why = "nothing says whom it strikes; write target = \"leader\", say";
            return Err(Wrong("kind", why.to_owned()));
        }
    };
    if given.direction.is_some() && links.is_none() {
        return superfluous("direction", "which messages are lost");
    }
    if given.percent.is_some() && kind != Kind::Loss {
        return superfluous("percent", "how many packets are lost");
    }
    if given.delay.is_some() && kind != Kind::Delay {
        return superfluous("delay", "how long packets are held back");
    }
    if given.jitter.is_some() && kind != Kind::Delay {
        return superfluous("jitter", "by how much a delay varies");
    }
    let count = match given.count {
        Some(_) if kind != Kind::RestartStorm => {
            return superfluous("count", "how often a node is killed");
        }
        Some(count) if (2..=LONGEST_STORM).contains(&count) => count as u32,
        Some(count) => {
            let why = format!("fault.count is {count}; write a number from 2 to {LONGEST_STORM}");
            return Err(Wrong("count", why));
        }
        None if kind == Kind::RestartStorm => 3,
        None => 1,
    };
    let iops = match given.iops {
        Some(_) if kind != Kind::SlowDisk => {
            return superfluous("iops", "how many writes a second has room for");
        }
        Some(iops) if (1..=MOST_WRITES).contains(&iops) => Some(iops as u32),
        Some(iops) => {
            let why = format!("fault.iops is {iops}; write a number from 1 to {MOST_WRITES}");
            return Err(Wrong("iops", why));
        }
        None if kind == Kind::SlowDisk => {
            let why = "nothing says how slow the disk is to be; write iops = 20, say: so many \
                       writes in a second";
            return Err(Wrong("kind", why.to_owned()));
        }
        None => None,
    };
    let duration = duration(cell, kind)?;
    Ok(Fault { kind, target, duration, count, iops, links })
}

fn duration(cell: &Cell, kind: Kind) -> Result<Duration, Wrong> {
    let timeout = cell.experiment.trials.timeout;
    let wrong = |why: String| Err(Wrong("duration", why));
    match cell.experiment.fault.duration {
        None => Ok(Duration::from_secs(1)),
        Some(_) if kind.ends_processes() => wrong(format!(
            "fault.duration says how long a fault lasts, and {kind} has no end; remove it"
        )),
        Some(duration) if duration.0.is_zero() => {
            wrong("fault.duration is zero: nothing would happen; write 1s, say".to_owned())
        }
        Some(duration) if duration.0 >= timeout.0 => wrong(format!(
            "fault.duration is {duration}, which is not below trials.timeout of {timeout}"
        )),
        Some(duration) => Ok(duration.0),
    }
}

/// What is done to links; nothing if the fault is none of links.
fn links(cell: &Cell, kind: Kind) -> Result<Option<Links>, Wrong> {
    let given = &cell.experiment.fault;
    let effect = match kind {
        Kind::Kill
        | Kind::Stop
        | Kind::Pause
        | Kind::SlowDisk
        | Kind::DiskFull
        | Kind::RestartStorm
        | Kind::Reboot => return Ok(None),
        Kind::Isolate | Kind::Partition | Kind::Link => Effect::Drop,
        Kind::Loss => {
            let Some(percent) = given.percent else {
                let why = "nothing says how many packets are lost; write percent = 10, say";
                return Err(Wrong("kind", why.to_owned()));
            };
            // The rules count in thousands.
            let per_mille = (percent * 10.0).round();
            if !(1.0..1000.0).contains(&per_mille) {
                let why = format!(
                    "fault.percent is {percent}; write a number from 0.1 to 99.9, or kind = \
                     \"isolate\" if all are to be lost"
                );
                return Err(Wrong("percent", why));
            }
            Effect::Loss { per_mille: per_mille as u32 }
        }
        Kind::Delay => {
            let Some(delay) = given.delay else {
                let why =
                    "nothing says how long packets are held back; write delay = \"20ms\", say";
                return Err(Wrong("kind", why.to_owned()));
            };
            let jitter = given.jitter.unwrap_or(Span(Duration::ZERO));
            if delay.0.is_zero() || delay.0 > LONGEST_DELAY {
                let most = Span(LONGEST_DELAY);
                let why = format!("fault.delay is {delay}; write a duration up to {most}");
                return Err(Wrong("delay", why));
            }
            if jitter.0 > delay.0 {
                let why = format!(
                    "fault.jitter is {jitter}, more than the delay of {delay} that it varies"
                );
                return Err(Wrong("jitter", why));
            }
            let micros = |span: Span| span.0.as_micros() as u64;
            Effect::Delay { delay_us: micros(delay), jitter_us: micros(jitter) }
        }
    };
    let direction = given.direction.as_deref().map(Direction::parse).transpose();
    let direction = direction.map_err(|why| Wrong("direction", why))?.unwrap_or_default();
    let groups = match &given.groups {
        Some(groups) => read_groups(groups, kind, direction)?,
        None => Vec::new(),
    };
    Ok(Some(Links { groups, direction, effect }))
}

fn read_groups(
    given: &[Vec<String>],
    kind: Kind,
    direction: Direction,
) -> Result<Vec<Vec<Role>>, Wrong> {
    let wrong = |why: String| Err(Wrong("groups", why));
    let mut groups: Vec<Vec<Role>> = Vec::new();
    for group in given {
        let mut roles = Vec::new();
        for role in group {
            let role = Role::parse(role).map_err(|why| Wrong("groups", why))?;
            if roles.contains(&role) || groups.iter().flatten().any(|other| *other == role) {
                return wrong(format!("`{role}` is named twice; name it in one group"));
            }
            roles.push(role);
        }
        if roles.is_empty() {
            return wrong("a group is empty; name a role in it, or remove it".to_owned());
        }
        groups.push(roles);
    }
    if groups.len() < 2 {
        return wrong("there have to be two groups at least".to_owned());
    }
    if kind == Kind::Partition && !groups.iter().flatten().any(|role| *role == Role::Others) {
        return wrong(
            "a partition leaves nobody out; put \"others\" into one of the groups, or write kind = \
             \"link\""
                .to_owned(),
        );
    }
    if direction != Direction::Both && groups.len() > 2 {
        return wrong(format!(
            "direction = \"{direction}\" is seen from the first of two groups, and there are {}",
            groups.len()
        ));
    }
    Ok(groups)
}

/// Whether anybody asks of the nodes what the fault takes effect on.
pub(super) fn asked(fault: &Fault, probe: Option<&Probe>) -> Result<(), String> {
    match probe {
        None if fault.kind.fills_disk() || fault.iops.is_some() => Err(format!(
            "{} is felt by nodes that write, and nothing is written; set workload.rate, 200 say",
            fault.kind
        )),
        _ => Ok(()),
    }
}

/// Whether the fault can be done to nodes of this system.
pub(super) fn suits(fault: &Fault, system: &dyn System, backend: Backend) -> Result<(), String> {
    if fault.kind.fills_disk() && !system.notices_full_disk() {
        return Err(format!(
            "{0} takes room for its log beforehand, 64 MB at a time, so it would not notice a full \
             disk within a trial; leave {0} out",
            system.name()
        ));
    }
    let Some(links) = fault.links.as_ref().filter(|_| !system.keeps_directions_apart()) else {
        return Ok(());
    };
    if backend == Backend::Local {
        return Err(format!(
            "{} dials its peers from any address, so packets of its nodes cannot be told apart on \
             one machine; run {} with --inventory (`sraft testbed up` makes hosts), or leave {0} out",
            system.name(),
            fault.kind
        ));
    }
    if links.direction != Direction::Both {
        return Err(format!(
            "{} uses one connection for both directions, so neither can be cut alone; write direction \
             = \"both\", or leave {0} out",
            system.name()
        ));
    }
    Ok(())
}

/// Whether the fault can be done to a cluster of this size, and leaves it a majority.
pub(super) fn fits(fault: &Fault, size: u32, sub_leaders: u32) -> Result<(), String> {
    let groups = fault.links.iter().flat_map(|links| links.groups.iter().flatten());
    let roles = groups.map(|role| (role.to_string(), role.needs_sub_leaders()));
    let named = match fault.target {
        Target::Groups => None,
        target => Some((target.to_string(), target.needs_sub_leaders())),
    };
    for (name, needed) in roles.chain(named) {
        if sub_leaders < needed {
            return Err(format!(
                "target {name} needs {needed} sub-leader(s), but no variant designates more than \
                 {sub_leaders} among {size} nodes; take a larger cluster or another target"
            ));
        }
    }
    let majority = size / 2 + 1;
    let strikes = match &fault.links {
        None => fault.target.strikes(sub_leaders),
        Some(_) if fault.kind.is_gray() => 0,
        Some(_) => {
            // Whom it parts from a majority depends on roles only, so any cluster will do.
            let ranks: Vec<u64> = (2..=u64::from(size)).take(sub_leaders as usize).collect();
            let standing = Standing { leader: 1, ranks: &ranks, size, sub_leaders };
            let strike = fault::strike(fault, &standing, &mut ChaCha8Rng::seed_from_u64(0));
            if strike.paths.is_empty() {
                return Err(format!(
                    "among {size} nodes no links lie between these groups; take a larger cluster or \
                     other groups"
                ));
            }
            strike.actions.iter().filter(|(_, action)| action.severs()).count() as u32
        }
    };
    let left = size.saturating_sub(strikes);
    if left >= majority {
        return Ok(());
    }
    let target = match fault.target {
        Target::Groups => fault.kind.to_string(),
        target => format!("target {target}"),
    };
    Err(format!(
        "{target} strikes {strikes} of {size} nodes and leaves {left}, but a leader needs a \
         majority of {majority}: nobody could be elected; take a larger cluster, fewer sub-leaders \
         (timing.sub_leader_ratio) or another target"
    ))
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write, path::Path};

    use super::*;
    use crate::{
        inventory::Inventory,
        plan::{Overrides, RunPlan},
    };

    fn plan(backend: &str, fault: &str) -> Result<RunPlan, Refused> {
        let text = format!(
            "name = \"x\"\n[cluster]\nsize = 5\nbackend = \"{backend}\"\n[trials]\ncount = 2\n\
             timeout = \"8s\"\n[[variant]]\nname = \"raft\"\nprotocol = \"raft\"\n[[variant]]\n\
             name = \"s-raft\"\nprotocol = \"s-raft\"\n[fault]\n{fault}\n"
        );
        RunPlan::new(&File::parse(Path::new("x.toml"), text)?, Overrides::default())
    }

    #[test]
    fn a_fault_of_links_is_planned() {
        let faults = [
            "kind = \"isolate\"\ntarget = \"leader\"",
            "kind = \"isolate\"\ntarget = \"leader\"\ndirection = \"in\"\nduration = \"4s\"",
            "kind = \"partition\"\ngroups = [[\"leader\", \"primary\"], [\"others\"]]",
            "kind = \"link\"\ngroups = [[\"leader\"], [\"primary\"]]\ndirection = \"out\"",
            "kind = \"loss\"\ntarget = \"leader\"\npercent = 12.5",
            "kind = \"delay\"\ngroups = [[\"leader\"], [\"others\"]]\ndelay = \"20ms\"\njitter = \"2ms\"",
            "kind = \"restart-storm\"\ntarget = \"leader\"\ncount = 5",
            "kind = \"slow-disk\"\ntarget = \"leader\"\niops = 20\nduration = \"4s\"\n[workload]\nrate = 9",
            "kind = \"disk-full\"\ntarget = \"primary\"\n[workload]\nrate = 100",
        ];
        let mut said = String::new();
        for fault in faults {
            let run = plan("local", fault).unwrap();
            let Fault { kind, count, links, .. } = &run.launch("", "raft").fault;
            let effect = links.as_ref().map(|links| links.effect);
            let aim = run.launch("", "raft").fault.aim();
            writeln!(said, "{kind} [{aim}] x{count} {effect:?} {:?}", run.needs()).unwrap();
        }
        insta::assert_snapshot!(said, @r"
        isolate [leader] x1 Some(Drop) Needs { rules: true, delay: false, slow_disk: false, own_disk: false, reboot: false }
        isolate [leader <] x1 Some(Drop) Needs { rules: true, delay: false, slow_disk: false, own_disk: false, reboot: false }
        partition [leader+primary | others] x1 Some(Drop) Needs { rules: true, delay: false, slow_disk: false, own_disk: false, reboot: false }
        link [leader > primary] x1 Some(Drop) Needs { rules: true, delay: false, slow_disk: false, own_disk: false, reboot: false }
        loss [leader] x1 Some(Loss { per_mille: 125 }) Needs { rules: true, delay: false, slow_disk: false, own_disk: false, reboot: false }
        delay [leader | others] x1 Some(Delay { delay_us: 20000, jitter_us: 2000 }) Needs { rules: true, delay: true, slow_disk: false, own_disk: false, reboot: false }
        restart-storm [leader] x5 None Needs { rules: false, delay: false, slow_disk: false, own_disk: false, reboot: false }
        slow-disk [leader] x1 None Needs { rules: false, delay: false, slow_disk: true, own_disk: false, reboot: false }
        disk-full [primary] x1 None Needs { rules: false, delay: false, slow_disk: false, own_disk: true, reboot: false }
        ");
    }

    #[test]
    fn the_experiments_that_ship_can_be_planned() {
        let inventory: String =
            (1..=7).map(|n| format!("[[host]]\nssh = \"10.0.1.{n}\"\n")).collect();
        let inventory = Inventory::parse(Path::new("inventory.toml"), &inventory).unwrap();
        for (name, cells) in [
            ("partition", 3),
            ("link", 3),
            ("gray", 3),
            ("slow-link", 1),
            ("slow-disk", 2),
            ("disk-full", 1),
            ("reboot", 1),
            ("pause", 1),
            ("cascade", 2),
            ("ec2-leader-kill", 1),
            ("ec2-cross-az", 3),
        ] {
            let path = format!("{}/../experiments/{name}.toml", env!("CARGO_MANIFEST_DIR"));
            let file = File::read(Path::new(&path)).unwrap();
            let there = RunPlan::on(&file, Overrides::default(), Some(&inventory)).unwrap();
            assert_eq!((there.backend, there.plan.cells.len()), (Backend::Ssh, cells), "{name}");
            match RunPlan::new(&file, Overrides::default()) {
                Ok(here) => assert_eq!(here.plan.settings, there.plan.settings, "{name}"),
                Err(refused) => {
                    assert!(name.starts_with("ec2-") || name == "reboot", "{refused}");
                    assert!(refused.to_string().contains("--inventory"), "{refused}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_line_and_the_remedy() {
        let isolate = "kind = \"isolate\"\ntarget = \"leader\"\n";
        let kill = "kind = \"kill\"\ntarget = \"leader\"\n";
        let (full, rate) =
            ("kind = \"disk-full\"\ntarget = \"leader\"\n", "\n[workload]\nrate = 100");
        let cases = [
            ("local", "kind = \"slow-disk\"\ntarget = \"leader\"".to_owned()),
            ("local", "kind = \"slow-disk\"\ntarget = \"leader\"\niops = 0".to_owned()),
            ("local", format!("{kill}iops = 20")),
            ("sim", "kind = \"slow-disk\"\ntarget = \"leader\"\niops = 20".to_owned()),
            ("local", "kind = \"disk-full\"\ntarget = \"leader\"".to_owned()),
            ("local", "kind = \"slow-disk\"\ntarget = \"leader\"\niops = 20".to_owned()),
            ("local", format!("{full}duration = \"2s\"{rate}")),
            ("local", format!("{full}groups = [[\"leader\"], [\"others\"]]{rate}")),
            ("local", "kind = \"reboot\"\ntarget = \"leader\"".to_owned()),
            ("sim", "kind = \"reboot\"\ntarget = \"leader\"".to_owned()),
            ("sim", "kind = \"delay\"\ntarget = \"leader\"\ndelay = \"1ms\"".to_owned()),
            ("local", "kind = \"kill\"".to_owned()),
            ("local", "kind = \"link\"".to_owned()),
            ("local", "kind = \"link\"\ntarget = \"leader\"".to_owned()),
            ("local", format!("{isolate}groups = [[\"leader\"], [\"others\"]]")),
            ("local", format!("{kill}groups = [[\"leader\"], [\"others\"]]")),
            ("local", format!("{kill}direction = \"in\"")),
            ("local", format!("{kill}count = 3")),
            ("local", format!("{isolate}direction = \"up\"")),
            ("local", format!("{isolate}percent = 3.0")),
            ("local", format!("{isolate}delay = \"3ms\"")),
            ("local", format!("{isolate}jitter = \"3ms\"")),
            ("local", format!("{isolate}duration = \"8s\"")),
            ("local", "kind = \"loss\"\ntarget = \"leader\"".to_owned()),
            ("local", "kind = \"loss\"\ntarget = \"leader\"\npercent = 100.0".to_owned()),
            ("local", "kind = \"delay\"\ntarget = \"leader\"".to_owned()),
            ("local", "kind = \"delay\"\ntarget = \"leader\"\ndelay = \"20s\"".to_owned()),
            (
                "local",
                "kind = \"delay\"\ntarget = \"leader\"\ndelay = \"2ms\"\njitter = \"3ms\""
                    .to_owned(),
            ),
            ("local", "kind = \"restart-storm\"\ntarget = \"leader\"\ncount = 1".to_owned()),
            ("local", "kind = \"partition\"\ngroups = [[\"leader\"]]".to_owned()),
            ("local", "kind = \"partition\"\ngroups = [[\"leader\"], [\"primary\"]]".to_owned()),
            ("local", "kind = \"partition\"\ngroups = [[\"king\"], [\"others\"]]".to_owned()),
            ("local", "kind = \"link\"\ngroups = [[\"leader\"], [\"leader\"]]".to_owned()),
            ("local", "kind = \"link\"\ngroups = [[\"leader\"], []]".to_owned()),
            (
                "local",
                "kind = \"partition\"\ngroups = [[\"leader\"], [\"primary\"], [\"others\"]]\n\
                 direction = \"in\""
                    .to_owned(),
            ),
            (
                "local",
                "kind = \"partition\"\ngroups = [[\"leader\"], [\"sub-leaders\"], [\"others\"]]"
                    .to_owned(),
            ),
        ];
        let mut said = String::new();
        for (backend, fault) in cases {
            let refused = plan(backend, &fault).expect_err(&fault);
            writeln!(said, "{}\n  {refused}", fault.replace('\n', " / ")).unwrap();
        }
        let etcd = "\n[[variant]]\nname = \"etcd\"\nsystem = \"etcd\"";
        let refused = plan("local", &format!("{isolate}{etcd}")).expect_err("etcd");
        writeln!(said, "isolated etcd\n  {refused}").unwrap();
        let refused = plan("local", &format!("{full}{rate}{etcd}")).expect_err("etcd");
        writeln!(said, "etcd with a full disk\n  {refused}").unwrap();
        insta::assert_snapshot!(said, @r#"
        kind = "slow-disk" / target = "leader"
          x.toml, line 15: nothing says how slow the disk is to be; write iops = 20, say: so many writes in a second
        kind = "slow-disk" / target = "leader" / iops = 0
          x.toml, line 17: fault.iops is 0; write a number from 1 to 10000
        kind = "kill" / target = "leader" / iops = 20
          x.toml, line 17: fault.iops says how many writes a second has room for, which kill does not ask; remove it
        kind = "slow-disk" / target = "leader" / iops = 20
          x.toml, line 15: the sim backend cannot do slow-disk; it can do kill, pause, isolate, partition and link
        kind = "disk-full" / target = "leader"
          x.toml, line 15: disk-full is felt by nodes that write, and nothing is written; set workload.rate, 200 say
        kind = "slow-disk" / target = "leader" / iops = 20
          x.toml, line 15: slow-disk is felt by nodes that write, and nothing is written; set workload.rate, 200 say
        kind = "disk-full" / target = "leader" / duration = "2s" / [workload] / rate = 100
          x.toml, line 17: fault.duration says how long a fault lasts, and disk-full has no end; remove it
        kind = "disk-full" / target = "leader" / groups = [["leader"], ["others"]] / [workload] / rate = 100
          x.toml, line 17: fault.target and fault.groups both say whom it strikes; remove one of them
        kind = "reboot" / target = "leader"
          x.toml, line 15: reboot would take down this very machine; run it on hosts, with --inventory, or take another fault: kill, stop, pause, isolate, partition, link, loss, delay, slow-disk, disk-full and restart-storm
        kind = "reboot" / target = "leader"
          x.toml, line 15: the sim backend cannot do reboot; it can do kill, pause, isolate, partition and link
        kind = "delay" / target = "leader" / delay = "1ms"
          x.toml, line 15: the sim backend cannot do delay; it can do kill, pause, isolate, partition and link
        kind = "kill"
          x.toml, line 15: nothing says whom it strikes; write target = "leader", say
        kind = "link"
          x.toml, line 15: link is between groups; write groups = [["leader"], ...]
        kind = "link" / target = "leader"
          x.toml, line 16: link is between groups; write groups = [["leader"], ["primary"]], say, in the place of target
        kind = "isolate" / target = "leader" / groups = [["leader"], ["others"]]
          x.toml, line 17: fault.target and fault.groups both say whom it strikes; remove one of them
        kind = "kill" / target = "leader" / groups = [["leader"], ["others"]]
          x.toml, line 17: fault.target and fault.groups both say whom it strikes; remove one of them
        kind = "kill" / target = "leader" / direction = "in"
          x.toml, line 17: fault.direction says which messages are lost, which kill does not ask; remove it
        kind = "kill" / target = "leader" / count = 3
          x.toml, line 17: fault.count says how often a node is killed, which kill does not ask; remove it
        kind = "isolate" / target = "leader" / direction = "up"
          x.toml, line 17: there is no direction `up`; there are both, out and in
        kind = "isolate" / target = "leader" / percent = 3.0
          x.toml, line 17: fault.percent says how many packets are lost, which isolate does not ask; remove it
        kind = "isolate" / target = "leader" / delay = "3ms"
          x.toml, line 17: fault.delay says how long packets are held back, which isolate does not ask; remove it
        kind = "isolate" / target = "leader" / jitter = "3ms"
          x.toml, line 17: fault.jitter says by how much a delay varies, which isolate does not ask; remove it
        kind = "isolate" / target = "leader" / duration = "8s"
          x.toml, line 17: fault.duration is 8s, which is not below trials.timeout of 8s
        kind = "loss" / target = "leader"
          x.toml, line 15: nothing says how many packets are lost; write percent = 10, say
        kind = "loss" / target = "leader" / percent = 100.0
          x.toml, line 17: fault.percent is 100; write a number from 0.1 to 99.9, or kind = "isolate" if all are to be lost
        kind = "delay" / target = "leader"
          x.toml, line 15: nothing says how long packets are held back; write delay = "20ms", say
        kind = "delay" / target = "leader" / delay = "20s"
          x.toml, line 17: fault.delay is 20s; write a duration up to 10s
        kind = "delay" / target = "leader" / delay = "2ms" / jitter = "3ms"
          x.toml, line 18: fault.jitter is 3ms, more than the delay of 2ms that it varies
        kind = "restart-storm" / target = "leader" / count = 1
          x.toml, line 17: fault.count is 1; write a number from 2 to 100
        kind = "partition" / groups = [["leader"]]
          x.toml, line 16: there have to be two groups at least
        kind = "partition" / groups = [["leader"], ["primary"]]
          x.toml, line 16: a partition leaves nobody out; put "others" into one of the groups, or write kind = "link"
        kind = "partition" / groups = [["king"], ["others"]]
          x.toml, line 16: there is no role `king`; there are leader, primary, secondary, sub-leaders and others
        kind = "link" / groups = [["leader"], ["leader"]]
          x.toml, line 16: `leader` is named twice; name it in one group
        kind = "link" / groups = [["leader"], []]
          x.toml, line 16: a group is empty; name a role in it, or remove it
        kind = "partition" / groups = [["leader"], ["primary"], ["others"]] / direction = "in"
          x.toml, line 16: direction = "in" is seen from the first of two groups, and there are 3
        kind = "partition" / groups = [["leader"], ["sub-leaders"], ["others"]]
          x.toml, line 16: partition strikes 5 of 5 nodes and leaves 0, but a leader needs a majority of 3: nobody could be elected; take a larger cluster, fewer sub-leaders (timing.sub_leader_ratio) or another target
        isolated etcd
          x.toml, line 20: variant etcd: etcd dials its peers from any address, so packets of its nodes cannot be told apart on one machine; run isolate with --inventory (`sraft testbed up` makes hosts), or leave etcd out
        etcd with a full disk
          x.toml, line 22: variant etcd: etcd takes room for its log beforehand, 64 MB at a time, so it would not notice a full disk within a trial; leave etcd out
        "#);
    }
}
