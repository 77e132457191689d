use std::fs;

use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SerialNumber};

use super::*;
use crate::import::tests::{run, store_with};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca(name: &str, algorithm: &'static rcgen::SignatureAlgorithm) -> Ca {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate_for(algorithm).unwrap();
    CertifiedIssuer::self_signed(parameters, key).unwrap()
}

fn leaf(ca: &Ca, serial: u64) -> rcgen::Certificate {
    let mut parameters = CertificateParams::new(vec!["leaf.example".to_owned()]).unwrap();
    parameters.serial_number = Some(SerialNumber::from(serial));
    parameters.not_before = rcgen::date_time_ymd(2026, 1, 2);
    parameters.not_after = rcgen::date_time_ymd(2026, 3, 4);
    parameters.signed_by(&KeyPair::generate().unwrap(), ca).unwrap()
}

async fn import_paths(store: &dyn Store, paths: &[&Path]) -> Report {
    let known = KnownIssuer::of(&store.issuers().await.unwrap()).unwrap();
    let paths = paths.iter().map(|path| path.to_path_buf()).collect();
    import(store, None, known, paths, &mut |_| {}).await.unwrap()
}

#[tokio::test]
async fn bundles_files_and_folders_are_imported_once() {
    let folder = tempfile::tempdir().unwrap();
    let ca = ca("demo", &rcgen::PKCS_ECDSA_P256_SHA256);
    let (store, issuer) = store_with(folder.path(), ca.der()).await;
    let certs = folder.path().join("certs");
    fs::create_dir_all(certs.join("deep")).unwrap();
    let key = KeyPair::generate().unwrap();
    let bundle = format!(
        "Certificate:\n  0 text\n{}{}more text\n{}",
        leaf(&ca, 1).pem(),
        key.serialize_pem(),
        leaf(&ca, 2).pem()
    );
    fs::write(certs.join("bundle.pem"), bundle).unwrap();
    fs::write(certs.join("deep/one.der"), leaf(&ca, 3).der()).unwrap();
    fs::write(certs.join("deep/key.der"), key.serialize_der()).unwrap();
    fs::write(certs.join("deep/index.txt"), "V\t261231235959Z\t\t01\tunknown\t/CN=a\n").unwrap();
    fs::write(certs.join("0.pem"), format!("0 is the octet of a SEQUENCE\n{}", leaf(&ca, 4).pem())).unwrap();
    let mut seen = Vec::new();
    let known = KnownIssuer::of(&store.issuers().await.unwrap()).unwrap();
    let report =
        import(&*store, None, known, vec![certs.clone()], &mut |progress| seen.push(progress)).await.unwrap();
    assert_eq!(report.outcome, Outcome { added: 4, changed: 0, unchanged: 0 });
    assert_eq!((report.files, report.other_files, report.certificates, report.other_blocks), (3, 2, 4, 1));
    assert!(report.problems.is_empty() && report.foreign.is_empty(), "{report:?}");
    assert_eq!((seen[0].rows, seen[0].octets), (4, seen[0].total));
    let third = store.certificate(issuer, &"03".parse().unwrap()).await.unwrap().unwrap().certificate;
    assert_eq!(third.not_before, Some(UnixTime::parse_rfc3339("2026-01-02T00:00:00Z").unwrap()));
    assert_eq!(third.not_after, UnixTime::parse_rfc3339("2026-03-04T00:00:00Z").unwrap());
    let again = import_paths(&*store, &[&certs, &certs.join("0.pem")]).await;
    assert_eq!(again.outcome, Outcome { added: 0, changed: 0, unchanged: 4 });
}

#[tokio::test]
async fn issuers_of_one_name_are_told_apart_by_their_keys() {
    let folder = tempfile::tempdir().unwrap();
    let algorithms = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_ECDSA_P256_SHA256,
    ];
    let cas: Vec<Ca> = algorithms.into_iter().map(|algorithm| ca("same", algorithm)).collect();
    let (store, first) = store_with(folder.path(), cas[0].der()).await;
    let second = store.add_issuer("second", cas[1].der()).await.unwrap().id;
    let third = store.add_issuer("third", cas[2].der()).await.unwrap().id;
    let bundle: String = (1..).zip(&cas).map(|(serial, ca)| leaf(ca, serial).pem()).collect();
    let path = folder.path().join("bundle.pem");
    fs::write(&path, bundle).unwrap();
    let report = import_paths(&*store, &[&path]).await;
    assert_eq!((report.outcome.added, report.foreign.count), (3, 1));
    for (number, issuer) in (1u8..).zip([first, second, third]) {
        let serial = crate::ocsp::Serial::from_unsigned(&[number]).unwrap();
        assert!(store.certificate(issuer, &serial).await.unwrap().is_some());
        assert_eq!(store.counts(issuer, UnixTime(0)).await.unwrap().unexpired, 1);
    }
    let foreign = &report.foreign.first[0];
    assert_eq!((foreign.serial.as_str(), foreign.issuer.as_str()), ("04", "CN=same"));
    assert!(foreign.place.contains("bundle.pem, line ") && foreign.subject.contains("CN="), "{foreign:?}");
}

#[tokio::test]
async fn a_signature_that_cannot_be_verified_is_replaced_by_the_key_identifiers() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for name in ["ca", "twin"] {
        let (key, out) = (format!("{name}.key"), format!("{name}.pem"));
        run(
            at,
            "openssl",
            &[
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &out, "-subj",
                "/CN=old",
            ],
        );
    }
    run(
        at,
        "openssl",
        &[
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "leaf.key", "-out", "leaf.csr", "-subj",
            "/CN=leaf",
        ],
    );
    let sign = |ca: &str, hash: &str, serial: &str, extensions: &str| {
        fs::write(at.join("x.cnf"), extensions).unwrap();
        let (cert, key) = (format!("{ca}.pem"), format!("{ca}.key"));
        let out = format!("{serial}.crt");
        run(
            at,
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                "leaf.csr",
                "-CA",
                &cert,
                "-CAkey",
                &key,
                hash,
                "-set_serial",
                serial,
                "-extfile",
                "x.cnf",
                "-out",
                &out,
            ],
        );
        at.join(out)
    };
    let identified = "authorityKeyIdentifier=keyid:always\n";
    let bare = "authorityKeyIdentifier=none\nsubjectKeyIdentifier=none\n";
    let paths = [
        sign("ca", "-sha1", "1", identified),
        sign("ca", "-sha1", "2", bare),
        sign("twin", "-sha1", "3", identified),
        sign("ca", "-sha256", "4", bare),
        sign("ca", "-sha512", "5", bare),
        sign("twin", "-sha384", "6", identified),
    ];
    let der = run(at, "openssl", &["x509", "-in", "ca.pem", "-outform", "DER"]);
    let (store, issuer) = store_with(at, &der).await;
    let report = import_paths(&*store, &paths.each_ref().map(PathBuf::as_path)).await;
    let foreign: Vec<_> = report.foreign.first.iter().map(|foreign| foreign.serial.as_str()).collect();
    assert_eq!(foreign, ["02", "03", "06"]);
    assert_eq!(report.outcome.added, 3);
    for serial in ["01", "04", "05"] {
        assert!(store.certificate(issuer, &serial.parse().unwrap()).await.unwrap().is_some(), "{serial}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_listed_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let ca = ca("demo", &rcgen::PKCS_ECDSA_P256_SHA256);
    let (store, _) = store_with(folder.path(), ca.der()).await;
    fs::write(
        at("bad.pem"),
        format!("-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n??\n-----END CERTIFICATE-----\n{}", leaf(&ca, 1).pem()),
    )
    .unwrap();
    fs::write(at("bad.crt"), [0x30, 0x00]).unwrap();
    fs::write(at("empty.pem"), "").unwrap();
    let names = ["bad.pem", "bad.crt", "empty.pem", "absent.pem"].map(at);
    let report = import_paths(&*store, &names.each_ref().map(PathBuf::as_path)).await;
    assert_eq!((report.outcome.added, report.problems.count), (1, 5), "{:?}", report.problems);
    let places: Vec<_> =
        report.problems.first.iter().map(|problem| problem.place.rsplit('/').next().unwrap()).collect();
    assert_eq!(places, ["absent.pem", "bad.pem, line 1", "bad.pem, line 4", "bad.crt", "empty.pem"]);
    assert!(report.problems.first[2].reason.contains("not base64"));
}

#[tokio::test]
async fn every_certificate_that_debian_ships_is_read() {
    let bundle = Path::new("/etc/ssl/certs/ca-certificates.crt");
    assert!(bundle.exists(), "install ca-certificates");
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = store_with(folder.path(), ca("demo", &rcgen::PKCS_ECDSA_P256_SHA256).der()).await;
    let report = import_paths(&*store, &[bundle]).await;
    assert!(report.problems.is_empty(), "{:?}", report.problems.first);
    assert!(report.certificates > 50 && report.foreign.count == report.certificates, "{report:?}");
}

#[tokio::test]
async fn more_certificates_than_a_portion_holds_go_in_whole() {
    let folder = tempfile::tempdir().unwrap();
    let ca = ca("demo", &rcgen::PKCS_ECDSA_P256_SHA256);
    let (store, issuer) = store_with(folder.path(), ca.der()).await;
    let path = folder.path().join("bundle.pem");
    // One certificate, often: each is read and verified, and registered again.
    fs::write(&path, leaf(&ca, 1).pem().repeat(PORTION + 5)).unwrap();
    let report = import_paths(&*store, &[&path]).await;
    assert_eq!(report.outcome, Outcome { added: 1, changed: 0, unchanged: PORTION as u64 + 4 });
    assert_eq!(store.counts(issuer, UnixTime(0)).await.unwrap().expired, 0);
}
