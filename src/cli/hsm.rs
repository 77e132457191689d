//! `hsm list | test | bench`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;

use super::context::{Context, shown, table};
use super::progress::Progress;
use super::responder::blocking;
use super::{Outcome, Usage};
use crate::app::App;
use crate::app::files::FileError;
use crate::clock::Stopwatch;
use crate::ocsp::{KeyAlgorithm, SignatureAlgorithm};
use crate::signer::admin;
use crate::signer::bench::{self, Measurement, Plan, Subject};
use crate::signer::{Lane, Order};
use crate::store::CapacityProfile;

/// Slices of each kind that a measurement is the median of.
const SLICES: u32 = 5;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the configured tokens, the keys in them, and what else their modules show.
    List,
    /// Sign with every installed responder's key and verify it.
    Test,
    /// Measure signatures a second by algorithm and sessions, and record them as the token's
    /// capacity profile. Makes session keys in the token, which are gone afterwards.
    Bench {
        /// The [[token]] to measure; the only one if not given.
        #[arg(long, value_name = "NAME")]
        token: Option<String>,
        /// Key kinds; what the token can do if not given.
        #[arg(long, value_delimiter = ',', value_name = "KIND")]
        algorithm: Vec<KeyAlgorithm>,
        /// Numbers of sessions.
        #[arg(long, value_delimiter = ',', default_value = "1,2,4,8", value_parser = clap::value_parser!(u16).range(1..=1024))]
        sessions: Vec<u16>,
        /// Seconds for each kind and number of sessions.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Write a chart.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
}

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<Outcome> {
    let app = context.app().await?;
    let outcome = match command {
        Command::List => list(context, &app).await?,
        Command::Test => test(context, &app).await?,
        Command::Bench { token, algorithm, sessions, seconds, svg } => {
            if !(0.1..=3_600.0).contains(&seconds) {
                return Err(Usage("--seconds must be from 0.1 to 3600".to_owned()).into());
            }
            let token = match (token, &app.settings().tokens[..]) {
                (Some(name), _) => app.token(&name)?,
                (None, [only]) => only.clone(),
                (None, tokens) => {
                    let names = tokens.iter().map(|token| token.name.as_str()).collect::<Vec<_>>().join(", ");
                    return Err(Usage(format!("give --token: the configuration has these: {names}")).into());
                }
            };
            measure(context, &app, token, algorithm, sessions, seconds, svg).await?
        }
    };
    app.close().await;
    Ok(outcome)
}

#[derive(Serialize)]
struct TokenRow {
    /// The configured name; none for a token that only the module shows.
    name: Option<String>,
    module: String,
    label: String,
    slot: Option<u64>,
    model: String,
    firmware: String,
    algorithms: Vec<String>,
    keys: Vec<KeyRow>,
    problem: Option<String>,
}

#[derive(Serialize)]
struct KeyRow {
    label: String,
    id: String,
    kind: String,
}

async fn list(context: &Context, app: &App) -> anyhow::Result<Outcome> {
    let settings = app.settings();
    let mut rows = Vec::new();
    let modules: BTreeSet<PathBuf> = settings.tokens.iter().map(|token| token.module.clone()).collect();
    for module in modules {
        let path = module.clone();
        let (shown_tokens, problem) = match blocking(move || admin::list_tokens(&path)).await {
            Ok(tokens) => (tokens, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let configured = settings.tokens.iter().filter(|token| token.module == module);
        for token in configured.clone() {
            let found = shown_tokens.iter().find(|entry| entry.label == token.label);
            let asked = token.clone();
            let keys = match &problem {
                Some(problem) => Err(problem.clone()),
                None => blocking(move || admin::list_keys(&asked)).await.map_err(|error| error.to_string()),
            };
            let (keys, problem) = match keys {
                Ok(keys) => (keys, None),
                Err(problem) => (Vec::new(), Some(problem)),
            };
            rows.push(token_row(Some(token.name.clone()), &module, &token.label, found, keys, problem));
        }
        for entry in &shown_tokens {
            if !configured.clone().any(|token| token.label == entry.label) {
                rows.push(token_row(None, &module, &entry.label, Some(entry), Vec::new(), None));
            }
        }
    }
    context.print(&rows, |rows| tokens_text(rows))?;
    let troubled = rows.iter().filter(|row| row.problem.is_some()).count();
    Ok(match troubled {
        0 => Outcome::Done,
        all if all == rows.len() => Outcome::Failed,
        _ => Outcome::Partly,
    })
}

fn token_row(
    name: Option<String>,
    module: &std::path::Path,
    label: &str,
    entry: Option<&admin::TokenEntry>,
    keys: Vec<crate::signer::KeyEntry>,
    problem: Option<String>,
) -> TokenRow {
    let key = |key: crate::signer::KeyEntry| KeyRow {
        kind: key.algorithm.map_or_else(|| key.kind.clone(), |algorithm| algorithm.to_string()),
        id: key.id.iter().map(|octet| format!("{octet:02x}")).collect(),
        label: key.label,
    };
    TokenRow {
        name,
        module: shown(module),
        label: label.to_owned(),
        slot: entry.map(|entry| entry.slot),
        model: entry.map_or_else(String::new, |entry| format!("{} {}", entry.manufacturer, entry.model)),
        firmware: entry.map_or_else(String::new, |entry| entry.firmware.clone()),
        algorithms: entry
            .map_or_else(Vec::new, |entry| entry.algorithms.iter().map(ToString::to_string).collect()),
        keys: keys.into_iter().map(key).collect(),
        problem,
    }
}

fn tokens_text(rows: &[TokenRow]) -> String {
    let mut text = String::new();
    for row in rows {
        let name = row.name.as_deref().unwrap_or("(not configured)");
        text += &format!("token {name}: label {:?}, module {}\n", row.label, row.module);
        if !row.model.is_empty() {
            text +=
                &format!("  {} firmware {}, signs {}\n", row.model, row.firmware, row.algorithms.join(", "));
        }
        if let Some(problem) = &row.problem {
            text += &format!("  {problem}\n");
        }
        for key in &row.keys {
            text += &format!("  key {} id:{} ({})\n", key.label, key.id, key.kind);
        }
    }
    if rows.is_empty() { "no [[token]] is configured".to_owned() } else { text }
}

#[derive(Serialize)]
struct TestRow {
    issuer: String,
    responder: String,
    ok: bool,
    milliseconds: Option<f64>,
    problem: Option<String>,
}

async fn test(context: &Context, app: &App) -> anyhow::Result<Outcome> {
    let mut rows = Vec::new();
    for problem in app.install_configured().await? {
        rows.push(TestRow {
            issuer: String::new(),
            responder: String::new(),
            ok: false,
            milliseconds: None,
            problem: Some(problem.to_string()),
        });
    }
    // Making a responder ready finds its key, signs with it and verifies with the certificate.
    let (identities, problems) = app.identities(&[]).await?;
    let names = app.issuers().await?;
    for identity in identities {
        let watch = Stopwatch::start();
        let order = Order::at_once(Lane::Live);
        let message = b"goodstanding hsm test".as_slice().into();
        let signed = identity.signer.sign(&identity.key, message, order).await;
        let issuer = names.iter().find(|issuer| issuer.record.id == identity.issuer_id);
        rows.push(TestRow {
            issuer: issuer.map_or_else(String::new, |issuer| issuer.record.name.clone()),
            responder: format!(
                "key {} in token {} ({})",
                identity.key.reference(),
                identity.signer.token(),
                identity.key.algorithm()
            ),
            ok: signed.is_ok(),
            milliseconds: signed.is_ok().then(|| watch.elapsed().as_secs_f64() * 1e3),
            problem: signed.err().map(|error| error.to_string()),
        });
    }
    rows.extend(problems.into_iter().map(|problem| TestRow {
        issuer: String::new(),
        responder: String::new(),
        ok: false,
        milliseconds: None,
        problem: Some(problem.to_string()),
    }));
    context.print(&rows, |rows| {
        let line = |row: &TestRow| match (&row.problem, row.milliseconds) {
            (None, Some(time)) => {
                format!("ok      {}: {} signed and verified in {time:.2} ms\n", row.issuer, row.responder)
            }
            (problem, _) => format!("FAILED  {}\n", problem.as_deref().unwrap_or_default()),
        };
        if rows.is_empty() { "no responder is installed".to_owned() } else { rows.iter().map(line).collect() }
    })?;
    Ok(if !rows.is_empty() && rows.iter().all(|row| row.ok) { Outcome::Done } else { Outcome::Failed })
}

#[derive(Serialize)]
struct BenchRow {
    token: String,
    key: String,
    algorithm: String,
    sessions: u16,
    raw_per_second: f64,
    pool_per_second: f64,
    pool_unverified_per_second: f64,
    pool_to_raw: f64,
    p50_milliseconds: f64,
    p99_milliseconds: f64,
}

async fn measure(
    context: &Context,
    app: &App,
    token: crate::signer::Settings,
    algorithms: Vec<KeyAlgorithm>,
    sessions: Vec<u16>,
    seconds: f64,
    svg: Option<PathBuf>,
) -> anyhow::Result<Outcome> {
    let algorithms = if algorithms.is_empty() { able(&token).await? } else { algorithms };
    let plan = Plan {
        subjects: algorithms.into_iter().map(Subject::Fresh).collect(),
        algorithm: None,
        sessions,
        slices: SLICES,
        // Four kinds of slices: raw, through the pool with and without verification, and one by one.
        slice: Duration::from_secs_f64(seconds / f64::from(SLICES * 4)),
    };
    let bar = Mutex::new(Progress::new("slices", 0));
    let measured = bench::run(&token, &plan, |at| {
        if let Ok(mut bar) = bar.lock() {
            bar.set_total(u64::from(at.of));
            bar.set(u64::from(at.done));
        }
    })
    .await?;
    if let Ok(bar) = bar.into_inner() {
        bar.finish();
    }
    let now = app.clock.now();
    for each in &measured {
        let profile = CapacityProfile {
            token: token.name.clone(),
            algorithm: each.key.to_string(),
            sessions: u32::from(each.sessions),
            rate: each.rate,
            raw_rate: each.raw_rate,
            p50: each.p50,
            p99: each.p99,
            measured_at: now,
        };
        app.store.record_profile(&profile).await?;
    }
    if let Some(path) = svg {
        std::fs::write(&path, bench::svg(&measured))
            .map_err(|source| FileError::Unwritable { path: path.clone(), source })?;
    }
    let rows: Vec<_> = measured.iter().map(|each| bench_row(&token.name, each)).collect();
    context.print(&rows, |rows| {
        let header = ["KEY", "SESSIONS", "RAW/S", "POOL/S", "RATIO", "UNVERIFIED/S", "P50 MS", "P99 MS"];
        table(
            header,
            rows.iter().map(|row| {
                [
                    row.key.clone(),
                    row.sessions.to_string(),
                    format!("{:.0}", row.raw_per_second),
                    format!("{:.0}", row.pool_per_second),
                    format!("{:.2}", row.pool_to_raw),
                    format!("{:.0}", row.pool_unverified_per_second),
                    format!("{:.2}", row.p50_milliseconds),
                    format!("{:.2}", row.p99_milliseconds),
                ]
            }),
        )
    })?;
    Ok(Outcome::Done)
}

/// The key kinds that a token can make and sign with, by its list of mechanisms. RSA-4096 takes
/// longest to make, so it is measured only when it is asked for.
async fn able(token: &crate::signer::Settings) -> anyhow::Result<Vec<KeyAlgorithm>> {
    let module = token.module.clone();
    let tokens = blocking(move || admin::list_tokens(&module)).await?;
    let algorithms =
        tokens.into_iter().find(|entry| entry.label == token.label).map(|entry| entry.algorithms);
    let algorithms: Vec<SignatureAlgorithm> = algorithms.unwrap_or_default();
    let kinds = [KeyAlgorithm::Rsa2048, KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519];
    Ok(kinds.into_iter().filter(|kind| algorithms.contains(&kind.default_signature())).collect())
}

fn bench_row(token: &str, each: &Measurement) -> BenchRow {
    BenchRow {
        token: token.to_owned(),
        key: each.key.to_string(),
        algorithm: each.algorithm.to_string(),
        sessions: each.sessions,
        raw_per_second: each.raw_rate,
        pool_per_second: each.rate,
        pool_unverified_per_second: each.unverified_rate,
        pool_to_raw: each.ratio(),
        p50_milliseconds: each.p50.as_secs_f64() * 1e3,
        p99_milliseconds: each.p99.as_secs_f64() * 1e3,
    }
}
