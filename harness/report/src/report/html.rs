//! `report.html`: one file that needs nothing else.

use std::fmt::Write;

use super::{Summary, tables};
use crate::{
    measure::TrialRow,
    plot::Plot,
    results::{Manifest, Plan},
};

const STYLE: &str = "
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1c232b; line-height: 1.5;
  font: 16px/1.5 Inter, system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 21px; margin: 48px 0 8px; }
h3 { font-size: 16px; margin: 28px 0 4px; }
p { margin: 8px 0; max-width: 75ch; }
.faint, figcaption, .source { color: #4d5863; font-size: 14px; }
.verdict { border-left: 4px solid #0072b2; background: #f3f5f7; padding: 12px 18px; margin: 22px 0; }
.verdict p { margin: 6px 0; font-size: 18px; }
.note { border-left: 4px solid #d55e00; background: #fdf4ee; padding: 8px 18px; margin: 12px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; margin: 6px 0; }
th, td { text-align: right; padding: 5px 12px 5px 0; border-bottom: 1px solid #dde2e7; white-space: nowrap; }
th { font-weight: 600; border-bottom: 2px solid #1c232b; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
td.text { white-space: normal; }
figure { margin: 22px 0; }
figure svg { width: 100%; height: auto; display: block; border: 1px solid #dde2e7; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; font-size: 14px; }
dt { color: #4d5863; } dd { margin: 0; overflow-wrap: anywhere; }
code { font-size: 0.92em; }
";

/// Most bytes of figures in the page, so that browsers and mail take it; the rest are only named.
const INLINE: usize = 2_400_000;

pub(super) fn page(
    summary: &Summary,
    plan: &Plan,
    manifest: Option<&Manifest>,
    rows: &[TrialRow],
    plots: &[Plot],
) -> String {
    let title = format!("{} · {}", summary.experiment, summary.run);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{0}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{0}</h1>\n\
         <p class=\"faint\">{1}</p>\n",
        escape(&title),
        escape(&summary.question)
    );
    html += "<section class=\"verdict\">\n";
    for verdict in summary.verdicts() {
        let _ = writeln!(html, "<p>{}</p>", escape(verdict));
    }
    html += "</section>\n";
    for note in &summary.notes {
        let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(note));
    }
    html += "<h2>Figures</h2>\n";
    let mut left_out = Vec::new();
    let mut bytes = 0;
    for plot in plots {
        bytes += plot.drawing.svg.len();
        if bytes > INLINE {
            left_out.push(format!("<code>{}.svg</code>", escape(&plot.name)));
            continue;
        }
        let _ = writeln!(
            html,
            "<figure>\n{}<figcaption>{} From <code>{}</code>. Files: \
             <code>{name}.svg</code>, <code>{name}.png</code></figcaption>\n</figure>",
            plot.drawing.svg,
            escape(caption(&plot.name)),
            if plot.name.starts_with("around_fault") { "ops.csv" } else { "trials.csv" },
            name = escape(&plot.name)
        );
    }
    if !left_out.is_empty() {
        let _ = writeln!(
            html,
            "<p class=\"source\">Too much for one page, but in the folder of the figures: {}</p>",
            left_out.join(", ")
        );
    }
    html += "<h2>Numbers</h2>\n<p class=\"faint\">In brackets: 95 % confidence intervals. A \
             percentile is printed only if at least one trial is to be expected beyond it. \
             &gt; marks a value that lies among the trials that timed out.</p>\n";
    for table in tables::tables(summary) {
        table_of(&mut html, &table);
    }
    flagged(&mut html, rows);
    method(&mut html, plan);
    settings(&mut html, plan);
    if let Some(manifest) = manifest {
        origin(&mut html, manifest);
    }
    html += "</main>\n</body>\n</html>\n";
    html
}

fn caption(name: &str) -> &'static str {
    match name.split('.').next().unwrap_or_default() {
        "around_fault" => {
            "The probe's acknowledged writes, by their ends, and the time from the start that the \
             schedule meant to the answer; writes that were never acknowledged have no time."
        }
        "outage_histogram" => "Column outage_us of the trials that count, one panel per variant.",
        "outage_ecdf" => {
            "Column outage_us: the product-limit estimate, which is the empirical distribution \
             where no trial timed out. A curve that ends level goes on to trials that timed out."
        }
        "leaderless_histogram" => {
            "Column leaderless_us of the trials that count, one panel per variant."
        }
        "leaderless_ecdf" => {
            "Column leaderless_us: the product-limit estimate, which is the empirical distribution \
             where no trial timed out. A curve that ends level goes on to trials that timed out."
        }
        "stability" => {
            "Columns campaigns, terms and spurious_failovers of the ok trials without leaderless_us."
        }
        "phases" => "Columns detect_us, promote_us and commit_us.",
        "trials_over_time" => {
            "Columns leaderless_us (outage_us if the run is about it), verdict and block, in the \
             order of started_at."
        }
        "announced_panels" => {
            "Column announced_us of the trials that count; the published lines are percentiles that \
             the program holds."
        }
        "ecdf_by_cell" => "The column that the run is about, one field per cell.",
        _ => "Medians by cell of the column that the run is about, and of messages if counted.",
    }
}

fn table_of(html: &mut String, table: &tables::Table) {
    let _ = write!(
        html,
        "<h3>{}</h3>\n<p class=\"source\">{}</p>\n<div class=\"scroll\"><table>\n",
        escape(&table.title),
        escape(&table.source)
    );
    for (number, row) in table.rows.iter().enumerate() {
        let tag = if number == 0 { "th" } else { "td" };
        html.push_str("<tr>");
        for cell in row {
            let _ = write!(html, "<{tag}>{}</{tag}>", escape(cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table></div>\n");
}

/// Most trials that are listed with their reason.
const FLAGGED: usize = 200;

/// Every trial that is not `ok`, with its reason.
fn flagged(html: &mut String, rows: &[TrialRow]) {
    let odd = || rows.iter().filter(|row| !row.reason.is_empty() || !is_ok(row));
    if odd().next().is_none() {
        return;
    }
    *html += "<h2>Trials to look at</h2>\n<p class=\"source\">trials.csv, columns verdict and \
              reason; censored trials count as at least the time-out, inconsistent and invalid \
              ones are out of the statistics</p>\n<div class=\"scroll\"><table>\n<tr><th>trial</th>\
              <th class=\"text\">variant</th><th class=\"text\">verdict</th>\
              <th>leaderless (µs)</th><th>outage (µs)</th><th class=\"text\">reason</th></tr>\n";
    for row in odd().take(FLAGGED) {
        let variant = [row.cell.as_str(), row.variant.as_str()].join(" ");
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td class=\"text\">{}</td><td class=\"text\">{}</td><td>{}</td>\
             <td>{}</td><td class=\"text\">{}</td></tr>",
            row.trial,
            escape(variant.trim()),
            row.verdict,
            us(row.leaderless_us),
            us(row.outage_us),
            escape(&row.reason)
        );
    }
    *html += "</table></div>\n";
    let more = odd().count().saturating_sub(FLAGGED);
    if more > 0 {
        let _ = writeln!(html, "<p class=\"source\">and {more} more in trials.csv</p>");
    }
}

fn us(value: Option<f64>) -> String {
    value.map(|us| us.to_string()).unwrap_or_default()
}

fn is_ok(row: &TrialRow) -> bool {
    row.verdict == sraft_events::Verdict::Ok
}

fn method(html: &mut String, plan: &Plan) {
    let _ = write!(
        html,
        "<h2>Method</h2>\n\
         <p>Trials of the variants are interleaved in seeded random blocks on the same hosts. A \
         trial that has no leader after {} s counts as at least that long.</p>\n\
         <p>Quantiles interpolate between order statistics (Hyndman and Fan, type 7); their \
         intervals are distribution-free (order statistics). Differences and ratios of medians and \
         of p99 carry percentile intervals of a bootstrap over blocks, or over single trials where \
         a variant has fewer than {} blocks ({} resamples, seed {}). A difference is claimed only \
         if that interval excludes 0 <em>and</em> a two-sided Mann-Whitney test, corrected by Holm \
         over all comparisons of the run, has p &lt; 0.05 <em>and</em> no two variants with equal \
         settings differ (A/A).</p>\n",
        plan.timeout_ns as f64 / 1e9,
        crate::stats::MIN_BLOCKS,
        crate::stats::RESAMPLES,
        plan.seed
    );
}

fn settings(html: &mut String, plan: &Plan) {
    *html += "<h2>Settings</h2>\n<dl>\n";
    for setting in &plan.settings {
        let name = [setting.cell.as_str(), setting.variant.as_str()].join(" ");
        let _ = writeln!(
            html,
            "<dt>{}</dt><dd>{} nodes, {} sub-leaders · <code>{}</code></dd>",
            escape(name.trim()),
            setting.size,
            setting.sub_leaders,
            escape(&setting.node.to_string())
        );
    }
    *html += "</dl>\n";
}

fn origin(html: &mut String, manifest: &Manifest) {
    let commit = match (&manifest.git_commit, manifest.git_dirty) {
        (Some(commit), Some(true)) => format!("{commit}, changed since"),
        (Some(commit), _) => commit.clone(),
        (None, _) => "unknown".into(),
    };
    let mut facts = vec![
        ("version", manifest.version.clone()),
        ("commit", commit),
        ("binary, SHA-256", manifest.binary_sha256.clone()),
        ("command", manifest.command.join(" ")),
        ("seed", manifest.seed.to_string()),
    ];
    for host in &manifest.hosts {
        let bound =
            format!("{} · clock within {} µs · {}", host.name, host.clock_bound_us, host.facts);
        facts.push(("host", bound));
    }
    for session in &manifest.sessions {
        let ended = session.ended_at.as_deref().unwrap_or("killed");
        let how = session.end.as_deref().unwrap_or("not ended by itself");
        facts.push(("session", format!("{} to {ended}, {how}", session.started_at)));
    }
    *html += "<h2>Origin</h2>\n<p class=\"source\">manifest.json</p>\n<dl>\n";
    for (name, value) in facts {
        let _ = writeln!(html, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    *html += "</dl>\n";
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
