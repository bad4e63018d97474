//! The plan for a human.

use std::time::Duration;

use sraft_core::{Detector, Protocol, Span, TimeoutRange};
use sraft_report::results::Block;

use super::{Backend, Probe, RunPlan, power};
use crate::fault::list;

/// `sraft plan`: the plan for a human.
pub(crate) fn describe(run: &RunPlan) -> String {
    use std::fmt::Write as _;
    let plan = &run.plan;
    let mut text = format!("{}: {} {}\n", plan.experiment, plan.fault, plan.target);
    if !plan.question.is_empty() {
        text = format!("{text}{}\n", plan.question);
    }
    if let Some(place) = &run.place {
        let _ = writeln!(text, "{place}");
    }
    let trials: usize = plan.blocks.iter().map(|block| block.trials.len()).sum();
    let warmups: u32 = plan.blocks.iter().map(|block| block.warmup).sum();
    let mut expected = Duration::ZERO;
    for setting in &plan.settings {
        let launch = run.launch(&setting.cell, &setting.variant);
        let timing = &launch.timing;
        let ranks: Vec<String> = (0..launch.sub_leaders)
            .map(|rank| TimeoutRange {
                min: timing.rank_timeout.min + timing.rank_step.min * rank,
                max: timing.rank_timeout.max + timing.rank_step.max * rank,
            })
            .map(|range| range.to_string())
            .collect();
        let plain = match launch.protocol {
            Protocol::Raft => timing.election_timeout,
            Protocol::SRaft => timing.follower_timeout,
        };
        let ours = |block: &&Block| block.cell == setting.cell && block.variant == setting.variant;
        let blocks: Vec<&Block> = plan.blocks.iter().filter(ours).collect();
        let count: usize = blocks.iter().map(|block| block.trials.len()).sum();
        let name = if setting.cell.is_empty() {
            setting.variant.clone()
        } else {
            format!("{} ({})", setting.variant, setting.cell)
        };
        let _ = writeln!(
            text,
            "  {name}: {count} trials in {} blocks; {} {}nodes, heartbeat {}, timeout {plain}{}, \
             detector {}{}",
            blocks.len(),
            setting.size,
            match launch.system.only() {
                Some(_) => format!("{} ", launch.system.name()),
                None => String::new(),
            },
            Span(timing.heartbeat),
            if ranks.is_empty() { String::new() } else { format!(", ranks {}", list(&ranks)) },
            detector(timing.detector),
            launch.probe.as_ref().map(probe).unwrap_or_default(),
        );
        let fault = &launch.fault;
        let detect = match launch.sub_leaders {
            // The shortest of n uniform draws is a share of 1 / (n + 1) into the range.
            0 => plain.min + plain.width() / launch.size,
            _ => timing.rank_timeout.min + timing.rank_timeout.width() / 2,
        };
        if run.backend == Backend::Sim {
            let each = count + blocks.iter().map(|b| b.warmup as usize).sum::<usize>();
            expected += simulated(launch.size) * each as u32;
            continue;
        }
        let pause = if fault.kind.ends_processes() { Duration::ZERO } else { fault.duration };
        let probed = launch.probe.map(|probe| (probe.before, probe.after));
        let (before, after) = probed.unwrap_or_default();
        let trial = before + detect.max(pause).max(after) + REST_OF_A_TRIAL;
        let each = (count + blocks.iter().map(|b| b.warmup as usize).sum::<usize>()) as u32;
        expected += trial * each + START_OF_A_CLUSTER * blocks.len() as u32;
    }
    let _ = writeln!(
        text,
        "{trials} trials and {warmups} warm-ups in {} interleaved blocks, seed {}; about {}",
        plan.blocks.len(),
        plan.seed,
        Span(Duration::from_secs(expected.as_secs().max(1))),
    );
    text + &detectable(run)
}

/// The smallest differences that this many trials can be expected to show.
fn detectable(run: &RunPlan) -> String {
    let plan = &run.plan;
    let Some(base) = plan.variants.iter().find(|variant| variant.baseline) else {
        return String::new();
    };
    let count = |cell: &str, variant: &str| -> usize {
        let ours = plan.blocks.iter().filter(|b| b.cell == cell && b.variant == variant);
        ours.map(|block| block.trials.len()).sum()
    };
    let mut parts = Vec::new();
    for setting in plan.settings.iter().filter(|setting| setting.variant != base.name) {
        let (cell, variant) = (&setting.cell, &setting.variant);
        let sides = [
            (run.launch(cell, variant), count(cell, variant)),
            (run.launch(cell, &base.name), count(cell, &base.name)),
        ];
        if let Some(difference) = power::detectable(sides, plan.seed) {
            let place = if cell.is_empty() { String::new() } else { format!(" ({cell})") };
            let ms = difference.as_secs_f64() * 1e3;
            parts.push(format!("{variant}{place} {ms:.0} ms"));
        }
    }
    if parts.is_empty() {
        return String::new();
    }
    format!(
        "a difference of medians from {} shows in about so many milliseconds or more (4 times \
         of 5, at the 5 % level): {}\n",
        base.name,
        parts.join(", ")
    )
}

/// `; probe of 200 operations/s, 10 % reads`
fn probe(probe: &Probe) -> String {
    let mut text = format!("; probe of {} operations/s", probe.rate);
    for (share, what) in [(probe.reads, "reads"), (probe.cas, "compare-and-sets")] {
        if share > 0.0 {
            text += &format!(", {} % {what}", (share * 100.0).round());
        }
    }
    text
}

fn detector(detector: Detector) -> &'static str {
    match detector {
        Detector::Silence => "silence",
        Detector::Connection => "connection",
    }
}

/// What a simulated trial takes of one core: every node talks with every other.
fn simulated(size: u32) -> Duration {
    Duration::from_micros(200) + Duration::from_micros(5) * (size * size)
}

/// Rough costs on a machine with two cores, for the estimate only.
const REST_OF_A_TRIAL: Duration = Duration::from_millis(100);
const START_OF_A_CLUSTER: Duration = Duration::from_millis(1000);
