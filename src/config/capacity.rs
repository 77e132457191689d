//! `[capacity]`: what the guard reckons with.

use std::time::Duration;

use crate::app::settings::CapacitySettings;
use crate::reader::{Problems, Section};

const DAY: Duration = Duration::from_secs(86_400);

/// A guard looks each ten seconds, and what it says holds for half of its lease: a shorter one would run
/// out between two looks of a busy machine.
const SHORTEST_LEASE: Duration = Duration::from_secs(60);

/// The steepest slope: all of it within a minute.
const STEEPEST: f64 = 15.0;

/// Reads the section; what is not given is as by default.
pub(super) fn read(section: &mut Section<'_>, problems: &mut Problems<'_>) -> CapacitySettings {
    let defaults = CapacitySettings::default();
    let lifetime = section.duration("lifetime", problems);
    let renewal_age = section.duration("renewal_age", problems);
    let lease = section.duration("lease", problems);
    let read = CapacitySettings {
        enforce: section.boolean("enforce", problems).unwrap_or(defaults.enforce),
        headroom: section.fraction("headroom", problems).unwrap_or(defaults.headroom),
        outage: section.duration("outage", problems).unwrap_or(defaults.outage),
        drain: section.duration("drain", problems).unwrap_or(defaults.drain),
        pack_max: section.integer("pack_max", 1..65, problems).unwrap_or(defaults.pack_max),
        lease: lease.unwrap_or(defaults.lease),
        safe_multiplier: section
            .number("safe_multiplier", 0.0..=1.0, problems)
            .unwrap_or(defaults.safe_multiplier),
        slope: section.number("slope", 0.001..=STEEPEST, problems).unwrap_or(defaults.slope),
        dead_band: section.number("dead_band", 0.0..=0.5, problems).unwrap_or(defaults.dead_band),
        lifetime: lifetime.unwrap_or(defaults.lifetime),
        renewal_age: renewal_age.unwrap_or_else(|| usual_age(lifetime.unwrap_or(defaults.lifetime))),
        renewal_share: section.number("renewal_share", 0.0..=1.0, problems).unwrap_or(defaults.renewal_share),
    };
    if read.lease < SHORTEST_LEASE || read.lease > DAY {
        problems.add(section.span(), "capacity.lease must be from 1m to 1d");
    }
    for (name, span) in [("lifetime", read.lifetime), ("renewal_age", read.renewal_age)] {
        let whole = span.as_secs().is_multiple_of(DAY.as_secs()) && span.subsec_nanos() == 0;
        if !whole || span < DAY || span > 20_000 * DAY {
            problems.add(section.span(), format!("capacity.{name} must be whole days, from 1d to 20000d"));
        }
    }
    if read.renewal_age > read.lifetime {
        problems.add(
            section.span(),
            "capacity.renewal_age is later than capacity.lifetime: certificates are renewed before they end",
        );
    }
    read
}

/// Two thirds into the life, in whole days.
fn usual_age(lifetime: Duration) -> Duration {
    let days = (lifetime.as_secs() / DAY.as_secs() * 2).div_ceil(3).max(1);
    Duration::from_secs(days * DAY.as_secs())
}
