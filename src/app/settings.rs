//! Everything an operator can set, validated.

use std::path::PathBuf;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::ocsp::{Freshness, HashAlgorithm, Preset, SignatureAlgorithm};
use crate::responder::{self, NoncePolicy, ResponderIdForm, UnknownSerial};
use crate::server;
use crate::signer::{self, KeyReference};

/// The settings of a process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database: `sqlite://FILE` or `postgres://…`.
    pub store_url: String,
    /// Where and how OCSP is served, in plain HTTP.
    pub endpoint: server::ocsp::Settings,
    /// How requests are answered.
    pub responder: responder::Settings,
    /// How much is signed live.
    pub live: responder::live::Settings,
    /// How answers name their signer.
    pub responder_id: ResponderIdForm,
    /// Where the control listener stands, and who may call.
    pub control: server::control::Settings,
    /// Preset, validity and refresh.
    pub freshness: Freshness,
    /// The tokens.
    pub tokens: Vec<signer::Settings>,
    /// The issuers and their responders.
    pub issuers: Vec<IssuerSettings>,
    /// What the capacity guard reckons with.
    pub capacity: CapacitySettings,
    /// The limiter's profile.
    pub limits_profile: Option<PathBuf>,
    /// The page that explains the limits to those who meet them; the profile's if none is given.
    pub limits_help: Option<String>,
}

/// An issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerSettings {
    /// Its name.
    pub name: String,
    /// Its certificate, PEM or DER.
    pub certificate: PathBuf,
    /// The hashes of the CertIDs in its answers, all under one signature, in this order.
    pub cert_id_hashes: Vec<HashAlgorithm>,
    /// Preset, validity and refresh of its answers; the common ones if none are given.
    pub freshness: Option<Freshness>,
    /// How long its certificates are answered for after their end; zero for not at all.
    pub history: Duration,
    /// Where its CRL is, told in answers about revoked certificates.
    pub crl_url: Option<String>,
    /// Who signs for it, the preferred one first.
    pub responders: Vec<ResponderSettings>,
}

impl IssuerSettings {
    /// The SHA-1 + SHA-256 pair (L2): SHA-1 first, since some clients look at the first one only.
    #[must_use]
    pub fn default_hashes() -> Vec<HashAlgorithm> {
        vec![HashAlgorithm::Sha1, HashAlgorithm::Sha256]
    }
}

/// A responder key and its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponderSettings {
    /// The name of the token that holds the key.
    pub token: String,
    /// The key in it.
    pub key: KeyReference,
    /// The delegated responder certificate, PEM or DER.
    pub certificate: PathBuf,
    /// The signature algorithm; the key's usual one if none is given.
    pub algorithm: Option<SignatureAlgorithm>,
    /// When it takes over from the others; from the first day of its certificate, in the configured
    /// order, if none is given.
    pub from: Option<UnixTime>,
}

/// What the capacity guard reckons with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CapacitySettings {
    /// Whether what the guard finds moves levers and limits; else it only watches and reports.
    pub enforce: bool,
    /// The part of the measured rate that is counted on (η), above 0 and at most 1.
    pub headroom: f64,
    /// The outage to be survived.
    pub outage: Duration,
    /// How soon afterwards the backlog is to be worked off.
    pub drain: Duration,
    /// Certificates under one signature at the most; 1 for no packing.
    pub pack_max: u64,
    /// How long a pressure holds without a new one.
    pub lease: Duration,
    /// What the multiplier falls to while the guard is blind, from 0 to 1.
    pub safe_multiplier: f64,
    /// How much the multiplier rises in a quarter of an hour, above 0 and at most 15.
    pub slope: f64,
    /// The multiplier begins to rise only when there is so much to gain, from 0 to 0.5.
    pub dead_band: f64,
    /// L: the lifetime of certificates whose start is not known, in whole days.
    pub lifetime: Duration,
    /// a: the age at which certificates of that lifetime are renewed, in whole days; others in proportion.
    pub renewal_age: Duration,
    /// p: the share of certificates that is renewed, from 0 to 1.
    pub renewal_share: f64,
}

const HOUR: Duration = Duration::from_secs(3_600);

impl Default for CapacitySettings {
    fn default() -> Self {
        Self {
            enforce: true,
            headroom: 0.8,
            outage: 24 * HOUR,
            drain: 24 * HOUR,
            pack_max: 1,
            lease: HOUR / 6,
            safe_multiplier: 0.25,
            slope: 0.05,
            dead_band: 0.05,
            lifetime: 90 * 24 * HOUR,
            renewal_age: 60 * 24 * HOUR,
            renewal_share: 0.9,
        }
    }
}

impl Default for Settings {
    #[expect(clippy::expect_used, reason = "constants that a test holds to the preset")]
    fn default() -> Self {
        Self {
            store_url: String::new(),
            endpoint: server::ocsp::Settings::default(),
            responder: responder::Settings {
                unknown_serial: UnknownSerial::Unauthorized,
                nonce: NoncePolicy::Ignore,
            },
            live: responder::live::Settings::default(),
            responder_id: ResponderIdForm::ByKey,
            control: server::control::Settings::default(),
            freshness: Freshness::new(Preset::WebPki, 168 * HOUR, 84 * HOUR).expect("V 7d, R 3d12h"),
            tokens: Vec::new(),
            issuers: Vec::new(),
            capacity: CapacitySettings::default(),
            limits_profile: None,
            limits_help: None,
        }
    }
}
