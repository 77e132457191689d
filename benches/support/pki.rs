//! A CA of the measurement's own, made with rcgen, and what it certifies.

#![allow(dead_code, reason = "each measurement takes of it what it needs")]

use std::time::Duration;

use goodstanding::clock::UnixTime;
use goodstanding::ocsp::Issuer;
use goodstanding::ocsp::issue::{CaKey, certify};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// How long a responder certificate lasts.
const LIFETIME: Duration = Duration::from_secs(30 * 86_400);

pub(crate) struct Ca {
    pub(crate) issuer: Issuer,
    key: CaKey,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Bench CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        let issuer = Issuer::from_der(certificate.der()).unwrap();
        let key = CaKey::from_der(key.serialized_der(), &issuer).unwrap();
        Self { issuer, key }
    }

    /// A delegated responder certificate for a request, from an hour before `now`.
    pub(crate) fn certify(&self, request: &[u8], now: UnixTime) -> Vec<u8> {
        let from = now.minus(Duration::from_secs(3_600));
        certify(&self.issuer, &self.key, request, from, LIFETIME).unwrap()
    }
}
