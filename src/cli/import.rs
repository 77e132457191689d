//! `import index | certs | crl`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;
use tokio::sync::watch;

use super::Outcome;
use super::context::Context;
use super::progress::Progress;
use crate::app::App;
use crate::import::{Listed, Problem, certificates, crl, index_txt};
use crate::limits::Pressure;
use crate::ocsp::Preset;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// An index.txt as `openssl ca` and EasyRSA keep it.
    Index {
        /// The file.
        file: PathBuf,
        /// The CA that it belongs to.
        #[arg(long, value_name = "NAME")]
        issuer: String,
    },
    /// Certificates: PEM, bundles, DER, folders of them. Each goes to the known CA that issued it.
    Certs {
        /// Files and folders.
        #[arg(required = true)]
        path: Vec<PathBuf>,
    },
    /// A certificate revocation list: its revocations are taken over.
    Crl {
        /// The file, PEM or DER.
        file: PathBuf,
        /// The CA that issued it.
        #[arg(long, value_name = "NAME")]
        issuer: String,
    },
}

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<Outcome> {
    let app = context.app().await?;
    let mut bar = Progress::new("octets", 0);
    let mut progress = |at: crate::import::Progress| {
        bar.set_total(at.total);
        bar.set(at.octets);
    };
    let outcome = match command {
        Command::Index { file, issuer } => {
            let issuer = app.issuer(&issuer).await?;
            let report =
                index_txt::import(&*app.store, issuer.record.id, &file, app.clock.now(), &mut progress)
                    .await?;
            bar.finish();
            let preset = app.policies().await?.of(issuer.record.id).freshness.preset();
            let text = index_text(&report) + &holds_text(&report.holds, preset);
            print(context, &report, text, &[&report.problems])
        }
        Command::Certs { path } => {
            let known = certificates::KnownIssuer::of(&app.store.issuers().await?)?;
            let report = import_certificates(&app, known, path, &mut progress).await?;
            bar.finish();
            let outcome = print(context, &report, certificates_text(&report), &[&report.problems])?;
            Ok(if report.foreign.is_empty() { outcome } else { Outcome::Partly })
        }
        Command::Crl { file, issuer } => {
            let issuer = app.issuer(&issuer).await?;
            let now = app.clock.now();
            let report =
                crl::import(&*app.store, issuer.record.id, &issuer.issuer, &file, now, &mut progress).await?;
            bar.finish();
            let preset = app.policies().await?.of(issuer.record.id).freshness.preset();
            let text = crl_text(&report) + &holds_text(&report.holds, preset);
            let outcome = print(context, &report, text, &[&report.problems])?;
            let whole = report.unknown.is_empty() && report.removed.is_empty();
            Ok(if whole { outcome } else { Outcome::Partly })
        }
    };
    super::presign::tidy(&*app.store, app.clock.now()).await;
    app.close().await;
    outcome
}

/// Imports certificates, and tells the limiter of them where limits are configured: without any, nothing
/// would ever ask for what it remembers.
async fn import_certificates(
    app: &App,
    known: Vec<certificates::KnownIssuer>,
    paths: Vec<PathBuf>,
    progress: crate::import::OnProgress<'_>,
) -> anyhow::Result<certificates::Report> {
    if app.settings().limits_profile.is_none() {
        return Ok(certificates::import(&*app.store, None, known, paths, progress).await?);
    }
    let (_guard, pressure) = watch::channel(Pressure::none());
    let (limiter, task) = app.start_limiter(pressure).await?;
    let told = Some((&limiter, app.clock.now()));
    let report = certificates::import(&*app.store, told, known, paths, progress).await;
    drop(limiter);
    task.await?;
    Ok(report?)
}

fn print<T: Serialize>(
    context: &Context,
    report: &T,
    text: String,
    problems: &[&Listed<Problem>],
) -> anyhow::Result<Outcome> {
    context.print(report, |_| text)?;
    Ok(if problems.iter().all(|listed| listed.is_empty()) { Outcome::Done } else { Outcome::Partly })
}

/// A list in a report, with what was left out of it.
fn list<T>(text: &mut String, what: &str, listed: &Listed<T>, line: impl Fn(&T) -> String) {
    if listed.is_empty() {
        return;
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{} {what}:", listed.count);
    for each in &listed.first {
        let _ = writeln!(text, "  {}", line(each));
    }
    let more = listed.count - listed.first.len() as u64;
    if more > 0 {
        let _ = writeln!(text, "  … and {more} more");
    }
}

fn problem(problem: &Problem) -> String {
    format!("{}: {}", problem.place, problem.reason)
}

fn outcome_text(outcome: &crate::import::Outcome) -> String {
    format!("{} added, {} changed, {} as they were\n", outcome.added, outcome.changed, outcome.unchanged)
}

/// What is on hold where the preset bars it (B8). It is served as the CA recorded it: to call it good,
/// or revoked for another reason, would be worse.
fn holds_text(holds: &Listed<String>, preset: Preset) -> String {
    let mut text = String::new();
    if !preset.allows_hold() {
        let what = format!(
            "warning: on hold, which the preset {preset} bars (Baseline Requirements 4.9.13); they are served as recorded until the CA revokes them for good or ends the hold"
        );
        list(&mut text, &what, holds, Clone::clone);
    }
    text
}

fn index_text(report: &index_txt::Report) -> String {
    let mut text = format!("{} entries read: {}", report.rows, outcome_text(&report.outcome));
    list(&mut text, "bad lines, left out", &report.problems, problem);
    text
}

fn certificates_text(report: &certificates::Report) -> String {
    let mut text = format!(
        "{} certificates read from {} files: {}",
        report.certificates,
        report.files,
        outcome_text(&report.outcome)
    );
    if report.remembered > 0 {
        let _ = writeln!(text, "{} new to the limiter: their renewals pass as such", report.remembered);
    }
    if report.other_blocks > 0 {
        let _ = writeln!(text, "{} PEM blocks are no certificates", report.other_blocks);
    }
    list(
        &mut text,
        "of no known CA, left out (`goodstanding issuer add` makes one known)",
        &report.foreign,
        |foreign| {
            format!(
                "{}: serial {}, {} issued by {}",
                foreign.place, foreign.serial, foreign.subject, foreign.issuer
            )
        },
    );
    list(&mut text, "that cannot be read, left out", &report.problems, problem);
    text
}

fn crl_text(report: &crl::Report) -> String {
    let mut text = format!(
        "{} entries read: {} revoked, {} as they were\n",
        report.entries, report.changed, report.unchanged
    );
    for warning in &report.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    list(&mut text, "of no known certificate, left out", &report.unknown, Clone::clone);
    list(&mut text, "taken off hold by the CRL: `goodstanding unhold` each", &report.removed, Clone::clone);
    list(&mut text, "left out", &report.problems, problem);
    text
}
