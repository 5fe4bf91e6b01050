//! Figures: throughput above, p99 below, over the same axis.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;

use super::sweep::{Axis, Point};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A line: its name, and its points.
type Line<'a> = (&'a str, Vec<(f64, f64)>);

const SIZE: (u32, u32) = (760, 700);
const FONT: (&str, u32) = ("sans-serif", 14);
/// Told apart by who sees few colours, too.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(150, 70, 160),
];

/// Writes one figure.
pub fn draw(
    path: &Path,
    axis: &Axis,
    lines: &[&str],
    points: &[Point],
) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(SIZE.1 / 2);
    let all = |of: fn(&(f64, f64)) -> f64| -> Vec<Line<'_>> {
        let line = |name: &&'_ str| {
            let mine = points.iter().filter(|point| point.series == *name);
            let known = mine.filter_map(|point| {
                let measured = point.measured.as_ref().ok()?;
                Some((point.x as f64, of(measured).max(0.001)))
            });
            known.collect()
        };
        let lines = lines.iter().map(|name| (*name, line(name)));
        lines.collect()
    };
    panel(
        &upper,
        axis,
        "requests or transactions per second",
        &all(|(rate, _)| *rate),
    )?;
    panel(&lower, axis, "p99, ms", &all(|(_, p99)| p99 / 1e3))?;
    root.present()?;
    Ok(())
}

/// From left to right, a tick at each value.
struct Across<'a>(&'a Axis);

impl Across<'_> {
    /// Where a value is, the first at 0 and the last at 1.
    fn place(&self, x: f64) -> f64 {
        let scale = |x: f64| if self.0.is_logarithmic { x.ln() } else { x };
        let Range { start, end } = self.range();
        (scale(x) - scale(start)) / (scale(end) - scale(start))
    }
}

impl Ranged for Across<'_> {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, x: &f64, (from, to): (i32, i32)) -> i32 {
        let margin = f64::from(to - from) * 0.03;
        let inner = f64::from(to - from) - 2.0 * margin;
        from + (margin + inner * self.place(*x)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.0.at.iter().map(|x| *x as f64).collect()
    }

    fn range(&self) -> Range<f64> {
        let ends = [self.0.at.first(), self.0.at.last()];
        let [start, end] = ends.map(|end| end.map_or(0.0, |x| *x as f64));
        start..end
    }
}

fn panel(
    area: &Area<'_>,
    axis: &Axis,
    what: &str,
    lines: &[Line<'_>],
) -> Result<(), Box<dyn Error>> {
    let values = lines
        .iter()
        .flat_map(|(_, points)| points)
        .map(|point| point.1);
    let (least, most) = values.fold((f64::MAX, f64::MIN), |(a, b), y| (a.min(y), b.max(y)));
    if least > most {
        // Every point has failed; the CSV says why.
        return Ok(());
    }
    let up = (below(least)..above(most)).log_scale();
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(Across(axis), up)?;
    chart
        .configure_mesh()
        .label_style(FONT)
        .axis_desc_style(FONT)
        .light_line_style(BLACK.mix(0.05))
        .bold_line_style(BLACK.mix(0.15))
        .x_desc(axis.label)
        .y_desc(what)
        .x_label_formatter(&|x| short(*x, axis.name == "values"))
        .y_label_formatter(&|y| short(*y, false))
        .draw()?;
    for ((name, points), colour) in lines.iter().zip(COLOURS) {
        chart
            .draw_series(
                LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3),
            )?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .label_font(FONT)
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// The next of 1, 2, 5, 10, ... below.
fn below(value: f64) -> f64 {
    let ten = 10_f64.powf(value.log10().floor());
    let steps = [5.0, 2.0, 1.0].map(|step| step * ten);
    steps
        .into_iter()
        .find(|step| *step < value)
        .unwrap_or(ten / 2.0)
}

/// The next of them above.
fn above(value: f64) -> f64 {
    let ten = 10_f64.powf(value.log10().floor());
    let steps = [2.0, 5.0, 10.0].map(|step| step * ten);
    steps
        .into_iter()
        .find(|step| *step > value)
        .unwrap_or(ten * 20.0)
}

/// A number with few characters; bytes by 1,024.
fn short(value: f64, is_bytes: bool) -> String {
    let base: f64 = if is_bytes { 1024.0 } else { 1000.0 };
    for (power, letter) in [(2, "M"), (1, "k")] {
        let unit = base.powi(power);
        if value >= unit {
            return format!("{}{letter}", value / unit);
        }
    }
    format!("{}", (value * 1e6).round() / 1e6)
}
