//! `capacity report | plan | simulate`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::capacity_text::{plan_text, report_text, summary_text};
use super::context::Context;
use super::{Outcome, Usage};
use crate::app::files::FileError;
use crate::app::guard;
use crate::capacity::fleet::Life;
use crate::capacity::model::{Reserve, Terms};
use crate::capacity::plan::Question;
use crate::capacity::scenario::{Scenario, usual_renewal_age};
use crate::capacity::{SPREAD, chart, simulation};
use crate::clock::{Clock, SystemClock};
use crate::ocsp::{Freshness, Preset};

const DAY: u64 = 86_400;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show how capacity stands: what the guard of the running process reckoned last.
    Report,
    /// Work out what a fleet needs, what the HSMs carry, and what each lever buys.
    Plan(PlanArguments),
    /// Run a scenario over months in virtual time; config/scenarios has samples.
    Simulate {
        /// The scenario, TOML.
        #[arg(value_name = "FILE")]
        scenario: PathBuf,
        /// Write a chart.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        /// Run it with the guard switched off, to see what the guard is worth.
        #[arg(long)]
        no_guard: bool,
    },
}

/// A span such as `3d12h`.
#[derive(Clone, Copy, Debug)]
struct Span(Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|error| format!("no span of time such as 3d12h: {error}"))
    }
}

fn amount(text: &str) -> Result<f64, String> {
    let number: f64 = text.replace(['_', ','], "").parse().map_err(|_| "no number".to_owned())?;
    if number.is_finite() && (0.0..=1e12).contains(&number) {
        Ok(number)
    } else {
        Err("must be from 0 to 10¹²".to_owned())
    }
}

fn share(text: &str) -> Result<f64, String> {
    let number = amount(text)?;
    if number <= 1.0 { Ok(number) } else { Err("must be from 0 to 1".to_owned()) }
}

#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    /// Unexpired certificates, revoked ones included.
    #[arg(long, value_parser = amount)]
    fleet: f64,
    /// How long a certificate lasts.
    #[arg(long, default_value = "90d")]
    lifetime: Span,
    /// When it is usually renewed, counted from issuance; two thirds of its life if not given.
    #[arg(long)]
    renewal_age: Option<Span>,
    /// The share that is renewed.
    #[arg(long, default_value = "0.9", value_parser = share)]
    renewal_share: f64,
    /// web-pki, microsoft or private.
    #[arg(long, default_value = "web-pki")]
    preset: Preset,
    /// How long an answer is valid.
    #[arg(long, default_value = "7d")]
    validity: Span,
    /// When it is signed anew at the latest.
    #[arg(long, default_value = "3d12h")]
    refresh: Span,
    /// The last part of the refresh interval over which refreshes are spread, as the engine does.
    #[arg(long, default_value_t = SPREAD, value_parser = share)]
    spread: f64,
    /// Signatures a second of each token, for example 13.7,13.7. Without it: the rates that `hsm bench`
    /// recorded, one for each token.
    #[arg(long, value_delimiter = ',', value_parser = amount)]
    rate: Vec<f64>,
    /// The key kind whose recorded rates are taken, for example rsa-2048; the slowest recorded if not given.
    #[arg(long, value_name = "KIND", conflicts_with = "rate")]
    algorithm: Option<String>,
    /// Responders that sign for each certificate.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    responders: u32,
    /// Two hashes that do not share a signature.
    #[arg(long)]
    unpaired: bool,
    /// Certificates under one signature.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    pack: u64,
    /// Other signatures on the same HSMs for each issuance.
    #[arg(long, default_value = "0", value_parser = amount)]
    per_issuance: f64,
    /// The part of the rate that is counted on.
    #[arg(long, default_value = "0.8", value_parser = share)]
    headroom: f64,
    /// The outage to be survived.
    #[arg(long, default_value = "24h")]
    outage: Span,
    /// How soon its backlog is to be worked off.
    #[arg(long, default_value = "24h")]
    drain: Span,
    /// Live answers a second, at the 99th percentile.
    #[arg(long, default_value = "0", value_parser = amount)]
    live: f64,
}

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Report => report(context).await,
        Command::Plan(arguments) => plan(context, &arguments).await,
        Command::Simulate { scenario, svg, no_guard } => simulate(context, scenario, svg, no_guard).await,
    }
}

async fn report(context: &Context) -> anyhow::Result<Outcome> {
    let app = context.app().await?;
    let report = guard::last_report(&*app.store, SystemClock.now()).await;
    app.close().await;
    let Some(report) = report? else {
        anyhow::bail!("no capacity guard has run on this store yet: `goodstanding serve` runs one");
    };
    context.print(&report, report_text)?;
    Ok(Outcome::Done)
}

async fn plan(context: &Context, arguments: &PlanArguments) -> anyhow::Result<Outcome> {
    let freshness = Freshness::new(arguments.preset, arguments.validity.0, arguments.refresh.0)
        .map_err(|error| Usage(error.to_string()))?;
    if arguments.spread >= 1.0 {
        return Err(Usage("--spread must be below 1".to_owned()).into());
    }
    if arguments.headroom <= 0.0 {
        return Err(Usage("--headroom must be above 0".to_owned()).into());
    }
    let days = |span: Span| (span.0.as_secs() + DAY / 2) / DAY;
    let lifetime = u32::try_from(days(arguments.lifetime)).ok().filter(|days| (1..=4_000).contains(days));
    let lifetime = lifetime.ok_or_else(|| Usage("--lifetime must be from 1 to 4000 days".to_owned()))?;
    let renewal_age = match arguments.renewal_age {
        None => usual_renewal_age(lifetime),
        Some(span) => u32::try_from(days(span))
            .ok()
            .filter(|age| (1..=lifetime).contains(age))
            .ok_or_else(|| Usage("--renewal-age must be from 1 day to the lifetime".to_owned()))?,
    };
    let rates =
        if arguments.rate.is_empty() { recorded(context, arguments).await? } else { arguments.rate.clone() };
    let question = Question {
        fleet: arguments.fleet,
        life: Life { days: lifetime, renewal_age, renewal_share: arguments.renewal_share, renews_as: 0 },
        terms: Terms { spread: arguments.spread, ..Terms::from(freshness) },
        responders: arguments.responders,
        paired: !arguments.unpaired,
        per_issuance: arguments.per_issuance,
        pack: arguments.pack,
        reserve: Reserve {
            headroom: arguments.headroom,
            live: None,
            outage: arguments.outage.0,
            drain: arguments.drain.0,
        },
        live: arguments.live,
        rates,
    };
    context.print(&question.answer(), |plan| plan_text(plan, &question))?;
    Ok(Outcome::Done)
}

/// The best recorded rate of each token: of the key kind asked for, else of its slowest one.
async fn recorded(context: &Context, arguments: &PlanArguments) -> anyhow::Result<Vec<f64>> {
    let app = context.app().await?;
    let profiles = app.store.profiles().await;
    app.close().await;
    let rates = guard::recorded_rates(&profiles?, arguments.algorithm.as_deref());
    if rates.is_empty() {
        let of = arguments.algorithm.as_ref().map_or_else(String::new, |kind| format!(" for {kind}"));
        let why = format!(
            "no rate is recorded{of}: give --rate, or measure the tokens with `goodstanding hsm bench`"
        );
        return Err(Usage(why).into());
    }
    Ok(rates.into_values().collect())
}

async fn simulate(
    context: &Context,
    path: PathBuf,
    svg: Option<PathBuf>,
    no_guard: bool,
) -> anyhow::Result<Outcome> {
    let text = std::fs::read_to_string(&path).map_err(|source| FileError::Unreadable {
        what: "the scenario",
        path: path.clone(),
        source,
    })?;
    let mut scenario =
        Scenario::parse(&text).map_err(|error| Usage(format!("{}: {error}", path.display())))?;
    scenario.guarded &= !no_guard;
    let outcome = tokio::task::spawn_blocking(move || simulation::run(scenario)).await?;
    if let Some(path) = &svg {
        std::fs::write(path, chart::svg(&outcome))
            .map_err(|source| FileError::Unwritable { path: path.clone(), source })?;
    }
    context.print(&outcome, summary_text)?;
    Ok(Outcome::Done)
}
