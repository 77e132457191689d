//! The configuration file: TOML in, validated settings out, every error at once with its line.

mod capacity;

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use crate::app::settings::{IssuerSettings, ResponderSettings, Settings};
use crate::clock::UnixTime;
use crate::limits::is_help_page;
use crate::ocsp::{Freshness, HashAlgorithm, Preset};
pub use crate::reader::Problem;
use crate::reader::{Problems, Section};
use crate::responder::{NoncePolicy, ResponderIdForm, UnknownSerial};
use crate::server::control::tls;
use crate::server::ocsp::{EndpointError, PathPrefix};
use crate::signer::{self, PinSource};

/// Where the configuration is looked for when neither `--config` nor `$GOODSTANDING_CONFIG` names
/// one.
pub const PLACES: [&str; 2] = ["./goodstanding.toml", "/etc/goodstanding/goodstanding.toml"];

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is none.
    #[error("no configuration: give --config FILE, set $GOODSTANDING_CONFIG, or write {} or {}; config/goodstanding.toml is a sample", PLACES[0], PLACES[1])]
    NotFound,
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It holds errors.
    #[error("{}", Listing(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every one of them, by line.
        problems: Vec<Problem>,
    },
}

struct Listing<'a>(&'a Path, &'a [Problem]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.1.len();
        write!(f, "the configuration has {count} error{}:", if count == 1 { "" } else { "s" })?;
        self.1.iter().try_for_each(|problem| {
            write!(f, "\n  {}:{}: {}", self.0.display(), problem.line, problem.message)
        })
    }
}

/// Finds the configuration file: the one named, else the first of [`PLACES`] that exists.
///
/// # Errors
/// [`ConfigError::NotFound`].
pub fn find(named: Option<&Path>) -> Result<PathBuf, ConfigError> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    PLACES.iter().map(PathBuf::from).find(|path| path.exists()).ok_or(ConfigError::NotFound)
}

/// Reads and validates a configuration file.
///
/// # Errors
/// [`ConfigError::Unreadable`], or [`ConfigError::Invalid`] with every error in it.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    parse(&text).map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
}

/// Validates the text of a configuration file.
///
/// # Errors
/// Every problem in it, by line.
pub fn parse(text: &str) -> Result<Settings, Vec<Problem>> {
    let mut problems = Problems::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        problems.add(&error.span().unwrap_or(0..0), error.message());
    }
    let mut root = Section::root(&table);
    let settings = read(&mut root, &mut problems);
    root.finish(&mut problems);
    let found = problems.into_found();
    if found.is_empty() { Ok(settings) } else { Err(found) }
}

fn read(root: &mut Section<'_>, problems: &mut Problems<'_>) -> Settings {
    let mut settings = Settings::default();

    let mut store = root.section("store", problems);
    if let Some((url, span)) = store.required("url", problems) {
        if !["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme)) {
            problems.add(
                &span,
                format!(
                    "store.url: {:?} is neither sqlite://FILE nor postgres://HOST/DATABASE",
                    crate::store::without_credentials(&url)
                ),
            );
        }
        settings.store_url = url;
    }
    store.finish(problems);

    let mut ocsp = root.section("ocsp", problems);
    set(&mut settings.endpoint.listen, ocsp.list::<SocketAddr>("listen", problems));
    set(&mut settings.endpoint.paths, ocsp.list::<PathPrefix>("paths", problems));
    let unknown_serial = ocsp.string("unknown_serial", problems).map(|(_, span)| span);
    set(&mut settings.responder.unknown_serial, ocsp.parsed::<UnknownSerial>("unknown_serial", problems));
    set(&mut settings.responder.nonce, ocsp.parsed::<NoncePolicy>("nonce", problems));
    set(&mut settings.live.per_second, ocsp.integer("live_rate", 1..1_000_001, problems).map(|n| n as u32));
    set(
        &mut settings.live.in_flight,
        ocsp.integer("live_in_flight", 1..100_001, problems).map(|n| n as usize),
    );
    set(&mut settings.responder_id, ocsp.parsed::<ResponderIdForm>("responder_id", problems));
    set(
        &mut settings.endpoint.max_connections,
        ocsp.integer("max_connections", 1..1_000_001, problems).map(|n| n as usize),
    );
    set(&mut settings.endpoint.drain, ocsp.duration("drain", problems));
    if let Err(EndpointError::Setting { setting, fault }) = settings.endpoint.check() {
        problems.add(ocsp.span(), format!("{setting} {fault}"));
    }
    ocsp.finish(problems);

    let mut control = root.section("control", problems);
    read_control(&mut control, &mut settings.control, problems);
    control.finish(problems);

    let mut policy = root.section("policy", problems);
    let preset = policy.parsed("preset", problems).unwrap_or(Preset::WebPki);
    let validity = policy.duration("validity", problems).unwrap_or(settings.freshness.validity());
    let refresh = policy.duration("refresh", problems).unwrap_or(settings.freshness.refresh());
    match Freshness::new(preset, validity, refresh) {
        Ok(freshness) => settings.freshness = freshness,
        Err(error) => problems.add(policy.span(), format!("policy: {error}")),
    }
    policy.finish(problems);
    for mut token in root.sections("token", problems) {
        if let Some(read) = read_token(&mut token, problems) {
            if settings.tokens.iter().any(|other| other.name == read.name) {
                problems.add(token.span(), format!("token: two tokens are named {:?}", read.name));
            }
            settings.tokens.push(read);
        }
        token.finish(problems);
    }
    let tokens: HashSet<String> = settings.tokens.iter().map(|token| token.name.clone()).collect();
    for mut issuer in root.sections("issuer", problems) {
        if let Some(read) = read_issuer(&mut issuer, &tokens, settings.freshness, problems) {
            if settings.issuers.iter().any(|other| other.name == read.name) {
                problems.add(issuer.span(), format!("issuer: two issuers are named {:?}", read.name));
            }
            settings.issuers.push(read);
        }
        issuer.finish(problems);
    }
    let own = settings.issuers.iter().filter_map(|issuer| issuer.freshness).map(|own| own.preset());
    let bars = [preset].into_iter().chain(own).find(|preset| !preset.allows_hold());
    if let (UnknownSerial::Revoked, Some(preset)) = (settings.responder.unknown_serial, bars) {
        problems.add(
            &unknown_serial.unwrap_or(0..0),
            format!("ocsp.unknown_serial: \"revoked\" answers certificateHold, which the preset {preset} bars (Baseline Requirements 4.9.13)"),
        );
    }

    let mut capacity = root.section("capacity", problems);
    settings.capacity = capacity::read(&mut capacity, problems);
    capacity.finish(problems);

    let mut limits = root.section("limits", problems);
    settings.limits_profile = limits.string("profile", problems).map(|(path, _)| path.into());
    if let Some((help, span)) = limits.string("help", problems) {
        if !is_help_page(&help) {
            problems.add(
                &span,
                format!("limits.help: {help:?} is no http(s) URL of a page that explains the limits"),
            );
        }
        settings.limits_help = Some(help);
    }
    limits.finish(problems);
    settings
}

fn read_control(
    section: &mut Section<'_>,
    settings: &mut crate::server::control::Settings,
    problems: &mut Problems<'_>,
) {
    let listen = section.string("listen", problems).map(|(_, span)| span);
    set(&mut settings.listen, section.parsed("listen", problems));
    settings.credentials_file = section.string("credentials_file", problems).map(|(path, _)| path.into());
    set(&mut settings.open_metrics, section.boolean("open_metrics", problems));
    let certificate = section.string("tls_certificate", problems).map(|(path, _)| path.into());
    let key = section.string("tls_key", problems).map(|(path, _)| path.into());
    let client_ca = section.string("client_ca", problems).map(|(path, _)| path.into());
    settings.tls = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(tls::Settings { certificate, key, client_ca }),
        (None, None) if client_ca.is_none() => None,
        _ => {
            problems.add(
                section.span(),
                "control: TLS needs both tls_certificate and tls_key; client_ca goes with them",
            );
            return;
        }
    };
    if let Err(error) = settings.check() {
        problems.add(listen.as_ref().unwrap_or(section.span()), error.to_string());
    }
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

fn read_token(token: &mut Section<'_>, problems: &mut Problems<'_>) -> Option<signer::Settings> {
    let name = token.required("name", problems);
    let module = token.required("module", problems);
    let label = token.required("label", problems);
    let file = token.string("pin_file", problems).map(|(path, _)| PinSource::File(path.into()));
    let env = token.string("pin_env", problems).map(|(name, _)| PinSource::Env(name));
    let credential = token.string("pin_credential", problems).map(|(name, _)| PinSource::Credential(name));
    let mut pins = [file, env, credential].into_iter().flatten();
    let pin = pins.next();
    if pin.is_none() || pins.next().is_some() {
        problems.add(token.span(), "token: give exactly one of pin_file, pin_env, pin_credential");
    }
    let sessions = token.integer("sessions", 1..1_025, problems);
    let queue = token.integer("queue", 1..1_000_001, problems);
    let call_timeout = token.duration("call_timeout", problems);
    let max_rate = token.integer("max_rate", 1..10_000_001, problems);
    let session_keys = token.boolean("session_keys", problems);
    let mut settings = signer::Settings::new(name?.0, module?.0, label?.0, pin?);
    set(&mut settings.sessions, sessions.map(|sessions| sessions as u16));
    set(&mut settings.queue, queue.map(|queue| queue as usize));
    set(&mut settings.call_timeout, call_timeout);
    settings.max_rate = max_rate.and_then(|rate| NonZeroU32::new(rate as u32));
    set(&mut settings.session_keys, session_keys);
    Some(settings)
}

fn read_issuer(
    issuer: &mut Section<'_>,
    tokens: &HashSet<String>,
    common: Freshness,
    problems: &mut Problems<'_>,
) -> Option<IssuerSettings> {
    let name = issuer.required("name", problems);
    let certificate = issuer.required("certificate", problems);
    let hashes = issuer.list::<HashAlgorithm>("cert_id_hashes", problems);
    if let Some(hashes) = &hashes {
        let repeated = hashes.iter().enumerate().any(|(at, hash)| hashes[..at].contains(hash));
        if hashes.is_empty() || repeated {
            problems.add(issuer.span(), "issuer.cert_id_hashes: name each hash once, at least one");
        }
    }
    let freshness = read_own_freshness(issuer, common, problems);
    let history = issuer.duration("history", problems).unwrap_or_default();
    let crl_url = issuer.string("crl_url", problems);
    if let Some((url, span)) = &crl_url
        && !(url.is_ascii()
            && ["http://", "https://", "ldap://"].iter().any(|scheme| url.starts_with(scheme)))
    {
        problems
            .add(span, format!("issuer.crl_url: {url:?} is no http://, https:// or ldap:// URL in ASCII"));
    }
    let mut responders = Vec::new();
    for mut responder in issuer.sections("responder", problems) {
        responders.extend(read_responder(&mut responder, tokens, problems));
        responder.finish(problems);
    }
    Some(IssuerSettings {
        name: name?.0,
        certificate: certificate?.0.into(),
        cert_id_hashes: hashes.unwrap_or_else(IssuerSettings::default_hashes),
        freshness,
        history,
        crl_url: crl_url.map(|(url, _)| url),
        responders,
    })
}

/// What an issuer says of its own answers; what it does not say is as for all.
fn read_own_freshness(
    issuer: &mut Section<'_>,
    common: Freshness,
    problems: &mut Problems<'_>,
) -> Option<Freshness> {
    let preset = issuer.parsed("preset", problems);
    let validity = issuer.duration("validity", problems);
    let refresh = issuer.duration("refresh", problems);
    if preset.is_none() && validity.is_none() && refresh.is_none() {
        return None;
    }
    let own = Freshness::new(
        preset.unwrap_or(common.preset()),
        validity.unwrap_or(common.validity()),
        refresh.unwrap_or(common.refresh()),
    );
    own.map_err(|error| problems.add(issuer.span(), format!("issuer: {error}"))).ok()
}

fn read_responder(
    responder: &mut Section<'_>,
    tokens: &HashSet<String>,
    problems: &mut Problems<'_>,
) -> Option<ResponderSettings> {
    let token = responder.required("token", problems);
    if let Some((name, span)) = &token
        && !tokens.contains(name)
    {
        problems.add(span, format!("issuer.responder.token: there is no [[token]] named {name:?}"));
    }
    let label = responder.parsed("key", problems);
    let id = responder.string("id", problems);
    let by_id = id.and_then(|(id, span)| match format!("id:{id}").parse() {
        Ok(key) => Some(key),
        Err(error) => {
            problems.add(&span, format!("issuer.responder.id: {error}"));
            None
        }
    });
    if label.is_some() == by_id.is_some() {
        problems.add(
            responder.span(),
            "issuer.responder: give exactly one of key (CKA_LABEL) and id (CKA_ID in hex)",
        );
    }
    let certificate = responder.required("certificate", problems);
    let algorithm = responder.parsed("algorithm", problems);
    let from = responder.string("from", problems).and_then(|(text, span)| {
        let time = UnixTime::parse_rfc3339(&text);
        let told = |error| {
            let why = format!(
                "issuer.responder.from: {text:?} is no time such as \"2026-12-01T00:00:00Z\": {error}"
            );
            problems.add(&span, why);
        };
        time.map_err(told).ok()
    });
    Some(ResponderSettings {
        token: token?.0,
        key: label.or(by_id)?,
        certificate: certificate?.0.into(),
        algorithm,
        from,
    })
}

/// The text of a span of time as the configuration takes it.
#[must_use]
pub fn span(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

#[cfg(test)]
mod tests;
