//! Metrics of the pre-signing engine: what waits, what is to come, and how long is left.

use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::clock::UnixTime;
use crate::presign::engine::{Figures, LANES};

type Encoded = Result<(), std::fmt::Error>;

/// Writes the engine's figures as they are at `now`.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, figures: &Figures, now: UnixTime) -> Encoded {
    let lane = |at: usize| LANES[at].name();
    let lanes = [0, 1, 2].map(|at| figures.outlook.lanes[LANES[at].index()]);
    let under_way = [0, 1, 2].map(|at| figures.under_way[LANES[at].index()]);
    family(
        encoder,
        "presign_lane_due",
        "Certificates that are due and wait to be taken, by lane",
        lanes.iter().enumerate().map(|(at, depth)| ([("lane", lane(at))], depth.due)),
    )?;
    family(
        encoder,
        "presign_lane_under_way",
        "Certificates between being taken and being stored, by lane",
        under_way.iter().enumerate().map(|(at, count)| ([("lane", lane(at))], *count)),
    )?;
    let name = "presign_lane_oldest";
    let help = "How long the oldest certificate that waits has been due, by lane";
    let kind = ConstGauge::new(0.0).metric_type();
    let mut oldest = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
    for (at, depth) in lanes.iter().enumerate() {
        let age = depth.oldest.map_or(0.0, |due| now.since(due).as_secs_f64());
        ConstGauge::new(age).encode(oldest.encode_family(&[("lane", lane(at))])?)?;
    }
    family(
        encoder,
        "presign_due_within",
        "Certificates that are due or come due within so many hours",
        ["1", "8", "24"].iter().zip(figures.due_within).map(|(hours, count)| ([("hours", *hours)], count)),
    )?;
    let left = [
        (
            "presign_time_to_stale",
            "Until the first answer is past its legal deadline",
            figures.outlook.stale_at,
        ),
        ("presign_time_to_expiry", "Until the first answer is past nextUpdate", figures.outlook.expires_at),
    ];
    for (name, help, at) in left {
        // Nothing to lose is all the time there is.
        let left = at.map_or(f64::INFINITY, |at| seconds(at.since(now)) - seconds(now.since(at)));
        let gauge = ConstGauge::new(left);
        gauge.encode(encoder.encode_descriptor(name, help, Some(&Unit::Seconds), gauge.metric_type())?)?;
    }
    let plain = [
        (
            "presign_stale_answers",
            "Answers past their legal deadline that are still to be replaced",
            figures.outlook.stale,
        ),
        ("presign_issuers_on_hold", "Issuers for which nothing can be signed at present", figures.held),
    ];
    for (name, help, count) in plain {
        let gauge = ConstGauge::new(whole(count));
        gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
    }
    family(
        encoder,
        "presign_quarantined",
        "Certificates that fail while others do not, by reason",
        figures.quarantined.iter().map(|(reason, count)| ([("reason", reason.as_str())], *count)),
    )?;
    let counters = [
        ("presign_early", "Answers signed ahead of their time, to spread a bunch to come", figures.early),
        ("clock_steps", "Steps of the wall clock while running", figures.clock_steps),
    ];
    for (name, help, count) in counters {
        let counter = ConstCounter::new(count);
        counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
    }
    Ok(())
}

fn family<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = ([(&'a str, &'a str); 1], u64)>,
) -> Encoded {
    let kind = ConstGauge::new(0i64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in values {
        ConstGauge::new(whole(value)).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

const fn seconds(span: Duration) -> f64 {
    span.as_secs_f64()
}
