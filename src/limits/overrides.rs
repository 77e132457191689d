//! Other numbers for one key of one limit, for a time and for a reason.

use serde::Serialize;

use super::LimitsError;
use super::charges::{EVERYBODY, account_and_identifier};
use super::identifiers::{Identifier, Identifiers, check_account, domain_of, key_of};
use super::profile::{Counts, Limit, Per, Profile};
use super::tier::{MOST, Tier};
use super::times;
use crate::clock::UnixTime;
use crate::store::{LedgerId, OverrideEntry};

/// The longest reason.
const LONGEST_REASON: usize = 500;

/// An override that was set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Override {
    /// Its number.
    pub id: LedgerId,
    /// The limit's name.
    pub limit: String,
    /// The key.
    pub key: String,
    /// The tiers instead of the limit's own; a count of 0 blocks the key.
    pub tiers: Vec<Tier>,
    /// When it was set.
    #[serde(serialize_with = "times::time")]
    pub at: UnixTime,
    /// When it ends.
    #[serde(serialize_with = "times::time")]
    pub until: UnixTime,
    /// Why.
    pub reason: String,
}

impl Override {
    /// The override that an entry of the ledger states; none when its tiers are not ours.
    pub(super) fn of(id: LedgerId, entry: &OverrideEntry) -> Option<Self> {
        Some(Self {
            id,
            limit: entry.limit.clone(),
            key: entry.key.clone(),
            tiers: entry.tiers.iter().map(|tier| tier.parse()).collect::<Result<_, _>>().ok()?,
            at: entry.at,
            until: entry.until,
            reason: entry.reason.clone(),
        })
    }

    /// Whether it lets nothing through.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.tiers.iter().any(|tier| tier.count == 0)
    }
}

/// Whose numbers an override sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OverrideKey {
    /// A domain: any name in it stands for its registered domain.
    Domain(String),
    /// An account.
    Account(String),
    /// An exact set of identifiers.
    Identifiers(Vec<String>),
    /// One identifier of one account.
    AccountAndIdentifier(String, String),
    /// Everybody, for a limit that counts everybody together.
    Everything,
}

/// An override to set. The same limit and key again replaces the one that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOverride {
    /// The limit's name.
    pub limit: String,
    /// Whose.
    pub key: OverrideKey,
    /// The numbers: `50` (for a limit with one tier), `50/7d`, `10/1d,50/7d`; `0` blocks.
    pub allow: String,
    /// When it ends.
    pub until: UnixTime,
    /// Why.
    pub reason: String,
}

/// Checks an override against the profile and writes it as an entry.
pub(super) fn entry(
    new: &NewOverride,
    profile: &Profile,
    now: UnixTime,
) -> Result<OverrideEntry, LimitsError> {
    let refused = |why: String| LimitsError::Override(why);
    let Some((_, limit)) = profile.limit(&new.limit) else {
        let known: Vec<_> = profile.limits.iter().map(|limit| &*limit.name).collect();
        return Err(refused(format!(
            "the profile {} has no limit {:?}; it has {}",
            profile.name,
            new.limit,
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        )));
    };
    if limit.counts == Counts::Registrations {
        return Err(refused(format!(
            "there is no override for registrations ({}): have the client keep its account instead of making new ones",
            limit.name
        )));
    }
    if !limit.overridable {
        return Err(refused(format!("the profile {} allows no override of {}", profile.name, limit.name)));
    }
    let reason = new.reason.trim();
    if reason.is_empty() || reason.len() > LONGEST_REASON || reason.chars().any(char::is_control) {
        return Err(refused(format!(
            "give a reason of 1 to {LONGEST_REASON} characters: whoever comes after you will ask"
        )));
    }
    if new.until <= now {
        return Err(refused(format!("the override would end at {}, which is past: it is {now}", new.until)));
    }
    let key = key(limit, &new.key)?;
    let tiers = tiers(limit, &new.allow)?;
    Ok(OverrideEntry {
        at: now,
        limit: limit.name.to_string(),
        key,
        tiers: tiers.iter().map(ToString::to_string).collect(),
        until: new.until,
        reason: reason.to_owned(),
        removed: false,
    })
}

fn key(limit: &Limit, key: &OverrideKey) -> Result<String, LimitsError> {
    Ok(match (limit.per, key) {
        (Per::Domain { ipv6 }, OverrideKey::Domain(name)) => {
            domain_of(&name.parse::<Identifier>()?.to_string(), ipv6).into_owned()
        }
        (Per::Account, OverrideKey::Account(account)) => {
            check_account(account)?;
            account.clone()
        }
        (Per::Identifiers, OverrideKey::Identifiers(texts)) => {
            key_of(Identifiers::parse(texts, usize::MAX)?.texts())
        }
        (Per::AccountAndIdentifier, OverrideKey::AccountAndIdentifier(account, text)) => {
            check_account(account)?;
            account_and_identifier(account, &text.parse::<Identifier>()?.to_string())
        }
        (Per::Everything, OverrideKey::Everything) => EVERYBODY.to_owned(),
        (per, _) => {
            return Err(LimitsError::Override(format!(
                "{} counts per {per}: name the {per} that is to have other numbers",
                limit.name,
                per = per.name()
            )));
        }
    })
}

fn tiers(limit: &Limit, text: &str) -> Result<Vec<Tier>, LimitsError> {
    let refused = |why: String| LimitsError::Override(format!("{text:?}: {why}"));
    if let Ok(count) = text.trim().parse::<u64>() {
        return match limit.tiers.as_slice() {
            _ if count > MOST => Err(refused(format!("the most is {MOST}"))),
            tiers if count == 0 => Ok(tiers.iter().map(|tier| Tier { count: 0, ..*tier }).collect()),
            [one] => Ok(vec![Tier { count, ..*one }]),
            several => {
                let own: Vec<_> = several.iter().map(ToString::to_string).collect();
                Err(refused(format!(
                    "{} has several tiers ({}): give each, such as {:?}",
                    limit.name,
                    own.join(","),
                    own.join(",")
                )))
            }
        };
    }
    let mut tiers: Vec<Tier> = text
        .split(',')
        .map(|tier| tier.trim().parse().map_err(|error| refused(format!("{error}"))))
        .collect::<Result<_, _>>()?;
    tiers.sort_by_key(|tier| tier.period);
    if tiers.windows(2).any(|pair| pair[0].period == pair[1].period) {
        return Err(refused("two tiers have the same period".to_owned()));
    }
    if tiers.iter().any(|tier| tier.period > limit.longest()) {
        return Err(refused(format!(
            "{} remembers {} and no longer: a tier cannot look further back",
            limit.name,
            super::tier::short(limit.longest())
        )));
    }
    Ok(tiers)
}
