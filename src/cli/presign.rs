//! `presign`: the batch job.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use clap::Args;
use serde::Serialize;

use super::Outcome;
use super::context::Context;
use super::progress::Progress;
use crate::app::AppError;
use crate::presign::batch::{self, Report, Selection};
use crate::presign::identity::Identities;
use crate::presign::pipeline::{Pipeline, Settings};
use crate::shutdown::Shutdown;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Sign what comes due within this span too. Without it: 24h, or half the refresh interval
    /// where that is less.
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    within: Option<Duration>,
    /// Only the certificates of this CA.
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// At most so many, nearest expiry first.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Document {
    considered: usize,
    planned: usize,
    without_answer: usize,
    left_out_by_limit: usize,
    per_second: f64,
    #[serde(flatten)]
    report: Report,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let app = context.app().await?;
    let issuer = match &arguments.issuer {
        Some(name) => Some(app.issuer(name).await?.record.id),
        None => None,
    };
    for problem in app.install_configured().await? {
        tracing::error!(%problem, "a configured responder cannot be used");
    }
    let policies = app.policies().await?;
    let refresh = policies.shortest_refresh();
    let within = arguments.within.unwrap_or_else(|| Duration::from_secs(86_400).min(refresh / 2));
    if within >= refresh.mul_f64(0.75) {
        tracing::warn!(
            within = %humantime::format_duration(within),
            refresh = %humantime::format_duration(refresh),
            "the span is so long that answers just signed count as due: a second run signs them again"
        );
    }
    let selection = Selection { issuer, within, limit: arguments.limit };
    let mut looking = Progress::new("certificates looked at", 0);
    let paces = Settings::default();
    let plan = batch::plan(&*app.store, &policies, &selection, &paces, app.clock.now(), |count| {
        looking.set_total(count as u64);
        looking.set(count as u64);
    })
    .await?;
    looking.finish();

    let (considered, planned, missing, left_out) =
        (plan.considered, plan.planned, plan.missing, plan.left_out);
    let mut report = Report::default();
    if planned > 0 {
        let (identities, problems) = app.identities(&[]).await?;
        let wanted = |id| issuer.is_none_or(|issuer| issuer == id);
        if !identities.iter().any(|identity| wanted(identity.issuer_id)) {
            return Err(no_responder(problems));
        }
        for problem in problems {
            tracing::error!(%problem, "a responder cannot be used");
        }
        let pipeline = Pipeline {
            store: Arc::clone(&app.store),
            identities: Arc::new(Identities::new(identities)),
            clock: Arc::clone(&app.clock),
            policies: Arc::new(ArcSwap::from_pointee(policies)),
            settings: paces,
            levers: Arc::default(),
        };
        let shutdown = Shutdown::new();
        stop_on_signal(&shutdown)?;
        let mut progress = Progress::new("answers", planned as u64);
        report = batch::run(&pipeline, plan, &shutdown, |done| progress.set(done)).await;
        progress.finish();
    }
    tidy(&*app.store, app.clock.now()).await;
    app.close().await;

    let document = Document {
        considered,
        planned,
        without_answer: missing,
        left_out_by_limit: left_out,
        per_second: if report.seconds > 0.0 { report.signed as f64 / report.seconds } else { 0.0 },
        report,
    };
    context.print(&document, text)?;
    let report = &document.report;
    Ok(match (&report.stopped_by, report.failed) {
        (None, 0) => Outcome::Done,
        _ if report.signed == 0 => Outcome::Failed,
        _ => Outcome::Partly,
    })
}

/// Forgets old entries of the feed: where nothing serves, nobody else does.
pub(super) async fn tidy(store: &dyn crate::store::Store, now: crate::clock::UnixTime) {
    if let Err(error) = store.prune_feed(now, crate::presign::keeper::FEED_KEPT).await {
        tracing::warn!(%error, "cannot prune the feed");
    }
}

fn no_responder(problems: Vec<AppError>) -> anyhow::Error {
    let mut problems = problems.into_iter();
    match (problems.next(), problems.next()) {
        (Some(only), None) => only.into(),
        (Some(first), Some(_)) => {
            anyhow::Error::from(first).context("no responder can sign; the first reason is told")
        }
        (None, _) => anyhow::anyhow!(
            "no responder is installed: make a key with `goodstanding responder key`, a request with `responder csr`, have the CA sign it, and `responder install` the certificate"
        ),
    }
}

fn stop_on_signal(shutdown: &Shutdown) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        shutdown.stop();
    });
    Ok(())
}

fn text(document: &Document) -> String {
    let report = &document.report;
    let mut text = format!(
        "{} of {} unexpired certificates were due ({} without an answer)\n",
        document.planned, document.considered, document.without_answer
    );
    if document.planned > 0 {
        text += &format!(
            "{} answers signed and stored in {:.1} s ({:.0} a second)\n",
            report.signed, report.seconds, document.per_second
        );
    }
    let mut also = |count: u64, what: &str| {
        if count > 0 {
            text += &format!("{count} {what}\n");
        }
    };
    also(document.left_out_by_limit as u64, "left out by --limit");
    also(report.superseded, "changed, or were answered by somebody else, meanwhile");
    also(report.not_due, "expired meanwhile");
    also(report.failed, "FAILED");
    also(report.not_reached, "not reached");
    for failure in &report.failures {
        text += &format!("  {}: {}\n", failure.certificate, failure.reason);
    }
    if let Some(reason) = &report.stopped_by {
        text += &format!("stopped early: {reason}\nRun it again to go on where it stopped.\n");
    }
    text
}
