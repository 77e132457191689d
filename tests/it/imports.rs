//! Imports of real files: EasyRSA's and OpenSSL's index, certificates, bundles, CRLs.

use std::path::PathBuf;
use std::process::Command;

use goodstanding::clock::UnixTime;
use serde_json::Value;

use crate::support::ca::{KeyKind, utf8};
use crate::support::command::run;
use crate::support::site::{ISSUER, Site, document};

#[test]
fn an_easyrsa_index_brings_its_valid_revoked_and_expired_certificates() {
    let site = Site::bare(KeyKind::P256);
    let pki = easyrsa(&site);
    let authority = pki.join("ca.crt");
    site.goodstanding(&["issuer", "add", "--name", "easy", "--certificate", utf8(&authority)]).ok();
    let index = pki.join("index.txt");
    let import = ["import", "index", utf8(&index), "--issuer", "easy"];

    let first = site.json(&import);
    assert_eq!(counts(&first), (3, 0, 0), "{first}");
    let text = std::fs::read_to_string(&index).unwrap();
    for row in text.lines() {
        let columns: Vec<&str> = row.split('\t').collect();
        let explained = site.json(&["explain", "--issuer", "easy", "--serial", columns[3]]);
        match columns[0] {
            "V" => assert_eq!(explained["status"], "good", "{explained}"),
            "R" => {
                assert_eq!(explained["status"], "revoked", "{explained}");
                assert_eq!(explained["reason"], "keyCompromise", "{explained}");
                let time = columns[2].split(',').next().unwrap();
                let time = chrono::NaiveDateTime::parse_from_str(time, "%y%m%d%H%M%SZ").unwrap();
                let expected = UnixTime::from(time.and_utc()).to_string();
                assert_eq!(explained["revoked_at"], expected, "{explained}");
            }
            "E" => assert_eq!(explained["not_after"], "2025-04-01T00:00:00Z", "{explained}"),
            other => panic!("{other:?} in {row}"),
        }
    }

    let second = site.json(&import);
    assert_eq!(counts(&second), (0, 0, 3), "{second}");
}

#[test]
fn importing_certificates_index_and_crl_agrees_and_a_second_run_changes_nothing() {
    let site = Site::bare(KeyKind::P256);
    let (good, bad) = (site.ca.issue("good.example.org"), site.ca.issue("bad.example.org"));
    let folder = site.ca.file("new");
    let certificates = ["import", "certs", utf8(&folder)];
    assert_eq!(counts(&site.json(&certificates)), (2, 0, 0));
    assert_eq!(counts(&site.json(&certificates)), (0, 0, 2));

    let at = site.ca.revoke(&bad, "superseded");
    let crl = site.ca.crl();
    let revocations = ["import", "crl", utf8(&crl), "--issuer", ISSUER];
    assert_eq!(revoked(&site.json(&revocations)), (Some(1), Some(0)));
    let explained = site.explain(&bad.serial);
    assert_eq!(explained["reason"], "superseded", "{explained}");
    assert_eq!(explained["revoked_at"], at.to_string(), "{explained}");
    assert_eq!(site.explain(&good.serial)["status"], "good");

    let index = site.import_index();
    assert_eq!(counts(&index), (0, 0, 2), "the index says the same: {index}");
    assert_eq!(revoked(&site.json(&revocations)), (Some(0), Some(1)));
}

#[test]
fn every_certificate_of_debians_bundle_parses() {
    let site = Site::bare(KeyKind::P256);
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    let present = std::fs::read_to_string(bundle).unwrap().matches("BEGIN CERTIFICATE").count() as u64;
    assert!(present > 50, "the bundle has only {present} certificates");
    // None of them is this site's issuer's, so nothing goes in; each is read, none is a problem.
    let ran = run(site.command().args(["--json", "import", "certs", bundle])).exits(3);
    let report = document(&ran);
    assert_eq!(report["certificates"].as_u64(), Some(present), "{report}");
    assert_eq!(report["foreign"]["count"].as_u64(), Some(present), "{report}");
    assert_eq!(report["problems"]["count"].as_u64(), Some(0), "{report}");
    assert_eq!(counts(&report), (0, 0, 0), "{report}");
}

#[test]
fn bad_lines_are_named_by_number_and_the_good_ones_go_in() {
    let site = Site::bare(KeyKind::P256);
    let leaf = site.ca.issue("good.example.org");
    let good = std::fs::read_to_string(site.ca.index()).unwrap();
    let file = site.path("mixed.txt");
    let mixed = format!("nonsense\n{good}V\t301231235959Z\t\tXYZ\tunknown\t/CN=bad serial\n");
    std::fs::write(&file, mixed).unwrap();
    let import = ["import", "index", utf8(&file), "--issuer", ISSUER];
    site.goodstanding(&import).exits(3).says(&["line 1: ", "line 3: "]);
    let report = document(&run(site.command().arg("--json").args(import)).exits(3));
    assert_eq!(counts(&report), (0, 0, 1), "the good one went in the first time: {report}");
    let bad = report["problems"]["first"].as_array().unwrap();
    let places: Vec<_> = bad.iter().map(|problem| problem["place"].as_str().unwrap()).collect();
    assert_eq!(places, ["line 1", "line 3"], "{report}");
    assert_eq!(site.explain(&leaf.serial)["status"], "good");
}

/// Changed and unchanged by a CRL, which adds nothing.
fn revoked(report: &Value) -> (Option<u64>, Option<u64>) {
    (report["changed"].as_u64(), report["unchanged"].as_u64())
}

/// Added, changed, unchanged.
fn counts(report: &Value) -> (u64, u64, u64) {
    let count = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("no {name} in {report}"));
    (count("added"), count("changed"), count("unchanged"))
}

/// A PKI run by EasyRSA with a valid, a revoked and an expired certificate.
fn easyrsa(site: &Site) -> PathBuf {
    let pki = site.path("pki");
    let easyrsa = |arguments: &[&str]| {
        let mut command = Command::new("/usr/share/easy-rsa/easyrsa");
        command.current_dir(site.path("")).args(arguments).env("EASYRSA_BATCH", "1");
        command.env("EASYRSA_PKI", &pki).env("EASYRSA_ALGO", "ec").env("EASYRSA_CURVE", "prime256v1");
        run(command.env("EASYRSA_REQ_CN", "EasyRSA Test CA")).ok();
    };
    easyrsa(&["init-pki"]);
    easyrsa(&["build-ca", "nopass"]);
    let client = |name: &str, options: &[&str]| {
        // The name of the authority is not the client's.
        let mut command = Command::new("/usr/share/easy-rsa/easyrsa");
        command.current_dir(site.path("")).args(options).args(["build-client-full", name, "nopass"]);
        command.env("EASYRSA_BATCH", "1").env("EASYRSA_PKI", &pki);
        run(command.env("EASYRSA_ALGO", "ec").env("EASYRSA_CURVE", "prime256v1")).ok();
    };
    client("valid", &[]);
    client("revoked", &[]);
    easyrsa(&["revoke", "revoked", "keyCompromise"]);
    // EasyRSA counts days from today; its OpenSSL configuration can name other dates.
    let original = std::fs::read_to_string(pki.join("openssl-easyrsa.cnf")).unwrap();
    let dates = "[ CA_default ]\ndefault_startdate = 20250101000000Z\ndefault_enddate = 20250401000000Z";
    let past = pki.join("past.cnf");
    std::fs::write(&past, original.replacen("[ CA_default ]", dates, 1)).unwrap();
    client("expired", &[&format!("--ssl-conf={}", past.display())]);
    easyrsa(&["update-db"]);
    pki
}
