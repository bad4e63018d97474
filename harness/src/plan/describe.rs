//! The plan for a human.

use std::time::Duration;

use sraft_core::{Detector, Protocol, Span, TimeoutRange};
use sraft_report::results::Block;

use super::RunPlan;
use crate::fault::list;

/// `sraft plan`: the plan for a human.
pub(crate) fn describe(run: &RunPlan) -> String {
    use std::fmt::Write as _;
    let plan = &run.plan;
    let mut text = format!("{}: {} {}\n", plan.experiment, plan.fault, plan.target);
    if !plan.question.is_empty() {
        text = format!("{text}{}\n", plan.question);
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
            "  {name}: {count} trials in {} blocks; {} nodes, heartbeat {}, timeout {plain}{}, \
             detector {}",
            blocks.len(),
            setting.size,
            Span(timing.heartbeat),
            if ranks.is_empty() { String::new() } else { format!(", ranks {}", list(&ranks)) },
            detector(timing.detector),
        );
        let fault = launch.fault;
        let detect = match launch.sub_leaders {
            // The shortest of n uniform draws is a share of 1 / (n + 1) into the range.
            0 => plain.min + plain.width() / launch.size,
            _ => timing.rank_timeout.min + timing.rank_timeout.width() / 2,
        };
        let pause = if fault.kind.ends_processes() { Duration::ZERO } else { fault.duration };
        let trial = detect.max(pause) + REST_OF_A_TRIAL;
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
    text
}

fn detector(detector: Detector) -> &'static str {
    match detector {
        Detector::Silence => "silence",
        Detector::Connection => "connection",
    }
}

/// Rough costs on a machine with two cores, for the estimate only.
const REST_OF_A_TRIAL: Duration = Duration::from_millis(100);
const START_OF_A_CLUSTER: Duration = Duration::from_millis(1000);
