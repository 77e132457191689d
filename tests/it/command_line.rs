//! Exit statuses, JSON output and the configuration's errors, as scripts hold on to them.

use crate::support::ca::{KeyKind, utf8};
use crate::support::command::run;
use crate::support::site::{ISSUER, Site, document};

#[test]
fn wrong_usage_exits_2() {
    let site = Site::bare(KeyKind::P256);
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["presign", "--within"],
        &["import", "index"],
        &["revoke", "--issuer", ISSUER],
    ] {
        site.goodstanding(arguments).exits(2).says(&["--help"]);
    }
    site.goodstanding(&["--help"]).ok().says(&["presign", "serve", "revoke"]);
    site.goodstanding(&["--version"]).ok().says(&[env!("CARGO_PKG_VERSION")]);
}

#[test]
fn a_configuration_that_is_not_there_exits_2_and_is_named() {
    let site = Site::bare(KeyKind::P256);
    std::fs::remove_file(site.path("goodstanding.toml")).unwrap();
    site.goodstanding(&["issuer", "list"]).exits(2).says(&["goodstanding.toml"]);
}

#[test]
fn every_error_of_a_configuration_is_listed_with_file_and_line() {
    let site = Site::bare(KeyKind::P256);
    let text = site
        .default_configuration()
        .replace("[ocsp]\n", "[ocsp]\nlissten = 3\n")
        .replace("validity = \"7d\"", "validity = \"11d\"")
        .replace("sessions = 2", "sessions = 0")
        .replace("token = \"hsm-a\"", "token = \"hsm-b\"");
    site.configure(&text);
    let line = |part: &str| text.lines().position(|line| line.contains(part)).unwrap() + 1;
    let ran = site.goodstanding(&["config", "check"]).exits(2);
    for (part, said) in
        [("lissten", "lissten"), ("sessions = 0", "sessions"), ("hsm-b", "hsm-b"), ("[policy]", "4.9.")]
    {
        let at = format!("goodstanding.toml:{}:", line(part));
        let found = ran.err().lines().any(|line| line.contains(&at) && line.contains(said));
        // A policy is judged as a whole, so its line may be the section's or the setting's.
        let elsewhere = part == "[policy]" && ran.err().contains(said);
        assert!(found || elsewhere, "{at} … {said}\n{}", ran.transcript());
    }
    // Every command refuses it just so.
    site.goodstanding(&["issuer", "list"]).exits(2).says(&["lissten", "hsm-b"]);
}

#[test]
fn the_effective_configuration_is_printed_without_secrets() {
    let site = Site::new(KeyKind::P256);
    let pin = std::fs::read_to_string(site.path("softhsm/pin")).unwrap();
    let printed = site.goodstanding(&["config", "print"]).ok().says(&["web-pki", "unknown_serial", "hsm-a"]);
    assert!(!printed.text().contains(pin.trim()), "the PIN is in {}", printed.out());
    // What is printed is a configuration itself.
    site.configure(&printed.out());
    site.goodstanding(&["config", "check"]).ok();
}

#[test]
fn what_cannot_be_done_exits_1() {
    let site = Site::new(KeyKind::P256);
    site.goodstanding(&["import", "index", "/nowhere/index.txt", "--issuer", ISSUER])
        .exits(1)
        .says(&["/nowhere/index.txt"]);
    site.goodstanding(&["revoke", "--issuer", ISSUER, "--serial", "0badcafe"]).exits(1).says(&["badcafe"]);
    site.goodstanding(&["explain", "--issuer", "nobody", "--serial", "01"])
        .exits(1)
        .says(&["nobody", ISSUER]);
}

#[test]
fn json_is_one_document_on_standard_output() {
    let site = Site::new(KeyKind::P256);
    let leaf = site.ca.issue("good.example.org");
    site.import_index();
    let authority = site.ca.certificate();
    let commands: [&[&str]; 10] = [
        &["presign"],
        &["issuer", "list"],
        &["issuer", "add", "--name", ISSUER, "--certificate", utf8(&authority)],
        &["responder", "list"],
        &["explain", "--issuer", ISSUER, "--serial", &leaf.serial],
        &["hsm", "list"],
        &["hsm", "test"],
        &["config", "check"],
        &["config", "print"],
        &["revoke", "--issuer", ISSUER, "--serial", &leaf.serial, "--reason", "superseded"],
    ];
    for arguments in commands {
        // Logs are asked for to see that they go elsewhere.
        let ran = run(site.command().args(["--json", "-v"]).args(arguments)).ok();
        let document = document(&ran);
        assert!(document.is_object() || document.is_array(), "{arguments:?}: {document}");
    }
}

#[test]
fn a_failure_under_json_leaves_the_message_on_standard_error() {
    let site = Site::bare(KeyKind::P256);
    let ran = site.goodstanding(&["--json", "explain", "--issuer", ISSUER, "--serial", "01"]).exits(1);
    assert!(ran.err().contains("01"), "{}", ran.transcript());
}

#[test]
fn a_revocation_is_for_good_but_a_hold_can_be_taken_back() {
    let site = Site::new(KeyKind::P256);
    // The web PKI knows no hold (BR 7.2.2).
    site.reconfigure("preset = \"web-pki\"", "preset = \"private\"");
    let leaf = site.ca.issue("good.example.org");
    site.import_index();
    let about = ["--issuer", ISSUER, "--serial", &leaf.serial];
    let run = |command: &[&str]| site.goodstanding(&[&command[..1], &about, &command[1..]].concat());

    run(&["revoke", "--reason", "certificateHold", "--at", "2026-01-02T03:04:05Z"]).ok();
    let held = site.explain(&leaf.serial);
    assert_eq!(held["revoked_at"], "2026-01-02T03:04:05Z", "{held}");
    run(&["unhold"]).ok();
    assert_eq!(site.explain(&leaf.serial)["status"], "good");

    run(&["revoke", "--reason", "keyCompromise"]).ok();
    run(&["unhold"]).exits(1);
    assert_eq!(site.explain(&leaf.serial)["status"], "revoked");
}

#[test]
fn completions_and_the_manual_page_are_printed() {
    let site = Site::bare(KeyKind::P256);
    site.goodstanding(&["completions", "bash"]).ok().says(&["_goodstanding", "presign"]);
    site.goodstanding(&["man"]).ok().says(&[".TH", "presign"]);
}
