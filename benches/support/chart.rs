//! A chart of growth: cost from zero, fleets on a logarithmic axis.

use std::path::Path;

use plotters::prelude::*;

use crate::figures;

const INK: RGBColor = RGBColor(0x22, 0x2b, 0x36);
const FAINT: RGBColor = RGBColor(0xd8, 0xde, 0xe4);
const COLOURS: [RGBColor; 3] =
    [RGBColor(0x1f, 0x6f, 0xb4), RGBColor(0xc7, 0x6a, 0x1b), RGBColor(0x3b, 0x8a, 0x4e)];

/// A name, and what each number of certificates costs.
pub(crate) type Series = (&'static str, Vec<(f64, f64)>);

/// Draws a chart into `docs/performance/NAME.svg`. A short run leaves the one that there is, and one of
/// nothing is not drawn.
pub(crate) fn draw(name: &str, title: &str, series: &[Series]) {
    if series.is_empty() {
        return;
    }
    let document = svg(title, series);
    assert!(document.contains(title), "a chart with its title");
    if !figures::is_smoke() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance");
        std::fs::create_dir_all(&folder).expect("docs takes a folder");
        std::fs::write(folder.join(format!("{name}.svg")), document).expect("docs takes a chart");
    }
}

/// The chart as an SVG document.
fn svg(title: &str, series: &[Series]) -> String {
    let mut document = String::new();
    {
        let area = SVGBackend::with_string(&mut document, (620, 360)).into_drawing_area();
        area.fill(&WHITE).expect("text in memory takes a chart");
        let points = || series.iter().flat_map(|(_, points)| points);
        let highest = points().map(|(_, cost)| *cost).fold(0.0, f64::max) * 1.25;
        let largest = points().map(|(size, _)| *size).fold(1e5, f64::max) * 1.5;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 17).into_font().color(&INK))
            .margin(14)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d((7e3..largest).log_scale(), 0.0..highest)
            .expect("the axes are drawn");
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .bold_line_style(FAINT)
            .axis_style(FAINT)
            .x_desc("certificates")
            .x_label_formatter(&|size| format!("{size:.0}"))
            .label_style(("sans-serif", 12).into_font().color(&INK))
            .draw()
            .expect("the mesh is drawn");
        for (rank, ((name, points), colour)) in (0u32..).zip(series.iter().zip(COLOURS.iter().cycle())) {
            chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(2))).expect("a line");
            let dots = points.iter().map(|point| Circle::new(*point, 4, colour.filled()));
            chart.draw_series(dots).expect("the points");
            let top = highest * (0.97 - 0.07 * f64::from(rank));
            let text = Text::new(*name, (1e4, top), ("sans-serif", 13).into_font().color(colour));
            chart.draw_series([text]).expect("a name");
        }
        area.present().expect("text in memory takes a chart");
    }
    document
}
