//! `check`: any OCSP responder, held to the checklist.

use std::path::PathBuf;

use clap::Args;

use super::context::{Context, table};
use super::{Outcome, Usage};
use crate::app::files;
use crate::checker::{self, Report, Verdict};
use crate::clock::SystemClock;
use crate::ocsp::{Certificate, Issuer, Preset};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The responder, for example http://ocsp.example/.
    url: String,
    /// The certificate of the CA, PEM or DER.
    #[arg(long, value_name = "FILE")]
    issuer: PathBuf,
    /// The certificate to ask about, PEM or DER.
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// By whose policy the responder is held: web-pki, microsoft, sub-ca or private.
    #[arg(long, value_name = "PRESET", default_value_t = Preset::WebPki)]
    preset: Preset,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let read = |path: &PathBuf| -> anyhow::Result<Certificate> {
        let der = files::read_certificate(path)?;
        Certificate::from_der(&der).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
    };
    let issuer = Issuer::new(read(&arguments.issuer)?);
    let certificate = read(&arguments.cert)?;
    if certificate.issuer_name() != issuer.certificate().subject_name() {
        return Err(Usage(format!(
            "{} was issued by {:?}, and {} is the certificate of {:?}",
            arguments.cert.display(),
            certificate.issuer(),
            arguments.issuer.display(),
            issuer.certificate().subject()
        ))
        .into());
    }
    let report = checker::check(&arguments.url, &issuer, &certificate, arguments.preset, &SystemClock)
        .await
        .map_err(Usage)?;
    context.print(&report, text)?;
    Ok(if report.passed() { Outcome::Done } else { Outcome::Failed })
}

fn text(report: &Report) -> String {
    let rows = report.lines.iter().map(|line| {
        let verdict = match line.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "FAILED",
            Verdict::NotApplicable => "n/a",
        };
        [
            line.id.to_owned(),
            verdict.to_owned(),
            line.requirement.to_owned(),
            line.source.to_owned(),
            line.seen.clone(),
        ]
    });
    let mut text = table(["LINE", "VERDICT", "REQUIREMENT", "SOURCE", "SEEN"], rows);
    let count = |verdict| report.lines.iter().filter(|line| line.verdict == verdict).count();
    text += &format!(
        "\n{} passed, {} failed, {} not applicable\n",
        count(Verdict::Passed),
        count(Verdict::Failed),
        count(Verdict::NotApplicable)
    );
    text += &match (report.status, &report.revoked_at) {
        (Some(status), Some(time)) => {
            let reason = report.reason.map(|reason| format!(", {reason}")).unwrap_or_default();
            format!("the certificate is {status} since {time}{reason}\n")
        }
        (Some(status), None) => format!("the certificate is {status}\n"),
        (None, _) => "no answer tells the certificate's status\n".to_owned(),
    };
    text
}
