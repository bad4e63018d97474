use std::sync::Arc;

use resvg::{tiny_skia, usvg};

use super::*;
use crate::{Budget, KeyValue, Model, Register, check, jepsen};

/// The drawing of the first key that cannot be explained.
fn drawn<M: Model>(model: &M, history: &[Operation<M::Op>]) -> String {
    let checked = check(model, history, &Budget::default());
    let prefix = checked.keys.iter().find_map(|key| key.prefix.as_ref()).unwrap();
    draw("A <history> & its \"end\"", history, prefix)
}

/// Renders as a browser would; the font is the one of the figures.
fn rendered(svg: &str) -> tiny_skia::Pixmap {
    let mut fonts = usvg::fontdb::Database::new();
    fonts.load_font_data(include_bytes!("../../../report/font/Inter-Regular.otf").to_vec());
    fonts.load_font_data(include_bytes!("../../../report/font/Inter-SemiBold.otf").to_vec());
    let options = usvg::Options { fontdb: Arc::new(fonts), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).unwrap();
    let size = tree.size().to_int_size();
    let mut pixels = tiny_skia::Pixmap::new(size.width(), size.height()).unwrap();
    resvg::render(&tree, tiny_skia::Transform::default(), &mut pixels.as_mut());
    pixels
}

const STALE: &str = "0\t:invoke\t:write\t1\n\
                     0\t:ok\t:write\t1\n\
                     1\t:invoke\t:write\t2\n\
                     2\t:invoke\t:cas\t[1 3]\n\
                     1\t:ok\t:write\t2\n\
                     2\t:info\t:cas\t:timed-out\n\
                     0\t:invoke\t:read\tnil\n\
                     1\t:invoke\t:read\tnil\n\
                     1\t:ok\t:read\t2\n\
                     0\t:ok\t:read\t1\n";

#[test]
fn stuck_operation_is_red_and_the_others_are_not() {
    let svg = drawn(&Register::absent(), &jepsen::register(STALE).unwrap());
    assert_eq!(svg.matches(STUCK[0]).count(), 1);
    let red = svg.lines().find(|line| line.contains(STUCK[0])).unwrap();
    assert!(red.contains("<title>read 1</title>"), "{red}");
    for label in ["1  write 1", "2  write 2", "3  read 2", "cas 1 → 3"] {
        assert!(svg.contains(&format!(">{label}</text>")), "{label} in {svg}");
    }
    assert!(svg.contains("and leaves 2."), "{svg}");
    // The unknown one is open on the right.
    assert_eq!(svg.matches("stroke-dasharray").count(), 1);
    assert!(svg.contains("A &lt;history&gt; &amp; its"), "{svg}");
}

#[test]
fn what_is_drawn_can_be_rendered() {
    let pixels = rendered(&drawn(&Register::absent(), &jepsen::register(STALE).unwrap()));
    let red = pixels.pixels().iter().filter(|p| (p.red(), p.green(), p.blue()) == (198, 40, 40));
    assert!(red.count() > 500);
}

#[test]
fn long_values_are_cut_and_drawn_within_the_picture() {
    let line = |process, kind, f, value: &str| {
        format!("{{:process {process}, :type :{kind}, :f :{f}, :key \"k\", :value {value}}}\n")
    };
    let long = format!("\"{}\u{1}&end\"", "x".repeat(500));
    let mut text = String::new();
    for process in 0..40 {
        text += &line(process, "invoke", "append", &long);
    }
    text += &line(50, "invoke", "get", "nil");
    text += &line(50, "ok", "get", "\"never\"");
    let svg = drawn(&KeyValue, &jepsen::store(&text).unwrap());
    assert!(svg.contains("Not shown: 32 older ones of unknown outcome."), "{svg}");
    let pixels = rendered(&svg);
    assert!(pixels.width() < 2000 && pixels.height() < 700, "{} pixels wide", pixels.width());
    // Nothing is cut off at the right edge.
    let last = |y: u32| pixels.pixel(pixels.width() - 4, y).unwrap();
    assert!((0..pixels.height()).all(|y| last(y).red() == 255 && last(y).green() == 255));
}
