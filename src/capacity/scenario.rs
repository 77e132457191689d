//! A scenario: months of a CA's life in a TOML file.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::fleet::{Fleet, Life};
use super::guard;
use super::model::{Reserve, Terms, Work};
use super::{SPREAD, throttle};
use crate::ocsp::{Freshness, Preset};

/// The scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It does not read as TOML, or a field is wrong.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// A value does not fit.
    #[error("{field}: {why}")]
    Value {
        /// The field, for example `event 2 token`.
        field: String,
        /// What is wrong with it, and what would be right.
        why: String,
    },
}

fn refuse(field: impl fmt::Display, why: impl fmt::Display) -> ScenarioError {
    ScenarioError::Value { field: field.to_string(), why: why.to_string() }
}

/// A span such as `3d12h`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Self).map_err(|error| {
            serde::de::Error::custom(format!("{text:?} is no span of time such as \"3d12h\": {error}"))
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: String,
    days: u32,
    #[serde(default = "yes")]
    guard: bool,
    policy: PolicyTable,
    fleet: FleetTable,
    #[serde(default)]
    signatures: SignaturesTable,
    #[serde(default)]
    capacity: CapacityTable,
    token: Vec<TokenTable>,
    demand: DemandTable,
    #[serde(default)]
    event: Vec<EventTable>,
}

const fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyTable {
    preset: String,
    validity: Span,
    refresh: Span,
    spread: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FleetTable {
    certificates: f64,
    lifetime: Span,
    renewal_age: Option<Span>,
    renewal_share: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SignaturesTable {
    responders: u32,
    paired: bool,
    pack_max: u64,
    per_issuance: f64,
}

impl Default for SignaturesTable {
    fn default() -> Self {
        Self { responders: 1, paired: true, pack_max: 1, per_issuance: 0.0 }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CapacityTable {
    headroom: f64,
    outage: Span,
    drain: Span,
    live: f64,
}

impl Default for CapacityTable {
    fn default() -> Self {
        let day = Span(Duration::from_secs(86_400));
        Self { headroom: 0.8, outage: day, drain: day, live: 0.0 }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenTable {
    name: String,
    rate: f64,
    #[serde(default = "one")]
    count: u32,
}

const fn one() -> u32 {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DemandTable {
    new_per_day: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventTable {
    at: Span,
    new_per_day: Option<f64>,
    over: Option<Span>,
    token: Option<String>,
    rate: Option<f64>,
    outage: Option<Span>,
    lifetime: Option<Span>,
    renewal_age: Option<Span>,
    revoke: Option<f64>,
    reissue_over: Option<Span>,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// New certificates asked for a day go to this number, evenly within the span.
    NewPerDay(f64, Duration),
    /// A token signs at another rate from now on.
    Rate(usize, f64),
    /// A token, or every one, is away for the span.
    Outage(Option<usize>, Duration),
    /// New certificates and renewals are of another life from now on.
    Life(usize),
    /// A share of the fleet is revoked within the first span, and issued anew within the second.
    Revoke {
        /// The share, from 0 to 1.
        share: f64,
        /// Within which the revocations come in.
        over: Duration,
        /// Within which the replacements are issued.
        reissue_over: Duration,
    },
}

/// A token of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its name.
    pub name: String,
    /// Signatures a second.
    pub rate: f64,
}

/// A scenario, validated.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// For people.
    pub title: String,
    /// How long it goes on.
    pub days: u32,
    /// Whether the guard acts on what it sees.
    pub guarded: bool,
    /// How long answers last.
    pub terms: Terms,
    /// How the guard reckons.
    pub settings: guard::Settings,
    /// The fleet at the beginning, its lives and those that come in later.
    pub fleet: Fleet,
    /// The tokens.
    pub tokens: Vec<Token>,
    /// Live answers a second.
    pub live: f64,
    /// New certificates asked for a day, at the beginning.
    pub new_per_day: f64,
    /// What happens, by time from the beginning.
    pub events: Vec<(Duration, Change)>,
}

const DAY: Duration = Duration::from_secs(86_400);
/// The longest scenario: ten years.
const MOST_DAYS: u32 = 3_650;

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// [`ScenarioError`], naming the field.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let file: File = toml::from_str(text)?;
        if file.days == 0 || file.days > MOST_DAYS {
            return Err(refuse("days", format!("must be from 1 to {MOST_DAYS}")));
        }
        let preset: Preset = file.policy.preset.parse().map_err(|error| refuse("policy.preset", error))?;
        let freshness = Freshness::new(preset, file.policy.validity.0, file.policy.refresh.0)
            .map_err(|error| refuse("policy", error))?;
        let spread = file.policy.spread.unwrap_or(SPREAD);
        if !(0.0..1.0).contains(&spread) {
            return Err(refuse("policy.spread", "must be at least 0 and below 1"));
        }
        let terms = Terms { spread, ..Terms::from(freshness) };
        let tokens = tokens(&file.token)?;
        amount("demand.new_per_day", file.demand.new_per_day)?;
        amount("fleet.certificates", file.fleet.certificates)?;
        share("fleet.renewal_share", file.fleet.renewal_share)?;
        let mut lives =
            vec![life("fleet", file.fleet.lifetime, file.fleet.renewal_age, file.fleet.renewal_share, 0)?];
        let mut events = Vec::new();
        for (at, event) in file.event.iter().enumerate() {
            let change =
                change(event, &format!("event {}", at + 1), &tokens, &mut lives, file.fleet.renewal_share)?;
            events.push((event.at.0, change));
        }
        events.sort_by_key(|(at, _)| *at);
        let mut fleet = Fleet::new(&lives, 0);
        fleet.add_evenly(0, file.fleet.certificates);
        share("capacity.headroom", file.capacity.headroom)?;
        amount("capacity.live", file.capacity.live)?;
        amount("signatures.per_issuance", file.signatures.per_issuance)?;
        let answers =
            f64::from(file.signatures.responders.max(1)) * if file.signatures.paired { 1.0 } else { 2.0 };
        let settings = guard::Settings {
            reserve: Reserve {
                headroom: file.capacity.headroom,
                live: None,
                outage: file.capacity.outage.0,
                drain: file.capacity.drain.0,
            },
            work: Work { per_refresh: answers, per_issuance: file.signatures.per_issuance },
            pack_max: file.signatures.pack_max.max(1),
            throttle: throttle::Settings::default(),
            watch_only: false,
            smoothing: DAY,
        };
        Ok(Self {
            title: file.title,
            days: file.days,
            guarded: file.guard,
            terms,
            settings,
            fleet,
            tokens,
            live: file.capacity.live,
            new_per_day: file.demand.new_per_day,
            events,
        })
    }
}

fn tokens(tables: &[TokenTable]) -> Result<Vec<Token>, ScenarioError> {
    let mut tokens: Vec<Token> = Vec::new();
    for table in tables {
        amount(format_args!("token {:?} rate", table.name), table.rate)?;
        if table.count == 0 || table.count > 1_000 {
            return Err(refuse(format_args!("token {:?} count", table.name), "must be from 1 to 1000"));
        }
        for number in 1..=table.count {
            let name = if table.count == 1 { table.name.clone() } else { format!("{}-{number}", table.name) };
            if tokens.iter().any(|other| other.name == name) {
                return Err(refuse("token", format!("two tokens are named {name:?}")));
            }
            tokens.push(Token { name, rate: table.rate });
        }
    }
    if tokens.is_empty() { Err(refuse("token", "name at least one [[token]]")) } else { Ok(tokens) }
}

fn change(
    event: &EventTable,
    place: &str,
    tokens: &[Token],
    lives: &mut Vec<Life>,
    renewal_share: f64,
) -> Result<Change, ScenarioError> {
    let named = match &event.token {
        Some(name) => Some(tokens.iter().position(|token| token.name == *name).ok_or_else(|| {
            refuse(format_args!("{place} token"), format!("there is no [[token]] named {name:?}"))
        })?),
        None => None,
    };
    let over = event.over.map_or(Duration::ZERO, |span| span.0);
    match event {
        EventTable {
            new_per_day: Some(number),
            rate: None,
            outage: None,
            lifetime: None,
            revoke: None,
            ..
        } => {
            amount(format_args!("{place} new_per_day"), *number)?;
            Ok(Change::NewPerDay(*number, over))
        }
        EventTable {
            rate: Some(rate),
            new_per_day: None,
            outage: None,
            lifetime: None,
            revoke: None,
            ..
        } => {
            amount(format_args!("{place} rate"), *rate)?;
            let token = named.ok_or_else(|| refuse(place, "a rate needs the token that it is for"))?;
            Ok(Change::Rate(token, *rate))
        }
        EventTable {
            outage: Some(span),
            new_per_day: None,
            rate: None,
            lifetime: None,
            revoke: None,
            ..
        } => Ok(Change::Outage(named, span.0)),
        EventTable {
            lifetime: Some(span),
            new_per_day: None,
            rate: None,
            outage: None,
            revoke: None,
            ..
        } => {
            let at = lives.len();
            lives.push(life(place, *span, event.renewal_age, renewal_share, at)?);
            Ok(Change::Life(at))
        }
        EventTable {
            revoke: Some(part),
            new_per_day: None,
            rate: None,
            outage: None,
            lifetime: None,
            ..
        } => {
            share(format_args!("{place} revoke"), *part)?;
            let reissue_over = event.reissue_over.map_or(over, |span| span.0);
            Ok(Change::Revoke { share: *part, over, reissue_over })
        }
        _ => Err(refuse(place, "give exactly one of new_per_day, rate, outage, lifetime, revoke")),
    }
}

/// A life of whole days, renewed at two thirds of it if nothing else is said.
fn life(
    place: &str,
    lifetime: Span,
    renewal_age: Option<Span>,
    renewal_share: f64,
    renews_as: usize,
) -> Result<Life, ScenarioError> {
    let whole = |span: Span| (span.0.as_secs_f64() / DAY.as_secs_f64()).round() as u32;
    let days = whole(lifetime);
    if days == 0 || days > 4_000 {
        return Err(refuse(format_args!("{place} lifetime"), "must be from 1 to 4000 days"));
    }
    let renewal_age = renewal_age.map_or_else(|| usual_renewal_age(days), whole);
    if renewal_age == 0 || renewal_age > days {
        return Err(refuse(format_args!("{place} renewal_age"), "must be from 1 day to the lifetime"));
    }
    Ok(Life { days, renewal_age, renewal_share, renews_as })
}

/// The day on which most clients renew a certificate of so many days: two thirds into its life.
#[must_use]
pub fn usual_renewal_age(days: u32) -> u32 {
    ((f64::from(days) * 2.0 / 3.0).round() as u32).max(1)
}

fn amount(field: impl fmt::Display, value: f64) -> Result<(), ScenarioError> {
    if value.is_finite() && (0.0..=1e12).contains(&value) {
        Ok(())
    } else {
        Err(refuse(field, "must be a number from 0 to 10¹²"))
    }
}

fn share(field: impl fmt::Display, value: f64) -> Result<(), ScenarioError> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(refuse(field, "must be a number from 0 to 1")) }
}
