//! Pictures: panels below each other over the same seconds, as SVG, on a white ground of their own.

use std::ops::Range;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// One line per route, told apart in print and by the colour-blind (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(80, 80, 80),
];

const WIDTH: u32 = 960;
const PANEL_HEIGHT: u32 = 300;
const TITLE_HEIGHT: u32 = 36;
const LEGEND_LINE_HEIGHT: u32 = 22;

/// More points than the picture is wide show nothing.
const POINTS_MAX: usize = 480;

/// A line.
pub(crate) struct Line {
    /// Its name in the legend.
    pub(crate) name: String,
    /// Seconds and value, in order.
    pub(crate) points: Vec<(f64, f64)>,
}

/// What the vertical axis is.
pub(crate) enum Scale {
    /// From nothing.
    Linear,
    /// Every decade as high as the next.
    Log,
}

/// One diagram.
pub(crate) struct Panel {
    /// What the vertical axis counts, with its unit.
    pub(crate) y: &'static str,
    /// How.
    pub(crate) scale: Scale,
    /// The lines, in the order of [`COLOURS`].
    pub(crate) lines: Vec<Line>,
}

/// The picture. Its panels have lines of the same names.
pub(crate) fn draw(title: &str, x: &str, panels: &[Panel]) -> String {
    let legend = legend(&panels[0].lines);
    let legend_height = legend.last().map_or(0, |(place, ..)| place.1 + LEGEND_LINE_HEIGHT);
    let height = TITLE_HEIGHT + legend_height + PANEL_HEIGHT * u32::try_from(panels.len()).expect("a few");
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).expect("memory takes it");
        let root = root.titled(title, ("sans-serif", 20).into_font()).expect("memory takes it");
        let (head, root) = root.split_vertically(legend_height);
        for ((x, y), name, colour) in legend {
            let (x, y) = (i32::try_from(x).expect("pixels"), i32::try_from(y).expect("pixels"));
            let key = PathElement::new([(x, y + 8), (x + 22, y + 8)], colour.stroke_width(3));
            head.draw(&key).expect("memory takes it");
            head.draw(&Text::new(name, (x + 30, y), ("sans-serif", 14))).expect("memory takes it");
        }
        let seconds = last(panels, |point| point.0).max(1.0);
        for (area, panel) in root.split_evenly((panels.len(), 1)).iter().zip(panels) {
            match panel.scale {
                Scale::Linear => {
                    let top = last(std::slice::from_ref(panel), |point| point.1).max(1.0) * 1.05;
                    plot(area, panel, x, seconds, 0.0..top);
                }
                Scale::Log => {
                    let top = last(std::slice::from_ref(panel), |point| point.1).max(100.0) * 1.5;
                    plot(area, panel, x, seconds, (1.0..top).log_scale());
                }
            }
        }
        root.present().expect("memory takes it");
    }
    svg
}

/// Where each line's name stands below the title, and its colour: from left to right, in as many lines as that takes.
fn legend(lines: &[Line]) -> Vec<((u32, u32), &str, RGBColor)> {
    const LEFT: u32 = 80;
    let (mut x, mut y) = (LEFT, 0);
    let mut legend = Vec::new();
    for (line, colour) in lines.iter().zip(COLOURS.into_iter().cycle()) {
        let width = 60 + 7 * u32::try_from(line.name.chars().count()).expect("a name");
        if x + width > WIDTH {
            (x, y) = (LEFT, y + LEGEND_LINE_HEIGHT);
        }
        legend.push(((x, y), line.name.as_str(), colour));
        x += width;
    }
    legend
}

fn last(panels: &[Panel], coordinate: impl Fn(&(f64, f64)) -> f64) -> f64 {
    panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points).map(coordinate).fold(0.0, f64::max)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn plot<Y>(area: &Area<'_>, panel: &Panel, x: &str, seconds: f64, y: Y)
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let x_axis: Range<f64> = 0.0..seconds;
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .set_label_area_size(LabelAreaPosition::Left, 70)
        .set_label_area_size(LabelAreaPosition::Bottom, 42)
        .build_cartesian_2d(x_axis, y)
        .expect("memory takes it");
    let label =
        |value: &f64| if *value >= 10_000.0 { format!("{:.0} 000", value / 1000.0) } else { format!("{value:.0}") };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(220, 220, 220))
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .x_desc(x)
        .y_desc(panel.y)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&label)
        .draw()
        .expect("memory takes it");
    for (line, colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
        let every = line.points.len().div_ceil(POINTS_MAX).max(1);
        let last = line.points.len().saturating_sub(1);
        let points = line.points.iter().enumerate().filter(|(index, _)| index % every == 0 || *index == last);
        let series = LineSeries::new(points.map(|(_, point)| *point), colour.stroke_width(2));
        chart.draw_series(series).expect("memory takes it");
    }
}
