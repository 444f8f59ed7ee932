//! A plot of the figures over the sizes: both axes logarithmic, a line for each who.

use super::text::name;
use super::{Report, Results};
use crate::plan::Metric;
use crate::sizes;
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 520.0;
/// Around the plot: left, top, right (for the names), bottom.
const MARGIN: [f64; 4] = [70.0, 40.0, 250.0, 50.0];
/// Told apart by people with impaired colour vision, too (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];

/// One line: its name, whether it is dashed, its points.
struct Line {
    who: usize,
    label: String,
    dashed: bool,
    points: Vec<(f64, f64)>,
}

impl Report {
    /// The plot: of latency p50 (solid) and p99 (dashed), otherwise of what the workload measures; of the
    /// first workload if there are several. `None` if no figure is above zero.
    pub fn svg(&self) -> Option<String> {
        let workload = self.results.first()?.case.workload;
        let results: Vec<&Results> = self.results.iter().filter(|r| r.case.workload == workload).collect();
        let mut names: Vec<String> = Vec::new();
        for result in &results {
            let name = plain_name(result);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let metrics = Metric::of(workload);
        let mut lines = Vec::new();
        for (who, who_name) in names.iter().enumerate() {
            for (i, metric) in metrics.iter().enumerate() {
                let mut points: Vec<(f64, f64)> = results
                    .iter()
                    .filter(|r| plain_name(r) == *who_name)
                    .filter_map(|r| {
                        Some((r.case.size.max(1) as f64, metric.get(&r.median).filter(|v| *v > 0.0)?))
                    })
                    .collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                let label = format!("{who_name} {metric}");
                lines.push(Line { who, label, dashed: i > 0, points });
            }
        }
        let (unit, scale) = match metrics[0] {
            Metric::P50 | Metric::P99 => ("half round trip, microseconds", 1e-3),
            Metric::Rate => ("million messages per second", 1e-6),
            Metric::Bandwidth => ("gigabytes per second", 1e-9),
        };
        draw(&lines, unit, scale)
    }
}

/// Without the window, which differs from size to size.
fn plain_name(result: &Results) -> String {
    let name = name(result);
    name.split(", window").next().unwrap_or(&name).to_owned()
}

fn draw(lines: &[Line], unit: &str, scale: f64) -> Option<String> {
    let [left, top, right, bottom] = MARGIN;
    let all = || lines.iter().flat_map(|l| l.points.iter().copied());
    let range = |of: fn((f64, f64)) -> f64| {
        let (low, high) =
            all().map(of).fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
        (low <= high).then_some((low, high))
    };
    let (x_low, x_high) = range(|p| p.0)?;
    let (y_low, y_high) = range(|p| p.1)?;
    let (y_low, y_high) = ((y_low * scale).log10().floor(), (y_high * scale).log10().ceil());
    let y_high = if y_high <= y_low { y_low + 1.0 } else { y_high };
    let x = |size: f64| {
        let span = (x_high / x_low).log2();
        left + (WIDTH - left - right) * if span > 0.0 { (size / x_low).log2() / span } else { 0.5 }
    };
    let y = |value: f64| {
        top + (HEIGHT - top - bottom) * (1.0 - ((value * scale).log10() - y_low) / (y_high - y_low))
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"20\">{unit}, by message size in bytes</text>\n"
    );
    let (end_x, end_y) = (WIDTH - right, HEIGHT - bottom);
    let mut decade = y_low;
    while decade <= y_high {
        let at = y(10f64.powf(decade) / scale);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {at:.1}H{end_x}\" stroke=\"#ccc\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            at + 4.0,
            10f64.powf(decade)
        );
        decade += 1.0;
    }
    let mut sizes: Vec<f64> = all().map(|p| p.0).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    for size in sizes {
        let at = x(size);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {top}V{end_y}\" stroke=\"#eee\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            end_y + 18.0,
            sizes::show(size as usize)
        );
    }
    for (i, line) in lines.iter().enumerate() {
        let colour = COLOURS[line.who % COLOURS.len()];
        let dash = if line.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        let points: Vec<String> =
            line.points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
            points.join(" ")
        );
        for (at_x, at_y) in line.points.iter().map(|p| (x(p.0), y(p.1))) {
            let _ = writeln!(svg, "<circle cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let at = top + 18.0 * i as f64;
        let _ = writeln!(
            svg,
            "<path d=\"M{:.1} {at:.1}h24\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            end_x + 12.0,
            end_x + 42.0,
            at + 4.0,
            line.label
        );
    }
    svg += "</svg>\n";
    Some(svg)
}
