//! Figures: throughput above, p99 below, over the same axis.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;

use super::sweep::{Axis, Measured, Point};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A line: its name, and its points.
type Line<'a> = (&'a str, Vec<(f64, f64)>);

const SIZE: (u32, u32) = (760, 700);
/// Height of what names the lines.
const LEGEND: u32 = 40;
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
    names: &[&str],
    points: &[Point],
) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (top, panels) = root.split_vertically(LEGEND);
    let (upper, lower) = panels.split_vertically((SIZE.1 - LEGEND) / 2);
    legend(&top, names)?;
    let lines = |of: fn(&Measured) -> f64| -> Vec<Line<'_>> {
        let line = |name: &&str| {
            let mine = points.iter().filter(|point| point.series == *name);
            let known = mine.filter_map(|point| {
                let measured = point.measured.as_ref().ok()?;
                Some((point.x as f64, of(measured)))
            });
            known.filter(|(_, y)| *y > 0.0).collect()
        };
        names.iter().map(|name| (*name, line(name))).collect()
    };
    let rates = lines(|measured| measured.per_second);
    let p99s = lines(|measured| measured.p99_us / 1e3);
    panel(&upper, axis, "per second", &rates)?;
    panel(&lower, axis, "p99, ms", &p99s)?;
    root.present()?;
    Ok(())
}

fn legend(area: &Area<'_>, names: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut x = 80;
    for (name, colour) in names.iter().zip(COLOURS) {
        let line = [(x, 24), (x + 24, 24)];
        area.draw(&PathElement::new(line, colour.stroke_width(3)))?;
        area.draw(&Text::new(*name, (x + 30, 17), FONT.into_font()))?;
        x += 60 + 8 * i32::try_from(name.len())?;
    }
    Ok(())
}

/// An axis with ticks of our own.
struct Scale {
    /// From the least to the greatest.
    ticks: Vec<f64>,
    is_logarithmic: bool,
    /// Left free at both ends, as a part of the whole.
    margin: f64,
}

impl Scale {
    /// The first tick at 0, the last at 1.
    fn place(&self, value: f64) -> f64 {
        let scaled = |value: f64| {
            if self.is_logarithmic {
                value.ln()
            } else {
                value
            }
        };
        let Range { start, end } = self.range();
        (scaled(value) - scaled(start)) / (scaled(end) - scaled(start))
    }

    /// Around these values: a tick at 1, 2, 5, 10, ... or, if those are many, at powers of ten.
    fn around(least: f64, most: f64) -> Self {
        let few = (most / least).log10() < 2.5;
        let steps: &[f64] = if few { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let powers = (-4..12).map(|power| 10_f64.powi(power));
        let all: Vec<f64> = powers
            .flat_map(|ten| steps.iter().map(move |step| step * ten))
            .collect();
        let from = all.iter().rposition(|tick| *tick <= least).unwrap_or(0);
        let to = all
            .iter()
            .position(|tick| *tick > most)
            .unwrap_or(all.len() - 1);
        Self {
            ticks: all[from..=to].to_vec(),
            is_logarithmic: true,
            margin: 0.0,
        }
    }
}

impl Ranged for Scale {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let whole = f64::from(to - from);
        let part = self.margin + (1.0 - 2.0 * self.margin) * self.place(*value);
        from + (whole * part).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        let end = |tick: Option<&f64>| tick.copied().unwrap_or(1.0);
        end(self.ticks.first())..end(self.ticks.last())
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
    let across = Scale {
        ticks: axis.at.iter().map(|x| *x as f64).collect(),
        is_logarithmic: axis.is_logarithmic,
        margin: 0.03,
    };
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(16)
        .x_label_area_size(44)
        .y_label_area_size(66)
        .build_cartesian_2d(across, Scale::around(least, most))?;
    chart
        .configure_mesh()
        .label_style(FONT)
        .axis_desc_style(FONT)
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.15))
        .x_desc(axis.label)
        .y_desc(what)
        .x_label_formatter(&|x| short(*x, axis.name == "values"))
        .y_label_formatter(&|y| short(*y, false))
        .draw()?;
    for ((_, points), colour) in lines.iter().zip(COLOURS) {
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
        chart.draw_series(line.point_size(3))?;
    }
    Ok(())
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
