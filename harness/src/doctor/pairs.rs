//! Whether hosts reach one another: every port, in both directions, and how far they and their
//! clocks are apart.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;
use sraft_agent::protocol::{Answer, Call, Clocks, Knock};

use super::{Patient, envoy::Envoy};
use crate::{
    host::ssh::for_all,
    inventory::Host,
    keeper::health::{Finding, Verdict},
};

/// How long a knock is waited for. A lost first packet is sent again after one second.
const KNOCKED_WITHIN_MS: u64 = 3500;

/// Beyond this, what spans two hosts is known too roughly to compare takeovers, nanoseconds.
const VAGUE_NS: u64 = 1_000_000;

/// Wall clocks that are further apart make logs of several hosts hard to read, nanoseconds.
const APART_NS: u64 = 100_000_000;

/// From one host to another.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Link {
    pub(super) from: String,
    pub(super) to: String,
    /// Ports that lead there: protocol and number.
    pub(super) open: Vec<String>,
    /// Ports that do not.
    pub(super) closed: Vec<String>,
    /// The least round trip, microseconds.
    pub(super) rtt_us: Option<f64>,
    /// The other's monotonic clock less this one's, nanoseconds.
    pub(super) offset_ns: Option<i64>,
    /// How far that can be wrong, nanoseconds.
    pub(super) bound_ns: Option<u64>,
}

/// A host with an agent.
struct Post<'a> {
    patient: &'a Patient<'a>,
    envoy: Envoy,
    /// Whether the port at this place is one to knock at: somebody listens there.
    listens: Vec<bool>,
    /// Whether clocks are answered.
    answers: bool,
    clocks: Option<Clocks>,
}

/// What is listened at on a host, besides the clocks.
fn ports(host: &Host) -> [(&'static str, u16); 3] {
    [("peers", host.port), ("clients", host.client_port), ("admin", host.admin_port())]
}

fn at(host: &Host, port: u16) -> String {
    match host.addr.contains(':') {
        true => format!("[{}]:{port}", host.addr),
        false => format!("{}:{port}", host.addr),
    }
}

type Found<'a> = (&'a Host, Finding);

/// Looks at all pairs. Findings are with the host that they were made from.
pub(super) fn examine<'a>(patients: &'a [Patient<'a>]) -> (Vec<Found<'a>>, Vec<Link>) {
    let mut findings = Vec::new();
    let mut posts = Vec::new();
    let all: Vec<&'a Patient<'a>> = patients.iter().collect();
    for (patient, (found, post)) in all.iter().zip(for_all(&all, |patient| take_post(patient))) {
        findings.extend(found.into_iter().map(|finding| (patient.host, finding)));
        posts.extend(post);
    }
    // Everybody is at his post before anybody asks for another.
    let places: Vec<Place<'_>> = posts
        .iter()
        .map(|post| Place {
            host: post.patient.host,
            listens: post.listens.clone(),
            answers: post.answers,
        })
        .collect();
    let posts: Vec<Mutex<Post<'_>>> = posts.into_iter().map(Mutex::new).collect();
    let asked = for_all(&posts, |post| {
        let mut post = post.lock().unwrap_or_else(PoisonError::into_inner);
        visit(&mut post, &places)
    });
    let mut links = Vec::new();
    for (place, (found, of)) in places.iter().zip(asked) {
        findings.extend(found.into_iter().map(|finding| (place.host, finding)));
        links.extend(of);
    }
    let clocks: BTreeMap<String, Clocks> = posts
        .into_iter()
        .map(|post| post.into_inner().unwrap_or_else(PoisonError::into_inner))
        .filter_map(|post| Some((post.patient.host.name.clone(), post.clocks?)))
        .collect();
    if let Some(reference) = places.first() {
        for place in &places[1..] {
            findings.extend(compare(reference.host, place.host, &links, &clocks));
        }
    }
    (findings, links)
}

/// What the others know of a host's post.
struct Place<'a> {
    host: &'a Host,
    listens: Vec<bool>,
    answers: bool,
}

/// Sends an agent to a host and has it listen.
fn take_post<'a>(patient: &'a Patient<'a>) -> (Vec<Finding>, Option<Post<'a>>) {
    let host = patient.host;
    let failed = |why: &str| {
        (vec![Finding::error("agent", Verdict::Problem, &format!("an agent: {why}"))], None)
    };
    let mut envoy = match Envoy::send(&patient.target) {
        Ok(envoy) => envoy,
        Err(why) => return failed(&why),
    };
    let mut findings = Vec::new();
    let addresses = ports(host).map(|(_, port)| at(host, port)).to_vec();
    let refused = match envoy.ask(Call::Listen { at: addresses }) {
        Ok(Answer::Listening { refused }) => refused,
        Ok(_) => return failed("it answered something else"),
        Err(why) => return failed(&why),
    };
    let mut listens = Vec::new();
    for ((what, port), refused) in ports(host).into_iter().zip(refused) {
        let busy = patient.health.node.is_some() || patient.health.agents > 0;
        listens.push(refused.is_none() || patient.health.node.is_some());
        if let Some(why) = refused.filter(|_| !busy) {
            findings.push(Finding::bad(
                "ports",
                Verdict::Problem,
                format!("nobody can listen at TCP port {port} ({what}): {why}"),
                "end the program that has it (`ss -ltnp` on the host), or give the host another \
                 port in the inventory",
            ));
        }
    }
    let clock = envoy.ask(Call::AnswerClocks { at: at(host, host.clock_port) });
    let answers = match clock {
        Ok(_) => true,
        // An experiment's agent answers in our place.
        Err(_) if patient.health.agents > 0 => true,
        Err(why) => {
            findings.push(Finding::error("ports", Verdict::Problem, &why));
            false
        }
    };
    let clocks = match envoy.ask(Call::Ping {}) {
        Ok(Answer::Clocks(clocks)) => Some(clocks),
        _ => None,
    };
    if findings.is_empty() {
        findings.push(Finding::ok("ports", "all are free, or the node's own"));
    }
    (findings, Some(Post { patient, envoy, listens, answers, clocks }))
}

/// Visits all others from one host.
fn visit(post: &mut Post<'_>, places: &[Place<'_>]) -> (Vec<Finding>, Vec<Link>) {
    let own = post.patient.host;
    let others: Vec<&Place<'_>> =
        places.iter().filter(|place| place.host.node != own.node).collect();
    let mut findings = Vec::new();
    let mut links = Vec::new();
    // What to knock at: nobody knows what a port means that nobody listens at.
    let doors: Vec<(usize, &'static str, u16)> = others
        .iter()
        .enumerate()
        .flat_map(|(nth, place)| {
            let ports = ports(place.host).into_iter().zip(&place.listens);
            ports.filter(|(_, listens)| **listens).map(move |((what, port), _)| (nth, what, port))
        })
        .collect();
    let addresses = doors.iter().map(|(nth, _, port)| at(others[*nth].host, *port)).collect();
    let knocks = match post.envoy.ask(Call::Knock { at: addresses, within_ms: KNOCKED_WITHIN_MS }) {
        Ok(Answer::Knocked { found }) => found,
        Ok(_) => return broken("it answered something else"),
        Err(why) => return broken(&why),
    };
    for (nth, place) in others.iter().enumerate() {
        let mut link = Link {
            from: own.name.clone(),
            to: place.host.name.clone(),
            open: Vec::new(),
            closed: Vec::new(),
            rtt_us: None,
            offset_ns: None,
            bound_ns: None,
        };
        for ((_, what, port), knock) in doors.iter().zip(&knocks).filter(|(door, _)| door.0 == nth)
        {
            let name = format!("TCP {port}");
            match no_way(knock, &name, what, own, place.host) {
                None => link.open.push(name),
                Some(finding) => {
                    findings.push(finding);
                    link.closed.push(name);
                }
            }
        }
        if place.answers {
            let name = format!("UDP {}", place.host.clock_port);
            match post
                .envoy
                .ask(Call::CompareClocks { with: at(place.host, place.host.clock_port) })
            {
                Ok(Answer::Compared(found)) => {
                    link.open.push(name);
                    link.rtt_us = Some(found.rtt_ns as f64 / 1e3);
                    link.offset_ns = Some(found.offset_ns);
                    link.bound_ns = Some(found.bound_ns());
                }
                _ => {
                    findings.push(closed(
                        &name,
                        "clocks",
                        own,
                        place.host,
                        "no answer",
                        "let it through between the hosts (in a security group: UDP from the group \
                         itself)",
                    ));
                    link.closed.push(name);
                }
            }
        }
        links.push(link);
    }
    if findings.is_empty() && !others.is_empty() {
        findings.push(Finding::ok("ways", "to every other host's ports"));
    }
    (findings, links)
}

fn broken(why: &str) -> (Vec<Finding>, Vec<Link>) {
    (vec![Finding::error("agent", Verdict::Problem, &format!("an agent: {why}"))], Vec::new())
}

/// What keeps one host from another's port, if anything does.
fn no_way(knock: &Knock, port: &str, what: &str, from: &Host, to: &Host) -> Option<Finding> {
    let (why, remedy) = match knock {
        Knock::Open => return None,
        Knock::Silent => (
            "no answer at all, so the packets are dropped".to_owned(),
            "let them through between the hosts (in a security group: TCP from the group itself)",
        ),
        Knock::Refused => (
            "refused, although somebody listens there".to_owned(),
            "look for a firewall on the host that rejects it, or for another host with the same \
             addr",
        ),
        Knock::Failed { why } => {
            (why.clone(), "check addr in the inventory, and the hosts' routes")
        }
    };
    Some(closed(port, what, from, to, &why, remedy))
}

fn closed(port: &str, what: &str, from: &Host, to: &Host, why: &str, remedy: &str) -> Finding {
    let found = format!("no way from {} to {}, {port} ({what}): {why}", from.name, to.name);
    Finding::bad("ways", Verdict::Problem, found, remedy)
}

/// How a host's clocks stand to those of the first one.
fn compare<'a>(
    reference: &Host,
    host: &'a Host,
    links: &[Link],
    clocks: &BTreeMap<String, Clocks>,
) -> Vec<Found<'a>> {
    let link = links.iter().find(|link| link.from == host.name && link.to == reference.name);
    let Some((offset, bound)) = link.and_then(|link| Some((link.offset_ns?, link.bound_ns?)))
    else {
        return Vec::new();
    };
    let found = format!("compared with {} to within {:.0} us", reference.name, bound as f64 / 1e3);
    let mut findings = vec![match bound > VAGUE_NS {
        true => Finding::bad(
            "clocks",
            Verdict::Warning,
            found,
            "figures that span two hosts are no better than that; take hosts that are closer to \
             one another",
        ),
        false => Finding::ok("clocks", found),
    }];
    if let (Some(theirs), Some(own)) = (clocks.get(&reference.name), clocks.get(&host.name)) {
        let ahead = |clocks: &Clocks| i128::from(clocks.wall_ns) - i128::from(clocks.mono_ns);
        let apart = (ahead(theirs) - ahead(own) + i128::from(offset)).unsigned_abs();
        if apart > u128::from(APART_NS) {
            findings.push(Finding::bad(
                "clocks",
                Verdict::Warning,
                format!(
                    "its wall clock is {:.1} s off that of {}",
                    apart as f64 / 1e9,
                    reference.name
                ),
                "figures do not need it, but logs of several hosts will not fit together; install \
                 chrony",
            ));
        }
    }
    findings.into_iter().map(|finding| (host, finding)).collect()
}

/// The round trips, as a table.
pub(super) fn matrix(names: &[&str], links: &[Link]) -> String {
    if links.is_empty() {
        return String::new();
    }
    let mut heading = vec!["from \\ to"];
    heading.extend(names);
    let mut table = crate::standing::Table::new(&heading);
    for from in names {
        let cell = |to: &&str| {
            let link = links.iter().find(|link| link.from == *from && link.to == **to);
            let rtt = link.and_then(|link| link.rtt_us);
            rtt.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.0}"))
        };
        table.row(std::iter::once((*from).to_owned()).chain(names.iter().map(cell)).collect());
    }
    format!("\nround trips, us\n{table}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::inventory::Inventory;

    #[test]
    fn what_keeps_hosts_apart_is_told_apart() {
        let text = "[[host]]\nssh = \"10.0.0.1\"\n[[host]]\nssh = \"10.0.0.2\"\n";
        let inventory = Inventory::parse(Path::new("hosts.toml"), text).unwrap();
        let say = |knock: Knock| {
            let found =
                no_way(&knock, "TCP 5000", "peers", &inventory.hosts[0], &inventory.hosts[1]);
            found.map(|finding| finding.found)
        };
        assert_eq!(say(Knock::Open), None);
        let begin = "no way from node-1 to node-2, TCP 5000 (peers): ";
        for (knock, why) in [
            (Knock::Silent, "no answer at all"),
            (Knock::Refused, "refused, although"),
            (Knock::Failed { why: "no route".to_owned() }, "no route"),
        ] {
            let said = say(knock).unwrap();
            assert!(said.strip_prefix(begin).is_some_and(|rest| rest.starts_with(why)), "{said}");
        }
    }

    #[test]
    fn clocks_are_compared_with_those_of_the_first_host() {
        let text = "[[host]]\nssh = \"10.0.0.1\"\n[[host]]\nssh = \"10.0.0.2\"\n";
        let inventory = Inventory::parse(Path::new("hosts.toml"), text).unwrap();
        let [first, second] = &inventory.hosts[..] else { panic!("two hosts") };
        let link = |bound_ns| Link {
            from: second.name.clone(),
            to: first.name.clone(),
            open: Vec::new(),
            closed: Vec::new(),
            rtt_us: None,
            // The first host's clock is one second ahead.
            offset_ns: Some(1_000_000_000),
            bound_ns: Some(bound_ns),
        };
        let clocks = |apart: u64| {
            let first_clocks = Clocks { mono_ns: 6_000_000_000, wall_ns: 100_000_000_000 };
            let wall_ns = first_clocks.wall_ns + apart;
            let second_clocks = Clocks { mono_ns: 5_000_000_000, wall_ns };
            [(first.name.clone(), first_clocks), (second.name.clone(), second_clocks)].into()
        };
        let verdicts = |bound_ns, apart| {
            let found = compare(first, second, &[link(bound_ns)], &clocks(apart));
            found.into_iter().map(|(_, finding)| finding.verdict).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(50_000, 10_000_000), [Verdict::Ok]);
        assert_eq!(verdicts(2_000_000, 0), [Verdict::Warning]);
        assert_eq!(verdicts(50_000, 5_000_000_000), [Verdict::Ok, Verdict::Warning]);
    }
}
