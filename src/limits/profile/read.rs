//! TOML in, profile out.

use std::ops::Range;

use toml::de::DeTable;

use super::{Counts, Limit, Per, Profile, is_help_page};
use crate::limits::identifiers::PrefixLength;
use crate::limits::tier::Tier;
use crate::reader::{Problem, Problems, Section};

/// The longest name of a limit: it goes into header fields.
const LONGEST_NAME: usize = 64;

pub(super) fn profile(text: &str) -> Result<Profile, Vec<Problem>> {
    let mut problems = Problems::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        problems.add(&error.span().unwrap_or(0..0), error.message());
    }
    let mut root = Section::root(&table);
    let mut profile = Profile::unlimited();
    if let Some((name, span)) = root.required("name", &mut problems) {
        check_name(&name, &span, "name", &mut problems);
        profile.name = name;
    }
    if let Some((help, span)) = root.string("help", &mut problems) {
        if !is_help_page(&help) {
            problems.add(&span, "help must be the http(s) URL of a page that explains the limits");
        }
        profile.help = help.into();
    }
    let reservation = root.duration("reservation", &mut problems);
    if let Some(reservation) = reservation {
        if reservation.subsec_nanos() != 0 || reservation.is_zero() || reservation.as_secs() > 7 * 86_400 {
            problems.add(root.span(), "reservation must be whole seconds, from 1s to 7d");
        }
        profile.reservation = reservation;
    }
    if let Some(grace) = root.duration("renewal_grace", &mut problems) {
        profile.renewal_grace = grace;
    }
    if let Some(percent) = root.integer("warn_percent", 1..101, &mut problems) {
        profile.warn_percent = percent;
    }
    if let Some(most) = root.integer("identifiers_most", 1..1_001, &mut problems) {
        profile.identifiers_most = usize::try_from(most).unwrap_or(1_000);
    }
    for mut section in root.sections("limit", &mut problems) {
        if let Some(limit) = limit(&mut section, &mut problems) {
            if profile.limit(&limit.name).is_some() {
                problems.add(section.span(), format!("limit: two limits are named {:?}", limit.name));
            }
            profile.limits.push(limit);
        }
        section.finish(&mut problems);
    }
    root.finish(&mut problems);
    let found = problems.into_found();
    if found.is_empty() { Ok(profile) } else { Err(found) }
}

fn limit(section: &mut Section<'_>, problems: &mut Problems<'_>) -> Option<Limit> {
    let name = section.required("name", problems);
    if let Some((name, span)) = &name {
        check_name(name, span, "limit.name", problems);
    }
    let counts = counts(section, problems);
    let per = per(section, problems);
    if let (Some(counts), Some((per, span))) = (counts, &per) {
        check_kind(counts, *per, span, problems);
    }
    let tiers = tiers(section, problems);
    if let (Some(tiers), Some((per, _))) = (&tiers, &per)
        && tiers.iter().any(Tier::is_by_capacity)
        && (tiers.len() > 1 || *per != Per::Everything || counts != Some(Counts::Certificates))
    {
        problems.add(
            section.span(),
            "limit.tiers: \"capacity\" is the only tier of a limit on certificates per everything",
        );
    }
    let exponent = section.number("exponent", 0.0..=4.0, problems);
    let shadow = section.boolean("shadow", problems).unwrap_or(false);
    let overridable = section.boolean("overridable", problems);
    let renewals = section.string("renewals", problems);
    let registrations = counts == Some(Counts::Registrations);
    if registrations && overridable == Some(true) {
        problems.add(section.span(), "limit.overridable: there is no override for registrations");
    }
    if registrations && exponent.is_some_and(|exponent| exponent > 0.0) {
        problems.add(
            section.span(),
            "limit.exponent must be 0 for registrations: an account costs the HSM nothing",
        );
    }
    let issues = counts == Some(Counts::Certificates);
    let (per, _) = per?;
    let exempt = match renewals {
        None => issues && matches!(per, Per::Domain { .. } | Per::Everything),
        Some((text, _)) if text == "exempt" => true,
        Some((text, _)) if text == "count" => false,
        Some((_, span)) => {
            problems.add(&span, "limit.renewals must be \"exempt\" or \"count\"");
            false
        }
    };
    Some(Limit {
        name: name?.0.into(),
        counts: counts?,
        per,
        tiers: tiers?,
        exponent: exponent.unwrap_or(0.0),
        shadow,
        overridable: overridable.unwrap_or(!registrations),
        renewals_exempt: exempt && !registrations,
    })
}

/// A name goes into header fields, and is typed on command lines.
fn check_name(name: &str, span: &Range<usize>, what: &str, problems: &mut Problems<'_>) {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
        problems
            .add(span, format!("{what} must be 1 to {LONGEST_NAME} lower-case letters, digits and hyphens"));
    }
}

fn counts(section: &mut Section<'_>, problems: &mut Problems<'_>) -> Option<Counts> {
    let (text, span) = section.required("counts", problems)?;
    let found = Counts::ALL.iter().find(|(_, name)| *name == text).map(|(counts, _)| *counts);
    if found.is_none() {
        let known: Vec<_> = Counts::ALL.iter().map(|(_, name)| *name).collect();
        problems.add(&span, format!("limit.counts: {text:?} is none of {}", known.join(", ")));
    }
    found
}

fn per(section: &mut Section<'_>, problems: &mut Problems<'_>) -> Option<(Per, Range<usize>)> {
    let prefix = section.integer("ipv6_prefix", 1..129, problems);
    let prefix = prefix.and_then(|bits| u8::try_from(bits).ok()).and_then(PrefixLength::new);
    let (text, span) = section.required("per", problems)?;
    let per = match text.as_str() {
        "ip" => Per::Ip { ipv6: prefix.unwrap_or(PrefixLength::EXACT) },
        "ipv6-range" => Per::Ipv6Range { ipv6: prefix.unwrap_or(PrefixLength::SUBNET) },
        "domain" => Per::Domain { ipv6: prefix.unwrap_or(PrefixLength::SUBNET) },
        "account" => Per::Account,
        "identifiers" => Per::Identifiers,
        "account-and-identifier" => Per::AccountAndIdentifier,
        "everything" => Per::Everything,
        _ => {
            problems.add(&span, format!("limit.per: {text:?} is none of ip, ipv6-range, account, domain, identifiers, account-and-identifier, everything"));
            return None;
        }
    };
    if prefix.is_some() && !matches!(per, Per::Ip { .. } | Per::Ipv6Range { .. } | Per::Domain { .. }) {
        problems.add(&span, format!("limit.ipv6_prefix means nothing per {text}"));
    }
    Some((per, span))
}

/// Only some things can be counted for some.
fn check_kind(counts: Counts, per: Per, span: &Range<usize>, problems: &mut Problems<'_>) {
    let (fits, known) = match counts {
        Counts::Registrations => (
            matches!(per, Per::Ip { .. } | Per::Ipv6Range { .. } | Per::Everything),
            "ip, ipv6-range, everything",
        ),
        Counts::Orders => (matches!(per, Per::Account | Per::Everything), "account, everything"),
        Counts::Certificates => (
            matches!(per, Per::Account | Per::Domain { .. } | Per::Identifiers | Per::Everything),
            "account, domain, identifiers, everything",
        ),
        Counts::FailedAuthorizations => {
            (matches!(per, Per::Account | Per::AccountAndIdentifier), "account, account-and-identifier")
        }
    };
    if !fits {
        let what = Counts::ALL.iter().find(|(each, _)| *each == counts).map_or("", |(_, name)| *name);
        problems.add(span, format!("limit.per: {what} are counted per {known}, not per {}", per.name()));
    }
}

fn tiers(section: &mut Section<'_>, problems: &mut Problems<'_>) -> Option<Vec<Tier>> {
    let mut tiers = section.required_list::<Tier>("tiers", problems)?;
    tiers.sort_by_key(|tier| tier.period);
    if tiers.is_empty() {
        problems.add(section.span(), "limit.tiers: give at least one, such as \"5/7d\"");
        return None;
    }
    for pair in tiers.windows(2) {
        if pair[0].period == pair[1].period {
            problems.add(
                section.span(),
                format!("limit.tiers: {} and {} have the same period", pair[0], pair[1]),
            );
        } else if pair[0].count >= pair[1].count {
            problems.add(
                section.span(),
                format!(
                    "limit.tiers: {} is never reached, since {} allows no more in a longer period",
                    pair[0], pair[1]
                ),
            );
        }
    }
    if tiers.iter().any(|tier| tier.count == 0) {
        problems.add(section.span(), "limit.tiers: 0 would refuse everybody; block one key with an override");
    }
    Some(tiers)
}
