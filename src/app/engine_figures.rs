//! Metrics of the pre-signing engine: what waits, what is to come, and how long is left.

use prometheus_client::registry::Unit;

use crate::clock::UnixTime;
use crate::presign::engine::{Figures, LANES};
use crate::telemetry::{Encoded, Scrape};

/// Writes the engine's figures as they are at `now`.
pub(super) fn encode(scrape: &mut Scrape<'_, '_>, figures: &Figures, now: UnixTime) -> Encoded {
    let depths = LANES.map(|lane| ([("lane", lane.name())], figures.outlook.lanes[lane.index()]));
    scrape.gauges(
        "presign_lane_due",
        "Certificates that are due and wait to be taken, by lane",
        None,
        depths.map(|(lane, depth)| (lane, depth.due)),
    )?;
    scrape.gauges(
        "presign_lane_under_way",
        "Certificates between being taken and being stored, by lane",
        None,
        LANES.map(|lane| ([("lane", lane.name())], figures.under_way[lane.index()])),
    )?;
    scrape.gauges(
        "presign_lane_oldest",
        "How long the oldest certificate that waits has been due, by lane",
        Some(&Unit::Seconds),
        depths.map(|(lane, depth)| (lane, depth.oldest.map_or(0.0, |due| now.since(due).as_secs_f64()))),
    )?;
    scrape.gauges(
        "presign_due_within",
        "Certificates that are due or come due within so many hours",
        None,
        ["1", "8", "24"]
            .into_iter()
            .zip(figures.due_within)
            .map(|(hours, count)| ([("hours", hours)], count)),
    )?;
    // Nothing to lose is all the time there is.
    let left = |at: Option<UnixTime>| at.map_or(f64::INFINITY, |at| (at.0 - now.0) as f64);
    let (stale_at, expires_at) = (figures.outlook.stale_at, figures.outlook.expires_at);
    scrape.seconds(
        "presign_time_to_stale",
        "Until the first answer is past its legal deadline",
        left(stale_at),
    )?;
    scrape.seconds(
        "presign_time_to_expiry",
        "Until the first answer is past nextUpdate",
        left(expires_at),
    )?;
    scrape.gauge(
        "presign_stale_answers",
        "Answers past their legal deadline that are still to be replaced",
        figures.outlook.stale,
    )?;
    scrape.gauge(
        "presign_issuers_on_hold",
        "Issuers for which nothing can be signed at present",
        figures.held,
    )?;
    scrape.gauges(
        "presign_quarantined",
        "Certificates that fail while others do not, by reason",
        None,
        figures.quarantined.iter().map(|(reason, count)| ([("reason", reason.as_str())], *count)),
    )?;
    scrape.counter(
        "presign_early",
        "Answers signed ahead of their time, to spread a bunch to come",
        figures.early,
    )?;
    scrape.counter("clock_steps", "Steps of the wall clock while running", figures.clock_steps)
}
