//! Little event scripts, for tests: who saw what, when (milliseconds).

use std::collections::BTreeMap;

use sraft_events::{CampaignKind, Event, Evidence, FaultAction, Record, Refusal, Source, Verdict};

use crate::results::{Block, LogFacts, Plan, PlannedVariant, Setting};

/// Records as they would stand in `events.jsonl`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    records: Vec<Record>,
    seq: BTreeMap<Source, u64>,
}

/// 2026-01-01T00:00:00Z.
const EPOCH: u64 = 1_767_225_600_000_000_000;

impl Script {
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.records.iter().map(|record| serde_json::to_string(record).unwrap()).collect()
    }

    pub(crate) fn extend(&mut self, other: Script) {
        for record in other.records {
            self.put(record.source, record.mono_ns, record.event);
        }
    }

    pub(crate) fn put(&mut self, source: Source, mono_ns: u64, event: Event) {
        let seq = self.seq.entry(source.clone()).or_insert(0);
        let record = Record { source, seq: *seq, mono_ns, wall_ns: EPOCH + mono_ns, event };
        *seq += 1;
        self.records.push(record);
    }

    /// Somebody has counted the messages of the trial that ends this script.
    pub(crate) fn count_messages(&mut self, count: u64) {
        if let Some(Event::TrialEnded { messages, .. }) =
            self.records.last_mut().map(|record| &mut record.event)
        {
            *messages = Some(count);
        }
    }

    pub(crate) fn node(mut self, id: u64, ms: f64, event: Event) -> Script {
        self.put(Source::Node(id), ns(ms), event);
        self
    }

    pub(crate) fn agent(mut self, ms: f64, event: Event) -> Script {
        self.put(Source::Agent("local".into()), ns(ms), event);
        self
    }

    pub(crate) fn harness(mut self, ms: f64, event: Event) -> Script {
        self.put(Source::Harness, ns(ms), event);
        self
    }

    /// A trial of the variant `s-raft` begins: node 1 leads in term 1, 2 and 3 are its sub-leaders.
    pub(crate) fn begin(trial: u64, ms: f64) -> Script {
        Script::default().begins(trial, ms, "s-raft", 1)
    }

    pub(crate) fn begins(self, trial: u64, ms: f64, variant: &str, block: u32) -> Script {
        let event = Event::TrialStarted {
            trial,
            warmup: trial == 0,
            cell: String::new(),
            variant: variant.into(),
            block,
            fault: "kill".into(),
            target: "leader".into(),
            leader: 1,
            term: 1,
            ranks: vec![2, 3],
            victims: vec![1],
        };
        self.harness(ms, event)
    }

    pub(crate) fn kill(self, ms: f64) -> Script {
        let event = Event::FaultApplied { node: 1, pid: 100, action: FaultAction::Kill };
        self.agent(ms, event)
    }

    pub(crate) fn end(self, trial: u64, ms: f64, verdict: Verdict) -> Script {
        let restored = (verdict == Verdict::Ok).then_some(ns(ms - 1.0));
        let event = Event::TrialEnded {
            trial,
            verdict,
            reason: None,
            restored_mono_ns: restored,
            messages: None,
        };
        self.harness(ms, event)
    }

    /// Node 1 is killed 10 ms after `at`; node 2, the Primary, leads `leaderless` ms later.
    pub(crate) fn promotion(trial: u64, at: u64, leaderless: u64) -> Script {
        let fault = at as f64 + 10.0;
        let elected = fault + leaderless as f64;
        let (campaign, evidence) = (CampaignKind::Promotion, Evidence::Silence);
        Script::begin(trial, at as f64)
            .kill(fault)
            .agent(
                fault + 0.5,
                Event::ProcessExited { node: 1, pid: 100, code: None, signal: Some(9) },
            )
            .node(2, elected - 2.0, Event::Suspected { leader: Some(1), term: 1, evidence })
            .node(
                2,
                elected - 1.5,
                Event::CampaignStarted { term: 2, campaign, rank: Some(0), evidence },
            )
            .node(
                2,
                elected - 0.5,
                Event::VoteReceived {
                    voter: 5,
                    term: 2,
                    pre_vote: false,
                    refusal: Some(Refusal::LogBehind),
                },
            )
            .node(2, elected, Event::Elected { term: 2, campaign, rank: Some(0), votes: 3 })
            .node(3, elected + 0.25, Event::LeaderAccepted { leader: 2, term: 2 })
            .node(4, elected + 0.5, Event::LeaderAccepted { leader: 2, term: 2 })
            .node(5, elected + 0.75, Event::LeaderAccepted { leader: 2, term: 2 })
            .node(2, elected + 1.25, Event::Ready { term: 2, index: 9 })
            .end(trial, elected + 300.0, Verdict::Ok)
    }
}

/// How a made-up trial goes; milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Course {
    /// The Primary leads after detecting, promoting and committing for this long.
    Promoted(f64, f64, f64),
    /// Another node leads, by election.
    Elected(f64, f64, f64),
    /// Nobody leads before the time-out.
    TimedOut,
    /// As `Promoted`, but two nodes lead in the term.
    Torn(f64, f64, f64),
    /// The leader changed before the fault.
    Spoiled,
    /// The fault leaves the leader in place; so many others stand all the same, and the last of them
    /// wins if so.
    Spared(u64, bool),
}

impl Script {
    /// A trial of any cell and variant, beginning at `at` milliseconds.
    pub(crate) fn course(
        number: u64,
        at: f64,
        (cell, variant, block): (&str, &str, u32),
        timeout_ms: f64,
        course: Course,
    ) -> Script {
        let mut script = Script::default().begins(number, at, variant, block);
        if let Some(Event::TrialStarted { cell: name, .. }) =
            script.records.last_mut().map(|r| &mut r.event)
        {
            *name = cell.into();
        }
        let fault = at + 10.0;
        let end = fault + timeout_ms;
        let (detect, promote, commit, campaign, rank) = match course {
            Course::Promoted(d, p, c) | Course::Torn(d, p, c) => {
                (d, p, c, CampaignKind::Promotion, Some(0))
            }
            Course::Elected(d, p, c) => (d, p, c, CampaignKind::Election, None),
            Course::TimedOut => return script.kill(fault).end(number, end, Verdict::Censored),
            Course::Spared(stand, wins) => return script.spared(number, fault, stand, wins),
            Course::Spoiled => return script.end(number, fault, Verdict::Invalid),
        };
        let (evidence, stood) = (Evidence::Silence, fault + detect);
        let won = stood + promote;
        let (exit, ready) = (fault + 0.4, won + commit);
        let mut script = script
            .kill(fault)
            .agent(exit, Event::ProcessExited { node: 1, pid: 1, code: None, signal: Some(9) })
            .node(2, stood, Event::Suspected { leader: Some(1), term: 1, evidence })
            .node(2, stood, Event::CampaignStarted { term: 2, campaign, rank, evidence })
            .node(2, won, Event::Elected { term: 2, campaign, rank, votes: 3 });
        for id in 3..=5 {
            let event = Event::LeaderAccepted { leader: 2, term: 2 };
            script = script.node(id, won + 0.1 * id as f64, event);
        }
        if matches!(course, Course::Torn(..)) {
            script = script.node(4, won + 1.0, Event::LeaderAccepted { leader: 5, term: 2 });
        }
        script.node(2, ready, Event::Ready { term: 2, index: 9 }).end(
            number,
            ready + 250.0,
            Verdict::Ok,
        )
    }
}

impl Script {
    fn spared(self, number: u64, fault: f64, stand: u64, wins: bool) -> Script {
        let struck = |action| Event::FaultApplied { node: 1, pid: 1, action };
        let (campaign, evidence) = (CampaignKind::Election, Evidence::Silence);
        let mut script = self.agent(fault, struck(FaultAction::Link));
        for nth in 0..stand {
            let (at, term) = (fault + 200.0 * (nth + 1) as f64, nth + 2);
            let stands = Event::CampaignStarted { term, campaign, rank: None, evidence };
            script = script.node(2, at, stands);
            if wins && nth + 1 == stand {
                script = script
                    .node(2, at + 1.0, Event::Elected { term, campaign, rank: None, votes: 3 })
                    .node(2, at + 2.0, Event::Ready { term, index: 9 });
            }
        }
        let script = script.agent(fault + 2000.0, struck(FaultAction::Heal));
        script.end(number, fault + 2100.0, Verdict::Ok)
    }
}

pub(crate) fn ns(ms: f64) -> u64 {
    (ms * 1e6).round() as u64
}

/// Two variants, five nodes, no matrix.
pub(crate) fn plan() -> Plan {
    let setting = |variant: &str, sub_leaders| Setting {
        cell: String::new(),
        variant: variant.into(),
        size: 5,
        sub_leaders,
        node: serde_json::json!({ "protocol": variant }),
        log: LogFacts::WHOLE,
    };
    Plan {
        experiment: "leader-kill".into(),
        question: "How long is the cluster without a leader?".into(),
        seed: 1,
        fault: "kill".into(),
        target: "leader".into(),
        timeout_ns: 10_000_000_000,
        cells: vec![String::new()],
        variants: vec![
            PlannedVariant { name: "raft".into(), baseline: true },
            PlannedVariant { name: "s-raft".into(), baseline: false },
        ],
        settings: vec![setting("raft", 0), setting("s-raft", 2)],
        blocks: vec![Block {
            block: 1,
            cell: String::new(),
            variant: "s-raft".into(),
            warmup: 1,
            trials: vec![1, 2],
        }],
        report: None,
        attached: None,
    }
}
