use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::import::tests::{run, store_with};
use crate::store::CertificateEntry;

const NOW: UnixTime = UnixTime(1_790_000_000);

/// A CA made with openssl in a folder of the test.
struct Ca {
    folder: TempDir,
    issuer: Issuer,
    store: Arc<dyn Store>,
    id: IssuerId,
}

impl Ca {
    async fn new(key: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        fs::write(
            at.join("ca.cnf"),
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=crlnumber\ndefault_md=sha256\ncrl_extensions=x\n\
             [x]\nauthorityKeyIdentifier=keyid\n[delta]\n2.5.29.27=critical,ASN1:INTEGER:1\n",
        )
        .unwrap();
        fs::write(at.join("crlnumber"), "01\n").unwrap();
        Self::make(at, "ca", key);
        let der = run(at, "openssl", &["x509", "-in", "ca.pem", "-outform", "DER"]);
        let (store, id) = store_with(at, &der).await;
        let entries: Vec<_> = (1..=6)
            .map(|number| CertificateEntry {
                serial: Serial::from_unsigned(&[number]).unwrap(),
                not_before: None,
                not_after: UnixTime(2_000_000_000),
                revocation: None,
            })
            .collect();
        store.register(id, &entries).await.unwrap();
        Self { issuer: Issuer::from_der(&der).unwrap(), folder, store, id }
    }

    fn make(at: &Path, name: &str, key: &[&str]) {
        let (out, private) = (format!("{name}.pem"), format!("{name}.key"));
        let request = ["req", "-x509", "-nodes", "-subj", "/CN=demo", "-keyout", &private, "-out", &out];
        run(at, "openssl", &[&request[..], key].concat());
    }

    /// A CRL, signed by `name`, of the lines of an index: serial and revocation field.
    fn crl(&self, name: &str, revoked: &[(&str, &str)], more: &[&str]) -> PathBuf {
        let at = self.folder.path();
        let index: String = revoked
            .iter()
            .map(|(serial, field)| format!("R\t330101000000Z\t{field}\t{serial}\tunknown\t/CN=a\n"))
            .collect();
        fs::write(at.join("index.txt"), index).unwrap();
        let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
        let command =
            ["ca", "-config", "ca.cnf", "-gencrl", "-cert", &cert, "-keyfile", &key, "-out", "crl.pem"];
        let days: &[&str] = if more.contains(&"-crlsec") { &[] } else { &["-crldays", "30000"] };
        run(at, "openssl", &[&command[..], days, more].concat());
        at.join("crl.pem")
    }

    async fn import(&self, path: &Path) -> Result<Report, ImportError> {
        import(&*self.store, self.id, &self.issuer, path, NOW, &mut |_| {}).await
    }

    async fn revocation(&self, number: u8) -> Option<Revocation> {
        let serial = Serial::from_unsigned(&[number]).unwrap();
        self.store.certificate(self.id, &serial).await.unwrap().unwrap().certificate.revocation
    }
}

const P256: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

#[tokio::test]
async fn revocations_go_in_with_their_reasons_and_a_second_run_changes_nothing() {
    let ca = Ca::new(P256).await;
    let path = ca.crl(
        "ca",
        &[
            ("01", "250102030405Z,keyCompromise"),
            ("02", "250102030405Z"),
            ("03", "250102030405Z,certificateHold"),
            ("05", "250102030405Z,keyTime,20250101000000Z"),
            ("77", "250102030405Z"),
        ],
        &[],
    );
    let report = ca.import(&path).await.unwrap();
    assert_eq!((report.entries, report.changed, report.unchanged), (5, 4, 0), "{report:?}");
    assert_eq!((report.unknown.count, report.unknown.first.as_slice()), (1, &["77".to_owned()][..]));
    assert!(report.problems.is_empty() && !report.delta && report.next_update.is_some());
    assert_eq!(
        report.warnings,
        ["thisUpdate is ".to_owned() + &report.this_update + ", which is still to come"]
    );
    let at =
        |reason| Some(Revocation { time: UnixTime::parse_rfc3339("2025-01-02T03:04:05Z").unwrap(), reason });
    assert_eq!(ca.revocation(1).await, at(Some(CrlReason::KeyCompromise)));
    assert_eq!(ca.revocation(2).await, at(None));
    assert_eq!(ca.revocation(3).await, at(Some(CrlReason::CertificateHold)));
    assert_eq!(ca.revocation(5).await, at(Some(CrlReason::KeyCompromise)));
    assert_eq!(ca.revocation(4).await, None);

    let der = ca.folder.path().join("crl.der");
    run(ca.folder.path(), "openssl", &["crl", "-in", "crl.pem", "-outform", "DER", "-out", "crl.der"]);
    let again = ca.import(&der).await.unwrap();
    assert_eq!((again.changed, again.unchanged, again.unknown.count), (0, 4, 1));
}

#[tokio::test]
async fn a_certificate_that_is_revoked_otherwise_is_a_problem() {
    let ca = Ca::new(P256).await;
    let lost = Revocation { time: UnixTime(5), reason: Some(CrlReason::KeyCompromise) };
    ca.store.revoke(ca.id, &[(Serial::from_unsigned(&[1]).unwrap(), lost)]).await.unwrap();
    let report = ca.import(&ca.crl("ca", &[("01", "250102030405Z")], &[])).await.unwrap();
    assert_eq!((report.changed, report.problems.count), (0, 1));
    assert_eq!(
        report.problems.first[0].reason,
        "revoked at 2025-01-02T03:04:05Z by the CRL, and at 1970-01-01T00:00:05Z (keyCompromise) in the store, which keeps what it has"
    );
    assert_eq!(ca.revocation(1).await, Some(lost));
}

#[tokio::test]
async fn a_delta_crl_is_told_and_the_ends_of_holds_are_listed() {
    let ca = Ca::new(P256).await;
    let revoked = [("01", "250102030405Z,removeFromCRL"), ("02", "250102030405Z,superseded")];
    let report = ca.import(&ca.crl("ca", &revoked, &["-crlexts", "delta"])).await.unwrap();
    assert!(report.delta);
    assert_eq!((report.changed, report.removed.first.as_slice()), (1, &["01".to_owned()][..]));
    assert_eq!(ca.revocation(1).await, None);
}

#[tokio::test]
async fn a_crl_that_another_key_signed_is_refused() {
    let ca = Ca::new(P256).await;
    let at = ca.folder.path();
    Ca::make(at, "twin", P256);
    let error = ca.import(&ca.crl("twin", &[("01", "250102030405Z")], &[])).await.unwrap_err();
    assert!(matches!(error, ImportError::Crl { source: CrlError::BadSignature(_), .. }), "{error}");

    run(
        at,
        "openssl",
        &[
            &["req", "-x509", "-nodes", "-subj", "/CN=other", "-keyout", "other.key", "-out", "other.pem"],
            P256,
        ]
        .concat(),
    );
    let error = ca.import(&ca.crl("other", &[("01", "250102030405Z")], &[])).await.unwrap_err();
    assert!(error.to_string().ends_with("its issuer field is not the subject of \"CN=demo\""), "{error}");

    let path = ca.crl("ca", &[("01", "250102030405Z")], &[]);
    run(at, "openssl", &["crl", "-in", "crl.pem", "-outform", "DER", "-out", "crl.der"]);
    let mut der = fs::read(at.join("crl.der")).unwrap();
    let date = der.windows(13).position(|octets| octets == b"250102030405Z").unwrap();
    der[date + 11] = b'6';
    fs::write(at.join("crl.der"), der).unwrap();
    let error = ca.import(&at.join("crl.der")).await.unwrap_err();
    assert!(matches!(error, ImportError::Crl { source: CrlError::BadSignature(_), .. }), "{error}");
    assert_eq!(ca.revocation(1).await, None);
    assert_eq!(ca.import(&path).await.unwrap().changed, 1);
}

#[tokio::test]
async fn a_signature_that_cannot_be_verified_is_not_trusted() {
    let ca = Ca::new(&["-newkey", "rsa:2048"]).await;
    assert_eq!(ca.import(&ca.crl("ca", &[("01", "250102030405Z")], &[])).await.unwrap().changed, 1);
    let error = ca.import(&ca.crl("ca", &[("02", "250102030405Z")], &["-md", "sha1"])).await.unwrap_err();
    assert!(matches!(error, ImportError::Crl { source: CrlError::Unverifiable, .. }), "{error}");
    assert_eq!(ca.revocation(2).await, None);
}

#[tokio::test]
async fn a_crl_past_its_next_update_is_used_with_a_warning() {
    let ca = Ca::new(P256).await;
    let path = ca.crl("ca", &[("01", "250102030405Z")], &["-crlsec", "1"]);
    let later = UnixTime(4_000_000_000);
    let report = import(&*ca.store, ca.id, &ca.issuer, &path, later, &mut |_| {}).await.unwrap();
    assert_eq!((report.changed, report.warnings.len()), (1, 1));
    assert!(report.warnings[0].contains("a newer CRL has been issued since"), "{:?}", report.warnings);
}

#[tokio::test]
async fn an_empty_crl_and_one_of_many_portions_are_read() {
    let ca = Ca::new(P256).await;
    let report = ca.import(&ca.crl("ca", &[], &[])).await.unwrap();
    assert_eq!((report.entries, report.changed), (0, 0));
    let serials: Vec<_> = (0..PORTION * 2 + 7).map(|number| format!("{:06X}", number + 1)).collect();
    let many: Vec<_> = serials.iter().map(|serial| (serial.as_str(), "250102030405Z,superseded")).collect();
    let path = ca.crl("ca", &many, &[]);
    let mut seen = Vec::new();
    let report =
        import(&*ca.store, ca.id, &ca.issuer, &path, NOW, &mut |progress| seen.push(progress)).await.unwrap();
    assert_eq!((report.entries, report.changed), (serials.len() as u64, 6));
    assert_eq!((report.unknown.count, report.unknown.first.len()), (serials.len() as u64 - 6, 100));
    let rows: Vec<_> = seen.iter().map(|progress| progress.rows).collect();
    assert_eq!(rows, [PORTION as u64, PORTION as u64 * 2, serials.len() as u64]);
    assert!(seen.iter().all(|progress| progress.octets < progress.total), "{seen:?}");
}

#[tokio::test]
async fn what_is_no_crl_is_refused_with_its_place() {
    let ca = Ca::new(P256).await;
    let at = ca.folder.path();
    for (content, why) in [
        (&b"hello"[..], "neither DER nor a PEM file"),
        (b"", "neither DER nor a PEM file"),
        (&[0x30, 0x00], "the TBSCertList is missing or not DER"),
        (b"-----BEGIN X509 CRL-----\n??\n-----END X509 CRL-----\n", "line 1: the block is not base64"),
    ] {
        fs::write(at.join("x.crl"), content).unwrap();
        let error = ca.import(&at.join("x.crl")).await.unwrap_err().to_string();
        assert!(error.contains("x.crl: ") && error.contains(why), "{error}");
    }
    let certificate = ca.import(&at.join("ca.pem")).await.unwrap_err();
    assert!(matches!(certificate, ImportError::Crl { source: CrlError::NotFound, .. }), "{certificate}");
}

/// The parts of a CRL in DER without a signature that means anything.
fn bare_crl(entries: &[Vec<u8>]) -> Vec<u8> {
    let algorithm = crate::ocsp::SignatureAlgorithm::EcdsaP256Sha256.identifier_der();
    let list: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
    let tbs = tlv::value(
        tlv::SEQUENCE,
        &[
            &[2, 1, 1],
            algorithm,
            &[0x30, 0],
            &tlv::value(UTC_TIME, &[b"250102030405Z"]),
            &tlv::value(tlv::SEQUENCE, &list),
        ],
    );
    tlv::value(tlv::SEQUENCE, &[&tbs, algorithm, &tlv::bit_string(&[])])
}

fn entry(serial: u8, extensions: &[Vec<u8>]) -> Vec<u8> {
    let list: Vec<&[u8]> = extensions.iter().map(Vec::as_slice).collect();
    let date = tlv::value(UTC_TIME, &[b"250102030405Z"]);
    tlv::value(tlv::SEQUENCE, &[&[2, 1, serial], &date, &tlv::value(tlv::SEQUENCE, &list)])
}

fn extension(oid: &[u8], value: &[u8]) -> Vec<u8> {
    let (oid, value) = (tlv::value(tlv::OBJECT_IDENTIFIER, &[oid]), tlv::value(tlv::OCTET_STRING, &[value]));
    tlv::value(tlv::SEQUENCE, &[&oid, &[BOOLEAN, 1, 0xff], &value])
}

#[test]
fn entries_of_other_issuers_are_told_apart_until_the_own_one_is_named() {
    let named = |name: &[u8]| tlv::value(tlv::SEQUENCE, &[&tlv::value(tlv::context(4), &[name])]);
    let der = bare_crl(&[
        entry(1, &[]),
        entry(2, &[extension(CERTIFICATE_ISSUER, &named(&[0x30, 2, 5, 0]))]),
        entry(3, &[extension(REASON_CODE, &[0x0a, 1, 4])]),
        entry(4, &[extension(CERTIFICATE_ISSUER, &named(&[0x30, 0]))]),
    ]);
    let crl = Crl::from_der(&der).unwrap();
    let own: Vec<_> = crl.entries().map(|entry| entry.unwrap().own).collect();
    assert_eq!(own, [true, false, false, true]);
}

#[test]
fn a_bad_entry_says_why_and_hides_no_other() {
    let der = bare_crl(&[
        entry(1, &[extension(REASON_CODE, &[0x0a, 1, 7])]),
        vec![0x30, 0],
        vec![0x30, 3, 2, 1, 9],
        entry(2, &[]),
        vec![0x30],
    ]);
    let crl = Crl::from_der(&der).unwrap();
    let found: Vec<_> = crl.entries().map(|entry| entry.map(|entry| entry.serial.to_string())).collect();
    assert_eq!(
        found,
        [
            Err("its reason code is not one of RFC 5280"),
            Err("it has no serial number"),
            Err("it has no revocation date"),
            Ok("02".to_owned()),
            Err("it is not DER, and nothing after it can be read"),
        ]
    );
}

proptest! {
    #[test]
    fn any_octets_are_read_without_a_panic(at in 0usize..200, octet in any::<u8>(), cut in 0usize..200) {
        let mut der = bare_crl(&[entry(1, &[extension(REASON_CODE, &[0x0a, 1, 1])]), entry(2, &[])]);
        let length = der.len();
        der[at % length] = octet;
        der.truncate(length - cut % 3);
        if let Ok(crl) = Crl::from_der(&der) {
            prop_assert!(crl.entries().count() <= length);
        }
    }
}
