//! Trials whose fault leaves the leader in place: does the cluster keep it?

use std::fmt::Write;

use super::{digest::GroupDigest, tables};
use crate::groups::Stability;

/// The table of it; the first row is the head, the first column the cell.
pub(super) fn rows(groups: &[GroupDigest]) -> Vec<Vec<String>> {
    let head =
        ["cell", "variant", "n", "in place", "contested", "replaced", "campaigns", "terms used"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (group, stability) in groups.iter().filter_map(|group| Some((group, group.stability?))) {
        let mut row = vec![group.cell.clone(), group.variant.clone()];
        let trials =
            [stability.trials, stability.in_place(), stability.contested, stability.replaced];
        row.extend(trials.map(|count| count.to_string()));
        row.extend([stability.campaigns, stability.terms].map(|count| count.to_string()));
        rows.push(row);
    }
    rows
}

/// The same for the terminal.
pub(super) fn terminal(groups: &[GroupDigest]) -> String {
    let mut text = "trials whose fault leaves the leader in place\n".to_owned();
    let mut rows = rows(groups);
    rows[0][1].clear();
    let cells: Vec<String> = rows.iter_mut().map(|row| row.remove(0)).collect();
    let mut cell = "";
    for (nth, line) in tables::aligned(&rows).into_iter().enumerate() {
        if nth > 0 && cells[nth] != cell {
            cell = &cells[nth];
            let _ = writeln!(text, "{cell}");
        }
        text += &line;
    }
    text += "contested: somebody stood all the same, in vain; replaced: somebody else led\n";
    text
}

/// Two variants of a cell, in a sentence.
pub(super) fn sentence((a, first): (&str, Stability), (b, second): (&str, Stability)) -> String {
    let terms = |count: u64| if count == 1 { "term" } else { "terms" };
    format!(
        "the fault leaves the leader in place: {a} replaced it all the same in {} of {} trials \
         ({} {} used), {b} in {} of {} ({} {})",
        first.replaced,
        first.trials,
        first.terms,
        terms(first.terms),
        second.replaced,
        second.trials,
        second.terms,
        terms(second.terms)
    )
}
