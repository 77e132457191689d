//! `limits show | override add | override list | override remove`.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::context::{Context, table};
use super::{Outcome, Usage};
use crate::clock::UnixTime;
use crate::limits::{
    Counted, LimitStanding, Limiter, LimitsError, NewOverride, OrderId, Override, OverrideKey, Pressure,
    Standing, Subject, TierState,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show how the limits stand, what counts, and when it leaves. Without a subject, the limits that
    /// count everybody together.
    Show {
        /// A name or address in a certificate.
        #[arg(long, value_name = "NAME")]
        domain: Option<String>,
        /// An account.
        #[arg(long)]
        account: Option<String>,
        /// An address that accounts are made from.
        #[arg(long)]
        ip: Option<IpAddr>,
    },
    /// Other numbers for one domain, account or set of names, for a time and for a reason.
    #[command(subcommand)]
    Override(OverrideCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum OverrideCommand {
    /// Set other numbers; those that are set for the same key are replaced.
    Add(AddArguments),
    /// List the overrides in force.
    List,
    /// Take an override back.
    Remove {
        /// Its number, from `limits override list`.
        number: OrderId,
    },
}

#[derive(Debug, Args)]
pub(super) struct AddArguments {
    /// The limit, by its name in the profile.
    #[arg(long, value_name = "NAME")]
    limit: String,
    /// The domain; any name in it stands for its registered domain.
    #[arg(long, value_name = "NAME", conflicts_with = "identifiers")]
    domain: Option<String>,
    /// The account. With --domain, for a limit that counts one name of one account.
    #[arg(long, conflicts_with = "identifiers")]
    account: Option<String>,
    /// The exact set of names and addresses.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    identifiers: Option<Vec<String>>,
    /// Everybody, for a limit that counts everybody together.
    #[arg(long, conflicts_with_all = ["domain", "account", "identifiers"])]
    everybody: bool,
    /// The numbers: 50 (for a limit with one tier), 10/1d,50/7d; 0 blocks.
    #[arg(long, value_name = "TIERS")]
    allow: String,
    /// When it ends: an RFC 3339 time, a date, or a span from now such as 90d.
    #[arg(long, value_name = "TIME")]
    until: String,
    /// Why, for whoever comes after you.
    #[arg(long)]
    reason: String,
}

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<Outcome> {
    let app = context.app().await?;
    if app.settings().limits_profile.is_none() {
        let why = "the configuration names no profile of limits: set [limits] profile, for example to config/limits/current.toml";
        return Err(Usage(why.to_owned()).into());
    }
    let now = app.clock.now();
    // As the guard kept it last: what a process that serves decides with, but for the last moments.
    let (_guard, pressure) = watch::channel(app.last_pressure().await?.unwrap_or_else(Pressure::none));
    let (limiter, task) = app.start_limiter(pressure).await?;
    let done = carry_out(context, command, limiter, task, now).await;
    app.close().await;
    done
}

async fn carry_out(
    context: &Context,
    command: Command,
    limiter: Limiter,
    task: JoinHandle<()>,
    now: UnixTime,
) -> anyhow::Result<Outcome> {
    match command {
        Command::Show { domain, account, ip } => {
            let standing = limiter.show(Subject { domain, account, ip }).await.map_err(misfit)?;
            context.print(&standing, picture)?;
        }
        Command::Override(OverrideCommand::Add(arguments)) => {
            let new = arguments.read(now)?;
            let set = limiter.add_override(new).await.map_err(misfit)?;
            context.print(&set, |set| {
                let what = if set.blocks() { "is blocked".to_owned() } else { format!("has {}", tiers(set)) };
                format!("override {}: {} {what} in {} until {}", set.id, set.key, set.limit, set.until)
            })?;
        }
        Command::Override(OverrideCommand::List) => {
            context.print(&limiter.overrides().await?, |all| list(all))?;
        }
        Command::Override(OverrideCommand::Remove { number }) => {
            let set = limiter.remove_override(number).await.map_err(misfit)?;
            context.print(&Removed { removed: set }, |removed| {
                format!(
                    "override {}: {} has the numbers of {} again",
                    number, removed.removed.key, removed.removed.limit
                )
            })?;
        }
    }
    // What was asked is answered, and so written: the task has only to see that nobody is left.
    drop(limiter);
    task.await?;
    Ok(Outcome::Done)
}

#[derive(Serialize)]
struct Removed {
    removed: Override,
}

/// What the caller typed wrong is a matter of usage.
fn misfit(error: LimitsError) -> anyhow::Error {
    match error {
        LimitsError::Identifier(_) | LimitsError::Override(_) => Usage(error.to_string()).into(),
        error => error.into(),
    }
}

impl AddArguments {
    fn read(self, now: UnixTime) -> Result<NewOverride, Usage> {
        let key = match (self.domain, self.account, self.identifiers, self.everybody) {
            (Some(domain), None, None, false) => OverrideKey::Domain(domain),
            (None, Some(account), None, false) => OverrideKey::Account(account),
            (Some(domain), Some(account), None, false) => OverrideKey::AccountAndIdentifier(account, domain),
            (None, None, Some(identifiers), false) => OverrideKey::Identifiers(identifiers),
            (None, None, None, true) => OverrideKey::Everything,
            _ => {
                return Err(Usage(
                    "name whose numbers these are: --domain, --account, --identifiers or --everybody"
                        .to_owned(),
                ));
            }
        };
        let until = until(&self.until, now)?;
        Ok(NewOverride { limit: self.limit, key, allow: self.allow, until, reason: self.reason })
    }
}

fn until(text: &str, now: UnixTime) -> Result<UnixTime, Usage> {
    UnixTime::parse_rfc3339(text)
        .or_else(|_| UnixTime::parse_rfc3339(&format!("{text}T00:00:00Z")))
        .or_else(|_| humantime::parse_duration(text).map(|span| now.plus(span)))
        .map_err(|_| {
            Usage(format!(
                "--until {text:?} is no time such as 2027-01-31T12:00:00Z, no date such as 2027-01-31, and no span such as 90d"
            ))
        })
}

fn tiers(set: &Override) -> String {
    set.tiers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn list(all: &[Override]) -> String {
    if all.is_empty() {
        return "no overrides".to_owned();
    }
    table(
        ["NUMBER", "LIMIT", "KEY", "TIERS", "SET", "ENDS", "REASON"],
        all.iter().map(|set| {
            [
                set.id.to_string(),
                set.limit.clone(),
                set.key.clone(),
                tiers(set),
                set.at.to_string(),
                set.until.to_string(),
                set.reason.clone(),
            ]
        }),
    )
}

/// Characters of a bar.
const BAR: u64 = 24;

/// The limits as bars, with what counts below.
fn picture(standing: &Standing) -> String {
    let pressure = &standing.pressure;
    let mut text = format!("profile {} at {}", standing.profile, standing.at);
    text.push('\n');
    if pressure.multiplier < 1.0 {
        text += &capacity(pressure);
    }
    if standing.limits.is_empty() {
        text += "no limit counts what was asked for\n";
    }
    for limit in &standing.limits {
        text += &one(limit);
    }
    text
}

/// Why the numbers are not the nominal ones, as a refusal says it.
fn capacity(pressure: &Pressure) -> String {
    let percent = |part: f64| format!("{:.0} %", part * 100.0);
    let mut text = format!(
        "signing capacity is short: limits that follow it are at {} of their numbers, renewals pass as ever\n  {}\n",
        percent(pressure.multiplier),
        pressure.reason
    );
    if let Some(utilisation) = pressure.utilisation {
        text += &format!("  utilisation {}\n", percent(utilisation));
    }
    if let Some(forecast) = &pressure.forecast {
        text += &format!("  forecast: {forecast}\n");
    }
    if let Some(at) = pressure.eases_at {
        text += &format!("  expected to ease at {at}\n");
    }
    text
}

fn one(limit: &LimitStanding) -> String {
    let state = &limit.state;
    let mut notes = Vec::new();
    if state.shadow {
        notes.push("shadow: refuses nothing".to_owned());
    }
    if let Some(until) = state.override_until {
        notes.push(format!("override until {until}"));
    }
    let notes = if notes.is_empty() { String::new() } else { format!("  [{}]", notes.join("; ")) };
    let mut text = format!("\n{}  {}{notes}\n", state.limit, state.key);
    text += &table(["TIER", "", "USED", "LEFT", ""], state.tiers.iter().map(tier));
    if !limit.counted.is_empty() {
        text.push('\n');
        text += &table(["WHAT COUNTS", "NAMES", "FROM", "LEAVES"], limit.counted.iter().map(counted));
    }
    text
}

fn tier(tier: &TierState) -> [String; 5] {
    let used = if tier.count >= tier.effective {
        BAR
    } else {
        // At least one block for anything at all, and never full before it is.
        (tier.count * BAR / tier.effective.max(1)).max(u64::from(tier.count > 0))
    };
    let bar: String = (0..BAR).map(|at| if at < used { '█' } else { '░' }).collect();
    let nominal = if tier.effective == tier.tier.count {
        tier.effective.to_string()
    } else {
        format!("{} (nominally {})", tier.effective, tier.tier.count)
    };
    let next = match (tier.remaining, tier.resets_at) {
        (0, Some(at)) => format!("full until {at}"),
        (0, None) => "blocked".to_owned(),
        (_, Some(at)) => format!("first leaves {at}"),
        (_, None) => String::new(),
    };
    [tier.tier.to_string(), bar, format!("{} of {nominal}", tier.count), tier.remaining.to_string(), next]
}

fn counted(event: &Counted) -> [String; 4] {
    let what = if event.held { format!("{} (held)", event.what) } else { event.what.clone() };
    [what, event.identifiers.join(" "), event.at.to_string(), event.leaves.to_string()]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_override_ends_at_a_time_a_date_or_after_a_span() {
        let now = UnixTime::parse_rfc3339("2026-11-22T06:00:00Z").unwrap();
        for (text, end) in [
            ("2027-01-31T12:00:00Z", "2027-01-31T12:00:00Z"),
            ("2027-01-31", "2027-01-31T00:00:00Z"),
            ("90d", "2027-02-20T06:00:00Z"),
            ("1d 12h", "2026-11-23T18:00:00Z"),
        ] {
            assert_eq!(until(text, now).unwrap().to_string(), end);
        }
        assert!(until("soon", now).unwrap_err().to_string().contains("no span such as 90d"));
    }

    #[test]
    fn a_bar_is_full_only_when_the_tier_is() {
        let bar = |count, effective: u64| {
            let nominal = crate::limits::Tier { count: 50, period: Duration::from_secs(60) };
            let state = TierState {
                tier: nominal,
                effective,
                count,
                remaining: effective.saturating_sub(count),
                resets_at: None,
            };
            let [_, bar, used, ..] = tier(&state);
            (bar.chars().filter(|block| *block == '█').count(), used)
        };
        assert_eq!(bar(0, 50), (0, "0 of 50".to_owned()));
        assert_eq!(bar(1, 50), (1, "1 of 50".to_owned()));
        assert_eq!(bar(25, 50), (12, "25 of 50".to_owned()));
        assert_eq!(bar(49, 50).0, 23);
        assert_eq!(bar(50, 50).0, 24);
        assert_eq!(bar(30, 21), (24, "30 of 21 (nominally 50)".to_owned()));
        assert_eq!(bar(0, 0).0, 24);
    }
}
