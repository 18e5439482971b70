//! Charts of shares over time, as the elements within an `svg` element. Colours come from the style sheet around it, by class.

use maud::{Markup, Render, html};

use super::text;

/// How far a mark on the horizontal axis reaches below it.
const TICK: f64 = 5.0;
/// Labels closer than this to the left or right edge do not extend beyond it.
const MARGIN: f64 = 50.0;

/// The size of a picture, and the part of it that the curves take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) left: f64,
    pub(crate) right: f64,
    pub(crate) top: f64,
    pub(crate) bottom: f64,
}

impl Frame {
    /// The value of the attribute `viewBox`.
    pub(crate) fn view_box(&self) -> String {
        format!("0 0 {} {}", self.width, self.height)
    }

    /// The horizontal coordinate of a part, from 0 to 1, of the time.
    pub(crate) fn x(&self, part: f64) -> f64 {
        self.left + (self.right - self.left) * part.clamp(0.0, 1.0)
    }

    /// The vertical coordinate of a part, from 0 to 1, of the highest level.
    fn y(&self, part: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * part.clamp(0.0, 1.0)
    }

    /// The anchor that keeps a label at this time within the picture.
    pub(crate) fn anchor(&self, part: f64) -> Anchor {
        match self.x(part) {
            x if x < self.left + MARGIN => Anchor::Start,
            x if x > self.right - MARGIN => Anchor::End,
            _ => Anchor::Middle,
        }
    }
}

/// Which part of a label is at its position.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A part of the time, and a part of the highest level.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

/// A text at a part of the time.
#[derive(Debug)]
pub(crate) struct Label {
    pub(crate) class: Option<&'static str>,
    pub(crate) x: f64,
    pub(crate) anchor: Anchor,
    pub(crate) text: String,
}

/// A vertical line at a part of the time, with a label above it.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) class: &'static str,
    pub(crate) x: f64,
    pub(crate) label: Option<Label>,
}

/// What is drawn around a point, so that lines differ by more than their colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Circle,
    Square,
    Cross,
    Diamond,
}

/// A shape at a point.
#[derive(Debug)]
pub(crate) struct Symbol {
    pub(crate) class: &'static str,
    pub(crate) shape: Shape,
    pub(crate) at: Point,
}

/// A shape around coordinates.
pub(crate) fn symbol(class: &str, shape: Shape, x: f64, y: f64) -> Markup {
    let path = |d: String| html! { path class=(class) d=(d) {} "\n" };
    let [left, right, up, down] = [x - 4.0, x + 4.0, y - 4.0, y + 4.0].map(pixels);
    let (middle, height) = (pixels(x), pixels(y));
    match shape {
        Shape::Circle => html! { circle class=(class) cx=(middle) cy=(height) r="3.5" {} "\n" },
        Shape::Square => path(format!("M{left} {up}H{right}V{down}H{left}Z")),
        Shape::Cross => path(format!("M{left} {up}L{right} {down}M{left} {down}L{right} {up}")),
        Shape::Diamond => path(format!("M{middle} {up}L{right} {height}L{middle} {down}L{left} {height}Z")),
    }
}

/// A line from point to point; a step is two points at one time.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) class: &'static str,
    pub(crate) points: Vec<Point>,
}

/// What to draw.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) frame: Frame,
    /// Labels of the vertical axis, each with its part of the highest level.
    pub(crate) levels: Vec<(f64, String)>,
    /// Labels of the horizontal axis.
    pub(crate) ticks: Vec<Label>,
    /// The area below these points is filled.
    pub(crate) area: Vec<Point>,
    pub(crate) lines: Vec<Line>,
    pub(crate) marks: Vec<Mark>,
    /// A point to emphasize.
    pub(crate) dot: Option<Point>,
    /// Shapes above all lines.
    pub(crate) symbols: Vec<Symbol>,
}

impl Chart {
    fn levels(&self) -> Markup {
        let Frame { left, right, .. } = self.frame;
        html! {
            @for (level, label) in &self.levels {
                @let y = self.frame.y(*level);
                line class="grid" x1=(left) x2=(right) y1=(pixels(y)) y2=(pixels(y)) {} "\n"
                text x=(pixels(left - 8.0)) y=(pixels(y + 4.0)) text-anchor=(Anchor::End.as_str()) { (text(label)) } "\n"
            }
        }
    }

    fn ticks(&self) -> Markup {
        let bottom = self.frame.bottom;
        html! {
            @for tick in &self.ticks {
                @let x = pixels(self.frame.x(tick.x));
                line class="axis" x1=(x) x2=(x) y1=(bottom) y2=(pixels(bottom + TICK)) {} "\n"
                (self.label(tick, bottom + 19.0))
            }
        }
    }

    fn marks(&self) -> Markup {
        let Frame { top, bottom, .. } = self.frame;
        html! {
            @for Mark { class, x, label } in &self.marks {
                @let x = pixels(self.frame.x(*x));
                line class=(class) x1=(x) x2=(x) y1=(top) y2=(bottom) {} "\n"
                @if let Some(label) = label { (self.label(label, top - 5.0)) }
            }
        }
    }

    fn label(&self, label: &Label, y: f64) -> Markup {
        let x = pixels(self.frame.x(label.x));
        html! {
            text class=[label.class] x=(x) y=(pixels(y)) text-anchor=(label.anchor.as_str()) { (text(&label.text)) } "\n"
        }
    }

    fn filled_area(&self) -> Markup {
        let bottom = self.frame.bottom;
        let corner = |point: &Point| format!("{},{bottom}", pixels(self.frame.x(point.x)));
        html! {
            @if let (Some(first), Some(last)) = (self.area.first(), self.area.last()) {
                polygon class="area" points={ (corner(first)) " " (self.points(&self.area)) " " (corner(last)) } {} "\n"
            }
        }
    }

    fn points(&self, points: &[Point]) -> String {
        let pair = |point: &Point| format!("{},{}", pixels(self.frame.x(point.x)), pixels(self.frame.y(point.y)));
        points.iter().map(pair).collect::<Vec<_>>().join(" ")
    }
}

impl Render for Chart {
    fn render(&self) -> Markup {
        let Frame { left, right, bottom, .. } = self.frame;
        html! {
            (self.levels())
            (self.ticks())
            (self.filled_area())
            (self.marks())
            @for line in &self.lines {
                polyline class=(line.class) points=(self.points(&line.points)) {} "\n"
            }
            line class="axis" x1=(left) x2=(right) y1=(bottom) y2=(bottom) {} "\n"
            @if let Some(Point { x, y }) = self.dot {
                circle class="dot" cx=(pixels(self.frame.x(x))) cy=(pixels(self.frame.y(y))) r="4" {} "\n"
            }
            @for Symbol { class, shape, at } in &self.symbols {
                (symbol(class, *shape, self.frame.x(at.x), self.frame.y(at.y)))
            }
        }
    }
}

/// A coordinate, to a tenth.
pub(crate) fn pixels(coordinate: f64) -> String {
    format!("{coordinate:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(x: f64, anchor: Anchor, text: &str) -> Label {
        Label { class: None, x, anchor, text: text.to_owned() }
    }

    #[test]
    fn parts_become_coordinates() {
        let frame = Frame { width: 300.0, height: 200.0, left: 100.0, right: 300.0, top: 20.0, bottom: 120.0 };
        let points = vec![Point { x: 0.25, y: 0.0 }, Point { x: 0.25, y: 0.5 }, Point { x: 1.0, y: 2.0 }];
        let chart = Chart {
            frame,
            levels: vec![(0.5, "half".into())],
            ticks: vec![label(0.0, frame.anchor(0.0), "<first>")],
            area: points.clone(),
            lines: vec![Line { class: "line", points }],
            marks: vec![Mark { class: "mark", x: 0.5, label: Some(label(0.5, frame.anchor(0.5), "1")) }],
            dot: None,
            symbols: vec![Symbol { class: "end", shape: Shape::Diamond, at: Point { x: 0.5, y: 0.5 } }],
        };
        let drawn = chart.render().0;
        for expected in [
            r#"<line class="grid" x1="100" x2="300" y1="70.0" y2="70.0"></line>"#,
            r#"<text x="92.0" y="74.0" text-anchor="end">half</text>"#,
            r#"<text x="100.0" y="139.0" text-anchor="start">&lt;first&gt;</text>"#,
            r#"<polygon class="area" points="150.0,120 150.0,120.0 150.0,70.0 300.0,20.0 300.0,120"></polygon>"#,
            r#"<polyline class="line" points="150.0,120.0 150.0,70.0 300.0,20.0"></polyline>"#,
            r#"<text x="200.0" y="15.0" text-anchor="middle">1</text>"#,
            r#"<path class="end" d="M200.0 66.0L204.0 70.0L200.0 74.0L196.0 70.0Z"></path>"#,
        ] {
            assert!(drawn.contains(expected), "{expected} is missing in\n{drawn}");
        }
        assert!(!drawn.contains("circle"), "{drawn}");
        assert_eq!(frame.view_box(), "0 0 300 200");
    }
}
