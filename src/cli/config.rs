//! `config check | print`.

use std::path::Path;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::Outcome;
use super::context::{Context, shown};
use crate::app::files;
use crate::app::settings::{IssuerSettings, ResponderSettings, Settings};
use crate::clock::{Clock, SystemClock};
use crate::config::span;
use crate::limits::Profile;
use crate::ocsp::delegation::Delegation;
use crate::ocsp::{Certificate, Issuer};
use crate::signer::{self, PinSource};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the configuration and the files it names: every error at once, with file and line.
    Check,
    /// Print the settings in force, defaults included. Secrets are in none of them.
    Print,
}

pub(super) fn run(context: &Context, command: &Command) -> anyhow::Result<Outcome> {
    let path = context.path()?;
    let settings = crate::config::load(&path)?;
    match command {
        Command::Print => {
            let text = toml::to_string(&document(&settings))?;
            context.print(&document(&settings), |_| text)?;
            Ok(Outcome::Done)
        }
        Command::Check => {
            let missing = missing_files(&settings);
            let result = json!({ "file": shown(&path), "valid": true, "unusable_files": missing });
            context.print(&result, |_| {
                let mut text = format!("{}: the configuration is valid\n", path.display());
                for each in &missing {
                    text += &format!("  {each}\n");
                }
                text
            })?;
            Ok(if missing.is_empty() { Outcome::Done } else { Outcome::Partly })
        }
    }
}

/// What is wrong with the files that the configuration names. They may still be to be made.
fn missing_files(settings: &Settings) -> Vec<String> {
    let mut wrong = Vec::new();
    for token in &settings.tokens {
        if !token.module.exists() {
            wrong.push(format!(
                "token {}: there is no PKCS#11 module {}",
                token.name,
                token.module.display()
            ));
        }
        if let PinSource::File(path) = &token.pin
            && !path.exists()
        {
            wrong.push(format!("token {}: there is no PIN file {}", token.name, path.display()));
        }
    }
    wrong.extend(settings.control.credentials().err().map(|error| error.to_string()));
    wrong.extend(
        settings.control.tls.iter().filter_map(|tls| tls.load().err()).map(|error| error.to_string()),
    );
    for issuer in &settings.issuers {
        let read = |path: &Path| {
            let der = files::read_certificate(path).map_err(|error| error.to_string())?;
            Certificate::from_der(&der).map_err(|error| format!("{}: {error}", path.display()))
        };
        let ca = match read(&issuer.certificate) {
            Ok(certificate) => Issuer::new(certificate),
            Err(error) => {
                wrong.push(format!("issuer {}: {error}", issuer.name));
                continue;
            }
        };
        for responder in &issuer.responders {
            let judged = read(&responder.certificate).and_then(|certificate| {
                Delegation::check(&ca, certificate, SystemClock.now())
                    .and_then(|delegation| {
                        delegation.signature_algorithm(responder.algorithm).map(|_| delegation)
                    })
                    .map_err(|error| format!("{}: {error}", responder.certificate.display()))
            });
            match judged {
                Ok(delegation) => wrong.extend(delegation.warnings().iter().map(|warning| {
                    format!("issuer {}: {}: {warning}", issuer.name, responder.certificate.display())
                })),
                Err(error) => wrong.push(format!("issuer {}: {error}", issuer.name)),
            }
        }
    }
    if let Some(path) = &settings.limits_profile
        && let Err(error) = Profile::load(path)
    {
        wrong.push(error.to_string());
    }
    wrong
}

fn document(settings: &Settings) -> Value {
    let endpoint = &settings.endpoint;
    let mut document = json!({
        "store": { "url": crate::store::without_credentials(&settings.store_url) },
        "ocsp": {
            "listen": endpoint.listen,
            "paths": endpoint.paths.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "unknown_serial": settings.responder.unknown_serial.to_string(),
            "nonce": settings.responder.nonce.to_string(),
            "live_rate": settings.live.per_second,
            "live_in_flight": settings.live.in_flight,
            "responder_id": settings.responder_id.to_string(),
            "max_connections": endpoint.max_connections,
            "drain": span(endpoint.drain),
        },
        "control": {
            "listen": settings.control.listen,
            "open_metrics": settings.control.open_metrics,
        },
        "policy": {
            "preset": settings.freshness.preset().to_string(),
            "validity": span(settings.freshness.validity()),
            "refresh": span(settings.freshness.refresh()),
        },
        "token": settings.tokens.iter().map(token).collect::<Vec<_>>(),
        "issuer": settings.issuers.iter().map(issuer).collect::<Vec<_>>(),
        "capacity": {
            "headroom": settings.capacity.headroom,
            "outage": span(settings.capacity.outage),
            "drain": span(settings.capacity.drain),
            "enforce": settings.capacity.enforce,
            "pack_max": settings.capacity.pack_max,
            "lease": span(settings.capacity.lease),
            "safe_multiplier": settings.capacity.safe_multiplier,
            "slope": settings.capacity.slope,
            "dead_band": settings.capacity.dead_band,
            "lifetime": days(settings.capacity.lifetime),
            "renewal_age": days(settings.capacity.renewal_age),
            "renewal_share": settings.capacity.renewal_share,
        },
    });
    if let Some(file) = &settings.control.credentials_file {
        document["control"]["credentials_file"] = json!(file);
    }
    if let Some(tls) = &settings.control.tls {
        document["control"]["tls_certificate"] = json!(tls.certificate);
        document["control"]["tls_key"] = json!(tls.key);
        if let Some(file) = &tls.client_ca {
            document["control"]["client_ca"] = json!(file);
        }
    }
    if let Some(profile) = &settings.limits_profile {
        document["limits"]["profile"] = json!(profile);
    }
    if let Some(help) = &settings.limits_help {
        document["limits"]["help"] = json!(help);
    }
    document
}

/// A span of whole days, as people count lifetimes.
fn days(span: Duration) -> String {
    format!("{}d", span.as_secs() / 86_400)
}

fn token(token: &signer::Settings) -> Value {
    let mut document = json!({
        "name": token.name,
        "module": token.module,
        "label": token.label,
        "sessions": token.sessions,
        "queue": token.queue,
        "call_timeout": span(token.call_timeout),
        "session_keys": token.session_keys,
    });
    match &token.pin {
        PinSource::File(path) => document["pin_file"] = json!(path),
        PinSource::Env(name) => document["pin_env"] = json!(name),
        PinSource::Credential(name) => document["pin_credential"] = json!(name),
    }
    if let Some(rate) = token.max_rate {
        document["max_rate"] = json!(rate);
    }
    document
}

fn issuer(issuer: &IssuerSettings) -> Value {
    let mut document = json!({
        "name": issuer.name,
        "certificate": issuer.certificate,
        "cert_id_hashes": issuer.cert_id_hashes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "history": span(issuer.history),
        "responder": issuer.responders.iter().map(responder).collect::<Vec<_>>(),
    });
    if let Some(own) = &issuer.freshness {
        document["preset"] = json!(own.preset().to_string());
        document["validity"] = json!(span(own.validity()));
        document["refresh"] = json!(span(own.refresh()));
    }
    if let Some(url) = &issuer.crl_url {
        document["crl_url"] = json!(url);
    }
    document
}

fn responder(responder: &ResponderSettings) -> Value {
    let mut document = json!({ "token": responder.token, "certificate": responder.certificate });
    match responder.key.to_string().strip_prefix("id:") {
        Some(id) => document["id"] = json!(id),
        None => document["key"] = json!(responder.key.to_string()),
    }
    if let Some(algorithm) = responder.algorithm {
        document["algorithm"] = json!(algorithm.to_string());
    }
    if let Some(from) = responder.from {
        document["from"] = json!(from.to_string());
    }
    document
}
