//! Line charts as inline SVG: the only place that knows plotters.
//! Colours are names that the style sheet fills in, so that light and dark both work.

use maud::{Markup, PreEscaped};
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::markup;
use crate::text;

/// A line on a chart.
#[derive(Default)]
pub struct Series<'a> {
    pub name: &'a str,
    pub points: &'a [(f64, f64)],
    /// Draw points instead of a line, as large as they weigh. One weight a point.
    pub weights: Option<&'a [f64]>,
    /// Number of its colour; absent: that of its place.
    pub colour: Option<usize>,
    /// What points are called, written beside them; empty: nothing. For few points, with weights.
    pub names: &'a [String],
}

/// What a chart shows.
#[derive(Default)]
pub struct Chart<'a> {
    /// For those who cannot see it.
    pub title: String,
    pub series: Vec<Series<'a>>,
    /// Fixed ranges; absent: what the points need.
    pub x: Option<(f64, f64)>,
    pub y: Option<(f64, f64)>,
    /// Words at 0, 1, 2, … on the x axis in place of numbers; empty: numbers.
    pub marks: &'a [String],
    /// The line y = x: what a calibrated judge would do.
    pub diagonal: bool,
    pub size: (u32, u32),
    /// The same drawn anew for narrow screens, so that letters stay as large; such charts are shown
    /// at the size they are drawn. Absent: as wide as there is room.
    pub narrow: Option<(u32, u32)>,
}

/// Stand-ins that no real colour uses; `style.css` maps each to a colour of the theme.
const LINES: [RGBColor; 4] =
    [RGBColor(1, 1, 241), RGBColor(1, 1, 242), RGBColor(1, 1, 243), RGBColor(1, 1, 244)];
const AXIS: RGBColor = RGBColor(1, 1, 250);
const GRID: RGBColor = RGBColor(1, 1, 251);
const WORDS: RGBColor = RGBColor(1, 1, 252);

/// Height of letters as plotters counts it, 1.24 times that of the font: where a chart is shown as
/// wide as there is room, and where at the size it is drawn.
const SCALED: i32 = 14;
const EXACT: i32 = 15;

/// More points than this cannot be seen.
const MOST_POINTS: usize = 240;

/// How many lines one chart can tell apart.
pub const MOST_SERIES: usize = LINES.len();

/// The chart, or nothing when there is nothing to draw.
#[must_use]
pub fn svg(chart: &Chart) -> Markup {
    let drawn = |size, class: &str| {
        let mut out = String::new();
        match draw(chart, size, &mut out) {
            Ok(true) => framed(&out, chart, size, class),
            // A string cannot fail to be written to; without points there is no chart.
            Ok(false) | Err(_) => String::new(),
        }
    };
    PreEscaped(match chart.narrow {
        None => drawn(chart.size, "chart"),
        Some(size) => drawn(chart.size, "chart broad") + &drawn(size, "chart narrow"),
    })
}

fn draw(
    chart: &Chart,
    size: (u32, u32),
    out: &mut String,
) -> Result<bool, Box<dyn std::error::Error>> {
    let lines: Vec<Vec<(f64, f64)>> = chart.series.iter().map(|s| thinned(s.points)).collect();
    let points = || lines.iter().flatten();
    if points().next().is_none() {
        return Ok(false);
    }
    let x = chart.x.unwrap_or_else(|| range(points().map(|p| p.0), 0.0));
    let y = chart.y.unwrap_or_else(|| range(points().map(|p| p.1), 0.06));
    let letters = if chart.narrow.is_some() { EXACT } else { SCALED };
    let root = SVGBackend::with_string(out, size).into_drawing_area();
    let mark = |v: f64| chart.marks.get(v.round() as usize).cloned();
    let mut plot = ChartBuilder::on(&root)
        .margin_top(8)
        .margin_right(12)
        .x_label_area_size(letters + 8)
        .y_label_area_size(letters * 7 / 2)
        .build_cartesian_2d(
            Axis { range: (x.0..x.1).into(), marks: chart.marks.len() },
            y.0..y.1,
        )?;
    plot.configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(AXIS)
        .label_style(("sans-serif", letters).into_font().color(&WORDS))
        .x_labels(4)
        .y_labels(4)
        .x_label_formatter(&|v| mark(*v).unwrap_or_else(|| text::tick(*v)))
        .y_label_formatter(&|v| text::tick(*v))
        .set_all_tick_mark_size(3)
        .draw()?;
    if chart.diagonal {
        let ends = [(x.0.max(y.0), x.0.max(y.0)), (x.1.min(y.1), x.1.min(y.1))];
        plot.draw_series(DashedLineSeries::new(ends, 4, 4, AXIS.stroke_width(1)))?;
    }
    let dots = lines.iter().zip(&chart.series).filter(|(_, series)| series.weights.is_some());
    let around = |(x, y): (i32, i32)| [x - 6, y - 6, x + 6, y + 6];
    let mut taken: Vec<Box2> =
        dots.flat_map(|(line, _)| line.iter().map(|p| around(plot.backend_coord(p)))).collect();
    let mut named_once = std::collections::HashSet::new();
    for (i, (line, series)) in lines.iter().zip(&chart.series).enumerate() {
        let colour = LINES[series.colour.unwrap_or(i) % LINES.len()];
        let inside = |p: &(f64, f64)| (p.0.clamp(x.0, x.1), p.1.clamp(y.0, y.1));
        let line: Vec<(f64, f64)> = line.iter().map(inside).collect();
        let dot = |(at, size): ((f64, f64), i32)| Circle::new(at, size, colour.filled());
        if let Some(weights) = series.weights {
            let sizes = weights.iter().map(|w| radius(*w));
            plot.draw_series(line.iter().copied().zip(sizes).map(dot))?;
            let named = series.points.iter().zip(series.names).filter(|(p, _)| is_sane(p));
            for (point, (_, name)) in line.iter().zip(named) {
                let at = plot.backend_coord(point);
                // Two measures may have one point in common: its name stands there once.
                if !named_once.insert((at, name)) {
                    continue;
                }
                let Some(place) = beside(at, name, letters, size, &mut taken) else { continue };
                let style = ("sans-serif", letters).into_font().color(&WORDS);
                root.draw(&Text::new(name.clone(), place, style))?;
            }
            continue;
        }
        plot.draw_series(LineSeries::new(line.iter().copied(), colour.stroke_width(2)))?;
        if line.len() < 12 {
            plot.draw_series(line.iter().map(|p| dot((*p, 3))))?;
        }
    }
    root.present()?;
    drop(plot);
    drop(root);
    Ok(true)
}

/// Left, top, right and bottom.
type Box2 = [i32; 4];

/// Where the name of a point stands: right of it, left, above or below, wherever it covers no other
/// name, no point and no edge; `None`: there is no room.
fn beside(
    (x, y): (i32, i32),
    name: &str,
    letters: i32,
    (width, height): (u32, u32),
    taken: &mut Vec<Box2>,
) -> Option<(i32, i32)> {
    // Letters are about half as wide as they are high.
    let long = i32::try_from(name.chars().count()).unwrap_or(0) * letters * 11 / 20;
    let rows = [-letters / 2, -letters - 6, 6, -3 * letters / 2 - 8, letters / 2 + 8];
    let beside = rows.iter().flat_map(|dy| [(x + 9, y + dy), (x - 9 - long, y + dy)]);
    let over = [(x - long / 2, y - letters - 9), (x - long / 2, y + 9)];
    let places: Vec<(i32, i32)> = beside.chain(over).collect();
    let extent = |(x, y): (i32, i32)| [x, y, x + long, y + letters];
    let (width, height) = (width.cast_signed(), height.cast_signed());
    let inside = |b: &Box2| {
        b[0] >= letters * 7 / 2 && b[1] >= 0 && b[2] <= width && b[3] <= height - letters - 8
    };
    let apart = |a: &Box2, b: &Box2| a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
    let free = |place: &&(i32, i32)| {
        let own = extent(**place);
        inside(&own) && taken.iter().all(|other| apart(&own, other))
    };
    let place = places.iter().find(free).copied()?;
    taken.push(extent(place));
    Some(place)
}

/// An axis that is marked at 0, 1, 2, … or, without marks, where plotters thinks fit.
struct Axis {
    range: RangedCoordf64,
    marks: usize,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.range.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match self.marks {
            0 => self.range.key_points(hint),
            n => (0..n).map(|i| i as f64).collect(),
        }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.range.range()
    }
}

/// Of a point that stands for `n` things: its area grows with them.
fn radius(n: f64) -> i32 {
    if n.is_finite() { (n.max(0.0).sqrt() * 1.2).clamp(3.0, 11.0).round() as i32 } else { 3 }
}

fn is_sane((x, y): &(f64, f64)) -> bool {
    x.abs() < 1e30 && y.abs() < 1e30
}

/// Points that can be drawn, and no more than can be seen: means of neighbours, so that peaks do
/// not depend on which point is kept.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let kept: Vec<(f64, f64)> = points.iter().copied().filter(is_sane).collect();
    let size = kept.len().div_ceil(MOST_POINTS).max(1);
    let mean = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        (part.iter().map(|p| p.0).sum::<f64>() / n, part.iter().map(|p| p.1).sum::<f64>() / n)
    };
    kept.chunks(size).map(mean).collect()
}

/// The least and the most, with room around; never empty.
pub fn range(values: impl Iterator<Item = f64>, room: f64) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
    let span = high - low;
    if span > low.abs().max(1e-12) * 1e-9 {
        (low - room * span, high + room * span)
    } else {
        let around = (low.abs() * 0.1).max(1e-6);
        (low - around, high + around)
    }
}

/// The SVG without what an inline one does not need, with words for those who cannot see it.
fn framed(svg: &str, chart: &Chart, (width, height): (u32, u32), class: &str) -> String {
    let body = svg.split_once('>').map_or("", |(_, body)| body);
    let most = match chart.narrow {
        Some(_) => format!(" style=\"max-width:{width}px\""),
        None => String::new(),
    };
    let names: Vec<&str> = chart.series.iter().map(|s| s.name).collect();
    let title = maud::html! {
        title { (markup::plain(&chart.title)) }
        desc { "Lines: " (markup::plain(&names.join(", "))) }
    };
    format!(
        "<svg class=\"{class}\"{most} role=\"img\" viewBox=\"0 0 {width} {height}\">{}{body}",
        title.into_string()
    )
}
