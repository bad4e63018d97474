//! Who took over from whom.

use std::collections::BTreeMap;

use serde::Serialize;
use sraft_events::{CampaignKind, NodeId};

use super::digest::GroupDigest;
use crate::groups::Group;

/// One way in which leadership passed in the trials of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Takeover {
    /// The node that led before.
    pub from: NodeId,
    /// The node that leads afterwards.
    pub to: NodeId,
    /// By what kind of campaign.
    pub by: CampaignKind,
    /// The rank of a promotion.
    pub rank: Option<u32>,
    /// In how many trials.
    pub trials: usize,
}

/// The takeovers of a group, the most frequent first.
pub(super) fn all(group: &Group<'_>) -> Vec<Takeover> {
    let mut found = BTreeMap::new();
    for row in group.rows.iter().filter(|row| row.counts()) {
        if let (Some(to), Some(by)) = (row.new_leader, row.passed_by) {
            *found.entry((row.old_leader, to, by, row.rank)).or_insert(0) += 1;
        }
    }
    let takeover = |((from, to, by, rank), trials)| Takeover { from, to, by, rank, trials };
    let mut found: Vec<Takeover> = found.into_iter().map(takeover).collect();
    // Stable: equally frequent ones stay in the order of the nodes.
    found.sort_by_key(|takeover| std::cmp::Reverse(takeover.trials));
    found
}

/// Most new leaders that a row names.
const NAMED: usize = 6;

/// The table of them; the first row is the head, the first column the cell.
pub(super) fn rows(groups: &[GroupDigest]) -> Vec<Vec<String>> {
    let mut rows =
        vec![["cell", "variant", "old leader", "new leader"].map(str::to_owned).to_vec()];
    for group in groups {
        let mut old: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut new: BTreeMap<(NodeId, String), usize> = BTreeMap::new();
        for takeover in &group.takeovers {
            let by = match (takeover.by, takeover.rank) {
                (CampaignKind::Promotion, rank) => format!("P{}", rank.unwrap_or(0)),
                (CampaignKind::Election, _) => "E".to_owned(),
                (CampaignKind::Transfer, _) => "H".to_owned(),
            };
            *old.entry(takeover.from).or_insert(0) += takeover.trials;
            *new.entry((takeover.to, by)).or_insert(0) += takeover.trials;
        }
        let name = |node: NodeId| match group.regions.get(&node) {
            Some(region) => format!("node {node} ({region})"),
            None => format!("node {node}"),
        };
        let old = old.into_iter().map(|(node, count)| (name(node), count)).collect();
        let new =
            new.into_iter().map(|((node, by), n)| (format!("{} {by}", name(node)), n)).collect();
        rows.push(vec![
            group.cell.clone(),
            group.variant.clone(),
            most_frequent(old),
            most_frequent(new),
        ]);
    }
    rows
}

/// `node 2 P0 × 812, node 3 E × 4`: the most frequent first; what is rarer is only counted.
fn most_frequent(mut counts: Vec<(String, usize)>) -> String {
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let rest: usize = counts.iter().skip(NAMED).map(|(_, count)| count).sum();
    let others = counts.len().saturating_sub(NAMED);
    let mut parts: Vec<String> =
        counts.iter().take(NAMED).map(|(name, count)| format!("{name} × {count}")).collect();
    if others > 0 {
        parts.push(format!("{others} others × {rest}"));
    }
    if parts.is_empty() { "–".into() } else { parts.join(", ") }
}
