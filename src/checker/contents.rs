//! What is asked for: other certificates, other issuers, extensions, nonces, nonsense.

use ring::rand::{SecureRandom, SystemRandom};

use super::answers::in_path;
use super::client::{Ask, Reply};
use super::requests::{self, NOBODYS, PREFER_SHA1, PREFERRED_ALGORITHMS, Parameters};
use super::{Check, Seen, rules};
use crate::clock::UnixTime;
use crate::ocsp::{CertId, CertStatus, CrlReason, HashAlgorithm, Received, Revocation, Serial};

/// id-pkix-ocsp-extended-revoke.
const EXTENDED_REVOKE: &str = "1.3.6.1.5.5.7.48.1.9";

/// A positive serial number of 160 bits that no CA has ever given out; none where the system has no
/// random numbers.
fn random_serial() -> Option<Serial> {
    let mut octets = [0; 20];
    SystemRandom::new().fill(&mut octets).ok()?;
    // A certificate's serial number is positive and has at most 20 octets (RFC 5280 4.1.2.2).
    octets[0] = octets[0] & 0x7f | 0x40;
    Serial::from_unsigned(&octets).ok()
}

fn plain(cert_id: &CertId) -> Vec<u8> {
    requests::request(&[requests::cert_id(cert_id, Parameters::Null)], &[])
}

impl Check<'_> {
    pub(super) fn cert_id(&self, hash: HashAlgorithm) -> CertId {
        self.issuer.cert_id(hash, self.certificate.serial())
    }

    /// Serial numbers that were never assigned, and an issuer that is none.
    pub(super) async fn certificates_and_issuers(&mut self) {
        for hash in [HashAlgorithm::Sha1, HashAlgorithm::Sha256] {
            let Some(serial) = random_serial() else {
                self.book.skip(rules::UNASSIGNED, "random serial", "the system gave no random numbers");
                return;
            };
            let cert_id = self.issuer.cert_id(hash, serial);
            let request = plain(&cert_id);
            for (method, ask) in [("POST", Ask::post(&request)), ("GET", Ask::get(&in_path(&request)))] {
                let reply = self.target.ask(ask).await;
                self.unassigned(&format!("{method} random serial, {hash}"), &reply, &cert_id);
                if let (Seen::Error(_), Ok(reply), "GET") = (Seen::read(&reply), &reply, method) {
                    self.not_cached(reply);
                }
            }
        }
        let mut stranger = self.cert_id(HashAlgorithm::Sha1);
        stranger.issuer_key_hash = vec![0x5a; 20].into();
        let seen = self.ask(Ask::post(&plain(&stranger))).await;
        let told = match &seen {
            Seen::Answer(received) => received.single(&stranger).map(|single| single.status),
            _ => None,
        };
        let claims = told.is_some_and(|status| status != CertStatus::Unknown);
        let seen = told.map_or_else(|| seen.told(), |status| status.name().to_owned());
        self.book.hold(rules::ISSUER, "POST other key hash", !claims, seen);
    }

    fn unassigned(&mut self, question: &str, reply: &Result<Reply, String>, cert_id: &CertId) {
        let seen = Seen::read(reply);
        let status = match &seen {
            Seen::Answer(received) => received.single(cert_id).map(|single| single.status),
            _ => None,
        };
        let told = status.map_or_else(|| seen.told(), |status| status.name().to_owned());
        let speaks = !matches!(seen, Seen::Broken(_));
        self.book.hold(rules::UNASSIGNED, question, speaks && status != Some(CertStatus::Good), told.clone());
        match status {
            Some(CertStatus::Good) => self.book.hold(rules::NO_RECORD, question, false, told),
            Some(_) => self.book.skip(rules::NO_RECORD, question, format!("{told}, as RFC 6960 2.2 allows")),
            None => self.book.hold(rules::NO_RECORD, question, told == "unauthorized", told),
        }
        match (status, &seen) {
            (Some(CertStatus::Revoked(revocation)), Seen::Answer(received)) => {
                self.never_issued(question, received, revocation);
            }
            _ => self.book.skip(rules::NEVER_ISSUED, question, "never issued is not answered revoked"),
        }
        match reply {
            Ok(reply) if reply.head.status != 200 => {
                self.book.hold(rules::IN_200, question, false, format!("HTTP {}", reply.head.status));
            }
            Ok(_) if matches!(seen, Seen::Error(_)) => {
                self.book.hold(rules::IN_200, question, true, "HTTP 200")
            }
            _ => {}
        }
    }

    fn never_issued(&mut self, question: &str, received: &Received, revocation: Revocation) {
        let as_asked = revocation.time == UnixTime::EPOCH
            && revocation.reason == Some(CrlReason::CertificateHold)
            && received.extensions.iter().any(|oid| oid == EXTENDED_REVOKE);
        let reason = revocation.reason.map_or("no reason", CrlReason::name);
        let seen = format!("{}, {reason}, {}", revocation.time, received.extensions.join(", "));
        self.book.hold(rules::NEVER_ISSUED, question, as_asked, seen);
        if self.preset.allows_hold() {
            self.book.skip(rules::HOLD, question, "the CA is private");
        } else {
            let held = revocation.reason == Some(CrlReason::CertificateHold);
            self.book.hold(rules::HOLD, question, !held, reason);
        }
    }

    fn not_cached(&mut self, reply: &Reply) {
        let directives = reply.directives();
        let kept_out = directives.iter().any(|each| ["no-cache", "no-store"].contains(each));
        let seen = reply.header("cache-control").unwrap_or("no Cache-Control");
        if kept_out {
            self.book.hold(rules::NO_CACHE, "GET, an error", true, seen);
        } else {
            self.book.skip(rules::NO_CACHE, "GET, an error", seen);
        }
    }

    /// What is no request. Asked last: some responders do not survive it.
    pub(super) async fn malformed(&mut self) {
        let whole = plain(&self.cert_id(HashAlgorithm::Sha1));
        let longer = [&whole[..], &[0]].concat();
        let malformed: [(&str, &[u8]); 4] = [
            ("POST text", b"hello"),
            ("POST empty SEQUENCE", b"\x30\x00"),
            ("POST cut request", &whole[..whole.len() - 1]),
            ("POST longer request", &longer),
        ];
        for (question, body) in malformed {
            let reply = self.target.ask(Ask::post(body)).await;
            let seen = Seen::read(&reply);
            let is = matches!(seen, Seen::Error("malformedRequest"));
            self.book.hold(rules::MALFORMED, question, is, seen.told());
            let status = reply.map(|reply| reply.head.status);
            let told = status.as_ref().map_or_else(Clone::clone, |status| format!("HTTP {status}"));
            self.book.hold(rules::IN_200, question, status.is_ok_and(|status| status == 200), told);
        }
    }

    /// Variants of the request itself.
    pub(super) async fn requests(&mut self) {
        let sha1 = self.cert_id(HashAlgorithm::Sha1);
        if self.preset.allows_hold() {
            self.book.skip(rules::HOLD, "the certificate", "the CA is private");
        } else {
            let held = matches!(self.status, Some(CertStatus::Revoked(revocation)) if revocation.reason == Some(CrlReason::CertificateHold));
            self.book.hold(
                rules::HOLD,
                "the certificate",
                !held,
                if held { "certificateHold" } else { "none" },
            );
        }
        if self.status.is_none() {
            return;
        }
        for parameters in [Parameters::Null, Parameters::Absent] {
            let request = requests::request(&[requests::cert_id(&sha1, parameters)], &[]);
            let agrees = self.agrees(&self.ask(Ask::post(&request)).await, &sha1);
            self.book.result(rules::PARAMETERS, &format!("POST {parameters:?} parameters"), agrees);
        }
        for critical in [false, true] {
            let extension = requests::extension(NOBODYS, critical, &[5, 0]);
            let request = requests::request(&[requests::cert_id(&sha1, Parameters::Null)], &[extension]);
            let seen = self.ask(Ask::post(&request)).await;
            if critical {
                let refused = !matches!(seen, Seen::Answer(_));
                self.book.hold(
                    rules::UNKNOWN_EXTENSION,
                    "POST unknown critical extension",
                    refused,
                    seen.told(),
                );
            } else {
                let agrees = self.agrees(&seen, &sha1);
                self.book.result(rules::UNKNOWN_EXTENSION, "POST unknown extension", agrees);
            }
        }
        let name = self.certificate.subject_name();
        let request =
            requests::with_requestor(Some(name), &[requests::cert_id(&sha1, Parameters::Null)], &[]);
        let agrees = self.agrees(&self.ask(Ask::post(&request)).await, &sha1);
        self.book.result(rules::REQUESTOR, "POST requestorName", agrees);
        let preferred = requests::extension(PREFERRED_ALGORITHMS, false, PREFER_SHA1);
        let request = requests::request(&[requests::cert_id(&sha1, Parameters::Null)], &[preferred]);
        if let Seen::Answer(received) = self.ask(Ask::post(&request)).await {
            self.algorithm("POST preferring SHA-1", &received);
        }
        self.several().await;
    }

    /// One request with both CertIDs of the certificate.
    async fn several(&mut self) {
        let both = [HashAlgorithm::Sha1, HashAlgorithm::Sha256].map(|hash| self.cert_id(hash));
        let request =
            requests::request(&both.each_ref().map(|each| requests::cert_id(each, Parameters::Null)), &[]);
        let question = "POST two CertIDs";
        match self.ask(Ask::post(&request)).await {
            seen @ Seen::Answer(_) => {
                let all = both.iter().try_fold(String::new(), |_, cert_id| self.agrees(&seen, cert_id));
                self.book.result(rules::SEVERAL, question, all);
            }
            Seen::Error(status) => {
                let why = format!("{status}: RFC 9919 3.1.1 has clients ask about one certificate at a time");
                self.book.skip(rules::SEVERAL, question, why);
            }
            Seen::Broken(error) => self.book.hold(rules::SEVERAL, question, false, error),
        }
    }

    /// Nonces of every length that is treated differently.
    pub(super) async fn nonces(&mut self) {
        if self.status.is_none() {
            return;
        }
        let sha1 = self.cert_id(HashAlgorithm::Sha1);
        let mut refused = Vec::new();
        let mut nonces_are_on = false;
        for length in [0_usize, 1, 15, 16, 32, 33, 128, 129] {
            let nonce = vec![0x5a; length];
            let question = format!("POST nonce of {length}");
            let request =
                requests::request(&[requests::cert_id(&sha1, Parameters::Null)], &[requests::nonce(&nonce)]);
            let reply = self.target.ask(Ask::post(&request)).await;
            let seen = Seen::read(&reply);
            let echoed = match &seen {
                Seen::Answer(received) => received.nonce.clone(),
                _ => None,
            };
            nonces_are_on |= echoed.is_some();
            if let (Some(_), Ok(reply)) = (&echoed, &reply) {
                let directives = reply.directives();
                let kept = directives.iter().any(|each| each.starts_with("max-age") || *each == "public");
                let seen = reply.header("cache-control").unwrap_or("no Cache-Control");
                let private = !kept || directives.contains(&"no-store");
                self.book.hold(rules::NONCE_PRIVATE, &question, private, seen);
            }
            match length {
                0 | 129 => refused.push((question, seen)),
                16 | 32 => match self.agrees(&seen, &sha1) {
                    Err(error) => self.book.hold(rules::NONCE_ECHOED, &question, false, error),
                    Ok(_) => match echoed {
                        None => {
                            let why = "answered without it, as RFC 9919 3.2.1 allows";
                            self.book.skip(rules::NONCE_ECHOED, &question, why);
                        }
                        Some(echoed) => {
                            let same = echoed == nonce;
                            let seen = if same { "echoed" } else { "another nonce" };
                            self.book.hold(rules::NONCE_ECHOED, &question, same, seen);
                        }
                    },
                },
                _ => {
                    let agrees = self.agrees(&seen, &sha1);
                    self.book.result(rules::NONCE_OTHER, &question, agrees);
                }
            }
        }
        if !nonces_are_on {
            self.book.skip(rules::NONCE_PRIVATE, "POST nonce", "no nonce is echoed");
        }
        for (question, seen) in refused {
            let is = matches!(seen, Seen::Error("malformedRequest"));
            if !is && !nonces_are_on && self.agrees(&seen, &sha1).is_ok() {
                let why = "nonces are ignored here, as RFC 6960 4.4 allows";
                self.book.skip(rules::NONCE_REFUSED, &question, why);
            } else {
                self.book.hold(rules::NONCE_REFUSED, &question, is, seen.told());
            }
        }
    }
}
