//! pkilint, the linter of the web PKI, on what Goodstanding makes.

use crate::support::ca::KeyKind;
use crate::support::clients;
use crate::support::server::Server;
use crate::support::site::{Pair, Site};

/// Says only by which method of RFC 5280 section 4.2.1.2 the subjectKeyIdentifier was made: a
/// statement (INFO), which any identifier of that method gets.
const KEY_IDENTIFIER_METHOD: &str = "pkix.subject_key_identifier_method_1_identified";

/// C14, C15, C19, B12.
#[test]
fn pkilint_finds_nothing_in_answers_and_delegates_with_rsa_2048() {
    pkilint_finds_nothing(KeyKind::Rsa2048);
}

/// C14, C15, C19, B12.
#[test]
fn pkilint_finds_nothing_in_answers_and_delegates_with_p256() {
    pkilint_finds_nothing(KeyKind::P256);
}

fn pkilint_finds_nothing(kind: KeyKind) {
    let site = Site::new(kind);
    let Pair { good, revoked, .. } = site.good_and_revoked();
    {
        let _server = Server::start(&site);
        for leaf in [&good, &revoked] {
            let answer = site.path("answer.der");
            std::fs::write(&answer, clients::answer(site.ocsp, &site.ca, leaf)).unwrap();
            let findings = clients::pkilint("lint_ocsp_response", &[], &answer);
            assert_eq!(findings, [], "in the answer about {}", leaf.name);
        }
    }
    let mut findings = clients::pkilint(
        "lint_cabf_serverauth_cert",
        &["-t", "OCSP-RESPONDER"],
        &site.responder_certificate(),
    );
    findings.retain(|(code, severity)| (code.as_str(), severity.as_str()) != (KEY_IDENTIFIER_METHOD, "INFO"));
    assert_eq!(findings, [], "in the delegated certificate");
}

#[test]
fn pkilint_does_find_what_is_wrong() {
    let site = Site::bare(KeyKind::P256);
    let leaf = site.ca.issue("no-responder.example.org");
    let findings =
        clients::pkilint("lint_cabf_serverauth_cert", &["-t", "OCSP-RESPONDER"], &leaf.certificate);
    let error = |(code, severity): &(String, String)| severity == "ERROR" && code.contains("ocsp");
    assert!(findings.iter().any(error), "a TLS server's certificate passed for a responder's: {findings:?}");
}
