//! What `capacity` prints for people.

use std::time::Duration;

use super::context::table;
use crate::capacity::Report;
use crate::capacity::plan::{Plan, Question};
use crate::capacity::simulation::Outcome;

/// `1,234,567`.
fn count(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0.0 && digits != "0" { format!("-{text}") } else { text }
}

fn rate(number: f64) -> String {
    if number.abs() < 1_000.0 { format!("{number:.2}/s") } else { format!("{}/s", count(number)) }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn optional_percent(share: Option<f64>) -> String {
    share.map_or_else(|| "no capacity".to_owned(), percent)
}

fn span(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "never".to_owned();
    }
    let whole = seconds.abs() as u64;
    let kept = if whole < 60 { whole } else { whole - whole % 60 };
    let text = humantime::format_duration(Duration::from_secs(kept)).to_string();
    if seconds < 0.0 { format!("{text} ago") } else { text }
}

fn optional_span(seconds: Option<i64>) -> String {
    seconds.map_or_else(|| "nothing is signed yet".to_owned(), |seconds| span(seconds as f64))
}

fn lines<const N: usize>(rows: [(&str, String); N]) -> String {
    rows.iter().map(|(name, value)| format!("  {name:<28}{value}\n")).collect()
}

pub(super) fn report_text(report: &Report) -> String {
    let mut text = format!("{}: {}\n\n", report.state.name(), report.reason);
    text += &lines([
        ("as of", report.at.to_string()),
        ("lever in use", report.lever.name().to_owned()),
        ("new issuance allowed", format!("{} (renewals: all)", percent(report.multiplier))),
        ("eases at", report.eases_at.map_or_else(|| "-".to_owned(), |at| at.to_string())),
        (
            "utilisation",
            format!("{} (limit {})", optional_percent(report.utilisation), percent(report.utilisation_limit)),
        ),
        (
            "signatures asked for",
            format!("{} of {}", rate(report.demand_per_second), rate(report.capacity_per_second)),
        ),
        ("certificates", format!("{} of {}", count(report.fleet), count(report.largest_fleet))),
        ("with the largest pack", count(report.largest_fleet_packed)),
        ("forecast", report.forecast()),
        ("new certificates that fit", format!("{} a day", count(report.budget_per_day))),
        ("new certificates asked for", format!("{} a day", count(report.offered_per_day))),
        ("refresh planned every", span(report.refresh_seconds as f64)),
        ("pack", format!("{} of at most {}", report.pack, report.pack_max)),
        ("signatures overdue", count(report.overdue_signatures)),
        ("first answer stale in", optional_span(report.time_to_stale_seconds)),
        ("first answer expired in", optional_span(report.time_to_expiry_seconds)),
    ]);
    let rows = report.tokens.iter().map(|token| {
        [
            token.name.clone(),
            token.rate.map_or_else(|| "not known".to_owned(), rate),
            token
                .away_seconds
                .map_or_else(|| "signs".to_owned(), |away| format!("away for {}", span(away as f64))),
        ]
    });
    if !report.tokens.is_empty() {
        text += &format!("\n{}", table(["token", "sustains", "now"], rows));
    }
    text
}

pub(super) fn plan_text(plan: &Plan, question: &Question) -> String {
    let verdict = if plan.fits { "fits" } else { "does NOT fit" };
    let rates = plan.rates.iter().map(|each| rate(*each)).collect::<Vec<_>>().join(", ");
    let mut text = format!("{} certificates: {verdict}\n\n", count(plan.fleet));
    text += &lines([
        ("tokens", rates),
        (
            "counted on",
            format!(
                "{} of which {} for live answers",
                rate(plan.effective_per_second),
                rate(plan.live_reserve_per_second)
            ),
        ),
        (
            "asked for",
            format!(
                "{} ({} signatures a certificate every {})",
                rate(plan.demand_per_second),
                plan.signatures_per_refresh,
                span(plan.mean_refresh_seconds)
            ),
        ),
        (
            "utilisation",
            format!("{} (limit {})", optional_percent(plan.utilisation), percent(plan.utilisation_limit)),
        ),
        ("largest fleet", count(plan.largest_fleet)),
        (
            "new certificates a day",
            format!(
                "{} fit, with {} % renewed",
                count(plan.new_per_day),
                question.life.renewal_share * 100.0
            ),
        ),
        (
            "rate needed",
            format!("{} of one token, or of several without the fastest", rate(plan.rate_needed)),
        ),
        (
            "one certificate costs",
            format!("{} signatures in {} days", count(plan.signatures_per_certificate), question.life.days),
        ),
        (
            "an outage is survived for",
            format!(
                "{} until stale, {} until expired",
                span(plan.outage_until_stale_seconds as f64),
                span(plan.outage_until_expired_seconds as f64)
            ),
        ),
        (
            "after the planned outage",
            format!(
                "{} signatures to catch up, {}",
                count(plan.outage_backlog),
                plan.outage_drain_seconds.map_or_else(
                    || "which never ends".to_owned(),
                    |seconds| format!("done in {}", span(seconds as f64))
                )
            ),
        ),
        (
            "due at one instant",
            format!("{} certificates are signed before they are stale", count(plan.cohort_that_fits)),
        ),
        (
            "revoke and issue anew",
            format!(
                "{} certificates in 24 hours; all of them in {}",
                count(plan.mass_revocation_per_day),
                plan.mass_revocation_of_all_seconds.map_or_else(|| "never".to_owned(), span)
            ),
        ),
    ]);
    let rows = plan.levers.iter().map(|gain| {
        [
            gain.lever.clone(),
            optional_percent(gain.utilisation),
            count(gain.largest_fleet),
            format!("× {:.2}", gain.times),
        ]
    });
    text + "\n" + &table(["lever", "utilisation", "largest fleet", "gain"], rows)
}

pub(super) fn summary_text(outcome: &Outcome) -> String {
    let summary = &outcome.summary;
    let mut text = format!("{}\n\n", outcome.title);
    text += &lines([
        (
            "fleet",
            format!("{} at the end, {} at the most", count(summary.fleet), count(summary.largest_fleet)),
        ),
        ("highest utilisation", optional_percent(summary.highest_utilisation)),
        (
            "new certificates",
            format!("{} asked for, {} refused", count(summary.offered), count(summary.refused)),
        ),
        ("renewed or replaced", format!("{}, none refused", count(summary.renewed))),
        (
            "first refusal",
            summary.first_refusal_day.map_or_else(|| "none".to_owned(), |day| format!("day {day:.1}")),
        ),
        (
            "new issuance allowed",
            format!(
                "{} at the least, {} at the end",
                percent(summary.least_multiplier),
                percent(summary.last_multiplier)
            ),
        ),
        ("largest pack", summary.largest_pack.to_string()),
        ("longest refresh", span(summary.longest_refresh_seconds as f64)),
        (
            "stale answers",
            format!("{} at one time, over {:.1} hours", count(summary.most_stale), summary.stale_hours),
        ),
        ("expired answers", format!("{} at one time", count(summary.most_expired))),
        ("longest wait for the token", span(summary.longest_wait_seconds)),
        (
            "closest to stale",
            if summary.least_time_to_stale_seconds < 0.0 {
                format!("stale by {}", span(-summary.least_time_to_stale_seconds))
            } else {
                span(summary.least_time_to_stale_seconds)
            },
        ),
        ("signatures", count(summary.signatures)),
        (
            "rate needed",
            format!(
                "{} of one token, or of several without the fastest; with the largest pack {}",
                rate(summary.rate_needed),
                rate(summary.rate_needed_packed)
            ),
        ),
    ]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!(
            [count(0.0), count(999.4), count(1_234_567.0), count(-1_000.0)],
            ["0", "999", "1,234,567", "-1,000"]
        );
        assert_eq!([rate(9.96), rate(12_345.0)], ["9.96/s", "12,345/s"]);
        assert_eq!(
            [span(59.0), span(3_661.0), span(-120.0), span(f64::INFINITY)],
            ["59s", "1h 1m", "2m ago", "never"]
        );
    }
}
