//! `sraft doctor`: what could keep an experiment from working on the hosts of an inventory, and what
//! to do about it.
//!
//! Every host is looked at by itself ([`keeper::health`](crate::keeper::health)), then every pair of
//! them by way of agents ([`pairs`]). All of it has deadlines.

mod envoy;
mod pairs;

use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde::Serialize;

use crate::{
    host::ssh::{Target, for_all},
    inventory::Host,
    keeper::{
        Answer, Request,
        health::{Finding, Health, Questions, Verdict},
    },
    standing::{Hosts, HostsArgs, Table, ask},
};

/// How long the look at a host may take.
const EXAMINED_WITHIN: Duration = Duration::from_secs(45);

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    hosts: HostsArgs,
    /// Remove what earlier runs have left on the hosts
    #[arg(long)]
    clean: bool,
    /// Write what was found as JSON
    #[arg(long)]
    json: bool,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Examination {
    /// The worst of it.
    verdict: Verdict,
    findings: Vec<Located>,
    links: Vec<pairs::Link>,
}

/// A finding and where it was made.
#[derive(Debug, Serialize)]
struct Located {
    host: String,
    #[serde(flatten)]
    finding: Finding,
}

/// A host that lets us in.
struct Patient<'a> {
    host: &'a Host,
    target: Target,
    health: Health,
}

/// `sraft doctor`.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let hosts = args.hosts.read()?;
    let meant = hosts.meant();
    let mut findings: Vec<Located> = Vec::new();
    let mut patients = Vec::new();
    let examined = for_all(&meant, |host| examine(&hosts, host, args.clean));
    for (host, (found, patient)) in meant.iter().zip(examined) {
        findings.extend(found.into_iter().map(|finding| located(host, finding)));
        patients.extend(patient);
    }
    let (between, links) = pairs::examine(&patients);
    findings.extend(between.into_iter().map(|(host, finding)| located(host, finding)));
    let place = |of: &Located| meant.iter().position(|host| host.name == of.host);
    findings.sort_by_key(place); // stable: what belongs to a host stays in order
    let worst = findings.iter().map(|located| located.finding.verdict).max();
    let examination = Examination { verdict: worst.unwrap_or(Verdict::Ok), findings, links };
    match args.json {
        true => crate::say(&(serde_json::to_string_pretty(&examination)? + "\n"))?,
        false => crate::say(&describe(&examination, &patients))?,
    }
    Ok(match examination.verdict {
        Verdict::Problem => ExitCode::FAILURE,
        Verdict::Ok | Verdict::Warning => ExitCode::SUCCESS,
    })
}

fn located(host: &Host, finding: Finding) -> Located {
    Located { host: host.name.clone(), finding }
}

/// Looks at a host by itself.
fn examine<'a>(hosts: &Hosts, host: &'a Host, clean: bool) -> (Vec<Finding>, Option<Patient<'a>>) {
    // All that can go wrong on the way is said by the way itself.
    let target = match hosts.reach(host, true) {
        Ok(target) => target,
        Err(error) => {
            let text = error.kind.to_string();
            return (vec![Finding::error("login", Verdict::Problem, &text)], None);
        }
    };
    let mut findings = vec![Finding::ok("login", target.who())];
    let program = if target.sent { "was sent" } else { "was there" };
    findings.push(Finding::ok("program", format!("{program}, and runs there")));
    let other = hosts.inventory.hosts.iter().find(|other| other.node != host.node);
    let questions = Request::Health(Questions {
        dir: target.survey.dir.clone().into(),
        addr: host.addr.clone(),
        other: other.map(|other| other.addr.clone()),
        clean,
        boot: sraft_agent::boot_id().ok(),
    });
    match ask(&target, "looking at the host", &questions, EXAMINED_WITHIN) {
        Ok(Answer::Health(health)) => {
            findings.extend(health.findings.iter().cloned());
            (findings, Some(Patient { host, target, health: *health }))
        }
        Ok(other) => {
            let text = format!("the host answered something else: {other:?}");
            findings.push(Finding::error("host", Verdict::Problem, &text));
            (findings, None)
        }
        Err(why) => {
            findings.push(Finding::error("host", Verdict::Problem, &why));
            (findings, None)
        }
    }
}

/// The findings for a human.
fn describe(examination: &Examination, patients: &[Patient<'_>]) -> String {
    let mut table = Table::new(&["", "host", "check", "found"]);
    for Located { host, finding } in &examination.findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "PROBLEM",
        };
        let cells = [verdict, host, &finding.check, &finding.found];
        table.row(cells.map(str::to_owned).to_vec());
        if let Some(remedy) = &finding.remedy {
            table.row(["", "", "", &format!("-> {remedy}")].map(str::to_owned).to_vec());
        }
    }
    let mut text = table.to_string();
    let names: Vec<&str> = patients.iter().map(|patient| patient.host.name.as_str()).collect();
    text.push_str(&pairs::matrix(&names, &examination.links));
    let count = |verdict| {
        examination.findings.iter().filter(|located| located.finding.verdict == verdict).count()
    };
    let (problems, warnings) = (count(Verdict::Problem), count(Verdict::Warning));
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    text.push_str(&format!(
        "\n{problems} problem{}, {warnings} warning{}\n",
        plural(problems),
        plural(warnings)
    ));
    text
}
