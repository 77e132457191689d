//! What is missing or wrong: each message names what was looked for, where, and what to do.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::ca::KeyKind;
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::site::{KEY_LABEL, SOFTHSM, Site, TOKEN_LABEL};

#[test]
fn a_wrong_pin_is_tried_exactly_once_by_a_command() {
    let site = with_wrong_pin();
    for arguments in [&["hsm", "test"][..], &["presign"], &["hsm", "bench", "--seconds", "1"]] {
        let spied = spy(&site);
        let pin_file = site.path("softhsm/pin");
        site.goodstanding(arguments).exits(1).says(&["PIN", "hsm-a", pin_file.to_str().unwrap()]);
        assert_eq!(logins(&spied), ["CKR_PIN_INCORRECT"], "{arguments:?}");
        fs::remove_file(&spied).unwrap();
    }
}

#[test]
fn a_wrong_pin_is_tried_exactly_once_by_the_server_which_goes_on_serving() {
    let site = with_wrong_pin();
    let spied = spy(&site);
    let mut server = Server::launch(&site);
    eventually("the login", Duration::from_secs(20), || (!logins(&spied).is_empty()).then_some(()));
    // Long enough for any back-off that would try again.
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(logins(&spied), ["CKR_PIN_INCORRECT"], "{}", server.log());
    let live = crate::support::http::get(site.control, "/livez").unwrap();
    assert_eq!(live.status, 200);
    assert!(server.log().contains("PIN"), "{}", server.log());
    server.terminate();
    assert!(server.wait().success());
}

#[test]
fn the_spy_counts_a_right_pin_too() {
    let mut site = Site::new(KeyKind::P256);
    use_spy(&mut site);
    let spied = spy(&site);
    site.goodstanding(&["hsm", "test"]).ok();
    assert!(logins(&spied).iter().all(|result| result == "CKR_OK"), "{:?}", logins(&spied));
    assert!(!logins(&spied).is_empty());
}

#[test]
fn a_missing_module_is_named() {
    let site = Site::new(KeyKind::P256);
    site.reconfigure(SOFTHSM, "/nowhere/libhsm.so");
    site.goodstanding(&["hsm", "test"]).exits(1).says(&["/nowhere/libhsm.so", "install", "`module`"]);
}

#[test]
fn a_missing_token_is_named_with_those_that_are_there() {
    let site = Site::new(KeyKind::P256);
    site.reconfigure(&format!("label = \"{TOKEN_LABEL}\""), "label = \"elsewhere\"");
    site.goodstanding(&["hsm", "test"]).exits(1).says(&["elsewhere", SOFTHSM, TOKEN_LABEL]);
}

#[test]
fn a_missing_key_is_named_with_its_token() {
    let site = Site::bare(KeyKind::P256);
    let request = site.path("responder.csr");
    site.goodstanding(&["responder", "csr", "--issuer", "test", "--out", request.to_str().unwrap()])
        .exits(1)
        .says(&[KEY_LABEL, "hsm-a", "goodstanding responder key"]);
    assert!(!request.exists());
}

#[test]
fn a_missing_responder_certificate_is_named_with_the_command_that_makes_it() {
    let site = Site::bare(KeyKind::P256);
    site.ca.issue("good.example.org");
    site.import_index();
    let file = site.responder_certificate();
    site.goodstanding(&["presign"]).exits(1).says(&[file.to_str().unwrap(), "goodstanding responder"]);
}

#[test]
fn a_missing_pin_file_is_named() {
    let site = Site::new(KeyKind::P256);
    let file = site.path("softhsm/pin");
    fs::remove_file(&file).unwrap();
    site.goodstanding(&["hsm", "test"]).exits(1).says(&[file.to_str().unwrap(), "hsm-a"]);
}

#[test]
fn a_certificate_that_is_not_delegated_is_refused_with_the_rule() {
    let site = Site::new(KeyKind::P256);
    let leaf = site.ca.issue("just-a-server.example.org");
    let certificate = leaf.certificate.to_str().unwrap();
    site.goodstanding(&["responder", "install", "--issuer", "test", "--certificate", certificate])
        .exits(1)
        .says(&["OCSPSigning"]);
}

/// A site whose module is a spy and whose PIN file is wrong.
fn with_wrong_pin() -> Site {
    let mut site = Site::new(KeyKind::P256);
    site.ca.issue("good.example.org");
    site.import_index();
    use_spy(&mut site);
    fs::write(site.path("softhsm/pin"), "999999\n").unwrap();
    site
}

/// Puts OpenSC's pkcs11-spy between the program and SoftHSM.
fn use_spy(site: &mut Site) {
    let spied = spy(site);
    site.environment.push(("PKCS11SPY".to_owned(), SOFTHSM.to_owned()));
    site.environment.push(("PKCS11SPY_OUTPUT".to_owned(), spied.to_str().unwrap().to_owned()));
    site.reconfigure(SOFTHSM, spy_module().to_str().unwrap());
}

fn spy(site: &Site) -> PathBuf {
    site.path("spy.log")
}

/// pkcs11-spy lies in the folder of the machine's architecture.
fn spy_module() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut modules = folders.map(|folder| folder.join("pkcs11-spy.so"));
    modules
        .find(|module| module.exists())
        .unwrap_or_else(|| panic!("no /usr/lib/*/pkcs11-spy.so: Debian has it in opensc-pkcs11"))
}

/// What C_Login returned, call by call.
fn logins(spied: &std::path::Path) -> Vec<String> {
    let log = fs::read_to_string(spied).unwrap_or_default();
    let mut results = Vec::new();
    let mut in_login = false;
    for line in log.lines() {
        if let Some((number, function)) = line.split_once(": C_") {
            in_login = function == "Login" && number.bytes().all(|byte| byte.is_ascii_digit());
        } else if in_login && line.starts_with("Returned:") {
            results.push(line.split_whitespace().nth(2).unwrap_or_default().to_owned());
            in_login = false;
        }
    }
    results
}
