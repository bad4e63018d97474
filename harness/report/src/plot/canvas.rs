//! A drawing: plotters' primitives with the font and the colours of this project, kept as SVG and
//! rendered to PNG from that very SVG.

use std::sync::{Arc, LazyLock};

use plotters::{
    coord::Shift,
    prelude::*,
    style::{
        FontStyle, register_font,
        text_anchor::{HPos, Pos, VPos},
    },
};
use resvg::{tiny_skia, usvg};

use super::PlotError;

/// Width of every figure, pixels.
pub(super) const WIDTH: i32 = 1600;
/// Text for everything that must stay readable at half size.
pub(super) const SMALL: i32 = 24;
/// Panel headings.
pub(super) const MEDIUM: i32 = 26;
/// The title.
pub(super) const LARGE: i32 = 36;

/// Text and axes.
pub(super) const INK: RGBColor = RGBColor(0x1c, 0x23, 0x2b);
/// Explanations, tick labels.
pub(super) const FAINT: RGBColor = RGBColor(0x4d, 0x58, 0x63);
/// Grid lines.
pub(super) const GRID: RGBColor = RGBColor(0xdd, 0xe2, 0xe7);
/// Shading behind every other block.
pub(super) const SHADE: RGBColor = RGBColor(0xf3, 0xf5, 0xf7);

/// Inter stands in the crate, so that figures look alike on hosts without any font.
const FAMILY: &str = "Inter";
static REGULAR: &[u8] = include_bytes!("../../font/Inter-Regular.otf");
static SEMIBOLD: &[u8] = include_bytes!("../../font/Inter-SemiBold.otf");

static FONTS: LazyLock<Arc<usvg::fontdb::Database>> = LazyLock::new(|| {
    let registered = register_font(FAMILY, FontStyle::Normal, REGULAR).is_ok()
        && register_font(FAMILY, FontStyle::Bold, SEMIBOLD).is_ok();
    assert!(registered, "the shipped font is whole");
    let mut fonts = usvg::fontdb::Database::new();
    fonts.load_font_data(REGULAR.to_vec());
    fonts.load_font_data(SEMIBOLD.to_vec());
    Arc::new(fonts)
});

/// A finished figure in both forms.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// Self-contained SVG; text is outlined, so that it needs no font.
    pub svg: String,
    /// The same, rendered.
    pub png: Vec<u8>,
}

/// Where a text stands relative to its point.
#[derive(Clone, Copy, Debug)]
pub(super) enum Align {
    Left,
    Middle,
    Right,
}

/// A text's looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pen {
    pub(super) size: i32,
    pub(super) color: RGBColor,
    pub(super) bold: bool,
    pub(super) align: Align,
}

impl Pen {
    pub(super) fn new(size: i32, color: RGBColor) -> Pen {
        Pen { size, color, bold: false, align: Align::Left }
    }

    pub(super) fn bold(self) -> Pen {
        Pen { bold: true, ..self }
    }

    pub(super) fn align(self, align: Align) -> Pen {
        Pen { align, ..self }
    }

    fn style(self, turned: bool) -> TextStyle<'static> {
        let weight = if self.bold { FontStyle::Bold } else { FontStyle::Normal };
        // plotters divides a font's size by 1.24 to get at its em.
        let mut font = FontDesc::new(FontFamily::Name(FAMILY), f64::from(self.size) * 1.24, weight);
        if turned {
            font = font.transform(FontTransform::Rotate270);
        }
        let across = match self.align {
            Align::Left => HPos::Left,
            Align::Middle => HPos::Center,
            Align::Right => HPos::Right,
        };
        let color = self.color.to_backend_color();
        TextStyle { font, color, pos: Pos::new(across, VPos::Center) }
    }

    /// How wide `text` will be, pixels.
    pub(super) fn width(self, text: &str) -> i32 {
        LazyLock::force(&FONTS);
        let boxed = self.style(false).font.layout_box(text);
        // The estimate ignores fractions of glyphs.
        boxed.map_or(0, |((left, _), (right, _))| right - left + 2)
    }

    /// `text`, cut off with an ellipsis if it is wider than `width`.
    pub(super) fn fit(self, text: &str, width: i32) -> String {
        if self.width(text) <= width {
            return text.to_owned();
        }
        let mut cut: Vec<char> = text.chars().collect();
        while cut.pop().is_some() {
            let short: String = cut.iter().chain(['…'].iter()).collect();
            if self.width(&short) <= width {
                return short;
            }
        }
        String::new()
    }
}

/// What figures draw on. Points are pixels from the top left.
pub(super) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

type Drawn = Result<(), PlotError>;

impl Canvas<'_> {
    /// Draws a figure of this height with `paint`, and renders it. `title` is for screen readers.
    pub(super) fn draw(
        height: i32,
        title: &str,
        paint: impl FnOnce(&Canvas<'_>) -> Drawn,
    ) -> Result<Drawing, PlotError> {
        LazyLock::force(&FONTS);
        let mut raw = String::new();
        {
            let size = (WIDTH as u32, height as u32);
            let area = SVGBackend::with_string(&mut raw, size).into_drawing_area();
            let canvas = Canvas { area };
            canvas.done(canvas.area.fill(&WHITE))?;
            paint(&canvas)?;
            canvas.done(canvas.area.present())?;
        }
        render(&raw, title)
    }

    fn done<E: std::error::Error + Send + Sync>(
        &self,
        result: Result<(), DrawingAreaErrorKind<E>>,
    ) -> Drawn {
        result.map_err(|error| PlotError::Drawing(error.to_string()))
    }

    pub(super) fn text(&self, pen: Pen, x: i32, y: i32, text: &str) -> Drawn {
        if text.is_empty() {
            return Ok(());
        }
        self.done(self.area.draw(&Text::new(text.to_owned(), (x, y), pen.style(false))))
    }

    /// Text that reads upwards.
    pub(super) fn text_up(&self, pen: Pen, x: i32, y: i32, text: &str) -> Drawn {
        self.done(self.area.draw(&Text::new(text.to_owned(), (x, y), pen.style(true))))
    }

    pub(super) fn rect(&self, from: (i32, i32), to: (i32, i32), color: impl Color) -> Drawn {
        self.done(self.area.draw(&Rectangle::new([from, to], color.filled())))
    }

    pub(super) fn line(&self, points: &[(i32, i32)], color: impl Color, width: u32) -> Drawn {
        let style = color.stroke_width(width);
        self.done(self.area.draw(&PathElement::new(points.to_vec(), style)))
    }

    /// A dashed line.
    pub(super) fn dashes(&self, points: &[(i32, i32)], color: RGBColor, width: u32) -> Drawn {
        const DASH: f64 = 12.0;
        const GAP: f64 = 7.0;
        let (mut on, mut left) = (true, DASH);
        let mut dash: Vec<(i32, i32)> = points.first().copied().into_iter().collect();
        for piece in points.windows(2) {
            let ([x0, y0], [x1, y1]) = (pair(piece[0]), pair(piece[1]));
            let length = (x1 - x0).hypot(y1 - y0);
            let mut gone = 0.0;
            while length - gone > left {
                gone += left;
                let part = gone / length;
                let at = (x0 + (x1 - x0) * part, y0 + (y1 - y0) * part);
                let at = (at.0.round() as i32, at.1.round() as i32);
                dash.push(at);
                if on {
                    self.line(&dash, color, width)?;
                }
                dash = vec![at];
                on = !on;
                left = if on { DASH } else { GAP };
            }
            left -= length - gone;
            dash.push(piece[1]);
        }
        if on { self.line(&dash, color, width) } else { Ok(()) }
    }

    /// The marker of a variant: each has its own shape, for those who cannot tell the colours.
    pub(super) fn marker(&self, at: (i32, i32), shape: usize, size: i32, color: RGBColor) -> Drawn {
        let (x, y) = at;
        let polygon = |points: Vec<(i32, i32)>| {
            self.done(self.area.draw(&Polygon::new(points, color.mix(0.85).filled())))
        };
        let s = size;
        match shape % 6 {
            0 => self.done(self.area.draw(&Circle::new(at, s, color.mix(0.85).filled()))),
            1 => polygon(vec![(x - s, y + s), (x + s, y + s), (x, y - s)]),
            2 => polygon(vec![(x - s, y - s), (x + s, y - s), (x + s, y + s), (x - s, y + s)]),
            3 => polygon(vec![(x - s - 1, y), (x, y - s - 1), (x + s + 1, y), (x, y + s + 1)]),
            4 => polygon(vec![(x - s, y - s), (x + s, y - s), (x, y + s)]),
            _ => {
                self.line(&[(x - s, y), (x + s, y)], color, 4)?;
                self.line(&[(x, y - s), (x, y + s)], color, 4)
            }
        }
    }

    pub(super) fn ring(&self, at: (i32, i32), radius: i32, color: RGBColor) -> Drawn {
        self.done(self.area.draw(&Circle::new(at, radius, color.stroke_width(3))))
    }

    pub(super) fn cross(&self, at: (i32, i32), size: i32, color: RGBColor) -> Drawn {
        let (x, y) = at;
        self.line(&[(x - size, y - size), (x + size, y + size)], color, 3)?;
        self.line(&[(x - size, y + size), (x + size, y - size)], color, 3)
    }

    /// Says in the middle of an empty field why it is empty.
    pub(super) fn empty(&self, x: i32, y: i32) -> Drawn {
        let pen = Pen::new(MEDIUM, FAINT).align(Align::Middle);
        self.text(pen, x, y, "no trial that counts has a time to show")
    }

    /// Title and explanation at the top.
    pub(super) fn heading(&self, title: &str, explanation: &str) -> Drawn {
        let pen = Pen::new(LARGE, INK).bold();
        self.text(pen, 40, 50, &pen.fit(title, WIDTH - 80))?;
        let pen = Pen::new(SMALL, FAINT);
        self.text(pen, 40, 98, &pen.fit(explanation, WIDTH - 80))
    }
}

fn pair((x, y): (i32, i32)) -> [f64; 2] {
    [f64::from(x), f64::from(y)]
}

fn render(raw: &str, title: &str) -> Result<Drawing, PlotError> {
    let wrong = |error: &dyn std::fmt::Display| PlotError::Rendering(error.to_string());
    let options = usvg::Options {
        font_family: FAMILY.into(),
        fontdb: FONTS.clone(),
        ..usvg::Options::default()
    };
    let tree = usvg::Tree::from_str(raw, &options).map_err(|error| wrong(&error))?;
    let size = tree.size().to_int_size();
    let mut pixels = tiny_skia::Pixmap::new(size.width(), size.height())
        .ok_or_else(|| wrong(&"the figure has no area"))?;
    resvg::render(&tree, tiny_skia::Transform::default(), &mut pixels.as_mut());
    let png = pixels.encode_png().map_err(|error| wrong(&error))?;
    let written = tree.to_string(&usvg::WriteOptions {
        coordinates_precision: 2,
        indent: usvg::Indent::None,
        ..usvg::WriteOptions::default()
    });
    let svg = named(&written, size.width(), size.height(), title);
    Ok(Drawing { svg, png })
}

/// Gives the figure a name, and a view box with which a page can scale it.
fn named(svg: &str, width: u32, height: u32, title: &str) -> String {
    let body = svg.split_once('>').map_or(svg, |(_, body)| body);
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\"><title>{title}</title>{body}\n"
    )
}
