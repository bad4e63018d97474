//! The numbers of a run as tables: for the terminal, as CSV, as Markdown.

use std::fmt::Write;

use super::{
    Comparison, Finding, Summary, agreement,
    digest::{Digest, Estimate, GroupDigest, QUANTILES},
    stability, takeover,
};
use crate::{groups::Figure, plot::ms, results};

/// Widest line of the table in the terminal, characters.
const TERMINAL: usize = 100;

fn estimate(estimate: &Option<Estimate>) -> String {
    match estimate {
        Some(estimate) if estimate.seen => ms(estimate.ms),
        Some(estimate) => format!("> {}", ms(estimate.ms)),
        None => "–".into(),
    }
}

fn interval(estimate: &Option<Estimate>) -> String {
    match estimate {
        Some(Estimate { low_ms: Some(low), high_ms: Some(high), .. }) => {
            format!("[{}, {}]", ms(*low), ms(*high))
        }
        Some(Estimate { low_ms: Some(low), high_ms: None, .. }) => format!("[{}, …]", ms(*low)),
        _ => "–".into(),
    }
}

fn with_interval(quantile: &Option<Estimate>) -> String {
    match interval(quantile).as_str() {
        "–" => estimate(quantile),
        interval => format!("{} {interval}", estimate(quantile)),
    }
}

fn max(digest: &Digest) -> String {
    match digest.max_ms {
        Some((max, true)) => ms(max),
        Some((max, false)) => format!("> {}", ms(max)),
        None => "–".into(),
    }
}

/// Lines of a table for the terminal: names to the left, numbers to the right.
pub(super) fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let length = |cell: &String| cell.chars().count();
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| length(&row[column])).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - length(cell));
            line += &match column {
                0 => format!(" {cell}{pad}"),
                _ => format!("  {pad}{cell}"),
            };
        }
        line.trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// The closing table of a time; none if no trial has one to show, nor is meant to.
pub(super) fn terminal(summary: &Summary, figure: Figure) -> Option<String> {
    let felt = figure == Figure::Outage;
    let shown = |group: &&GroupDigest| figure != Figure::Leaderless || !group.is_spared();
    let groups: Vec<&GroupDigest> = summary.groups.iter().filter(shown).collect();
    if groups.is_empty() {
        return None;
    }
    let last = match felt {
        true => ["acked", "failed", "unknown", "lost"],
        false => ["promote", "split", "flagged", "passed by"],
    };
    let mut head = [
        "",
        "n",
        last[3],
        "median [95 % CI]",
        "p90",
        "p95",
        "p99",
        "max",
        last[0],
        last[1],
        last[2],
    ]
    .map(str::to_owned);
    let cells = |group: &&GroupDigest| -> [String; 11] {
        let digest = group.figure(figure);
        let [median, p90, p95, p99] = &digest.quantiles;
        let [third, ninth, tenth, eleventh] = match (felt, group.writes) {
            (true, Some(w)) => {
                [w.lost, w.acked, w.failed, w.unknown].map(|count| count.to_string())
            }
            (true, None) => ["–"; 4].map(str::to_owned),
            (false, _) => [
                group.passed_by(),
                estimate(&group.figure(Figure::Promote).quantiles[0]),
                group.split_votes.to_string(),
                group.flagged().to_string(),
            ],
        };
        [
            group.variant.clone(),
            digest.n.to_string(),
            third,
            with_interval(median),
            estimate(p90),
            estimate(p95),
            estimate(p99),
            max(digest),
            ninth,
            tenth,
            eleventh,
        ]
    };
    let mut rows: Vec<[String; 11]> = groups.iter().map(cells).collect();
    let length = |text: &String| text.chars().count();
    let measured = |head: &[String; 11], rows: &[[String; 11]]| {
        let mut widths = head.clone().map(|name| length(&name));
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(length(cell));
            }
        }
        // The gaps between columns give way first, then the names.
        let numbers: usize = widths[1..].iter().sum();
        let gap = if numbers + 20 + 12 > TERMINAL { 1 } else { 2 };
        let room = TERMINAL.saturating_sub(numbers + gap * (widths.len() - 1) + 1);
        (widths, gap, room)
    };
    let (mut widths, mut gap, mut room) = measured(&head, &rows);
    if room < widths[0].min(12) {
        // Names cut so short tell nothing: the intervals stay in the files.
        head[3] = "median".into();
        for (row, group) in rows.iter_mut().zip(&groups) {
            row[3] = estimate(&group.figure(figure).quantiles[0]);
        }
        (widths, gap, room) = measured(&head, &rows);
    }
    widths[0] = widths[0].min(room.max(6));
    let line = |cells: &[String; 11]| -> String {
        let mut line = String::from(" ");
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let cell = cut(cell, width);
            let pad = " ".repeat(width - length(&cell) + if column > 0 { gap } else { 0 });
            if column == 0 { line += &(cell + &pad) } else { line += &(pad + &cell) }
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut text = match figure {
        Figure::Leaderless => "time without a leader (leaderless), milliseconds\n".to_owned(),
        Figure::Outage => "time without service for a client (outage), milliseconds\n".to_owned(),
        other => format!("{} ({}), milliseconds\n", other.meaning(), other.name()),
    };
    text += &line(&head);
    let mut cell = "";
    for (group, row) in groups.iter().zip(&rows) {
        if group.cell != cell {
            cell = &group.cell;
            let _ = writeln!(text, "{cell}");
        }
        text += &line(row);
    }
    text += match felt {
        true => {
            "acked, failed, unknown: the probe's writes by what became of them; lost: acknowledged\n\
             and not there afterwards; –: too few trials to say\n"
        }
        false => {
            "P0 promotion of the Primary, P1 of the Secondary, E election, H handover;\n\
             promote: median from standing to majority; –: too few trials to say\n"
        }
    };
    Some(text)
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// `summary.csv`: one line per cell, variant and figure; times in microseconds.
pub(super) fn csv(summary: &Summary) -> Vec<u8> {
    let mut head: Vec<String> = [
        "cell",
        "variant",
        "figure",
        "planned",
        "trials",
        "ok",
        "censored",
        "inconsistent",
        "invalid",
        "n",
        "n_censored",
    ]
    .map(str::to_owned)
    .to_vec();
    for (name, _) in QUANTILES {
        head.extend(["", "_low", "_high"].map(|end| format!("{name}{end}_us")));
    }
    let counts = [
        "max_us",
        "promotions",
        "elections",
        "handovers",
        "campaigns",
        "split_votes",
        "spurious_failovers",
        "max_leaders_per_term",
        "median_messages",
    ];
    head.extend(counts.map(str::to_owned));
    let us =
        |ms: Option<f64>| ms.map(|ms| ((ms * 1e6).round() / 1e3).to_string()).unwrap_or_default();
    let mut rows = vec![head];
    for group in &summary.groups {
        for digest in summary.figures().map(|figure| group.figure(figure)) {
            let mut row = vec![group.cell.clone(), group.variant.clone(), digest.figure.into()];
            let counts = [
                group.planned,
                group.trials,
                group.ok,
                group.censored,
                group.inconsistent,
                group.invalid,
                digest.n,
                digest.censored,
            ];
            row.extend(counts.map(|count| count.to_string()));
            for quantile in &digest.quantiles {
                // A quantile that lies among the time-outs is unknown: it stays empty.
                let seen = quantile.filter(|q| q.seen);
                row.extend([
                    us(seen.map(|q| q.ms)),
                    us(quantile.and_then(|q| q.low_ms)),
                    us(quantile.and_then(|q| q.high_ms)),
                ]);
            }
            row.push(us(digest.max_ms.filter(|max| max.1).map(|max| max.0)));
            let ranks: Vec<String> = group.promotions.iter().map(ToString::to_string).collect();
            row.push(ranks.join(";"));
            row.extend([
                group.elections.to_string(),
                group.handovers.to_string(),
                group.campaigns.to_string(),
                group.split_votes.to_string(),
                group.spurious_failovers.to_string(),
                group.max_leaders_per_term.to_string(),
                group.messages.map(|count| count.to_string()).unwrap_or_default(),
            ]);
            rows.push(row);
        }
    }
    results::csv(rows)
}

/// A table as rows of cells, the first being the head; what it shows; where it comes from.
pub(super) struct Table {
    pub(super) title: String,
    pub(super) source: String,
    pub(super) rows: Vec<Vec<String>>,
}

/// Every table of the report.
pub(super) fn tables(summary: &Summary) -> Vec<Table> {
    let matrix = summary.groups.iter().any(|group| !group.cell.is_empty());
    let mut tables = Vec::new();
    // Where the leader stays in place, there is no time without one.
    let spared = summary.groups.iter().all(GroupDigest::is_spared);
    let has_values =
        |figure: &Figure| !spared || summary.groups.iter().any(|group| group.figure(*figure).n > 0);
    if let Some(first) = summary.published.first() {
        tables.push(Table {
            title: format!("Beside the published results {}", first.published.name()),
            source: format!(
                "trials.csv, column announced_us, and {}; Kolmogorov-Smirnov distances are known to \
                 within {}",
                first.published.source(),
                first.published.resolution()
            ),
            rows: agreement::rows(&summary.published),
        });
    }
    if summary.groups.iter().any(|group| group.stability.is_some()) {
        tables.push(Table {
            title: "Trials whose fault leaves the leader in place".into(),
            source:
                "trials.csv, columns campaigns, terms and spurious_failovers; verdict ok, without \
                     leaderless_us; contested: somebody stood all the same, in vain; replaced: \
                     somebody else led"
                    .into(),
            rows: stability::rows(&summary.groups),
        });
    }
    tables.extend(summary.figures().filter(has_values).map(|figure| Table {
        title: format!("{} — {} (ms)", figure.name(), figure.meaning()),
        source: format!("trials.csv, column {}_us; verdicts ok and censored", figure.name()),
        rows: figure_rows(summary, figure),
    }));
    if summary.probed() {
        tables.push(Table {
            title: "What became of the probe's writes".into(),
            source: "trials.csv, columns acked_writes, failed_writes, unknown_writes; verdicts ok \
                     and censored; lost_writes of all trials"
                .into(),
            rows: write_rows(summary),
        });
    }
    tables.push(Table {
        title: "How leadership passed".into(),
        source: "trials.csv, columns verdict, passed_by, rank, campaigns, split_votes, \
                 spurious_failovers, max_leaders_per_term"
            .into(),
        rows: passing_rows(summary),
    });
    if !spared {
        tables.push(Table {
            title: "Who took over".into(),
            source: "trials.csv, columns old_leader, new_leader, passed_by, rank; verdicts ok and \
                     censored; P0 promotion of the Primary, E election, H handover"
                .into(),
            rows: takeover::rows(&summary.groups),
        });
    }
    let compared = |c: &Comparison| c.finding != Finding::LeaderSpared;
    if summary.comparisons.is_empty() || summary.comparisons.iter().any(compared) {
        tables.push(Table {
            title: format!("Comparisons of {}", summary.compared.name()),
            source: format!(
                "trials.csv, column {}_us; first less second; 95 % intervals",
                summary.compared.name()
            ),
            rows: comparison_rows(summary),
        });
    }
    if !matrix {
        for table in &mut tables {
            for row in &mut table.rows {
                row.remove(0);
            }
        }
    }
    tables
}

fn figure_rows(summary: &Summary, figure: Figure) -> Vec<Vec<String>> {
    let head = ["cell", "variant", "n", "timed out", "median", "p90", "p95", "p99", "max"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for group in &summary.groups {
        let digest = group.figure(figure);
        let mut row = vec![group.cell.clone(), group.variant.clone()];
        row.extend([digest.n.to_string(), digest.censored.to_string()]);
        row.extend(digest.quantiles.iter().map(with_interval));
        row.push(max(digest));
        rows.push(row);
    }
    rows
}

fn write_rows(summary: &Summary) -> Vec<Vec<String>> {
    let head = [
        "cell",
        "variant",
        "acknowledged",
        "failed",
        "of unknown outcome",
        "lost",
        "trials not audited",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for group in &summary.groups {
        let mut row = vec![group.cell.clone(), group.variant.clone()];
        match group.writes {
            Some(w) => row.extend(
                [w.acked, w.failed, w.unknown, w.lost, w.unaudited].map(|count| count.to_string()),
            ),
            None => row.extend(["–"; 5].map(str::to_owned)),
        }
        rows.push(row);
    }
    rows
}

fn passing_rows(summary: &Summary) -> Vec<Vec<String>> {
    let head = [
        "cell",
        "variant",
        "planned",
        "ok",
        "timed out",
        "inconsistent",
        "invalid",
        "passed by",
        "campaigns",
        "split votes",
        "spurious failovers",
        "leaders per term",
        "messages (median)",
    ];
    let counted = summary.groups.iter().any(|group| group.messages.is_some());
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for group in &summary.groups {
        let mut row = vec![group.cell.clone(), group.variant.clone()];
        let counts = [group.planned, group.ok, group.censored, group.inconsistent, group.invalid];
        row.extend(counts.map(|count| count.to_string()));
        row.push(group.passed_by());
        row.extend(
            [group.campaigns, group.split_votes, group.spurious_failovers]
                .map(|count| count.to_string()),
        );
        row.push(group.max_leaders_per_term.to_string());
        row.push(group.messages.map_or("–".into(), |count| count.to_string()));
        rows.push(row);
    }
    if !counted {
        for row in &mut rows {
            row.pop();
        }
    }
    rows
}

fn comparison_rows(summary: &Summary) -> Vec<Vec<String>> {
    let head = [
        "cell",
        "first",
        "second",
        "difference of medians (ms)",
        "ratio of medians",
        "difference of p99 (ms)",
        "Hodges-Lehmann shift (ms)",
        "Cliff's delta",
        "p (Mann-Whitney, Holm)",
        "finding",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let with = |value: Option<f64>, ci: Option<[f64; 2]>, show: fn(f64) -> String| match (value, ci)
    {
        (Some(value), Some([low, high])) => {
            format!("{} [{}, {}]", show(value), show(low), show(high))
        }
        (Some(value), None) => show(value),
        _ => "–".into(),
    };
    let fixed: fn(f64) -> String = |value| format!("{value:.3}");
    for c in &summary.comparisons {
        let finding = serde_json::to_value(c.finding).ok();
        let finding = finding.as_ref().and_then(|v| v.as_str()).unwrap_or_default();
        rows.push(vec![
            c.cell.clone(),
            c.first.clone(),
            c.second.clone(),
            with(c.difference_ms, c.difference_ci_ms, ms),
            with(c.ratio, c.ratio_ci, fixed),
            with(c.p99_difference_ms, c.p99_difference_ci_ms, ms),
            with(c.shift_ms, None, ms),
            with(c.delta, None, fixed),
            c.p_holm.map_or("–".into(), p_value),
            finding.replace('_', " "),
        ]);
    }
    rows
}

fn p_value(p: f64) -> String {
    if p < 0.0001 { "< 0.0001".into() } else { format!("{p:.4}") }
}

/// `summary.md`.
pub(super) fn markdown(summary: &Summary) -> String {
    let mut text =
        format!("# {} · {}\n\n{}\n\n", summary.experiment, summary.run, summary.question);
    for line in summary.verdicts().chain(summary.notes.iter().map(String::as_str)) {
        let _ = writeln!(text, "- {}", escape(line));
    }
    for table in tables(summary) {
        let _ = write!(text, "\n## {}\n\nFrom {}.\n\n", escape(&table.title), table.source);
        for (number, row) in table.rows.iter().enumerate() {
            let cells: Vec<String> = row.iter().map(|cell| escape(cell)).collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
            if number == 0 {
                let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
            }
        }
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
