//! `responder key | csr | certify | install | retire | list`: from a key in the HSM to an installed
//! delegated responder certificate.

mod rows;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use self::rows::{State, rows};
use super::context::{Context, shown, table};
use super::{Outcome, Usage};
use crate::app::rotation::Turns;
use crate::app::settings::ResponderSettings;
use crate::app::{App, KnownIssuer, KnownResponder, files};
use crate::clock::UnixTime;
use crate::ocsp::delegation::Delegation;
use crate::ocsp::issue::{CaKey, RequestInfo, certify};
use crate::ocsp::{Certificate, KeyAlgorithm, SignatureAlgorithm};
use crate::signer::{self, KeyReference, Lane, Order, admin};
use crate::store::ResponderNumber;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key inside the HSM.
    Key {
        #[command(flatten)]
        which: Which,
        /// What kind: rsa-2048, rsa-3072, rsa-4096, p256, p384, ed25519.
        #[arg(long, default_value = "p256")]
        algorithm: KeyAlgorithm,
    },
    /// Make a certificate request, signed by the key in the HSM.
    Csr {
        #[command(flatten)]
        which: Which,
        /// The subject, such as "CN=ocsp 2026-11,O=Example,C=DE"; made from the CA's if not given.
        #[arg(long, value_name = "DN")]
        subject: Option<String>,
        /// The signature algorithm; the key's usual one if not given.
        #[arg(long)]
        algorithm: Option<SignatureAlgorithm>,
        /// Where to write it; standard output if not given.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Sign a request with a CA key in a file: for test CAs only.
    Certify {
        /// The name of the CA.
        #[arg(long, value_name = "NAME")]
        issuer: String,
        /// The certificate request, PEM or DER.
        #[arg(long, value_name = "FILE")]
        csr: PathBuf,
        /// The CA's private key: unencrypted PKCS#8, PEM or DER.
        #[arg(long, value_name = "FILE")]
        ca_key: PathBuf,
        /// How long it lasts. Nobody can revoke it, so not long.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=366))]
        days: u64,
        /// Where to write it; standard output if not given.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check a delegated certificate against every rule, try its key, and use it: from now on, from
    /// the first day of its certificate, or from a chosen time. One that was retired is in use again.
    Install {
        #[command(flatten)]
        which: Which,
        /// The delegated responder certificate, PEM or DER.
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// The signature algorithm; the key's usual one if not given.
        #[arg(long)]
        algorithm: Option<SignatureAlgorithm>,
        /// When it takes over from all others of the CA, such as 2026-12-01T00:00:00Z.
        #[arg(long, value_name = "TIME", value_parser = UnixTime::parse_rfc3339)]
        from: Option<UnixTime>,
    },
    /// Take a responder out of use: it signs nothing more, and what it signed is signed anew by
    /// another one, at the pace of the refresh.
    Retire {
        /// Its number, as `responder list` shows it.
        number: i64,
        /// Even if nobody else can sign for its CA now.
        #[arg(long)]
        force: bool,
    },
    /// Show the responders, which of them signs, and when they end.
    List {
        /// Only this CA's.
        #[arg(long, value_name = "NAME")]
        issuer: Option<String>,
    },
}

/// Which key. What is not given is taken from the configuration, where the CA has one responder.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The name of the CA.
    #[arg(long, value_name = "NAME")]
    issuer: String,
    /// The [[token]] that holds the key.
    #[arg(long, value_name = "NAME")]
    token: Option<String>,
    /// The key: its label (CKA_LABEL), or id: and CKA_ID in hexadecimal.
    #[arg(long, value_name = "LABEL")]
    key: Option<KeyReference>,
}

struct Chosen {
    issuer: KnownIssuer,
    token: signer::Settings,
    key: KeyReference,
    algorithm: Option<SignatureAlgorithm>,
}

impl Which {
    async fn choose(&self, app: &App) -> anyhow::Result<Chosen> {
        let issuer = app.issuer(&self.issuer).await?;
        let configured =
            app.issuer_settings(&self.issuer).map_or_else(Vec::new, |settings| settings.responders);
        let fits = |each: &&ResponderSettings| {
            self.token.as_ref().is_none_or(|token| *token == each.token)
                && self.key.as_ref().is_none_or(|key| *key == each.key)
        };
        let fitting: Vec<_> = configured.iter().filter(fits).collect();
        let from_config = if let [only] = fitting[..] { Some(only) } else { None };
        let tokens = &app.settings().tokens;
        let only_token = if let [only] = &tokens[..] { Some(only.name.clone()) } else { None };
        let missing = |what: &str| {
            Usage(format!(
                "give --{what}: the issuer {:?} has {} [[issuer.responder]] in the configuration that fit",
                self.issuer,
                fitting.len()
            ))
        };
        let token = self.token.clone().or_else(|| from_config.map(|each| each.token.clone())).or(only_token);
        let token = app.token(&token.ok_or_else(|| missing("token"))?)?;
        let key = self.key.clone().or_else(|| from_config.map(|each| each.key.clone()));
        let key = key.ok_or_else(|| missing("key"))?;
        Ok(Chosen { issuer, token, key, algorithm: from_config.and_then(|each| each.algorithm) })
    }
}

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<Outcome> {
    let app = context.app().await?;
    match command {
        Command::Key { which, algorithm } => key(context, &app, &which, algorithm).await?,
        Command::Csr { which, subject, algorithm, out } => {
            csr(context, &app, &which, subject, algorithm, out).await?
        }
        Command::Certify { issuer, csr, ca_key, days, out } => {
            let issuer = app.issuer(&issuer).await?;
            let request = files::read_der(
                &csr,
                "certificate request",
                &["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"],
            )?;
            let key = files::read_der(&ca_key, "private key", &["PRIVATE KEY", "RSA PRIVATE KEY"])?;
            let key = CaKey::from_der(&key, &issuer.issuer)?;
            let lifetime = Duration::from_secs(days * 86_400);
            let der = certify(&issuer.issuer, &key, &request, app.clock.now(), lifetime)?;
            let certificate = Certificate::from_der(&der)?;
            Delegation::check(&issuer.issuer, certificate.clone(), app.clock.now())?;
            let about = json!({
                "issuer": issuer.record.name,
                "subject": certificate.subject(),
                "serial": certificate.serial().to_string(),
                "not_after": certificate.not_after().to_string(),
            });
            write_or_print(context, out, "CERTIFICATE", &der, &about)?;
        }
        Command::Install { which, certificate, algorithm, from } => {
            let chosen = which.choose(&app).await?;
            let settings = ResponderSettings {
                token: chosen.token.name.clone(),
                key: chosen.key,
                certificate,
                algorithm: algorithm.or(chosen.algorithm),
                from,
            };
            // The key is tried before anything is recorded.
            let installed = try_and_install(&app, &chosen.issuer, &settings).await?;
            let number = installed.record.number;
            app.store.retire_responder(number, None).await?;
            let (rows, warnings) = rows(&app, Some(&installed.issuer.record.name)).await?;
            let mut row = rows.into_iter().find(|row| row.number == number.0).ok_or_else(|| {
                anyhow::anyhow!("responder {} was installed and is not there any more", number.0)
            })?;
            row.warnings.extend(warnings);
            context.print(&row, |row| {
                let begins = match row.state {
                    State::Signs => String::new(),
                    _ => format!(" from {}", row.from),
                };
                let mut text = format!(
                    "responder {} signs for {}{begins} until {}\n",
                    row.number, row.issuer, row.not_after
                );
                row.warnings.iter().for_each(|warning| text += &format!("warning: {warning}\n"));
                text
            })?;
        }
        Command::Retire { number, force } => retire(context, &app, ResponderNumber(number), force).await?,
        Command::List { issuer } => list(context, &app, issuer).await?,
    }
    app.close().await;
    Ok(Outcome::Done)
}

async fn key(context: &Context, app: &App, which: &Which, algorithm: KeyAlgorithm) -> anyhow::Result<()> {
    let chosen = which.choose(app).await?;
    let (label, id) = match &chosen.key {
        KeyReference::Label(label) => {
            (label.clone(), crate::ocsp::HashAlgorithm::Sha256.digest(label.as_bytes())[..8].to_vec())
        }
        KeyReference::Id(id) => (format!("ocsp-{}", chosen.issuer.record.name), id.clone()),
    };
    let token = chosen.token.clone();
    let made = blocking(move || admin::generate_key(&token, &label, &id, algorithm)).await?;
    let about = json!({
        "token": chosen.token.name,
        "key": chosen.key.to_string(),
        "algorithm": made.algorithm.to_string(),
        "public_key": files::pem_text("PUBLIC KEY", &made.spki),
    });
    context.print(&about, |_| {
        format!(
            "made a {} key {} in the token {} ({:?})\n{}",
            made.algorithm,
            chosen.key,
            chosen.token.name,
            chosen.token.label,
            files::pem_text("PUBLIC KEY", &made.spki)
        )
    })
}

async fn csr(
    context: &Context,
    app: &App,
    which: &Which,
    subject: Option<String>,
    algorithm: Option<SignatureAlgorithm>,
    out: Option<PathBuf>,
) -> anyhow::Result<()> {
    let chosen = which.choose(app).await?;
    let (token, key) = (chosen.token.clone(), chosen.key.clone());
    let public = blocking(move || admin::public_key(&token, &key)).await?;
    let algorithm = algorithm.or(chosen.algorithm).unwrap_or_else(|| public.algorithm.default_signature());
    if !algorithm.fits(public.algorithm) {
        return Err(
            Usage(format!("{algorithm} does not fit the {} key {}", public.algorithm, chosen.key)).into()
        );
    }
    let subject = subject.unwrap_or_else(|| default_subject(&chosen.issuer));
    let request = RequestInfo::new(&subject, &public.spki)?;
    let signer = app.signer(&chosen.token.name).await?;
    let prepared = signer.prepare_key(chosen.key.clone(), algorithm, public.key).await?;
    let signature =
        signer.sign(&prepared, request.der().to_vec().into(), Order::at_once(Lane::First)).await?;
    let der = request.signed(algorithm, &signature);
    let about =
        json!({ "subject": subject, "key": chosen.key.to_string(), "algorithm": algorithm.to_string() });
    write_or_print(context, out, "CERTIFICATE REQUEST", &der, &about)
}

/// A subject of the CA's own country and organisation (BR 7.1.2.8), with a common name that says
/// what it is.
fn default_subject(issuer: &KnownIssuer) -> String {
    let subject = issuer.issuer.certificate().subject();
    let mut parts =
        vec![format!("CN={} OCSP responder", issuer.record.name.replace([',', '+', '=', '"', '\\'], " "))];
    let mut start = 0;
    let octets = subject.as_bytes();
    for at in 0..=octets.len() {
        let ends = at == octets.len() || (octets[at] == b',' && (at == 0 || octets[at - 1] != b'\\'));
        if ends {
            let part = &subject[start..at];
            if part.starts_with("O=") || part.starts_with("C=") {
                parts.push(part.to_owned());
            }
            start = at + 1;
        }
    }
    parts.join(",")
}

async fn try_and_install(
    app: &App,
    issuer: &KnownIssuer,
    settings: &ResponderSettings,
) -> anyhow::Result<KnownResponder> {
    let der = files::read_certificate(&settings.certificate)?;
    let certificate = Certificate::from_der(&der).map_err(|error| {
        anyhow::anyhow!("the responder certificate {}: {error}", shown(&settings.certificate))
    })?;
    let delegation =
        Delegation::check(&issuer.issuer, certificate.clone(), app.clock.now()).map_err(|error| {
            crate::app::AppError::Delegation {
                issuer: issuer.record.name.clone(),
                certificate: shown(&settings.certificate),
                error,
            }
        })?;
    let algorithm = delegation.signature_algorithm(settings.algorithm)?;
    let signer = app.signer(&settings.token).await?;
    signer.prepare_key(settings.key.clone(), algorithm, certificate.public_key().to_vec()).await?;
    Ok(app.install(issuer, settings).await?)
}

async fn retire(context: &Context, app: &App, number: ResponderNumber, force: bool) -> anyhow::Result<()> {
    let responders = app.responders().await?;
    let Some(leaving) = responders.iter().find(|responder| responder.record.number == number) else {
        anyhow::bail!("there is no responder {}: see `goodstanding responder list`", number.0);
    };
    let issuer = leaving.issuer.record.name.clone();
    let others: Vec<_> = responders
        .into_iter()
        .filter(|other| other.issuer.record.name == issuer && other.record.number != number)
        .collect();
    let turns = Turns::of(&others, &app.policies().await?);
    let successor = turns.first().and_then(|turns| turns.on_duty(app.clock.now()));
    if successor.is_none() && !force {
        anyhow::bail!(
            "no other responder can sign for {issuer} now: install one first (`goodstanding responder install`), or give --force and let the answers run out"
        );
    }
    let record = app.store.retire_responder(number, Some(app.clock.now())).await?;
    let about = json!({
        "number": number.0,
        "issuer": issuer,
        "retired_at": record.retired_at.map(|at| at.to_string()),
        "successor": successor.map(|number| number.0),
    });
    context.print(&about, |_| {
        let who = successor.map_or_else(|| "nobody".to_owned(), |number| format!("responder {}", number.0));
        format!("responder {} is out of use; {who} signs for {issuer}", number.0)
    })
}

async fn list(context: &Context, app: &App, issuer: Option<String>) -> anyhow::Result<()> {
    for problem in app.install_configured().await? {
        tracing::warn!(%problem, "a configured responder cannot be used");
    }
    if let Some(name) = &issuer {
        app.issuer(name).await?;
    }
    let (rows, warnings) = rows(app, issuer.as_deref()).await?;
    context.print(&rows, |rows| {
        let header = ["#", "ISSUER", "SIGNS", "TOKEN", "KEY", "ALGORITHM", "FROM", "ENDS", "SUBJECT"];
        let mut text = table(
            header,
            rows.iter().map(|row| {
                [
                    row.number.to_string(),
                    row.issuer.clone(),
                    row.state.word().to_owned(),
                    row.token.clone(),
                    row.key.clone(),
                    row.algorithm.clone(),
                    row.from.clone(),
                    row.not_after.clone(),
                    row.subject.clone(),
                ]
            }),
        );
        for row in rows {
            row.unusable.iter().for_each(|why| text += &format!("{} cannot sign: {why}\n", row.number));
            row.warnings.iter().for_each(|warning| text += &format!("{}: warning: {warning}\n", row.number));
        }
        warnings.iter().for_each(|warning| text += &format!("warning: {warning}\n"));
        text
    })
}

fn write_or_print(
    context: &Context,
    out: Option<PathBuf>,
    label: &str,
    der: &[u8],
    about: &serde_json::Value,
) -> anyhow::Result<()> {
    let mut about = about.clone();
    match out {
        Some(path) => {
            files::write_pem(&path, label, der)?;
            about["file"] = json!(path);
            context.print(&about, |about| {
                format!("wrote {} for {}", shown(&path), about["subject"].as_str().unwrap_or_default())
            })
        }
        None => {
            about["pem"] = json!(files::pem_text(label, der));
            context.print(&about, |_| files::pem_text(label, der))
        }
    }
}

/// Runs a call into the module off the async threads.
pub(super) async fn blocking<T, E>(call: impl FnOnce() -> Result<T, E> + Send + 'static) -> anyhow::Result<T>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    Ok(tokio::task::spawn_blocking(call).await??)
}
