use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;
use crate::limits::{KnownCertificate, same_names};
use crate::ocsp::Certificate;

fn certificate(names: &[&str]) -> Certificate {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![1, 2, 3]);
    let ca = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).unwrap();
    parameters.serial_number = Some(rcgen::SerialNumber::from(0x87));
    parameters.use_authority_key_identifier_extension = true;
    parameters.not_before = rcgen::date_time_ymd(2016, 1, 10);
    parameters.not_after = rcgen::date_time_ymd(2016, 4, 9);
    let made = parameters.signed_by(&KeyPair::generate().unwrap(), &ca).unwrap();
    Certificate::from_der(made.der()).unwrap()
}

#[test]
fn a_certificate_is_known_by_its_names_its_start_and_both_its_own_names() {
    let certificate = certificate(&["WWW.example.com", "192.0.2.7"]);
    let now = time("2016-01-17T00:00:00Z");
    let known = KnownCertificate::of("demo", &certificate, now).unwrap();
    assert_eq!(known.identifiers, ["WWW.example.com", "192.0.2.7"]);
    assert_eq!(known.issued_at, time("2016-01-10T00:00:00Z"));
    assert_eq!(known.certificate.name, "demo/87");
    // A serial number whose first bit is set is two octets in DER.
    assert_eq!(known.certificate.ari.as_deref(), Some("AQID.AIc"));
    let early = time("2016-01-01T00:00:00Z");
    assert_eq!(KnownCertificate::of("demo", &certificate, early).unwrap().issued_at, early);
    assert_eq!(KnownCertificate::of("demo", &self::certificate(&[]), now), None, "nobody could order it");
}

#[test]
fn a_certificate_that_counts_for_nothing_any_more_is_left_alone() {
    let known = KnownCertificate::of("demo", &certificate(&["a.example"]), time("2016-01-17T00:00:00Z"));
    let known = known.unwrap();
    let profile = shipped("two-tier");
    assert!(known.matters(&profile, time("2016-05-08T23:59:59Z")), "a renewal within 30 days of its end");
    assert!(!known.matters(&profile, time("2016-05-09T00:00:00Z")));
    assert!(!known.matters(&Profile::unlimited(), time("2016-01-17T00:00:00Z")), "nothing is limited");
}

#[test]
fn names_are_compared_as_sets_whatever_their_case_and_order() {
    let certificate = certificate(&["b.example", "A.example", "2001:db8::0007"]);
    let ordered = |names: &[&str]| {
        let names = Identifiers::parse(names, 100).unwrap().texts().to_vec();
        same_names(&names, &certificate)
    };
    assert_eq!(ordered(&["a.example", "2001:DB8::7", "b.example"]), Ok(()));
    let mismatch = ordered(&["a.example", "c.example"]).unwrap_err();
    assert_eq!(mismatch.missing, ["c.example"]);
    assert_eq!(mismatch.surplus, ["2001:db8::7", "b.example"]);
}
