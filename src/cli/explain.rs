//! `explain`: all about one certificate.

use std::fmt;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::revoke::status;
use super::{Outcome, running};
use crate::app::KnownResponder;
use crate::clock::UnixTime;
use crate::ocsp::{CrlReason, Received, Serial, response};
use crate::presign::Policies;
use crate::presign::standing::{self, Standing};
use crate::server::control::api::certificate_path;
use crate::store::{CertificateState, StoredAnswer};

#[derive(Debug, Args)]
pub(super) struct Arguments {
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
    status: &'static str,
    revoked_at: Option<String>,
    reason: Option<&'static str>,
    version: i64,
    not_before: Option<String>,
    not_after: String,
    shard: u8,
    answer: Option<AnswerReport>,
    /// What happens next, and why.
    next: String,
    /// What stands in the way of it, as the running server says.
    signing: Option<Signing>,
    /// Why the running server does not say so: nobody else knows.
    signing_unknown: Option<String>,
    /// What is not as the preset asks.
    warnings: Vec<String>,
}

/// What the control API tells of a certificate that a command cannot know.
#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    signing: Option<Signing>,
}

#[derive(Serialize, Deserialize)]
struct Signing {
    quarantine: Option<InTheWay>,
    issuer_on_hold: Option<InTheWay>,
}

#[derive(Serialize, Deserialize)]
struct InTheWay {
    reason: Option<String>,
    since: Option<String>,
    failures: u32,
    next_try: String,
}

#[derive(Serialize)]
struct AnswerReport {
    state: &'static str,
    version: i64,
    this_update: String,
    due_at: String,
    stale_at: String,
    next_update: String,
    responder: i64,
    token: String,
    key: String,
    algorithm: String,
    signature: String,
    octets: usize,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let app = context.app().await?;
    let issuer = app.issuer(&arguments.issuer).await?;
    let Some(state) = app.store.certificate(issuer.record.id, &arguments.serial).await? else {
        anyhow::bail!(
            "there is no certificate {} of {}: it is answered {}",
            arguments.serial,
            arguments.issuer,
            app.settings().responder.unknown_serial
        );
    };
    let responders = app.responders().await?;
    let now = app.clock.now();
    let policies = app.policies().await?;
    let mut report = report(&policies, &arguments.issuer, &state, &responders, now)?;
    let path = certificate_path(&arguments.issuer, &arguments.serial);
    match running::ask::<Told>(&app.settings().control, &path).await {
        Ok(Told { signing: Some(signing) }) => report.signing = Some(signing),
        Ok(Told { signing: None }) => {
            report.signing_unknown = Some("the server that answers does not sign".to_owned());
        }
        Err(why) => report.signing_unknown = Some(why),
    }
    context.print(&report, |report| text(report, &state))?;
    app.close().await;
    Ok(Outcome::Done)
}

fn report(
    policies: &Policies,
    issuer: &str,
    state: &CertificateState,
    responders: &[KnownResponder],
    now: UnixTime,
) -> anyhow::Result<Report> {
    let certificate = &state.certificate;
    let answer =
        state.answer.as_ref().map(|answer| describe(answer, state, responders, policies, now)).transpose()?;
    let next = standing::next(state, policies, now);
    Ok(Report {
        issuer: issuer.to_owned(),
        serial: certificate.serial.to_string(),
        status: if certificate.revocation.is_some() { "revoked" } else { "good" },
        revoked_at: certificate.revocation.map(|revocation| revocation.time.to_string()),
        reason: certificate
            .revocation
            .and_then(|revocation| revocation.reason)
            .map(crate::ocsp::CrlReason::name),
        version: certificate.version,
        not_before: certificate.not_before.map(|time| time.to_string()),
        not_after: certificate.not_after.to_string(),
        shard: certificate.key.shard.0,
        answer,
        next,
        signing: None,
        signing_unknown: None,
        warnings: warnings(state, policies),
    })
}

fn warnings(state: &CertificateState, policies: &Policies) -> Vec<String> {
    let certificate = &state.certificate;
    let preset = policies.of(certificate.issuer).freshness.preset();
    let on_hold = certificate.revocation.is_some_and(|why| why.reason == Some(CrlReason::CertificateHold));
    let barred = (on_hold && !preset.allows_hold()).then(|| {
        format!(
            "it is on hold, which the preset {preset} bars (Baseline Requirements 4.9.13); it is served as recorded until it is revoked for good (`goodstanding revoke`) or the hold ends (`goodstanding unhold`)"
        )
    });
    barred.into_iter().collect()
}

fn describe(
    answer: &StoredAnswer,
    state: &CertificateState,
    responders: &[KnownResponder],
    policies: &Policies,
    now: UnixTime,
) -> anyhow::Result<AnswerReport> {
    let Standing { condition, due_at, stale_at } = Standing::of(answer, &state.certificate, policies, now);
    let responder = responders.iter().find(|responder| responder.record.number == answer.responder);
    let new = responder.map(|responder| &responder.record.responder);
    let (signature, octets) = match responder {
        Some(responder) => verify(answer, responder)?,
        None => ("its responder is on no record".to_owned(), 0),
    };
    Ok(AnswerReport {
        state: condition.name(),
        version: answer.version,
        this_update: answer.this_update.to_string(),
        due_at: due_at.to_string(),
        stale_at: stale_at.to_string(),
        next_update: answer.next_update.to_string(),
        responder: answer.responder.0,
        token: new.map_or_else(String::new, |new| new.token.clone()),
        key: new.map_or_else(String::new, |new| new.key.clone()),
        algorithm: new.map_or_else(String::new, |new| new.algorithm.clone()),
        signature,
        octets,
    })
}

/// Puts the answer together as it is served and checks its signature as a client does.
fn verify(answer: &StoredAnswer, responder: &KnownResponder) -> anyhow::Result<(String, usize)> {
    let algorithm = responder.record.responder.algorithm.parse()?;
    let delegated = responder.certificate.public_key() != responder.issuer.issuer.certificate().public_key();
    let der = response::assemble(
        &answer.response_data,
        algorithm,
        &answer.signature,
        delegated.then(|| responder.certificate.der()),
    );
    let received = Received::decode(&der)?;
    let verdict = match received.verify(&responder.certificate) {
        Ok(_) => "verifies".to_owned(),
        Err(error) => error.to_string(),
    };
    Ok((verdict, der.len()))
}

impl fmt::Display for InTheWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(since) = &self.since {
            write!(f, " (since {since}, {} times)", self.failures)?;
        }
        if let Some(reason) = &self.reason {
            write!(f, ": {reason}")?;
        }
        write!(f, "; it is tried again at {}", self.next_try)
    }
}

fn text(report: &Report, state: &CertificateState) -> String {
    let mut text = format!("certificate {} of {}\n", report.serial, report.issuer);
    let mut line = |name: &str, value: &str| text += &format!("  {name:<12} {value}\n");
    line("status", &format!("{} (version {})", status(&state.certificate), report.version));
    line(
        "in force",
        &format!(
            "{} to {}",
            report.not_before.as_deref().unwrap_or("(start not on record)"),
            report.not_after
        ),
    );
    line("shard", &report.shard.to_string());
    match &report.answer {
        None => line("answer", "none yet"),
        Some(answer) => {
            line(
                "answer",
                &format!("{}, for version {}, {} octets", answer.state, answer.version, answer.octets),
            );
            line("thisUpdate", &answer.this_update);
            line("due", &answer.due_at);
            line("stale", &answer.stale_at);
            line("nextUpdate", &answer.next_update);
            line(
                "signed by",
                &format!(
                    "responder {} (token {}, key {}, {})",
                    answer.responder, answer.token, answer.key, answer.algorithm
                ),
            );
            line("signature", &answer.signature);
        }
    }
    line("next", &report.next);
    match (&report.signing, &report.signing_unknown) {
        (Some(Signing { quarantine: None, issuer_on_hold: None }), _) => line("in the way", "nothing"),
        (Some(signing), _) => {
            if let Some(quarantine) = &signing.quarantine {
                line("in the way", &format!("its last attempt failed{quarantine}"));
            }
            if let Some(hold) = &signing.issuer_on_hold {
                line("in the way", &format!("nothing of its issuer is signed{hold}"));
            }
        }
        (None, why) => {
            let why = why.as_deref().unwrap_or_default();
            line("in the way", &format!("only the running server knows: {why}"));
        }
    }
    for warning in &report.warnings {
        line("warning", warning);
    }
    text
}
