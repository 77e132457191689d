//! `revoke` and `unhold`.

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::{Outcome, Usage};
use crate::app::App;
use crate::clock::UnixTime;
use crate::ocsp::{CrlReason, Revocation, Serial};
use crate::store::{CertificateRecord, IssuerId, Shard, StatusChange};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The name of the CA.
    #[arg(long, value_name = "NAME")]
    issuer: String,
    /// The serial number in hexadecimal.
    #[arg(long, value_name = "HEX", allow_hyphen_values = true, required_unless_present = "all")]
    serial: Option<Serial>,
    /// Every unexpired certificate of the CA, as when its key is compromised (RFC 6960 section 2.7).
    #[arg(long, conflicts_with = "serial", requires = "reason")]
    all: bool,
    /// Why: keyCompromise, CACompromise, affiliationChanged, superseded, cessationOfOperation,
    /// certificateHold, privilegeWithdrawn, AACompromise.
    #[arg(long)]
    reason: Option<CrlReason>,
    /// When, in RFC 3339; now if not given.
    #[arg(long, value_name = "TIME", value_parser = UnixTime::parse_rfc3339)]
    at: Option<UnixTime>,
}

#[derive(Debug, Args)]
pub(super) struct UnholdArguments {
    /// The name of the CA.
    #[arg(long, value_name = "NAME")]
    issuer: String,
    /// The serial number in hexadecimal.
    #[arg(long, value_name = "HEX", allow_hyphen_values = true)]
    serial: Serial,
}

#[derive(Serialize)]
struct Report {
    issuer: String,
    serial: String,
    changed: bool,
    status: &'static str,
    revoked_at: Option<String>,
    reason: Option<&'static str>,
    version: i64,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let app = context.app().await?;
    let issuer = app.issuer(&arguments.issuer).await?;
    let policies = app.policies().await?;
    let preset = policies.of(issuer.record.id).freshness.preset();
    if arguments.reason == Some(CrlReason::CertificateHold) && !preset.allows_hold() {
        let why = format!(
            "the preset {preset} bars certificateHold (Baseline Requirements 4.9.13); the preset private allows it"
        );
        return Err(Usage(why).into());
    }
    if arguments.reason == Some(CrlReason::RemoveFromCrl) {
        return Err(
            Usage("removeFromCRL ends a hold in a delta CRL: use `goodstanding unhold`".to_owned()).into()
        );
    }
    let now = app.clock.now();
    let time = arguments.at.unwrap_or(now);
    if time > now {
        return Err(
            Usage(format!("{time} is in the future: an answer cannot say that it was revoked then")).into()
        );
    }
    let revocation = Revocation { time, reason: arguments.reason };
    let outcome = match arguments.serial {
        Some(serial) => {
            let mut outcomes = app.store.revoke(issuer.record.id, &[(serial, revocation)]).await?;
            let change = outcomes.pop().unwrap_or(StatusChange::NotFound);
            report(context, &arguments.issuer, &serial, change, "is revoked for good already")
        }
        None => {
            let all = revoke_all(&app, issuer.record.id, revocation).await?;
            context.print(&all, |all| {
                format!(
                    "{} certificates of {}: {} revoked at {time}, {} were revoked before",
                    all.revoked + all.before,
                    arguments.issuer,
                    all.revoked,
                    all.before
                )
            })?;
            Ok(Outcome::Done)
        }
    };
    app.close().await;
    outcome
}

/// What came of revoking everything.
#[derive(Default, Serialize)]
struct All {
    revoked: u64,
    before: u64,
}

/// Certificates revoked in one transaction.
const PAGE: u32 = 500;

/// Revokes every unexpired certificate of an issuer. What is revoked already stays as it is, so that
/// it can be killed and run again.
async fn revoke_all(app: &App, issuer: IssuerId, revocation: Revocation) -> anyhow::Result<All> {
    let mut all = All::default();
    for shard in Shard::all() {
        let mut after = 0;
        loop {
            let page = app.store.schedule(shard, after, PAGE, app.clock.now()).await?;
            let Some(last) = page.last() else { break };
            after = last.key.row;
            let of_issuer = page.iter().filter(|entry| entry.issuer == issuer);
            let entries: Vec<_> = of_issuer.map(|entry| (entry.serial, revocation)).collect();
            for change in app.store.revoke(issuer, &entries).await? {
                match change {
                    StatusChange::Changed(_) => all.revoked += 1,
                    StatusChange::Unchanged(_) | StatusChange::Refused(_) => all.before += 1,
                    StatusChange::NotFound => {}
                }
            }
        }
    }
    Ok(all)
}

pub(super) async fn unhold(context: &Context, arguments: &UnholdArguments) -> anyhow::Result<Outcome> {
    let app: std::sync::Arc<App> = context.app().await?;
    let issuer = app.issuer(&arguments.issuer).await?;
    let change = app.store.unhold(issuer.record.id, &arguments.serial).await?;
    let outcome =
        report(context, &arguments.issuer, &arguments.serial, change, "is revoked for good, not on hold");
    app.close().await;
    outcome
}

fn report(
    context: &Context,
    issuer: &str,
    serial: &Serial,
    change: StatusChange,
    refusal: &str,
) -> anyhow::Result<Outcome> {
    let (record, changed) = match change {
        StatusChange::Changed(record) => (record, true),
        StatusChange::Unchanged(record) => (record, false),
        StatusChange::Refused(record) => {
            anyhow::bail!("certificate {serial} of {issuer} {refusal}: {}", status(&record));
        }
        StatusChange::NotFound => anyhow::bail!(
            "there is no certificate {serial} of {issuer}; import it first (`goodstanding import certs` or `import index`)"
        ),
    };
    let report = Report {
        issuer: issuer.to_owned(),
        serial: serial.to_string(),
        changed,
        status: if record.revocation.is_some() { "revoked" } else { "good" },
        revoked_at: record.revocation.map(|revocation| revocation.time.to_string()),
        reason: record.revocation.and_then(|revocation| revocation.reason).map(CrlReason::name),
        version: record.version,
    };
    context.print(&report, |report| {
        let already = if report.changed { "" } else { ", as it was" };
        format!("certificate {serial} of {issuer}: {}{already} (version {})", status(&record), report.version)
    })?;
    Ok(Outcome::Done)
}

/// A certificate's status for people.
pub(super) fn status(record: &CertificateRecord) -> String {
    match record.revocation {
        None => "good".to_owned(),
        Some(Revocation { time, reason }) => {
            let reason = reason.map(|reason| format!(", {reason}")).unwrap_or_default();
            format!("revoked at {time}{reason}")
        }
    }
}
