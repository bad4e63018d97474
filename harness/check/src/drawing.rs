//! A counter-example as a timeline: what was under way when an operation had no place.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
};

use crate::{history::Operation, search::Prefix};

/// Operations of the explained part that are shown, the last ones.
const PLACED: usize = 12;
/// Operations without a place that are shown beside the one that is stuck, the latest ones.
const OPEN: usize = 8;
/// Longest label, characters; the whole text is in the bar's tooltip.
const LABEL: usize = 34;

/// Pixels of a row, of a bar in it, of the text.
const ROW: f64 = 40.0;
const BAR: f64 = 28.0;
const TEXT: f64 = 15.0;
const TITLE: f64 = 22.0;
const MARGIN: f64 = 24.0;
/// Least pixels between two instants.
const STEP: f64 = 12.0;
/// Room for the names of rows.
const NAMES: f64 = 110.0;
/// Pixels of a character, as a share of the text's size: the widest of the common fonts.
const CHARACTER: f64 = 0.62;

const INK: &str = "#1c232b";
const FAINT: &str = "#4d5863";
const GRID: &str = "#dde2e7";
/// Fill, edge and text of bars: explained, open, stuck.
const EXPLAINED: [&str; 3] = ["#dcebf7", "#2f74b5", INK];
const WAITING: [&str; 3] = ["#ffffff", "#8a949e", FAINT];
const STUCK: [&str; 3] = ["#c62828", "#8e1616", "#ffffff"];

/// One operation in the drawing.
struct Bar {
    row: usize,
    from: f64,
    to: f64,
    /// Whether its answer is known.
    ended: bool,
    colors: [&'static str; 3],
    label: String,
    whole: String,
}

/// Draws how far `history` was explained, as a self-contained SVG. A row is a process; time runs to
/// the right, stretched so that every operation can be read. Numbers tell the order that explains
/// all up to there; the operation that no order can explain is red.
pub fn draw<O: Display>(title: &str, history: &[Operation<O>], prefix: &Prefix) -> String {
    let first = prefix.placed.len().saturating_sub(PLACED);
    let mut open = prefix.open.clone();
    open.sort_by_key(|at| history[*at].call);
    let left_out = open.len().saturating_sub(OPEN);
    let shown: Vec<(usize, Option<usize>)> = prefix.placed[first..]
        .iter()
        .enumerate()
        .map(|(nth, at)| (*at, Some(first + nth + 1)))
        .chain([(prefix.stuck, None)])
        .chain(open[left_out..].iter().map(|at| (*at, None)))
        .collect();
    let label = |(at, nth): &(usize, Option<usize>)| {
        let text = shorten(&history[*at].op.to_string());
        nth.map_or(text.clone(), |nth| format!("{nth}  {text}"))
    };
    let places = places(history, &shown, &label);
    let right = places.values().copied().fold(0.0, f64::max) + STEP;
    let rows = rows(history, &shown);
    let unknown = shown.iter().any(|(at, _)| history[*at].back.is_none());
    let notes = notes(history, prefix, [first, left_out], unknown);
    let widest = notes.iter().map(|note| width(note)).chain([width(title) * TITLE / TEXT]);
    let text_ends = widest.fold(0.0, f64::max) + 2.0 * MARGIN;
    let size = (text_ends.max(right + MARGIN), 96.0 + ROW * rows.names.len() as f64);
    let right = size.0 - MARGIN;
    let bars: Vec<Bar> = shown
        .iter()
        .zip(&rows.of)
        .map(|(each, row)| {
            let operation = &history[each.0];
            let colors = match each {
                (at, _) if *at == prefix.stuck => STUCK,
                (_, Some(_)) => EXPLAINED,
                _ => WAITING,
            };
            let back = operation.back.map(|back| back.max(operation.call));
            Bar {
                row: *row,
                from: places[&(operation.call, false)],
                to: back.map_or(right, |back| places[&(back, true)]),
                ended: back.is_some(),
                colors,
                label: label(each),
                whole: operation.op.to_string(),
            }
        })
        .collect();
    paint(title, &notes, &rows.names, &bars, size)
}

/// Where the calls (`false`) and returns (`true`) of what is shown stand, pixels: in the order of
/// time, as close as labels permit.
fn places<O>(
    history: &[Operation<O>],
    shown: &[(usize, Option<usize>)],
    label: &impl Fn(&(usize, Option<usize>)) -> String,
) -> BTreeMap<(u64, bool), f64> {
    let mut instants: BTreeMap<(u64, bool), Vec<(u64, f64)>> = BTreeMap::new();
    let mut least = 0.0_f64;
    for each in shown {
        let operation = &history[each.0];
        let width = width(&label(each)) + 2.0 * STEP;
        instants.entry((operation.call, false)).or_default();
        match operation.back {
            Some(back) => {
                let ends = instants.entry((back.max(operation.call), true)).or_default();
                ends.push((operation.call, width));
            }
            // It goes on to the right edge.
            None => least = least.max(width),
        }
    }
    let mut places = BTreeMap::new();
    let mut x = NAMES + MARGIN;
    for (instant, ended) in instants {
        for (call, width) in ended {
            let call: f64 = places.get(&(call, false)).copied().unwrap_or(x);
            x = x.max(call + width);
        }
        places.insert(instant, x);
        x += STEP;
    }
    // An operation without an end needs room as well.
    let edge = places.values().copied().fold(0.0, f64::max);
    let unended = shown.iter().filter(|(at, _)| history[*at].back.is_none());
    let latest = unended.map(|(at, _)| places[&(history[*at].call, false)]).fold(0.0, f64::max);
    places.insert((u64::MAX, true), edge.max(latest + least));
    places
}

/// Which row each operation stands in, and what the rows are called.
struct Rows {
    of: Vec<usize>,
    names: Vec<String>,
}

/// A row per process; more than one if its operations overlap, as those of unknown outcome do with
/// all that follow.
fn rows<O>(history: &[Operation<O>], shown: &[(usize, Option<usize>)]) -> Rows {
    let mut order: Vec<usize> = (0..shown.len()).collect();
    order.sort_by_key(|nth| {
        let operation = &history[shown[*nth].0];
        (operation.process, operation.call)
    });
    let mut rows = Rows { of: vec![0; shown.len()], names: Vec::new() };
    // The process and the last instant of each row.
    let mut ends: Vec<(u64, u64)> = Vec::new();
    for nth in order {
        let operation = &history[shown[nth].0];
        let process = operation.process;
        let fits = |(of, end): &(u64, u64)| *of == process && *end <= operation.call;
        let row = ends.iter().position(fits).unwrap_or_else(|| {
            let first = ends.iter().all(|(of, _)| *of != process);
            rows.names.push(if first { format!("process {process}") } else { String::new() });
            ends.push((process, 0));
            ends.len() - 1
        });
        ends[row].1 = operation.back.unwrap_or(u64::MAX);
        rows.of[nth] = row;
    }
    rows
}

fn notes<O: Display>(
    history: &[Operation<O>],
    prefix: &Prefix,
    [before, left_out]: [usize; 2],
    unknown: bool,
) -> Vec<String> {
    let stuck = shorten(&history[prefix.stuck].op.to_string());
    let state = shorten(&prefix.state);
    let mut notes = vec![format!(
        "Numbers: an order that explains everything before, and leaves {state}. No order makes \
         the red operation possible: {stuck}."
    )];
    let mut rest = Vec::new();
    if before > 0 {
        rest.push(format!("the {before} operations before these"));
    }
    if left_out > 0 {
        rest.push(format!("{left_out} older ones of unknown outcome"));
    }
    if !rest.is_empty() {
        notes.push(format!("Not shown: {}.", rest.join(", ")));
    }
    if unknown {
        notes.push("Dashed, open on the right: of unknown outcome.".to_owned());
    }
    notes
}

/// The beginning and the end of a long text: in a store with append, the end tells most.
fn shorten(text: &str) -> String {
    let count = text.chars().count();
    if count <= LABEL {
        return text.to_owned();
    }
    let head: String = text.chars().take(LABEL / 3).collect();
    let tail: String = text.chars().skip(count - (LABEL - LABEL / 3 - 1)).collect();
    format!("{head}…{tail}")
}

fn width(text: &str) -> f64 {
    text.chars().count() as f64 * TEXT * CHARACTER
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            // XML 1.0 has no way to write other control characters.
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// Writing to a string does not fail.
macro_rules! put {
    ($out:expr, $($text:tt)*) => {{ let _ = writeln!($out, $($text)*); }};
}

fn paint(
    title: &str,
    notes: &[String],
    names: &[String],
    bars: &[Bar],
    (width, top): (f64, f64),
) -> String {
    let title = escaped(title);
    let height = top + 12.0 + 24.0 * notes.len() as f64;
    let mut svg = String::new();
    put!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" font-size=\"{TEXT}\" \
         font-family=\"Inter, Helvetica, Arial, sans-serif\">"
    );
    put!(svg, "<title>{title}</title>");
    put!(svg, "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>");
    put!(
        svg,
        "<text x=\"{MARGIN}\" y=\"44\" font-size=\"{TITLE}\" font-weight=\"600\" \
         fill=\"{INK}\">{title}</text>"
    );
    let middle = |row: usize| 92.0 + ROW * row as f64;
    for (row, name) in names.iter().enumerate() {
        let y = middle(row);
        put!(
            svg,
            "<line x1=\"{NAMES}\" x2=\"{:.0}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{GRID}\"/>",
            width - MARGIN
        );
        let baseline = y + TEXT * 0.35;
        put!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{baseline:.1}\" fill=\"{FAINT}\">{}</text>",
            escaped(name)
        );
    }
    for bar in bars {
        let [fill, edge, ink] = bar.colors;
        let (x, y, w) = (bar.from, middle(bar.row) - BAR / 2.0, bar.to - bar.from);
        let (right, bottom) = (x + w, y + BAR);
        // Without an end it is open on the right, and dashed.
        let (path, dashes) = match bar.ended {
            true => (format!("M{x:.1} {y:.1}H{right:.1}V{bottom:.1}H{x:.1}Z"), ""),
            false => (
                format!("M{right:.1} {y:.1}H{x:.1}V{bottom:.1}H{right:.1}"),
                " stroke-dasharray=\"5 4\"",
            ),
        };
        put!(
            svg,
            "<g><title>{}</title><path d=\"{path}\" fill=\"{fill}\" stroke=\"{edge}\" \
             stroke-width=\"1.5\"{dashes}/><text x=\"{:.1}\" y=\"{:.1}\" fill=\"{ink}\" \
             xml:space=\"preserve\">{}</text></g>",
            escaped(&bar.whole),
            x + STEP,
            y + BAR / 2.0 + TEXT * 0.35,
            escaped(&bar.label)
        );
    }
    for (nth, note) in notes.iter().enumerate() {
        let y = top + 12.0 + 24.0 * nth as f64;
        put!(svg, "<text x=\"{MARGIN}\" y=\"{y:.0}\" fill=\"{FAINT}\">{}</text>", escaped(note));
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests;
