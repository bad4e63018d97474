//! Whether a host is fit for nodes: what can be found out on the host itself.

mod disk;
mod leftovers;

use std::{
    net::{ToSocketAddrs, UdpSocket},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use sraft_agent::{boot_id, needs, protocol::Needs};

use super::{place::Place, service};

/// What is to be found out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Questions {
    /// The host's folder.
    pub(crate) dir: PathBuf,
    /// The address that the inventory gives it.
    pub(crate) addr: String,
    /// The address of another host, to tell by which address this one is seen there.
    pub(crate) other: Option<String>,
    /// Whether to remove what earlier runs have left.
    pub(crate) clean: bool,
    /// The boot of the machine that asks.
    pub(crate) boot: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Health {
    /// The findings.
    pub(crate) findings: Vec<Finding>,
    /// The process of the node that runs here, if one does: its ports are taken.
    pub(crate) node: Option<u32>,
    /// Processes of agents that are at work here: an experiment is going on.
    pub(crate) agents: usize,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// Experiments run, but something is to be kept in mind.
    Warning,
    /// Something will not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) check: String,
    /// How bad it is.
    pub(crate) verdict: Verdict,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
}

impl Finding {
    pub(crate) fn ok(check: &str, found: impl Into<String>) -> Finding {
        Finding { check: check.to_owned(), verdict: Verdict::Ok, found: found.into(), remedy: None }
    }

    pub(crate) fn bad(
        check: &str,
        verdict: Verdict,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        let (found, remedy) = (found.into(), Some(remedy.into()));
        Finding { check: check.to_owned(), verdict, found, remedy }
    }

    /// An error whose text goes on with its remedy after the first semicolon, as all of ours do.
    pub(crate) fn error(check: &str, verdict: Verdict, text: &str) -> Finding {
        let (found, remedy) = match text.split_once("; ") {
            Some((found, remedy)) => (found.to_owned(), Some(remedy.to_owned())),
            None => (text.to_owned(), None),
        };
        Finding { check: check.to_owned(), verdict, found, remedy }
    }
}

/// Looks at everything.
pub(super) fn examine(questions: &Questions) -> Health {
    let mut health = Health::default();
    let place = Place::below(&questions.dir);
    health.node = place.process().map(|(process, _)| process.pid);
    health.findings.push(match health.node {
        Some(pid) => Finding::ok("node", format!("runs as process {pid}")),
        None => Finding::ok("node", "none runs"),
    });
    leftovers::look(questions, &mut health);
    health.findings.push(address(questions));
    let facts = sraft_agent::gather(&questions.dir);
    disk::examine(&questions.dir, facts.filesystem.as_deref(), &mut health.findings);
    health.findings.push(match facts.chrony {
        Some(chrony) => Finding::ok(
            "wall clock",
            format!(
                "chrony keeps it within {:.0} us (stratum {})",
                chrony.bound_ns as f64 / 1e3,
                chrony.stratum
            ),
        ),
        None => Finding::bad(
            "wall clock",
            Verdict::Warning,
            "no chrony is at work, or it is not synchronised",
            "figures do not need it, but wall-clock times in logs of several hosts will not fit \
             together; install chrony",
        ),
    });
    health.findings.push(match service::may_sudo() {
        Ok(()) => Finding::ok("sudo", "works without a password"),
        Err(why) => Finding::bad(
            "sudo",
            Verdict::Warning,
            format!("does not work without a password ({why})"),
            "only faults of links (partitions, loss, delay), slow-disk, reboot and systemd need it; \
             allow it in sudoers",
        ),
    });
    let none = Needs::default();
    let mut fault = |check, needs, can: &str, who: &str| {
        health.findings.push(match needs::able(needs, &questions.dir) {
            Ok(()) => Finding::ok(check, can),
            Err(why) => {
                let (found, remedy) = why.split_once("; ").unwrap_or((&why, "see above"));
                Finding::bad(check, Verdict::Warning, found, format!("only {who} it; {remedy}"))
            }
        });
    };
    let packets = Needs { rules: true, delay: true, ..none };
    fault("packet filter", packets, "can drop and delay packets", "faults of links need");
    let slow = Needs { slow_disk: true, ..none };
    fault("slow disk", slow, "a process's writes can be slowed down", "slow-disk needs");
    let own = Needs { own_disk: true, ..none };
    fault("own disk", own, "nodes can have file systems of their own", "disk-full needs");
    if questions.boot.is_some() && boot_id().ok() == questions.boot {
        health.findings.push(Finding::bad(
            "reboot",
            Verdict::Warning,
            "is on the machine that this program runs on",
            "only reboot needs hosts that are machines of their own",
        ));
    } else {
        let reset = Needs { reboot: true, ..none };
        fault("reboot", reset, "can be reset, with what is on its disk", "reboot needs");
    }
    health
}

/// Whether the host has the address that the inventory gives it.
fn address(questions: &Questions) -> Finding {
    const CHECK: &str = "address";
    let addr = &questions.addr;
    let problem = |found: String| {
        let remedy = match seen_as(questions) {
            Some(own) => format!("write addr = \"{own}\", which is how the others see it"),
            None => "write the address by which the other hosts reach it as addr".to_owned(),
        };
        Finding::bad(CHECK, Verdict::Problem, found, remedy)
    };
    let addresses: Vec<_> = match (addr.as_str(), 0).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            return problem(format!("the host cannot resolve its own addr {addr}: {error}"));
        }
    };
    match addresses.iter().any(|address| UdpSocket::bind(address).is_ok()) {
        true => Finding::ok(CHECK, format!("{addr} is its own")),
        false => {
            problem(format!("{addr} is no address of this host, so nodes cannot listen there"))
        }
    }
}

/// The address that packets to another host carry.
fn seen_as(questions: &Questions) -> Option<String> {
    let other = (questions.other.as_deref()?, 9).to_socket_addrs().ok()?.next()?;
    let any = if other.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    // Nothing is sent: the kernel only chooses the way.
    socket.connect(other).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}
