use plotters::style::RGBColor;

use crate::results::Plan;

// The colour-blind-safe palette of Okabe and Ito (Color Universal Design, 2008), without its
// yellow, which does not carry a thin line on white.
const VERMILLION: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const ORANGE: RGBColor = RGBColor(0xe6, 0x9f, 0x00);
const PURPLE: RGBColor = RGBColor(0xcc, 0x79, 0xa7);
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const SKY: RGBColor = RGBColor(0x56, 0xb4, 0xe9);
const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);
const BLACK: RGBColor = RGBColor(0x00, 0x00, 0x00);
const GREY: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);

/// Three steps of one dark hue, for what has an order; variants have none, so they share no colour.
pub(super) const STEPS: [RGBColor; 3] =
    [RGBColor(0xb9, 0xc6, 0xd3), RGBColor(0x5c, 0x7f, 0xa3), RGBColor(0x16, 0x2f, 0x4d)];

/// The colour of each variant of a plan. A variant whose name begins with `s-raft` is cool, every
/// other one warm, so that the two are told apart at a glance in every experiment, and the same
/// plan always gives the same colours.
pub(super) fn colors(plan: &Plan) -> Vec<RGBColor> {
    let cool = [BLUE, GREEN, SKY, BLACK];
    let warm = [VERMILLION, ORANGE, PURPLE, GREY];
    let is_cool = |name: &str| name.starts_with("s-raft");
    let mut taken: Vec<Option<RGBColor>> = vec![None; plan.variants.len()];
    // The cool ones choose first, so that many others do not leave them without a colour.
    for cool_ones in [true, false] {
        let (own, other) = if cool_ones { (cool, warm) } else { (warm, cool) };
        for (at, variant) in plan.variants.iter().enumerate() {
            if is_cool(&variant.name) == cool_ones {
                let all = own.into_iter().chain(other);
                let free = all.into_iter().find(|color| !taken.contains(&Some(*color)));
                // More than eight variants share colours; their shapes still differ for six more.
                taken[at] = Some(free.unwrap_or(own[at % own.len()]));
            }
        }
    }
    taken.into_iter().flatten().collect()
}

/// The colour of each line of each panel. A name keeps its colour from panel to panel where that
/// is still free; within a panel colours differ up to eight lines.
pub(super) fn panels(panels: &[Vec<String>]) -> Vec<Vec<RGBColor>> {
    let any = [VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY, BLUE];
    let mut known: Vec<(&str, RGBColor)> = Vec::new();
    let mut all = Vec::new();
    for names in panels {
        let mut taken: Vec<Option<RGBColor>> = vec![None; names.len()];
        for (at, name) in names.iter().enumerate() {
            let before = known.iter().find(|other| other.0 == name).map(|other| other.1);
            let own = before.or(name.starts_with("s-raft").then_some(BLUE));
            taken[at] = own.filter(|color| !taken.contains(&Some(*color)));
        }
        for (at, name) in names.iter().enumerate() {
            if taken[at].is_none() {
                let free = any.into_iter().find(|color| !taken.contains(&Some(*color)));
                taken[at] = Some(free.unwrap_or(any[at % any.len()]));
            }
            known.extend(taken[at].map(|color| (name.as_str(), color)));
        }
        all.push(taken.into_iter().flatten().collect());
    }
    all
}

/// Whether a variant before it has the same colour; the later ones are dashed where they are lines.
pub(super) fn shared(colors: &[RGBColor]) -> Vec<bool> {
    (0..colors.len()).map(|at| colors[..at].contains(&colors[at])).collect()
}
