//! The chart of a simulation: five bands over one axis of time.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::simulation::{Outcome, Sample};

const SIZE: (u32, u32) = (1_000, 980);
const HEAD: u32 = 52;
const FOOT: u32 = 34;
/// The width of the figures left of each band.
const FIGURES: u32 = 74;
/// More points than this show no better.
const POINTS: usize = 1_000;
const INK: RGBColor = RGBColor(0x22, 0x2b, 0x36);
const SOFT: RGBColor = RGBColor(0x5b, 0x67, 0x73);
const FAINT: RGBColor = RGBColor(0xd8, 0xde, 0xe4);
const BLUE: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const GREY: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
const RED: RGBColor = RGBColor(0xb4, 0x3a, 0x2f);
const OCHRE: RGBColor = RGBColor(0xb9, 0x7a, 0x12);

type Failed<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;
type Line = (&'static str, RGBColor, fn(&Sample) -> f64);

struct Band {
    title: &'static str,
    lines: &'static [Line],
    /// The highest value shown at the least.
    least: f64,
}

const BANDS: [Band; 5] = [
    Band {
        title: "Unexpired certificates",
        lines: &[
            ("most that the HSMs carry", GREY, |sample| sample.largest_fleet),
            ("fleet", BLUE, |sample| sample.fleet),
        ],
        least: 1.0,
    },
    Band {
        title: "Signatures a second",
        lines: &[
            ("counted on", GREY, |sample| sample.capacity_per_second),
            ("tokens that sign", OCHRE, |sample| sample.serving_per_second),
            ("asked for", BLUE, |sample| sample.demand_per_second),
        ],
        least: 1.0,
    },
    Band {
        title: "Share of new issuance that is allowed",
        lines: &[("multiplier m", BLUE, |sample| sample.multiplier)],
        least: 1.0,
    },
    Band {
        title: "New certificates a day",
        lines: &[
            ("asked for", GREY, |sample| sample.offered_per_day),
            ("refused", RED, |sample| sample.refused_per_day),
        ],
        least: 1.0,
    },
    Band {
        title: "Certificates without a good answer",
        lines: &[
            ("waiting for the first or for a revocation", OCHRE, |sample| sample.waiting),
            ("stale", RED, |sample| sample.stale),
        ],
        least: 10.0,
    },
];

/// The outcome as an SVG document.
#[must_use]
pub fn svg(outcome: &Outcome) -> String {
    let mut document = String::new();
    let drawn = draw(SVGBackend::with_string(&mut document, SIZE).into_drawing_area(), outcome);
    if let Err(error) = drawn {
        // Text in memory: there is no I/O that could fail.
        tracing::error!(%error, "the chart could not be drawn");
    }
    document
}

fn text(size: i32, colour: &RGBColor) -> TextStyle<'_> {
    ("sans-serif", size).into_font().color(colour)
}

fn draw<'a>(area: DrawingArea<SVGBackend<'a>, Shift>, outcome: &Outcome) -> Result<(), Failed<'a>> {
    area.fill(&WHITE)?;
    let (head, rest) = area.split_vertically(HEAD);
    head.draw(&Text::new(outcome.title.clone(), (16, 12), text(20, &INK)))?;
    let (bands, foot) = rest.split_vertically(SIZE.1 - HEAD - FOOT);
    let days = outcome.samples.last().map_or(1.0, |sample| sample.day.ceil().max(1.0));
    for (band, place) in BANDS.iter().zip(bands.split_evenly((BANDS.len(), 1))) {
        draw_band(&place, band, &outcome.samples, days)?;
    }
    let middle = i32::try_from((SIZE.0 + FIGURES) / 2).unwrap_or(0);
    let centred = text(13, &SOFT).pos(Pos::new(HPos::Center, VPos::Top));
    foot.draw(&Text::new("days", (middle, 6), centred))?;
    area.present()
}

fn draw_band<'a>(
    place: &DrawingArea<SVGBackend<'a>, Shift>,
    band: &Band,
    samples: &[Sample],
    days: f64,
) -> Result<(), Failed<'a>> {
    let every = samples.len().div_ceil(POINTS).max(1);
    let value = |line: &Line, sample: &Sample| {
        let value = line.2(sample);
        if value.is_finite() { value } else { 0.0 }
    };
    // The fleet and the demand are what matters: far more than they need is cut off.
    let highest = |line: &Line| samples.iter().map(|sample| value(line, sample)).fold(0.0, f64::max);
    let own = band.lines.last().map_or(0.0, &highest);
    let all = band.lines.iter().map(highest).fold(0.0, f64::max);
    let top = if own > 0.0 && all > own * 4.0 { own * 4.0 } else { all }.max(band.least) * 1.08;

    let mut x = 16 + i32::try_from(band.title.len()).unwrap_or(0) * 8;
    place.draw(&Text::new(band.title, (16, 4), text(14, &INK)))?;
    for (label, colour, _) in band.lines.iter().rev() {
        x += 18;
        place.draw(&Rectangle::new([(x, 7), (x + 11, 18)], colour.filled()))?;
        place.draw(&Text::new(*label, (x + 16, 5), text(12, &SOFT)))?;
        x += 16 + i32::try_from(label.len()).unwrap_or(0) * 6;
    }
    let mut chart = ChartBuilder::on(place)
        .margin_top(26)
        .margin_right(24)
        .x_label_area_size(20)
        .y_label_area_size(FIGURES)
        .build_cartesian_2d(0.0..days, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .axis_style(FAINT)
        .x_labels(10)
        .y_labels(4)
        .x_label_formatter(&|day| format!("{day:.0}"))
        .y_label_formatter(&|figure| short(*figure))
        .label_style(text(12, &SOFT))
        .draw()?;
    for line in band.lines {
        let points = samples.chunks(every).filter_map(|chunk| {
            // Peaks are what such a chart is looked at for.
            let highest = chunk.iter().map(|sample| value(line, sample)).fold(0.0, f64::max);
            chunk.first().map(|sample| (sample.day, highest.min(top)))
        });
        chart.draw_series(LineSeries::new(points, line.1.stroke_width(2)))?;
    }
    Ok(())
}

/// `9.2 M`: as people read it.
fn short(figure: f64) -> String {
    let (divisor, unit) = match figure.abs() {
        size if size >= 1e9 => (1e9, " G"),
        size if size >= 1e6 => (1e6, " M"),
        size if size >= 1e4 => (1e3, " k"),
        _ => (1.0, ""),
    };
    let figure = figure / divisor;
    let text = if figure.abs() >= 10.0 { format!("{figure:.0}") } else { format!("{figure:.2}") };
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    text + unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let figures = [0.0, 0.25, 1.0, 950.0, 9_999.0, 12_000.0, 4.3e5, 5.0e8, 2.5e9];
        let shown = ["0", "0.25", "1", "950", "9999", "12 k", "430 k", "500 M", "2.5 G"];
        assert_eq!(figures.map(short), shown);
    }

    #[test]
    fn a_chart_shows_every_band_and_names_every_line() {
        let sample = |day: f64| Sample {
            day,
            fleet: 350_000.0 + day,
            largest_fleet: 430_272.0,
            demand_per_second: 5.4,
            capacity_per_second: 9.96,
            serving_per_second: 27.4,
            multiplier: 0.43,
            offered_per_day: 2_500.0,
            refused_per_day: 1_425.0,
            stale: 0.0,
            expired: 0.0,
            waiting: f64::NAN,
            pack: 1,
            refresh_seconds: 259_200,
            time_to_stale_seconds: 86_400.0,
            state: crate::capacity::State::Amber,
        };
        let samples: Vec<Sample> = (0..5_000).map(|hour| sample(f64::from(hour) / 24.0)).collect();
        let document = svg(&Outcome { title: "A test".to_owned(), summary: Default::default(), samples });
        let lines = BANDS.iter().flat_map(|band| band.lines.iter().map(|line| line.0));
        for text in BANDS.iter().map(|band| band.title).chain(lines).chain(["A test", "days", "400 k"]) {
            assert!(document.contains(text), "{text} is missing");
        }
        assert!(document.matches("<polyline").count() >= 10);
        assert!(document.len() < 400_000, "{} octets", document.len());
        assert!(document.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn a_chart_of_nothing_is_still_a_document() {
        let nothing = Outcome { title: String::new(), summary: Default::default(), samples: Vec::new() };
        assert!(svg(&nothing).trim_end().ends_with("</svg>"));
    }
}
