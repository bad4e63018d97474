use plotters::style::RGBColor;

use super::{
    PlotError,
    canvas::{Canvas, INK, Pen, SMALL, WIDTH},
};

/// One entry of a legend.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) color: RGBColor,
    pub(super) sign: Sign,
}

/// What stands before an entry's name.
#[derive(Clone, Copy)]
pub(super) enum Sign {
    Box,
    Line,
    Dashes,
    Marker(usize),
    Ring,
    Cross,
    Late,
}

const LINE_HEIGHT: i32 = 40;
const LEFT: i32 = 40;
const SIGN: i32 = 44;
const APART: i32 = 44;

/// Where each entry goes, and how high the whole legend is. Entries flow into lines.
fn flow(entries: &[Entry]) -> (Vec<(i32, i32)>, i32) {
    let pen = Pen::new(SMALL, INK);
    let (mut x, mut y) = (LEFT, 0);
    let mut places = Vec::new();
    for entry in entries {
        let width = SIGN + pen.width(&entry.name).min(WIDTH - 2 * LEFT - SIGN);
        if x > LEFT && x + width > WIDTH - LEFT {
            (x, y) = (LEFT, y + LINE_HEIGHT);
        }
        places.push((x, y));
        x += width + APART;
    }
    (places, if entries.is_empty() { 0 } else { y + LINE_HEIGHT })
}

/// Height of the legend, pixels.
pub(super) fn height(entries: &[Entry]) -> i32 {
    flow(entries).1
}

/// Draws the legend with its top at `top`.
pub(super) fn draw(canvas: &Canvas<'_>, entries: &[Entry], top: i32) -> Result<(), PlotError> {
    let pen = Pen::new(SMALL, INK);
    for (entry, (x, y)) in entries.iter().zip(flow(entries).0) {
        let (x, y) = (x, top + y + LINE_HEIGHT / 2);
        match entry.sign {
            Sign::Box => canvas.rect((x, y - 11), (x + 30, y + 11), entry.color)?,
            Sign::Line => canvas.line(&[(x, y), (x + 32, y)], entry.color, 5)?,
            Sign::Dashes => canvas.dashes(&[(x, y), (x + 32, y)], entry.color, 5)?,
            Sign::Marker(shape) => canvas.marker((x + 16, y), shape, 9, entry.color)?,
            Sign::Ring => canvas.ring((x + 16, y), 12, entry.color)?,
            Sign::Cross => canvas.cross((x + 16, y), 8, entry.color)?,
            Sign::Late => super::over_time::arrow(canvas, (x + 16, y + 12), entry.color)?,
        }
        let name = pen.fit(&entry.name, WIDTH - LEFT - x - SIGN);
        canvas.text(pen, x + SIGN, y, &name)?;
    }
    Ok(())
}
