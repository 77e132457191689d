//! The words of refusals and warnings, and the two header fields of rate limits.

use std::fmt::Write;

use super::decision::{CapacityCause, Decision, LimitState, Outcome, Refusal, RefusalCause, TierState};
use super::profile::{Counts, Per};
use super::tier::long;
use crate::clock::UnixTime;

impl Refusal {
    /// The title of the problem document.
    #[must_use]
    pub fn title(&self, help: &str) -> String {
        match (self.cause, self.counts, self.per) {
            (RefusalCause::Capacity, ..) => {
                "new certificates are paused while signing capacity is short".to_owned()
            }
            (RefusalCause::Blocked, ..) => format!("{} is blocked by the operator", self.subject()),
            (_, Some(Counts::Registrations), Some(Per::Ip { .. })) if help.is_empty() => {
                "too many registrations for this IP".to_owned()
            }
            (_, Some(Counts::Registrations), Some(Per::Ip { .. })) => {
                format!("too many registrations for this IP: see {help}")
            }
            (_, Some(counts), _) => format!("too many {} for {}", noun(counts, 2), self.subject()),
            (_, None, _) => "too many requests".to_owned(),
        }
    }

    /// The key with what it is: `the registered domain example.com`.
    #[must_use]
    pub fn subject(&self) -> String {
        self.per.map_or_else(String::new, |per| subject(per, &self.key))
    }
}

fn subject(per: Per, key: &str) -> String {
    match per {
        Per::Ip { .. } => format!("the IP address {key}"),
        Per::Ipv6Range { .. } => format!("the IPv6 network {key}"),
        Per::Account => format!("the account {key}"),
        Per::Domain { .. } => format!("the registered domain {key}"),
        Per::Identifiers => format!("exactly {key}"),
        Per::AccountAndIdentifier => {
            let (account, identifier) = key.rsplit_once(' ').unwrap_or((key, ""));
            format!("{identifier} with the account {account}")
        }
        Per::Everything => "everybody together".to_owned(),
    }
}

fn noun(counts: Counts, number: u64) -> &'static str {
    match (counts, number) {
        (Counts::Registrations, 1) => "registration",
        (Counts::Registrations, _) => "registrations",
        (Counts::Orders, 1) => "order",
        (Counts::Orders, _) => "orders",
        (Counts::Certificates, 1) => "certificate",
        (Counts::Certificates, _) => "certificates",
        (Counts::FailedAuthorizations, 1) => "failed authorisation",
        (Counts::FailedAuthorizations, _) => "failed authorisations",
    }
}

/// The detail of a refusal: limit, key, count, period, retry time, and what capacity has to do with
/// it.
pub(super) fn detail(refusal: &Refusal, help: &str) -> String {
    let mut text = String::new();
    let see = |text: &mut String| {
        if !help.is_empty() {
            let _ = write!(text, ": see {help}");
        }
    };
    let (Some(counts), Some(tier)) = (refusal.counts, refusal.tier) else {
        let _ = write!(
            text,
            "No new certificates can be ordered at present, by anybody; renewals go on as usual.{}",
            refusal.capacity.as_ref().map(capacity).unwrap_or_default()
        );
        match refusal.retry_at {
            Some(at) => {
                let _ = write!(text, " Try again from {at}");
            }
            None => text.push_str(" Try again in a quarter of an hour"),
        }
        see(&mut text);
        return text;
    };
    if refusal.cause == RefusalCause::Blocked {
        let _ = write!(text, "The operator blocked {} (limit {})", refusal.subject(), refusal.limit);
        if let Some(until) = refusal.override_until {
            let _ = write!(text, " until {until}");
        }
        see(&mut text);
        return text;
    }
    let _ = write!(
        text,
        "{} {} for {} in the last {}; {} allows {} in any such period",
        refusal.count,
        noun(counts, refusal.count),
        refusal.subject(),
        long(tier.period),
        refusal.limit,
        refusal.effective
    );
    if refusal.cause == RefusalCause::Tightened {
        text.push_str(" at present");
        if !tier.is_by_capacity() {
            let _ = write!(text, " (nominally {})", refusal.nominal);
        }
    }
    text.push('.');
    if refusal.cause == RefusalCause::Tightened {
        text.push_str(&refusal.capacity.as_ref().map(capacity).unwrap_or_default());
    }
    if let Some(at) = refusal.retry_at {
        let _ = write!(text, " The next is possible from {at}");
    }
    see(&mut text);
    text
}

/// Why capacity tightens: utilisation, forecast, when it eases. It is the service that is short.
fn capacity(cause: &CapacityCause) -> String {
    let mut text = format!(
        " This is no fault of yours: the service signs less than is asked of it, and limits are at {} of their nominal numbers",
        percent(cause.multiplier)
    );
    if !cause.reason.is_empty() {
        let _ = write!(text, " ({})", cause.reason);
    }
    if let Some(utilisation) = cause.utilisation {
        let _ = write!(text, "; utilisation is {}", percent(utilisation));
    }
    if let Some(forecast) = &cause.forecast {
        let _ = write!(text, "; forecast: {forecast}");
    }
    text.push('.');
    if let Some(at) = cause.eases_at {
        let _ = write!(text, " It is expected to ease at {at}.");
    }
    text
}

fn percent(fraction: f64) -> String {
    format!("{:.0} %", fraction * 100.0)
}

/// The sentence of a warning.
pub(super) fn warning(state: &LimitState, tier: &TierState) -> String {
    let mut text = format!(
        "{} of {} {} for {} in {} are used ({})",
        tier.count,
        tier.effective,
        noun(state.counts, tier.effective),
        subject(state.per, &state.key),
        long(tier.tier.period),
        state.limit
    );
    match (tier.remaining, tier.resets_at) {
        (0, Some(at)) => {
            let _ = write!(text, "; the next is possible from {at}");
        }
        (_, Some(at)) => {
            let _ = write!(text, "; the first of them leaves at {at}");
        }
        (_, None) => {}
    }
    text
}

/// A tier's name in the header fields: the limit's, with the period where it has several.
fn policy_name(state: &LimitState, tier: &TierState) -> String {
    if state.tiers.len() > 1 {
        format!("{}-{}", state.limit, super::tier::short(tier.tier.period))
    } else {
        state.limit.to_string()
    }
}

/// The tiers that the header fields tell of, each name once: of several keys of one limit, the one
/// with the least left.
fn told(decision: &Decision) -> Vec<(String, &TierState)> {
    let refused: Vec<(&str, &str)> = match &decision.outcome {
        Outcome::Allowed { .. } => Vec::new(),
        Outcome::Refused { refusals, .. } => {
            refusals.iter().map(|refusal| (refusal.limit.as_str(), refusal.key.as_str())).collect()
        }
    };
    let mut told: Vec<(String, &TierState)> = Vec::new();
    for state in decision.limits.iter().filter(|state| !state.shadow) {
        // With a refusal only what refuses: Retry-After is not before any `t` then.
        let refuses = refused.contains(&(&*state.limit, state.key.as_str()));
        for tier in &state.tiers {
            if decision.order().is_none() && !(refuses && tier.remaining == 0) {
                continue;
            }
            let name = policy_name(state, tier);
            match told.iter_mut().find(|(other, _)| *other == name) {
                Some((_, other)) if tier.remaining < other.remaining || tier.resets_at > other.resets_at => {
                    *other = tier;
                }
                Some(_) => {}
                None => told.push((name, tier)),
            }
        }
    }
    told
}

/// The `RateLimit-Policy` field (draft-ietf-httpapi-ratelimit-headers): `"name";q=5;w=604800`, with
/// the effective numbers. Empty when no limit was looked at.
#[must_use]
pub fn rate_limit_policy(decision: &Decision) -> String {
    let items = told(decision)
        .into_iter()
        .map(|(name, tier)| format!("\"{name}\";q={};w={}", tier.effective, tier.tier.period.as_secs()));
    items.collect::<Vec<_>>().join(", ")
}

/// The `RateLimit` field: `"name";r=2;t=3600`.
#[must_use]
pub fn rate_limit(decision: &Decision) -> String {
    let items = told(decision).into_iter().map(|(name, tier)| {
        let t = tier.resets_at.unwrap_or(UnixTime::MAX).since(decision.at);
        let t = if tier.resets_at.is_some() { t.as_secs() } else { tier.tier.period.as_secs() };
        format!("\"{name}\";r={};t={t}", tier.remaining)
    });
    items.collect::<Vec<_>>().join(", ")
}
