//! How limits stand: the same picture for the command line, the control API and refusals.

use std::net::IpAddr;

use serde::Serialize;

use super::book::Book;
use super::charges::{Who, keys};
use super::decide::{Judge, counted};
use super::decision::{Counted, LimitState, Refusal};
use super::identifiers::{Identifier, IdentifierError, check_account};
use super::overrides::Override;
use super::pressure::Pressure;
use super::profile::Per;
use super::times;
use crate::clock::UnixTime;

/// Whose limits are asked for. With nothing in it, the limits that count everybody together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// A name or an address in a certificate.
    pub domain: Option<String>,
    /// An account.
    pub account: Option<String>,
    /// An address that accounts are made from.
    pub ip: Option<IpAddr>,
}

/// How the limits stand for a subject.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// The profile's name.
    pub profile: String,
    /// The page that explains the limits.
    pub help: String,
    /// As of when.
    #[serde(serialize_with = "times::time")]
    pub at: UnixTime,
    /// The guard's pressure then.
    pub pressure: Pressure,
    /// Each limit, with what counts.
    pub limits: Vec<LimitStanding>,
    /// The overrides in force for what was asked.
    pub overrides: Vec<Override>,
}

/// A limit with what counts in its longest period.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitStanding {
    /// The numbers.
    #[serde(flatten)]
    pub state: LimitState,
    /// What counts, the first to leave first; at most [`Refusal::COUNTED_MOST`].
    pub counted: Vec<Counted>,
}

/// A subject, read.
#[derive(Debug)]
pub(super) struct ReadSubject {
    identifiers: Vec<String>,
    account: Option<String>,
    ip: Option<IpAddr>,
}

impl ReadSubject {
    pub(super) fn read(subject: Subject) -> Result<Self, IdentifierError> {
        if let Some(account) = &subject.account {
            check_account(account)?;
        }
        let identifiers = match &subject.domain {
            Some(name) => vec![name.parse::<Identifier>()?.to_string()],
            None => Vec::new(),
        };
        Ok(Self { identifiers, account: subject.account, ip: subject.ip })
    }
}

/// How the limits stand for a subject at `now`.
pub(super) fn standing(book: &Book, subject: &ReadSubject, pressure: &Pressure, now: UnixTime) -> Standing {
    let profile = &**book.profile();
    let pressure = pressure.at(now);
    let judge =
        Judge { book, profile, now, renewal: false, multiplier: pressure.multiplier, pressure: &pressure };
    let who = Who { ip: subject.ip, account: subject.account.as_deref(), identifiers: &subject.identifiers };
    let nobody = who.ip.is_none() && who.account.is_none() && who.identifiers.is_empty();
    let mut limits = Vec::new();
    let mut overrides = Vec::new();
    for (place, limit) in profile.limits.iter().enumerate() {
        if (nobody && limit.per != Per::Everything) || !judge.is_in_force(limit) {
            continue;
        }
        for key in keys(limit, who) {
            let set = book.override_of(limit, &key, now);
            let window = book.window(place, &key);
            let state = judge.state(limit, key, set, window);
            let longest = state.tiers.iter().map(|tier| tier.tier.period).max().unwrap_or_default();
            let present = window.into_iter().flat_map(|window| window.present(now, longest));
            // What everybody has is nobody's business.
            let counted = present
                .take(if limit.is_by_capacity() { 0 } else { Refusal::COUNTED_MOST })
                .map(|event| counted(book, event.id, event.mark, event.leaves))
                .collect();
            overrides.extend(set.cloned());
            limits.push(LimitStanding { state, counted });
        }
    }
    Standing {
        profile: profile.name.clone(),
        help: profile.help.to_string(),
        at: now,
        pressure,
        limits,
        overrides,
    }
}
