//! Which keys of which limits a request or a record touches, and how.

use std::borrow::Cow;
use std::net::IpAddr;

use smallvec::{SmallVec, smallvec};

use super::identifiers::{domain_of, key_of};
use super::profile::{Counts, Limit, Per, Profile};
use super::window::Mark;
use crate::store::{LedgerEntry, OrderEntry, OrderState};

/// The one key of limits that count everybody together.
pub(super) const EVERYBODY: &str = "*";

/// For whom something is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    pub(super) ip: Option<IpAddr>,
    pub(super) account: Option<&'a str>,
    /// Sorted texts, each once.
    pub(super) identifiers: &'a [String],
}

/// Nearly always one.
pub(super) type Keys<'a> = SmallVec<[Cow<'a, str>; 1]>;

/// The keys of a limit that this touches, each once.
pub(super) fn keys<'a>(limit: &Limit, who: Who<'a>) -> Keys<'a> {
    match limit.per {
        Per::Ip { ipv6 } => who.ip.map(|ip| Cow::Owned(ipv6.key(ip))).into_iter().collect(),
        Per::Ipv6Range { ipv6 } => match who.ip.map(|ip| ip.to_canonical()) {
            Some(ip @ IpAddr::V6(_)) => smallvec![Cow::Owned(ipv6.key(ip))],
            _ => Keys::new(),
        },
        Per::Account => who.account.map(Cow::Borrowed).into_iter().collect(),
        Per::Domain { ipv6 } => {
            let mut domains: Keys<'_> = who.identifiers.iter().map(|text| domain_of(text, ipv6)).collect();
            if domains.len() > 1 {
                domains.sort_unstable();
                domains.dedup();
            }
            domains
        }
        Per::Identifiers if who.identifiers.is_empty() => Keys::new(),
        Per::Identifiers => match who.identifiers {
            [one] => smallvec![Cow::Borrowed(one.as_str())],
            several => smallvec![Cow::Owned(key_of(several))],
        },
        Per::AccountAndIdentifier => {
            let Some(account) = who.account else { return Keys::new() };
            let of_one = |text: &String| Cow::Owned(account_and_identifier(account, text));
            who.identifiers.iter().map(of_one).collect()
        }
        Per::Everything => smallvec![Cow::Borrowed(EVERYBODY)],
    }
}

/// The key of one identifier of one account.
pub(super) fn account_and_identifier(account: &str, identifier: &str) -> String {
    [account, " ", identifier].concat()
}

/// What an entry puts into the windows: the limit's place in the profile, the key, the mark.
pub(super) fn marks(profile: &Profile, entry: &LedgerEntry) -> Vec<(usize, String, Mark)> {
    let mut marks = Vec::new();
    for (place, limit) in profile.limits.iter().enumerate() {
        let (who, mark) = match entry {
            LedgerEntry::Registration(made) if limit.counts == Counts::Registrations => {
                (Who { ip: Some(made.ip), account: None, identifiers: &[] }, Mark::Counted(made.at))
            }
            LedgerEntry::Order(order) => match mark_of_order(limit, order) {
                Some((identifiers, mark)) => (
                    Who {
                        ip: None,
                        account: Some(&order.account)
                            .filter(|account| !account.is_empty())
                            .map(String::as_str),
                        identifiers,
                    },
                    mark,
                ),
                None => continue,
            },
            _ => continue,
        };
        marks.extend(keys(limit, who).into_iter().map(|key| (place, key.into_owned(), mark)));
    }
    marks
}

fn mark_of_order<'o>(limit: &Limit, order: &'o OrderEntry) -> Option<(&'o [String], Mark)> {
    if order.renews.is_some() && limit.renewals_exempt {
        return None;
    }
    let all = order.identifiers.as_slice();
    match (limit.counts, &order.state) {
        (Counts::Orders, _) => Some((all, Mark::Counted(order.at))),
        (Counts::Certificates, OrderState::Reserved { expires }) => Some((all, Mark::Held(*expires))),
        (Counts::Certificates, OrderState::Issued { at, .. }) => Some((all, Mark::Counted(*at))),
        (Counts::FailedAuthorizations, OrderState::Released { at, failed }) if !failed.is_empty() => {
            Some((failed, Mark::Counted(*at)))
        }
        _ => None,
    }
}
