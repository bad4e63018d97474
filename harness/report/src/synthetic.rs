//! Made-up runs, for tests of everything that is derived from a run.
//!
//! With `SRAFT_SYNTHETIC=DIR` in the environment the tests leave the runs in DIR, to be looked at.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sraft_events::Event;

use crate::{
    results::{
        Block, LogFacts, OPS_HEADER, Ops, Plan, PlannedVariant, Published, RunDir, Setting, Wish,
        WishedFigure,
    },
    script::{Course, Script},
};

/// How the trials of a variant go.
pub(crate) type Model = fn(&mut ChaCha8Rng) -> Course;

/// A whole run: `count` trials per variant and cell in blocks of `block`.
pub(crate) struct Synthetic {
    pub(crate) name: &'static str,
    pub(crate) variants: Vec<(&'static str, Model)>,
    pub(crate) cells: Vec<&'static str>,
    pub(crate) count: usize,
    pub(crate) block: usize,
    /// Only so many trials ran.
    pub(crate) stop_after: usize,
    /// What the report is asked for.
    pub(crate) wish: Option<Wish>,
    /// Whether somebody counts messages.
    pub(crate) messages: bool,
    /// Writes per second of a probe; 0 is none.
    pub(crate) probe: u64,
}

/// Where a run is left, and for how long.
pub(crate) struct Left {
    pub(crate) run: RunDir,
    _keep: Option<tempfile::TempDir>,
}

pub(crate) fn uniform(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * (f64::from(rng.random::<u32>()) / f64::from(u32::MAX))
}

pub(crate) fn raft(rng: &mut ChaCha8Rng) -> Course {
    let split = uniform(rng, 0.0, 1.0) < 0.15;
    let first = uniform(rng, 300.0, 550.0);
    let again = if split { uniform(rng, 300.0, 1000.0) } else { 0.0 };
    Course::Elected(
        first + again - uniform(rng, 0.0, 50.0),
        uniform(rng, 0.6, 1.4),
        uniform(rng, 0.7, 1.2),
    )
}

pub(crate) fn s_raft(rng: &mut ChaCha8Rng) -> Course {
    let detect = uniform(rng, 150.0, 200.0) - uniform(rng, 0.0, 50.0);
    Course::Promoted(detect, uniform(rng, 0.6, 1.4), uniform(rng, 0.7, 1.2))
}

pub(crate) fn fast(rng: &mut ChaCha8Rng) -> Course {
    let tail = if uniform(rng, 0.0, 1.0) < 0.03 { uniform(rng, 3.0, 12.0) } else { 0.0 };
    Course::Promoted(uniform(rng, 0.3, 1.2) + tail, uniform(rng, 0.6, 1.4), uniform(rng, 0.7, 1.2))
}

pub(crate) fn rough(rng: &mut ChaCha8Rng) -> Course {
    match (uniform(rng, 0.0, 1.0) * 20.0) as u32 {
        0 => Course::TimedOut,
        1 => Course::Torn(170.0, 1.0, 1.0),
        2 => Course::Spoiled,
        _ => raft(rng),
    }
}

/// Nobody stands against a leader whom the fault leaves in place.
pub(crate) fn calm(_: &mut ChaCha8Rng) -> Course {
    Course::Spared(0, false)
}

/// Now and then somebody does.
pub(crate) fn restless(rng: &mut ChaCha8Rng) -> Course {
    match (uniform(rng, 0.0, 1.0) * 8.0) as u32 {
        0 => Course::Spared(2, true),
        1 | 2 => Course::Spared(1, false),
        _ => Course::Spared(0, false),
    }
}

/// Election timeouts from a range of milliseconds, four survivors, a new round whenever the two
/// fastest lie closer together than a message takes.
pub(crate) fn range<const LOW: u32, const HIGH: u32>(rng: &mut ChaCha8Rng) -> Course {
    let (low, high) = (f64::from(LOW), f64::from(HIGH));
    let mut time = -uniform(rng, 0.0, low / 2.0);
    for _ in 0..200 {
        let mut drawn = [0.0; 4].map(|_: f64| uniform(rng, low, high));
        drawn.sort_by(f64::total_cmp);
        time += drawn[0];
        if drawn[1] - drawn[0] > uniform(rng, 0.0, low.min(15.0)) {
            break;
        }
    }
    Course::Elected(time.max(1.0), uniform(rng, 8.0, 16.0), uniform(rng, 8.0, 16.0))
}

/// The lines of both panels of figure 16, and S-Raft.
pub(crate) fn figure_16(name: &'static str) -> Synthetic {
    let variants: Vec<(&'static str, Model)> = vec![
        ("150-150", range::<150, 150>),
        ("150-151", range::<150, 151>),
        ("150-155", range::<150, 155>),
        ("150-175", range::<150, 175>),
        ("150-200", range::<150, 200>),
        ("150-300", range::<150, 300>),
        ("12-24", range::<12, 24>),
        ("25-50", range::<25, 50>),
        ("50-100", range::<50, 100>),
        ("100-200", range::<100, 200>),
        ("s-raft", s_raft),
    ];
    let panel = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let wish = Wish {
        figure: Some(WishedFigure::Announced),
        published: Some(Published::RaftFig16),
        panels: vec![
            panel(&["150-150", "150-151", "150-155", "150-175", "150-200", "150-300", "s-raft"]),
            panel(&["12-24", "25-50", "50-100", "100-200", "150-300", "s-raft"]),
        ],
    };
    Synthetic {
        name,
        variants,
        cells: vec![""],
        count: 200,
        block: 10,
        stop_after: usize::MAX,
        wish: Some(wish),
        messages: false,
        probe: 0,
    }
}

impl Synthetic {
    pub(crate) fn plan(&self) -> Plan {
        let mut blocks = Vec::new();
        let mut next = 1;
        for turn in 0..self.count.div_ceil(self.block) {
            for cell in &self.cells {
                for (variant, _) in &self.variants {
                    let size = self.block.min(self.count - turn * self.block) as u64;
                    blocks.push(Block {
                        block: blocks.len() as u32 + 1,
                        cell: (*cell).into(),
                        variant: (*variant).into(),
                        warmup: 0,
                        trials: (next..next + size).collect(),
                    });
                    next += size;
                }
            }
        }
        let size =
            |cell: &str| cell.strip_prefix("cluster.size=").and_then(|size| size.parse().ok());
        let setting = |cell: &&str, model: &(&str, Model)| Setting {
            cell: (*cell).into(),
            variant: model.0.into(),
            size: size(cell).filter(|_| self.messages).unwrap_or(5),
            sub_leaders: 2,
            // Two variants with the same model are an A/A pair.
            node: serde_json::json!({ "model": model.1 as usize }),
            log: LogFacts::WHOLE,
        };
        Plan {
            experiment: "leader-kill".into(),
            question: "How long is the cluster without a leader after kill -9?".into(),
            seed: 1,
            fault: "kill".into(),
            target: "leader".into(),
            timeout_ns: 10_000_000_000,
            cells: self.cells.iter().map(|cell| (*cell).into()).collect(),
            variants: self
                .variants
                .iter()
                .enumerate()
                .map(|(i, v)| PlannedVariant { name: v.0.into(), baseline: i == 0 })
                .collect(),
            settings: self
                .cells
                .iter()
                .flat_map(|cell| self.variants.iter().map(move |model| setting(cell, model)))
                .collect(),
            blocks,
            report: self.wish.clone(),
            attached: None,
        }
    }

    pub(crate) fn script(&self) -> Script {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut script = Script::default();
        let mut at = 0.0;
        let mut ran = 0;
        for block in &self.plan().blocks {
            let model = self.variants.iter().find(|v| v.0 == block.variant).unwrap().1;
            for number in &block.trials {
                if ran == self.stop_after {
                    return script;
                }
                let of = (block.cell.as_str(), block.variant.as_str(), block.block);
                let mut trial = Script::course(*number, at, of, 10_000.0, model(&mut rng));
                if self.messages {
                    let size = self.plan().size(&block.cell, &block.variant);
                    trial.count_messages((size as f64 * uniform(&mut rng, 4.0, 9.0)) as u64);
                }
                script.extend(trial);
                (at, ran) = (at + 20_000.0, ran + 1);
            }
        }
        script
    }

    /// What the probe of these trials would have written into `ops.csv`: 400 ms before the fault and
    /// until 600 ms after the new leader serves.
    pub(crate) fn ops(&self) -> Vec<String> {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut lines = Vec::new();
        let Some(step) = 1_000_000_000_u64.checked_div(self.probe) else { return lines };
        for trial in crate::timeline::trials(self.script().records()) {
            let at = |wanted: fn(&Event) -> bool| {
                trial.records.iter().find(|r| wanted(&r.event)).map(|r| r.mono_ns)
            };
            let Some(fault) = at(|e| matches!(e, Event::FaultApplied { .. })) else { continue };
            let ready = at(|e| matches!(e, Event::Ready { .. })).unwrap_or(fault + 10_000_000_000);
            let number = trial.number;
            let mut count = 0;
            let mut intended = fault.saturating_sub(400_000_000) + rng.random_range(0..step);
            while intended < ready + 600_000_000 {
                let took = rng.random_range(900_000..2_200_000);
                let served = if intended + took < fault { intended } else { intended.max(ready) };
                // A deadline of a second.
                let known = served + took < intended + 1_000_000_000;
                let end = if known { served + took } else { intended + 1_000_000_000 };
                let outcome = if known { "ok" } else { "unknown" };
                count += 1;
                lines.push(format!(
                    "{number},put,w/{number}/{count},v{count},,{intended},{intended},{end},\
                     {outcome},,,127.0.0.1:2379,"
                ));
                intended += step;
            }
            lines.push(format!(
                "{number},audit,,{count},,,,{},ok,,,127.0.0.1:2379,",
                ready + 700_000_000
            ));
        }
        lines
    }

    pub(crate) fn read_ops(&self) -> Ops {
        let lines = [OPS_HEADER.join(",")].into_iter().chain(self.ops());
        let text: String = lines.map(|line| line + "\n").collect();
        let all = self.plan().blocks.iter().flat_map(|block| block.trials.clone()).collect();
        Ops::parse(std::path::Path::new("ops.csv"), text.as_bytes(), &all).unwrap()
    }

    /// Writes the run as a harness would.
    pub(crate) fn write(&self) -> Left {
        let keep = std::env::var_os("SRAFT_SYNTHETIC");
        let temporary = keep.is_none().then(|| tempfile::tempdir().unwrap());
        let out = match (&keep, &temporary) {
            (Some(dir), _) => std::path::PathBuf::from(dir),
            (None, Some(dir)) => dir.path().to_owned(),
            (None, None) => unreachable!("one of them is there"),
        };
        if keep.is_some() {
            for kind in ["results", "plots"] {
                let _ = std::fs::remove_dir_all(out.join(kind).join("leader-kill").join(self.name));
            }
        }
        let run = RunDir::create(&out, "leader-kill", self.name).unwrap();
        run.write_plan(&self.plan()).unwrap();
        run.append_trial(&self.script().lines(), &self.ops(), None).unwrap();
        Left { run, _keep: temporary }
    }
}
