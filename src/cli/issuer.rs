//! `issuer add | list`.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::Outcome;
use super::context::{Context, shown, table};
use crate::app::{KnownIssuer, files};
use crate::ocsp::HashAlgorithm;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a CA. Adding it again changes nothing.
    Add {
        /// The name to know it by.
        #[arg(long)]
        name: String,
        /// Its certificate, PEM or DER.
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
    },
    /// List the CAs with the state of their certificates.
    List,
}

#[derive(Serialize)]
struct Row {
    name: String,
    subject: String,
    not_after: String,
    issuer_key_hash_sha1: String,
    unexpired: u64,
    revoked: u64,
    expired: u64,
    answered: u64,
}

pub(super) async fn run(context: &Context, command: &Command) -> anyhow::Result<Outcome> {
    let app = context.app().await?;
    match command {
        Command::Add { name, certificate } => {
            let der = files::read_certificate(certificate)?;
            let added = app.add_issuer(name, &der, &shown(certificate)).await?;
            let row = row(&app, added).await?;
            context.print(&row, |row| format!("issuer {} is known: {}", row.name, row.subject))?;
        }
        Command::List => {
            let mut rows = Vec::new();
            for issuer in app.issuers().await? {
                rows.push(row(&app, issuer).await?);
            }
            context.print(&rows, |rows| {
                let header = ["NAME", "UNEXPIRED", "REVOKED", "ANSWERED", "EXPIRED", "CA ENDS", "SUBJECT"];
                table(
                    header,
                    rows.iter().map(|row| {
                        [
                            row.name.clone(),
                            row.unexpired.to_string(),
                            row.revoked.to_string(),
                            row.answered.to_string(),
                            row.expired.to_string(),
                            row.not_after.clone(),
                            row.subject.clone(),
                        ]
                    }),
                )
            })?;
        }
    }
    app.close().await;
    Ok(Outcome::Done)
}

async fn row(app: &crate::app::App, issuer: KnownIssuer) -> anyhow::Result<Row> {
    let counts = app.store.counts(issuer.record.id, app.clock.now()).await?;
    let certificate = issuer.issuer.certificate();
    let key_hash = HashAlgorithm::Sha1.digest(certificate.public_key());
    Ok(Row {
        name: issuer.record.name,
        subject: certificate.subject(),
        not_after: certificate.not_after().to_string(),
        issuer_key_hash_sha1: key_hash.iter().map(|octet| format!("{octet:02x}")).collect(),
        unexpired: counts.unexpired,
        revoked: counts.revoked,
        expired: counts.expired,
        answered: counts.answered,
    })
}
