use serde::Serialize;
use sraft_events::{NodeId, Term};

use super::{Audited, TrialWrites};

/// What the names of drawings begin with.
pub const DRAWING: &str = "violation-";

/// A key as part of a file's name.
pub fn file_name(key: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '-' };
    key.chars().map(fits).take(100).collect()
}

/// A verdict in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// The history can be explained.
    Linearizable,
    /// It cannot.
    NotLinearizable,
    /// The budget ended before that was known, or a violation stands before it.
    Undecided,
}

impl Judgement {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Judgement::Linearizable => "linearizable",
            Judgement::NotLinearizable => "not-linearizable",
            Judgement::Undecided => "undecided",
        }
    }
}

/// The safety verdicts of a run; `check.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunCheck {
    /// Whether nothing was violated. What could not be checked or decided does no harm here.
    pub passed: bool,
    /// Leaders per term.
    pub leaders: Leaders,
    /// Writes to keys of their own; empty without a probe.
    pub writes: Option<Writes>,
    /// Every history of a key; empty without a probe.
    pub histories: Option<Vec<History>>,
    /// Every trial that counts, in the order in which they ran.
    pub trials: Vec<Trial>,
    /// Name and content of the drawings of what could not be explained.
    #[serde(skip)]
    pub drawings: Vec<(String, String)>,
}

/// How many leaders terms had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leaders {
    /// Most that any term had, warm-ups included; more than 1 breaks Raft.
    pub most_per_term: usize,
    /// Terms that had more than one.
    pub violations: Vec<TwoLeaders>,
}

/// A term with more than one leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TwoLeaders {
    /// The trial; 0 for a warm-up.
    pub trial: u64,
    /// The term.
    pub term: Term,
    /// Its leaders.
    pub leaders: Vec<NodeId>,
}

/// The writes of all trials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Writes {
    /// Trials whose audit came to its end.
    pub audited: u64,
    /// Trials without one: nothing is known of their writes.
    pub not_audited: u64,
    /// Acknowledged writes in audited trials.
    pub acknowledged: u64,
    /// Of these, those that were not there in the end; must be 0.
    pub lost: u64,
    /// Writes in audited trials that had certainly failed and were there; must be 0.
    pub undead: u64,
}

/// The history of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct History {
    /// The cluster, counted from 1 in the order in which they were started.
    pub cluster: usize,
    /// Its matrix cell; empty without a matrix.
    pub cell: String,
    /// Its variant.
    pub variant: String,
    /// The key.
    pub key: String,
    /// First and last trial of the history.
    pub trials: (u64, u64),
    /// Its operations, those of unknown outcome included.
    pub operations: usize,
    /// Operations of unknown outcome.
    pub unknown: usize,
    /// Whether it can be explained.
    pub verdict: Judgement,
    /// Up to which trial that is known; the trial of the violation, if there is one.
    pub until: u64,
    /// What happened, if the history cannot be explained.
    pub violation: Option<String>,
    /// The file with its drawing.
    pub drawing: Option<String>,
}

/// The verdicts on one trial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// Its number.
    pub trial: u64,
    /// Its matrix cell; empty without a matrix.
    pub cell: String,
    /// Its variant.
    pub variant: String,
    /// Its cluster.
    pub cluster: usize,
    /// Most leaders that any term had.
    pub most_leaders_per_term: usize,
    /// Its writes; empty without operations.
    pub writes: Option<TrialWrites>,
    /// Whether its part of every history can be explained; empty without histories.
    pub linearizable: Option<Judgement>,
    /// Terms with several leaders.
    #[serde(skip)]
    pub(super) two_leaders: Vec<(Term, Vec<NodeId>)>,
}

impl Trial {
    pub(super) fn begun(trial: u64, cell: &str, variant: &str, cluster: usize) -> Trial {
        Trial {
            trial,
            cell: cell.to_owned(),
            variant: variant.to_owned(),
            cluster,
            most_leaders_per_term: 0,
            writes: None,
            linearizable: None,
            two_leaders: Vec::new(),
        }
    }
}

impl RunCheck {
    /// What is known before histories are.
    pub(super) fn of(trials: Vec<Trial>, probed: bool) -> RunCheck {
        let most_per_term = trials.iter().map(|trial| trial.most_leaders_per_term).max();
        let violations: Vec<TwoLeaders> = trials
            .iter()
            .flat_map(|trial| trial.two_leaders.iter().map(|two| (trial.trial, two.clone())))
            .map(|(trial, (term, leaders))| TwoLeaders { trial, term, leaders })
            .collect();
        let trials: Vec<Trial> = trials.into_iter().filter(|trial| trial.trial > 0).collect();
        let mut writes = Writes::default();
        for trial in trials.iter().filter(|_| probed) {
            let Some(TrialWrites { acknowledged, audit: Some(audit) }) = trial.writes else {
                writes.not_audited += 1;
                continue;
            };
            let Audited { lost, undead } = audit;
            writes.audited += 1;
            writes.acknowledged += acknowledged;
            writes.lost += lost;
            writes.undead += undead;
        }
        RunCheck {
            passed: violations.is_empty() && writes.lost == 0 && writes.undead == 0,
            leaders: Leaders { most_per_term: most_per_term.unwrap_or(0), violations },
            writes: probed.then_some(writes),
            histories: probed.then(Vec::new),
            trials,
            drawings: Vec::new(),
        }
    }

    /// Takes up the history of a key in the trials `of` of a cluster.
    pub(super) fn add(
        &mut self,
        cluster: usize,
        of: &[u64],
        mut history: History,
        drawing: Option<String>,
    ) {
        self.passed &= history.verdict != Judgement::NotLinearizable;
        let at = |trial: u64| of.iter().position(|of| *of == trial);
        let (first, last) = (at(history.trials.0), at(history.trials.1));
        let until = at(history.until);
        for trial in self.trials.iter_mut().filter(|trial| trial.cluster == cluster) {
            let place = at(trial.trial);
            if place < first || place > last {
                continue;
            }
            let own = match history.verdict {
                Judgement::Linearizable => Judgement::Linearizable,
                _ if place < until => Judgement::Linearizable,
                verdict => verdict,
            };
            let worst = |a: Judgement, b: Judgement| if rank(a) >= rank(b) { a } else { b };
            trial.linearizable = Some(trial.linearizable.map_or(own, |known| worst(known, own)));
        }
        if let Some(drawing) = drawing {
            let key = file_name(&history.key);
            let name = format!("{DRAWING}{}-{key}.svg", history.until);
            self.drawings.push((name.clone(), drawing));
            history.drawing = Some(name);
        }
        self.histories.get_or_insert_default().push(history);
    }

    /// Histories with this verdict.
    pub fn count(&self, verdict: Judgement) -> usize {
        self.histories.iter().flatten().filter(|history| history.verdict == verdict).count()
    }
}

fn rank(judgement: Judgement) -> u8 {
    match judgement {
        Judgement::Linearizable => 0,
        Judgement::Undecided => 1,
        Judgement::NotLinearizable => 2,
    }
}
