//! The chart of a measurement: one panel a key, three bars a number of sessions.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::bench::Measurement;

const PANEL: (u32, u32) = (460, 300);
const HEAD: u32 = 64;
const INK: RGBColor = RGBColor(0x22, 0x2b, 0x36);
const FAINT: RGBColor = RGBColor(0xd8, 0xde, 0xe4);
const RAW: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
const VERIFIED: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const UNVERIFIED: RGBColor = RGBColor(0xa9, 0xcc, 0xe8);

type Failed<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

/// The chart as an SVG document: signatures a second by sessions, raw beside pool.
#[must_use]
pub fn svg(results: &[Measurement]) -> String {
    let mut panels: Vec<Vec<&Measurement>> = Vec::new();
    for row in results {
        match panels.iter_mut().find(|panel| (panel[0].key, panel[0].algorithm) == (row.key, row.algorithm)) {
            Some(panel) => panel.push(row),
            None => panels.push(vec![row]),
        }
    }
    let columns = panels.len().clamp(1, 2);
    let rows = panels.len().div_ceil(columns).max(1);
    let pixels = |count: usize, each: u32| u32::try_from(count).unwrap_or(1) * each;
    let size = (pixels(columns, PANEL.0), pixels(rows, PANEL.1) + HEAD);
    let mut document = String::new();
    let drawn =
        draw(SVGBackend::with_string(&mut document, size).into_drawing_area(), &panels, rows, columns);
    if let Err(error) = drawn {
        // Text in memory: there is no I/O that could fail.
        tracing::error!(%error, "the chart could not be drawn");
    }
    document
}

fn draw<'a>(
    area: DrawingArea<SVGBackend<'a>, Shift>,
    panels: &[Vec<&Measurement>],
    rows: usize,
    columns: usize,
) -> Result<(), Failed<'a>> {
    area.fill(&WHITE)?;
    let (head, body) = area.split_vertically(HEAD);
    head.draw(&Text::new(
        "Signatures a second by sessions; the percentage is pool (verified) ÷ raw",
        (16, 12),
        ("sans-serif", 20).into_font().color(&INK),
    ))?;
    let keys = [
        (RAW, "bare loops (raw)"),
        (VERIFIED, "pool, every signature verified"),
        (UNVERIFIED, "pool, unverified"),
    ];
    let mut x = 16;
    for (colour, label) in keys {
        head.draw(&Rectangle::new([(x, 42), (x + 12, 54)], colour.filled()))?;
        head.draw(&Text::new(label, (x + 18, 41), ("sans-serif", 13).into_font().color(&INK)))?;
        x += 34 + i32::try_from(label.len()).unwrap_or(0) * 7;
    }
    for (panel, place) in panels.iter().zip(body.split_evenly((rows, columns))) {
        draw_panel(&place, panel)?;
    }
    area.present()
}

fn draw_panel<'a>(
    place: &DrawingArea<SVGBackend<'a>, Shift>,
    rows: &[&Measurement],
) -> Result<(), Failed<'a>> {
    let highest =
        rows.iter().flat_map(|row| [row.raw_rate, row.rate, row.unverified_rate]).fold(1.0, f64::max);
    let title = format!("{} ({})", rows[0].key, rows[0].algorithm);
    let mut chart = ChartBuilder::on(place)
        .caption(title, ("sans-serif", 15).into_font().color(&INK))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..rows.len() as f64, 0.0..highest * 1.15)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .axis_style(FAINT)
        .y_labels(5)
        .y_label_formatter(&|rate| thousands(*rate))
        .label_style(("sans-serif", 12).into_font().color(&INK))
        .draw()?;
    for (at, row) in rows.iter().enumerate() {
        let left = at as f64;
        let bars = [(row.raw_rate, RAW), (row.rate, VERIFIED), (row.unverified_rate, UNVERIFIED)];
        for (number, (rate, colour)) in bars.into_iter().enumerate() {
            let from = left + 0.11 + 0.26 * number as f64;
            chart.draw_series([Rectangle::new([(from, 0.0), (from + 0.25, rate)], colour.filled())])?;
        }
        let (x, base) = chart.backend_coord(&(left + 0.5, 0.0));
        let offset = place.get_base_pixel();
        let centred = |size: i32| {
            use plotters::style::text_anchor::{HPos, Pos, VPos};
            ("sans-serif", size).into_font().color(&INK).pos(Pos::new(HPos::Center, VPos::Top))
        };
        let plural = if row.sessions == 1 { "" } else { "s" };
        let below = (x - offset.0, base - offset.1 + 5);
        place.draw(&Text::new(format!("{} session{plural}", row.sessions), below, centred(12)))?;
        let (x, top) =
            chart.backend_coord(&(left + 0.495, row.rate.max(row.raw_rate).max(row.unverified_rate)));
        let above = (x - offset.0, top - offset.1 - 16);
        place.draw(&Text::new(format!("{:.0} %", row.ratio() * 100.0), above, centred(12)))?;
    }
    Ok(())
}

/// `9,250`: as people read it.
fn thousands(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ocsp::KeyAlgorithm;

    #[test]
    fn a_chart_names_every_key_session_count_and_kind_of_rate() {
        let row = |key: KeyAlgorithm, sessions, rate| Measurement {
            key,
            algorithm: key.default_signature(),
            sessions,
            raw_rate: rate,
            rate: rate * 0.9,
            unverified_rate: rate * 0.95,
            p50: Duration::from_micros(100),
            p99: Duration::from_micros(300),
        };
        let document = svg(&[
            row(KeyAlgorithm::P256, 1, 8_000.0),
            row(KeyAlgorithm::P256, 2, 9_250.0),
            row(KeyAlgorithm::Rsa2048, 1, 718.0),
        ]);
        for text in [
            "p256 (ecdsa-p256-sha256)",
            "rsa-2048 (rsa-sha256)",
            "1 session",
            "2 sessions",
            "verified",
            "raw",
            "90 %",
            "10,000",
        ] {
            assert!(document.contains(text), "{text} is missing");
        }
        assert!(document.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn a_chart_of_nothing_is_still_a_document() {
        assert!(svg(&[]).trim_end().ends_with("</svg>"));
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(999.0), "999");
    }
}
