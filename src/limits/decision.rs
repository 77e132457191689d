//! What was decided, with everything that a refusal must say.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use smallvec::SmallVec;

use super::profile::{Counts, Per};
use super::tier::Tier;
use super::{GuardState, Pressure, times};
use crate::clock::UnixTime;
use crate::store::LedgerId;

/// The answer to a registration or an order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// Whether it may go on.
    pub outcome: Outcome,
    /// When it was decided.
    #[serde(serialize_with = "times::time")]
    pub at: UnixTime,
    /// Whether an account was asked for, and no certificate.
    #[serde(skip)]
    pub registration: bool,
    /// The renewal it is, if it is one.
    pub renewal: Option<Renewal>,
    /// Why `replaces` did not make it a renewal.
    pub not_replacing: Option<String>,
    /// Every limit that was looked at, by key; counts include this request where it was accepted.
    pub limits: Vec<LimitState>,
    /// Tiers that are nearly used up.
    pub warnings: Vec<Warning>,
    /// What limits in shadow mode would have refused.
    pub shadow: Vec<Refusal>,
    /// Whether this is the answer to an earlier request with the same idempotency key.
    pub repeated: bool,
    /// The guard's pressure, as of now.
    pub pressure: Pressure,
    /// The page that explains the limits.
    #[serde(serialize_with = "times::text")]
    pub help: Arc<str>,
}

/// Whether a request may go on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It may.
    Allowed {
        /// Its number, for commit and release.
        order: LedgerId,
        /// Until when its places are held; none for a registration, and once it was issued or released.
        #[serde(serialize_with = "times::optional_time")]
        expires: Option<UnixTime>,
    },
    /// It may not. Nothing was counted.
    Refused {
        /// Every reason, the one that lasts longest first.
        refusals: Vec<Refusal>,
        /// The first moment at which everything allows, if nothing happens until then; none when
        /// that is not known (see [`Decision::retry_after`]).
        #[serde(serialize_with = "times::optional_time")]
        retry_at: Option<UnixTime>,
    },
}

/// Why an order is a renewal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Renewal {
    /// The certificate it renews.
    pub certificate: String,
    /// That certificate's order.
    pub order: LedgerId,
    /// Named by ARI `replaces`; else by the same identifiers.
    pub by_replaces: bool,
}

/// One limit's word against a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Refusal {
    /// Why.
    pub cause: RefusalCause,
    /// The limit's name; empty when no limit refuses but the capacity.
    pub limit: String,
    /// What it counts; none when no limit refuses but the capacity.
    pub counts: Option<Counts>,
    /// For whom.
    pub per: Option<Per>,
    /// The key.
    pub key: String,
    /// The tier: the nominal numbers, or an override's.
    pub tier: Option<Tier>,
    /// How many count now.
    pub count: u64,
    /// The nominal number (of the override where there is one).
    pub nominal: u64,
    /// The number in force, under the guard's multiplier.
    pub effective: u64,
    /// The first moment at which this limit allows, if nothing happens until then.
    #[serde(serialize_with = "times::optional_time")]
    pub retry_at: Option<UnixTime>,
    /// What counts, the first to leave first; at most [`Refusal::COUNTED_MOST`].
    pub counted: Vec<Counted>,
    /// The override in force: when it ends.
    #[serde(serialize_with = "times::optional_time")]
    pub override_until: Option<UnixTime>,
    /// What capacity has to do with it.
    pub capacity: Option<CapacityCause>,
    /// One or two sentences with all of it.
    pub detail: String,
}

impl Refusal {
    /// The most events that a refusal lists.
    pub const COUNTED_MOST: usize = 100;
}

/// Why a limit refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCause {
    /// The nominal number is used up.
    Limit,
    /// The number in force, tightened by capacity, is used up.
    Tightened,
    /// No new certificates at present: m is 0.
    Capacity,
    /// The operator blocked the key.
    Blocked,
}

/// What the guard says where capacity refused or tightened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CapacityCause {
    /// m.
    pub multiplier: f64,
    /// The guard's state.
    pub state: GuardState,
    /// Demand over usable capacity.
    pub utilisation: Option<f64>,
    /// What the guard foresees.
    pub forecast: Option<String>,
    /// Why.
    pub reason: String,
    /// When it is expected to ease.
    #[serde(serialize_with = "times::optional_time")]
    pub eases_at: Option<UnixTime>,
}

/// Something that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Its number in the ledger.
    pub id: LedgerId,
    /// The certificate, or what else it is: `an order`, `an account`.
    pub what: String,
    /// The names in it, up to ten.
    pub identifiers: Vec<String>,
    /// From when it counts; for a held place, when it was ordered.
    #[serde(serialize_with = "times::time")]
    pub at: UnixTime,
    /// Whether it is a place held for a certificate that is not issued yet.
    pub held: bool,
    /// When it leaves, if nothing happens to it before.
    #[serde(serialize_with = "times::time")]
    pub leaves: UnixTime,
}

/// How a limit stands for a key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitState {
    /// The limit's name.
    #[serde(serialize_with = "times::text")]
    pub limit: Arc<str>,
    /// What it counts.
    pub counts: Counts,
    /// For whom.
    pub per: Per,
    /// The key.
    pub key: String,
    /// Whether it refuses nothing.
    pub shadow: bool,
    /// The end of the override in force.
    #[serde(serialize_with = "times::optional_time")]
    pub override_until: Option<UnixTime>,
    /// Its tiers.
    #[serde(serialize_with = "times::list")]
    pub tiers: SmallVec<[TierState; 1]>,
}

/// How a tier stands for a key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TierState {
    /// The nominal numbers, or an override's.
    pub tier: Tier,
    /// The number in force, under the guard's multiplier.
    pub effective: u64,
    /// How many count.
    pub count: u64,
    /// How many more are allowed.
    pub remaining: u64,
    /// When one more is allowed again, where none is; else when the first of what counts leaves.
    #[serde(serialize_with = "times::optional_time")]
    pub resets_at: Option<UnixTime>,
}

/// A tier that is nearly used up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Warning {
    /// The limit's name.
    pub limit: String,
    /// The key.
    pub key: String,
    /// The tier.
    pub tier: Tier,
    /// How many count, this request included.
    pub count: u64,
    /// The number in force.
    pub effective: u64,
    /// A sentence with all of it.
    pub detail: String,
}

/// How long a refused client waits when nobody knows how long it takes: the guard opens in steps of
/// a quarter of an hour.
const UNKNOWN: Duration = Duration::from_secs(900);

impl Decision {
    /// The order's number, if it may go on.
    #[must_use]
    pub fn order(&self) -> Option<LedgerId> {
        match self.outcome {
            Outcome::Allowed { order, .. } => Some(order),
            Outcome::Refused { .. } => None,
        }
    }

    /// The refusal that lasts longest, if it may not go on.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.outcome {
            Outcome::Allowed { .. } => None,
            Outcome::Refused { refusals, .. } => refusals.first(),
        }
    }

    /// `Retry-After` of a refusal, at least a second; a quarter of an hour when it is not known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.outcome {
            Outcome::Allowed { .. } => None,
            Outcome::Refused { retry_at: None, .. } => Some(UNKNOWN),
            Outcome::Refused { retry_at: Some(at), .. } => {
                Some(at.since(self.at).max(Duration::from_secs(1)))
            }
        }
    }
}
