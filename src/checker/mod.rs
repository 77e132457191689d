//! Asks an OCSP responder, any one, and holds what a client can see to the conformance checklist.

mod client;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use self::client::{Reply, Target};
use crate::clock::UnixTime;
use crate::ocsp::delegation::Delegation;
use crate::ocsp::received::ReceivedSingle;
use crate::ocsp::{Certificate, HashAlgorithm, Issuer, Received, request};

/// base64 in a path: `+`, `/` and `=` are encoded (RFC 6960 appendix A.1).
const IN_PATH: &AsciiSet = NON_ALPHANUMERIC;

/// How a line of the checklist was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// Not as it should be.
    Failed,
    /// There was nothing to look at.
    NotApplicable,
}

/// A line of the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The line of the checklist.
    pub id: &'static str,
    /// What was asked, for example `POST sha256`.
    pub question: String,
    /// The requirement.
    pub requirement: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// How it was met.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The status that the answers agree on: `good`, `revoked`, `unknown`, or none.
    pub status: Option<&'static str>,
    /// Revocation time, in RFC 3339.
    pub revoked_at: Option<String>,
    /// Revocation reason.
    pub reason: Option<&'static str>,
    /// Every line.
    pub lines: Vec<Line>,
}

impl Report {
    /// Whether no line failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.lines.iter().all(|line| line.verdict != Verdict::Failed)
    }
}

/// Checks the responder at `url` with questions about `certificate` of `issuer`.
///
/// # Errors
/// Text for a URL that cannot be asked. A responder that does not answer is a failed line.
pub async fn check(
    url: &str,
    issuer: &Issuer,
    certificate: &Certificate,
    now: UnixTime,
) -> Result<Report, String> {
    let target = Target::parse(url)?;
    let mut report = Report { status: None, revoked_at: None, reason: None, lines: Vec::new() };
    for hash in [HashAlgorithm::Sha1, HashAlgorithm::Sha256] {
        let cert_id = issuer.cert_id(hash, certificate.serial());
        let asked = request::encode(std::slice::from_ref(&cert_id), None)?;
        let in_path = utf8_percent_encode(&STANDARD.encode(&asked), IN_PATH).to_string();
        for (method, reply) in [("POST", target.post(&asked).await), ("GET", target.get(&in_path).await)] {
            let mut exchange = Exchange { question: format!("{method} {hash}"), lines: &mut report.lines };
            let Some(received) = exchange.http(method, reply, now) else { continue };
            let single = received.single(&cert_id).cloned();
            exchange.answer(&received, single.as_ref(), issuer, now);
            if let Some(single) = single {
                report.status = Some(single.status.name());
                if let crate::ocsp::CertStatus::Revoked(revocation) = single.status {
                    report.revoked_at = Some(revocation.time.to_string());
                    report.reason = revocation.reason.map(crate::ocsp::CrlReason::name);
                }
            }
        }
    }
    Ok(report)
}

/// One question and its answer.
struct Exchange<'r> {
    question: String,
    lines: &'r mut Vec<Line>,
}

impl Exchange<'_> {
    fn line(
        &mut self,
        [id, requirement, source]: [&'static str; 3],
        verdict: Verdict,
        detail: impl Into<String>,
    ) {
        let question = self.question.clone();
        self.lines.push(Line { id, question, requirement, source, verdict, detail: detail.into() });
    }

    fn hold(&mut self, line: [&'static str; 3], holds: bool, detail: impl Into<String>) {
        self.line(line, if holds { Verdict::Passed } else { Verdict::Failed }, detail);
    }

    /// The lines about HTTP; the answer inside, if there is one.
    fn http(&mut self, method: &str, reply: Result<Reply, String>, now: UnixTime) -> Option<Received> {
        let asked = if method == "GET" {
            ["H1", "GET is answered", "RFC 6960 A.1, BR 4.9.10"]
        } else {
            ["B1", "POST is answered", "RFC 6960 A.1, BR 4.9.10"]
        };
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                self.hold(asked, false, error);
                return None;
            }
        };
        let status = reply.head.status;
        self.hold(asked, status == 200, format!("HTTP {status}"));
        if status != 200 {
            return None;
        }
        let content_type = reply.header("content-type").unwrap_or("none").to_owned();
        let line = ["L9", "Content-Type is application/ocsp-response", "RFC 6960 A.2"];
        self.hold(line, content_type == "application/ocsp-response", content_type);
        let received = match Received::decode(&reply.body) {
            Ok(received) => {
                self.hold(
                    ["C2", "the answer is a successful OCSPResponse in DER", "RFC 6960 4.2.1"],
                    true,
                    format!("{} octets", reply.body.len()),
                );
                received
            }
            Err(error) => {
                self.hold(
                    ["C2", "the answer is a successful OCSPResponse in DER", "RFC 6960 4.2.1"],
                    false,
                    error.to_string(),
                );
                return None;
            }
        };
        if method == "GET" {
            self.caching(&reply, &received, now);
        }
        Some(received)
    }

    fn caching(&mut self, reply: &Reply, received: &Received, now: UnixTime) {
        let text = |name: &str| reply.header(name).unwrap_or("none").to_owned();
        let next_update = received.responses.first().and_then(|single| single.next_update);
        let cache_control = text("cache-control");
        let directives: Vec<&str> = cache_control.split(',').map(str::trim).collect();
        let wanted = ["public", "no-transform", "must-revalidate"];
        let all = wanted.iter().all(|wanted| directives.contains(wanted));
        self.hold(
            ["L9", "Cache-Control has public, no-transform, must-revalidate", "RFC 9919 5"],
            all,
            cache_control.clone(),
        );
        let max_age = directives.iter().find_map(|each| each.strip_prefix("max-age=")?.parse::<i64>().ok());
        let line = ["L11", "max-age ends before nextUpdate", "RFC 9919 5"];
        match (max_age, next_update) {
            (Some(age), Some(next_update)) => {
                self.hold(line, now.0 + age < next_update.0, format!("max-age={age}"))
            }
            _ => self.line(line, Verdict::Failed, "no max-age, or no nextUpdate"),
        }
        let digest: String =
            HashAlgorithm::Sha256.digest(&reply.body).iter().map(|octet| format!("{octet:02x}")).collect();
        let etag = text("etag");
        self.hold(["L9", "ETag is strong", "RFC 9919 5"], etag.starts_with('"'), etag.clone());
        self.hold(
            ["L9", "ETag is the SHA-256 of the answer", "RFC 9919 5 (SHOULD)"],
            etag.trim_matches('"').eq_ignore_ascii_case(&digest),
            etag,
        );
        let date = |time: UnixTime| time.to_datetime().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let expires = text("expires");
        let line = ["L9", "Expires is nextUpdate", "RFC 9919 5"];
        self.hold(line, next_update.is_some_and(|time| date(time) == expires), expires);
        let modified = text("last-modified");
        let line = ["L9", "Last-Modified is when the answer was made", "RFC 9919 5"];
        self.hold(line, date(received.produced_at) == modified, modified);
    }

    /// The lines about the answer itself.
    fn answer(
        &mut self,
        received: &Received,
        single: Option<&ReceivedSingle>,
        issuer: &Issuer,
        now: UnixTime,
    ) {
        let seen = received.responses.len();
        self.hold(
            ["C8", "the CertID asked for is the one answered, hash included", "RFC 6960 4.2.1"],
            single.is_some(),
            format!("{seen} SingleResponse{}", if seen == 1 { "" } else { "s" }),
        );
        let signed = ["C15", "the signature verifies with the named signer's key", "RFC 6960 3.2"];
        match received.signer(issuer) {
            None => self.hold(
                signed,
                false,
                "neither the issuer nor a certificate in `certs` has the responderID",
            ),
            Some(signer) => {
                match received.verify(&signer) {
                    Ok(algorithm) => self.hold(signed, true, algorithm.to_string()),
                    Err(error) => self.hold(signed, false, error.to_string()),
                }
                let line = ["C18", "the signer may sign for the issuer", "RFC 6960 4.2.2.2"];
                match Delegation::check(issuer, signer, now) {
                    Ok(delegation) => {
                        self.hold(line, true, delegation.certificate().subject());
                        let warnings: Vec<_> =
                            delegation.warnings().iter().map(ToString::to_string).collect();
                        let line =
                            ["L6", "the delegate's certificate bends no rule", "RFC 9919 3.2, BR 7.1.2.8"];
                        self.hold(line, warnings.is_empty(), warnings.join("; "));
                    }
                    Err(error) => self.hold(line, false, error.to_string()),
                }
            }
        }
        let line = ["L5", "the responder is named by key", "RFC 9919 3.2.1"];
        self.hold(line, matches!(received.responder_id, crate::ocsp::ResponderId::ByKey(_)), "");
        let line = ["L3", "a stored answer has no responseExtensions", "RFC 9919 3.2.1"];
        self.hold(line, received.extensions.is_empty(), received.extensions.join(", "));
        let Some(single) = single else { return };
        self.times(received, single, now);
    }

    fn times(&mut self, received: &Received, single: &ReceivedSingle, now: UnixTime) {
        let line = ["L8", "nextUpdate is there and lies ahead", "RFC 9919 3.2.4"];
        match single.next_update {
            Some(next_update) => self.hold(line, now <= next_update, next_update.to_string()),
            None => self.hold(line, false, "no nextUpdate"),
        }
        let line = ["L8", "times have no fractions of a second", "RFC 9919 3.2.4"];
        self.hold(line, !single.has_fractions, "");
        let line = ["C16", "thisUpdate ≤ producedAt ≤ now", "RFC 6960 2.4"];
        let ordered = single.this_update <= received.produced_at
            && received.produced_at <= now.plus(std::time::Duration::from_secs(5));
        self.hold(line, ordered, format!("{} ≤ {}", single.this_update, received.produced_at));
        let line = ["B2", "validity is from 8 hours to 10 days", "BR 4.9.10 (public CAs)"];
        if let Some(next_update) = single.next_update {
            let validity = next_update.0 - single.this_update.0 + 1;
            let within = (8 * 3_600..=10 * 86_400).contains(&validity);
            let span =
                humantime::format_duration(std::time::Duration::from_secs(validity.max(0).cast_unsigned()));
            self.hold(line, within, span.to_string());
        }
    }
}
