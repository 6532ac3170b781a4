//! The picture of what was measured: a line for each contest, a dot for each peer, as far to the
//! right as it takes longer than ours. Legible on light and on dark backgrounds.

use std::io;
use std::path::Path;

use svg::node::element::{Circle, Line, Style, Text, Title};
use svg::{Document, Node};

use super::measure::Measured;
use super::section::{Role, Section};

const WIDTH: f64 = 960.0;
const ROW: f64 = 20.0;
const TOP: f64 = 56.0;
/// Where the ratios begin and end.
const LEFT: f64 = 300.0;
const RIGHT: f64 = 730.0;
/// The smallest ratio that is drawn, and the greatest, as powers of two; what is beyond is drawn there.
const POWERS: (i32, i32) = (-2, 5);

const STYLE: &str = "
    text { font: 12px system-ui, sans-serif; fill: #57606a }
    .heading { font-weight: 600 }
    .right { text-anchor: end }
    .middle { text-anchor: middle }
    line { stroke: #8c959f; stroke-width: 1; stroke-opacity: 0.35 }
    .ours { stroke-opacity: 1; stroke-width: 1.5 }
    .range { stroke-opacity: 0.8; stroke-width: 1.5 }
    .slower { fill: #2f81f7 }
    .faster { fill: #e5534b }
    @media (prefers-color-scheme: dark) { text { fill: #9aa4af } }
";

/// Writes the picture of all sections that were measured.
pub(crate) fn write(path: &Path, all: &[(&Section, Vec<Measured>)]) -> io::Result<()> {
    let mut chart = Chart { document: Document::new().add(Style::new(STYLE)), y: TOP };
    for (section, measured) in all {
        chart.section(section, measured);
    }
    let bottom = chart.y;
    chart.axis(bottom);
    let height = bottom + ROW;
    let document = chart.document.set("viewBox", (0.0, 0.0, WIDTH, height));
    svg::save(path, &document.set("width", WIDTH).set("height", height))
}

struct Chart {
    document: Document,
    /// How far down the next line is.
    y: f64,
}

impl Chart {
    fn section(&mut self, section: &Section, measured: &[Measured]) {
        let ours: Vec<_> = section.contenders.iter().filter(|one| one.role == Role::Ours).collect();
        let contests: Vec<_> = ours
            .iter()
            .flat_map(|ours| measured.iter().map(move |measured| (ours.name, measured)))
            .filter_map(|(ours, measured)| Some((ours, measured, ratios(measured, ours)?)))
            .collect();
        if contests.is_empty() {
            return;
        }
        self.y += ROW / 2.0;
        self.text(8.0, "heading", section.title);
        for (ours, measured, ratios) in contests {
            let mut label = measured.column.label.to_owned();
            if section.figures.len() > 1 {
                label = format!("{label}, {}", measured.figure);
            }
            if ours != "fan_in" {
                label = format!("{label}, {ours}");
            }
            self.text(LEFT - 16.0, "right", &label);
            self.contest(&ratios);
        }
    }

    /// A line of dots, and the name of the fastest peer.
    fn contest(&mut self, ratios: &[(&str, f64)]) {
        let (y, x_of) = (self.y, |ratio: f64| f64::round(x_of(ratio) * 10.0) / 10.0);
        let (fastest, least) = ratios[0];
        let greatest = ratios[ratios.len() - 1].1;
        self.line((x_of(least), y), (x_of(greatest), y), "range");
        for (peer, ratio) in ratios {
            let class = if *ratio < 1.0 { "faster" } else { "slower" };
            let dot = Circle::new().set("cx", x_of(*ratio)).set("cy", y).set("r", 4);
            let told = Title::new(format!("{peer}: {ratio:.2} times ours"));
            self.add(dot.set("class", class).add(told));
        }
        self.text_at(RIGHT + 12.0, "", &format!("{least:.2}x {fastest}"));
        self.y += ROW;
    }

    fn axis(&mut self, bottom: f64) {
        for power in POWERS.0..=POWERS.1 {
            let (ratio, class) = (f64::from(power).exp2(), if power == 0 { "ours" } else { "" });
            let x = x_of(ratio);
            self.line((x, TOP - 8.0), (x, bottom - ROW / 2.0), class);
            self.y = TOP - 18.0;
            let label = if power < 0 { format!("1/{}", 1 << -power) } else { ratio.to_string() };
            self.text_at(x, "middle", &label);
        }
        self.y = 16.0;
        self.text_at(LEFT, "", "times as long as watershed, which is 1 (logarithmic)");
        self.text_at(RIGHT + 12.0, "", "the fastest peer");
    }

    /// A heading, or a label of the line that is drawn next.
    fn text(&mut self, x: f64, class: &str, text: &str) {
        self.text_at(x, class, text);
        if class == "heading" {
            self.y += ROW;
        }
    }

    fn text_at(&mut self, x: f64, class: &str, text: &str) {
        let text = Text::new(text).set("x", x).set("y", self.y + 4.0);
        self.add(if class.is_empty() { text } else { text.set("class", class) });
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let line = Line::new().set("x1", from.0).set("y1", from.1).set("x2", to.0).set("y2", to.1);
        self.add(if class.is_empty() { line } else { line.set("class", class) });
    }

    fn add(&mut self, node: impl Into<Box<dyn Node>>) {
        self.document.append(node);
    }
}

/// The peers of one of ours, the fastest first.
fn ratios<'a>(measured: &'a Measured, ours: &str) -> Option<Vec<(&'a str, f64)>> {
    let own = measured.series(ours)?;
    let peers = measured.series.iter().filter(|one| one.contender.compares_to() == Some(ours));
    let mut ratios: Vec<_> = peers.map(|peer| (peer.contender.name, peer.ratio(own))).collect();
    ratios.sort_by(|(_, one), (_, other)| one.total_cmp(other));
    (!ratios.is_empty()).then_some(ratios)
}

fn x_of(ratio: f64) -> f64 {
    let (least, most) = (f64::from(POWERS.0), f64::from(POWERS.1));
    LEFT + (RIGHT - LEFT) * (ratio.log2().clamp(least, most) - least) / (most - least)
}
