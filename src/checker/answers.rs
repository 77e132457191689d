//! The plain questions, GET and POST with either hash, and everything about their answers.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::client::{Ask, Reply};
use super::requests::{self, Parameters};
use super::{Check, Seen, rules};
use crate::clock::UnixTime;
use crate::ocsp::delegation::Delegation;
use crate::ocsp::received::ReceivedSingle;
use crate::ocsp::{HashAlgorithm, Preset, Received, ResponderId};

/// How far the responder's clock may be ahead of ours.
const SKEW: Duration = Duration::from_secs(5);

/// base64 as it stands in a path: `+`, `/` and `=` are encoded (RFC 6960 appendix A.1).
pub(super) fn in_path(request: &[u8]) -> String {
    utf8_percent_encode(&STANDARD.encode(request), NON_ALPHANUMERIC).to_string()
}

/// A time in a header.
fn date(time: UnixTime) -> String {
    time.to_datetime().format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn span(seconds: i64) -> String {
    humantime::format_duration(Duration::from_secs(seconds.max(0).cast_unsigned())).to_string()
}

impl Check<'_> {
    /// Asks both ways with both hashes. Returns whether there is anybody to ask more.
    pub(super) async fn first_answers(&mut self) -> bool {
        let mut reached = false;
        for hash in [HashAlgorithm::Sha1, HashAlgorithm::Sha256] {
            let cert_id = self.issuer.cert_id(hash, self.certificate.serial());
            let request = requests::request(&[requests::cert_id(&cert_id, Parameters::Null)], &[]);
            for (method, ask) in [("POST", Ask::post(&request)), ("GET", Ask::get(&in_path(&request)))] {
                let question = format!("{method} {hash}");
                let reply = self.target.ask(ask).await;
                reached |= reply.is_ok();
                let seen = Seen::read(&reply);
                let answered = match &reply {
                    Ok(reply) if reply.head.status == 200 => Ok("HTTP 200".to_owned()),
                    Ok(reply) => Err(format!("HTTP {}", reply.head.status)),
                    Err(error) => Err(error.clone()),
                };
                let served = answered.is_ok();
                self.book.result(rules::BOTH_METHODS, &question, answered);
                if served {
                    let is_der = !matches!(seen, Seen::Broken(_));
                    self.book.hold(
                        rules::DER,
                        &question,
                        is_der,
                        if is_der { "DER".into() } else { seen.told() },
                    );
                }
                let (Ok(reply), Seen::Answer(received)) = (&reply, &seen) else {
                    self.book.hold(rules::HASHES, &question, false, seen.told());
                    continue;
                };
                self.book.hold(rules::HASHES, &question, true, "answered");
                let single = received.single(&cert_id).cloned();
                let count = received.responses.len();
                let seen = format!("{count} SingleResponse{}", if count == 1 { "" } else { "s" });
                self.book.hold(rules::ECHOED, &question, single.is_some(), seen.clone());
                self.headers(&question, reply);
                if method == "GET" {
                    self.caching(&question, reply, received);
                }
                self.signer(&question, received);
                self.shape(&question, received, seen);
                if let Some(single) = single {
                    self.times(&question, received, &single);
                    self.status = Some(single.status);
                }
            }
        }
        reached
    }

    /// What every answer carries.
    fn headers(&mut self, question: &str, reply: &Reply) {
        let text = |name: &str| reply.header(name).unwrap_or("none").to_owned();
        let content_type = text("content-type");
        let is = content_type == "application/ocsp-response";
        self.book.hold(rules::CONTENT_TYPE, question, is, content_type);
        let length = text("content-length");
        let is = length == reply.body.len().to_string();
        self.book.hold(rules::CONTENT_LENGTH, question, is, if is { "exact".to_owned() } else { length });
    }

    /// What makes an answer cacheable (RFC 9919 sections 6 and 7.2).
    fn caching(&mut self, question: &str, reply: &Reply, received: &Received) {
        let text = |name: &str| reply.header(name).unwrap_or("none").to_owned();
        let next_update = received.responses.first().and_then(|single| single.next_update);
        let directives = reply.directives();
        let max_age = directives.iter().find_map(|each| each.strip_prefix("max-age=")?.parse::<i64>().ok());
        let wanted = ["public", "no-transform", "must-revalidate"];
        let all = max_age.is_some() && wanted.iter().all(|wanted| directives.contains(wanted));
        self.book.hold(rules::CACHE_CONTROL, question, all, text("cache-control"));
        match (max_age, next_update) {
            (Some(age), Some(next_update)) => {
                let within = self.now().0 + age < next_update.0;
                self.book.hold(rules::MAX_AGE, question, within, format!("max-age={age}"));
            }
            _ => self.book.hold(rules::MAX_AGE, question, false, "no max-age, or no nextUpdate"),
        }
        let etag = text("etag");
        self.book.hold(rules::ETAG, question, etag.starts_with('"'), etag.clone());
        let digest = HashAlgorithm::Sha256.digest(&reply.body);
        let digest: String = digest.iter().map(|octet| format!("{octet:02x}")).collect();
        if etag.trim_matches('"').eq_ignore_ascii_case(&digest) {
            self.book.hold(rules::ETAG_DIGEST, question, true, "SHA-256");
        } else {
            self.book.skip(rules::ETAG_DIGEST, question, "another tag will do");
        }
        let expires = text("expires");
        let is = next_update.is_some_and(|time| date(time) == expires);
        self.book.hold(rules::EXPIRES, question, is, expires);
        let modified = text("last-modified");
        let made = received.responses.first().map(|single| single.this_update);
        let is = [Some(received.produced_at), made].iter().flatten().any(|time| date(*time) == modified);
        self.book.hold(rules::LAST_MODIFIED, question, is, modified);
        let dates: Vec<&str> =
            ["date", "expires", "last-modified"].iter().filter_map(|name| reply.header(name)).collect();
        self.book.hold(rules::DATE, question, reply.header("date").is_some(), text("date"));
        match dates.iter().find(|date| !date.ends_with(" GMT")) {
            Some(odd) => self.book.hold(rules::GMT, question, false, *odd),
            None if dates.is_empty() => self.book.skip(rules::GMT, question, "no header has a date"),
            None => self.book.hold(rules::GMT, question, true, "GMT"),
        }
    }

    fn signer(&mut self, question: &str, received: &Received) {
        self.algorithm(question, received);
        let Some(signer) = received.signer(self.issuer) else {
            let seen = "neither the issuer nor a certificate in certs has the responderID";
            self.book.hold(rules::SIGNED, question, false, seen);
            self.book.hold(rules::INCLUDED, question, false, seen);
            return;
        };
        let verified = received.verify(&signer).map(|algorithm| algorithm.to_string());
        self.book.result(rules::SIGNED, question, verified.map_err(|error| error.to_string()));
        if signer.der() == self.issuer.certificate().der() {
            self.book.skip(rules::INCLUDED, question, "the CA itself signs");
        } else {
            self.book.hold(rules::INCLUDED, question, true, signer.subject());
        }
        match Delegation::check(self.issuer, signer, self.now()) {
            Err(error) => self.book.hold(rules::MAY_SIGN, question, false, error.to_string()),
            Ok(delegation) => {
                self.book.hold(rules::MAY_SIGN, question, true, delegation.certificate().subject());
                let warnings: Vec<_> = delegation.warnings().iter().map(ToString::to_string).collect();
                if !delegation.is_delegated() {
                    self.book.skip(rules::DELEGATE, question, "the CA itself signs");
                } else if self.preset == Preset::Private && !warnings.is_empty() {
                    self.book.skip(rules::DELEGATE, question, warnings.join("; "));
                } else {
                    let seen = if warnings.is_empty() { "none bent".to_owned() } else { warnings.join("; ") };
                    self.book.hold(rules::DELEGATE, question, warnings.is_empty(), seen);
                }
            }
        }
    }

    /// No signature uses SHA-1 or MD5, whoever asks for it.
    pub(super) fn algorithm(&mut self, question: &str, received: &Received) {
        /// sha1WithRSAEncryption, md5WithRSAEncryption, ecdsa-with-SHA1, dsa-with-sha1.
        const WEAK: [&[u8]; 4] = [
            b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05",
            b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04",
            b"\x06\x07\x2a\x86\x48\xce\x3d\x04\x01",
            b"\x06\x07\x2a\x86\x48\xce\x38\x04\x03",
        ];
        let identifier = &received.signature_algorithm;
        let weak = WEAK.iter().any(|weak| identifier.windows(weak.len()).any(|window| window == *weak));
        let seen = if weak { "SHA-1 or MD5" } else { "neither SHA-1 nor MD5" };
        self.book.hold(rules::ALGORITHM, question, !weak, seen);
    }

    fn shape(&mut self, question: &str, received: &Received, count: String) {
        let book = &mut self.book;
        match received.responder_id {
            ResponderId::ByKey(_) => book.hold(rules::BY_KEY, question, true, "by key"),
            ResponderId::ByName(_) => {
                book.skip(rules::BY_KEY, question, "by name, as RFC 9919 3.2.2 lets older responders do")
            }
        }
        let none = received.extensions.is_empty();
        let seen = if none { "none".to_owned() } else { received.extensions.join(", ") };
        if none {
            book.hold(rules::NO_EXTENSIONS, question, true, seen);
        } else {
            book.skip(rules::NO_EXTENSIONS, question, seen);
        }
        let serial = self.certificate.serial();
        let one_or_pair = received.responses.iter().enumerate().all(|(at, single)| {
            let earlier = &received.responses[..at];
            single.cert_id.serial == serial
                && earlier.iter().all(|each| each.cert_id.hash != single.cert_id.hash)
        });
        if one_or_pair {
            book.hold(rules::ONE_OR_PAIR, question, true, count);
        } else {
            book.skip(rules::ONE_OR_PAIR, question, format!("{count}, of other certificates too"));
        }
        let reason_code =
            received.responses.iter().any(|each| each.extensions.iter().any(|oid| oid == "2.5.29.21"));
        book.hold(
            rules::NO_REASON_CODE,
            question,
            !reason_code,
            if reason_code { "reasonCode" } else { "none" },
        );
    }

    fn times(&mut self, question: &str, received: &Received, single: &ReceivedSingle) {
        let now = self.now();
        let next_update = match single.next_update {
            None => Err("no nextUpdate".to_owned()),
            Some(_) if single.has_fractions => Err("fractions of a second".to_owned()),
            Some(next_update) if next_update < now => Err(format!("it was {next_update}")),
            Some(next_update) => Ok(next_update.to_string()),
        };
        self.book.result(rules::NEXT_UPDATE, question, next_update);
        let (this_update, produced_at) = (single.this_update, received.produced_at);
        let ordered = this_update <= produced_at && produced_at <= now.plus(SKEW);
        self.book.hold(rules::TIMES, question, ordered, format!("{this_update} ≤ {produced_at}"));
        let in_force = self.certificate.is_valid_at(produced_at);
        let seen = if in_force {
            "it does".to_owned()
        } else {
            let (from, to) = (self.certificate.not_before(), self.certificate.not_after());
            format!("{produced_at} is not within {from} to {to}")
        };
        self.book.hold(rules::IN_FORCE, question, in_force, seen);
        if this_update == produced_at {
            self.book.hold(rules::SAME_TIMES, question, true, "equal");
        } else {
            self.book.skip(rules::SAME_TIMES, question, "earlier, as RFC 6960 2.4 allows");
        }
        let Some(next_update) = single.next_update else { return };
        self.validity(question, next_update.0 - this_update.0 + 1);
        let ends =
            received.certificates.iter().filter_map(|der| crate::ocsp::Certificate::from_der(der).ok());
        match ends.map(|certificate| certificate.not_after()).min() {
            None => self.book.skip(rules::OUTLIVED, question, "certs is empty"),
            Some(ends) => self.book.hold(rules::OUTLIVED, question, next_update <= ends, ends.to_string()),
        }
    }

    /// `validity` counts both its first and its last second.
    fn validity(&mut self, question: &str, validity: i64) {
        match self.preset {
            Preset::Private => self.book.skip(rules::VALIDITY, question, "the CA is private"),
            Preset::SubCa => self.book.skip(rules::VALIDITY, question, "the certificate is a CA's"),
            Preset::WebPki | Preset::Microsoft => {
                let within = (8 * 3_600..=10 * 86_400).contains(&validity);
                self.book.hold(rules::VALIDITY, question, within, span(validity));
            }
        }
        if self.preset == Preset::SubCa {
            self.book.hold(rules::SUB_CA, question, validity <= 366 * 86_400, span(validity));
        } else {
            self.book.skip(rules::SUB_CA, question, "asked of with --preset sub-ca");
        }
        if self.preset == Preset::Microsoft {
            self.book.hold(rules::MICROSOFT, question, validity <= 7 * 86_400, span(validity));
        } else {
            self.book.skip(rules::MICROSOFT, question, "asked of with --preset microsoft");
        }
    }
}
