//! Plots as SVG: throughput by producers, latency percentiles, cost by batch size, scaling.

use crate::results::Row;
use crate::roster::{BATCHLINK, PRODUCER, RWLOCK, STD_MUTEX};
use crate::runs::scaling::ONE_COUNTER;
use crate::runs::{contention, cycle, latency, scaling};
use crate::source::Kind;
use plotters::prelude::*;
use std::path::Path;

/// The ones worth a line; the tables have them all. Okabe and Ito's colours, which stay apart for
/// the colour-blind, on white.
const LINES: [(&str, RGBColor, bool); 9] = [
    (BATCHLINK, RGBColor(213, 94, 0), true),
    (PRODUCER, RGBColor(230, 159, 0), true),
    (STD_MUTEX, RGBColor(0, 114, 178), false),
    ("parking_lot Mutex<Vec>", RGBColor(86, 180, 233), false),
    ("crossbeam ArrayQueue", RGBColor(0, 158, 115), false),
    ("crossbeam channel", RGBColor(110, 110, 110), false),
    ("tokio mpsc", RGBColor(204, 121, 167), false),
    ("rtrb per producer", RGBColor(120, 94, 20), false),
    (RWLOCK, RGBColor(0, 0, 0), false),
];

/// The axes of latencies, and how their values are written.
const LATENCY: (&str, &str, fn(f64) -> String) =
    ("percentile of the pushes", "time of one push", duration);

struct Plot<'a> {
    file: &'a str,
    title: &'a str,
    x: &'a str,
    y: &'a str,
    /// Writes a value on the y axis.
    label: fn(f64) -> String,
    ticks: Vec<String>,
    lines: Vec<Line>,
}

struct Line {
    name: String,
    colour: RGBColor,
    bold: bool,
    /// None where nothing was measured.
    values: Vec<Option<f64>>,
}

pub fn write(dir: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let producers: Vec<String> = contention::PRODUCERS.iter().map(usize::to_string).collect();
    let params: Vec<String> =
        contention::PRODUCERS.iter().map(|&count| contention::param(count, true)).collect();
    contestants(
        dir,
        rows,
        "throughput",
        "Throughput by producers, with a live consumer",
        "contention",
        "contexts/s",
        ("producers", "contexts per second", count),
        &producers,
        &params,
    )?;

    let ticks: Vec<String> =
        latency::PERCENTILES.iter().map(|(label, _)| (*label).to_owned()).collect();
    for (file, load) in
        [("latency", "push, flat out"), ("latency-work", "push, 1 us of work between")]
    {
        let params: Vec<String> = ticks.iter().map(|label| format!("{load}, {label}")).collect();
        let title = format!("One push, 8 producers on 2 cores: {load}");
        contestants(dir, rows, file, &title, "latency", "ns", LATENCY, &ticks, &params)?;
    }

    let ticks: Vec<String> = cycle::BATCHES.iter().map(usize::to_string).collect();
    let params: Vec<String> =
        cycle::BATCHES.iter().map(|&batch| cycle::param(Kind::Plain, batch, 0)).collect();
    contestants(
        dir,
        rows,
        "cycle",
        "Push, drain, dedup, links: cost by batch size",
        "cycle",
        "ns/context",
        ("contexts of a batch", "time per context", duration),
        &ticks,
        &params,
    )?;
    scaling(dir, rows)
}

fn median(rows: &[Row], bench: &str, contestant: &str, param: &str, unit: &str) -> Option<f64> {
    let row = rows.iter().find(|row| {
        row.bench == bench && row.contestant == contestant && row.param == param && row.unit == unit
    })?;
    (row.median > 0.0).then_some(row.median)
}

#[expect(clippy::too_many_arguments)] // each is a label
fn contestants(
    dir: &Path,
    rows: &[Row],
    file: &str,
    title: &str,
    bench: &str,
    unit: &str,
    (x, y, label): (&str, &str, fn(f64) -> String),
    ticks: &[String],
    params: &[String],
) -> anyhow::Result<()> {
    let lines = LINES.iter().map(|&(name, colour, bold)| {
        let values = params.iter().map(|param| median(rows, bench, name, param, unit)).collect();
        Line { name: name.to_owned(), colour, bold, values }
    });
    Plot { file, title, x, y, label, ticks: ticks.to_vec(), lines: lines.collect() }.write(dir)
}

fn scaling(dir: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let unit = "shared-line RMWs/context";
    let colours =
        [LINES[0].1, LINES[1].1, LINES[2].1, LINES[3].1, LINES[4].1, LINES[6].1, LINES[7].1];
    for pattern in scaling::PATTERNS {
        let values = |name: &str, batch: usize| {
            let param = |shards| format!("{shards} shards, batch {batch}");
            scaling::SHARDS
                .iter()
                .map(|shards| median(rows, "scaling", name, &param(shards), unit))
                .collect()
        };
        let mut lines: Vec<Line> = scaling::BATCHES
            .iter()
            .zip(colours)
            .map(|(&batch, colour)| Line {
                name: format!("batch {batch}"),
                colour,
                bold: false,
                values: values(pattern.name(), batch),
            })
            .collect();
        let values = values(ONE_COUNTER, scaling::BATCHES[0]);
        lines.push(Line { name: ONE_COUNTER.to_owned(), colour: BLACK, bold: true, values });
        let file = format!("scaling-{}", pattern.name().replace(' ', "-"));
        let title = format!(
            "Read-modify-writes on shared lines, per context, by shards: {}",
            pattern.name()
        );
        let ticks = scaling::SHARDS.iter().map(usize::to_string).collect();
        let (x, y) = ("shards", "read-modify-writes per context");
        Plot { file: &file, title: &title, x, y, label: count, ticks, lines }.write(dir)?;
    }
    Ok(())
}

/// 20 k and not 20000.0.
fn count(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e3 => format!("{} k", value / 1e3),
        value => format!("{value}"),
    }
}

/// 1 ms and not 1000000.0, of nanoseconds.
fn duration(value: f64) -> String {
    match value {
        value if value >= 1e9 => format!("{} s", value / 1e9),
        value if value >= 1e6 => format!("{} ms", value / 1e6),
        value if value >= 1e3 => format!("{} µs", value / 1e3),
        value => format!("{value} ns"),
    }
}

impl Plot<'_> {
    /// Nothing is written if nothing was measured.
    fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let values = || self.lines.iter().flat_map(|line| line.values.iter().flatten().copied());
        if values().next().is_none() {
            return Ok(());
        }
        let min = values().fold(f64::INFINITY, f64::min);
        let max = values().fold(0.0, f64::max);
        let range = (min / 1.3..max * 1.3).log_scale();
        let path = dir.join(format!("{}.svg", self.file));
        let area = SVGBackend::new(&path, (900, 520)).into_drawing_area();
        area.fill(&WHITE)?;
        let area = area.titled(self.title, ("sans-serif", 20))?;
        // The legend has a column of its own, where no line can run through it.
        let (plot, legend) = area.split_horizontally(650);
        let last = self.ticks.len() as f64 - 1.0;
        let mut chart = ChartBuilder::on(&plot)
            .margin(10)
            .x_label_area_size(45)
            .y_label_area_size(75)
            .build_cartesian_2d(-0.2..last + 0.2, range)?;
        let tick = |x: &f64| match (x - x.round()).abs() < 1e-6 {
            true => self.ticks.get(x.round() as usize).cloned().unwrap_or_default(),
            false => String::new(),
        };
        chart
            .configure_mesh()
            .x_labels(self.ticks.len())
            .x_label_formatter(&tick)
            .y_label_formatter(&|value| (self.label)(*value))
            .x_desc(self.x)
            .y_desc(self.y)
            .axis_desc_style(("sans-serif", 16))
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(220, 220, 220))
            .label_style(("sans-serif", 14))
            .draw()?;
        let mut y = 20;
        for line in &self.lines {
            let points: Vec<(f64, f64)> = line
                .values
                .iter()
                .enumerate()
                .filter_map(|(index, value)| Some((index as f64, (*value)?)))
                .collect();
            if points.is_empty() {
                continue;
            }
            let style = line.colour.stroke_width(if line.bold { 4 } else { 2 });
            chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
            chart.draw_series(
                points.iter().map(|&point| Circle::new(point, 4, line.colour.filled())),
            )?;
            legend.draw(&PathElement::new(vec![(5, y), (30, y)], style))?;
            legend.draw(&Text::new(line.name.clone(), (38, y - 7), ("sans-serif", 14)))?;
            y += 24;
        }
        area.present()?;
        Ok(())
    }
}
