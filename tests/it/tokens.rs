//! Several tokens for one issuer, in the running program.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::ca::{KeyKind, utf8};
use crate::support::command::{run, sh};
use crate::support::faulty::{Control, Fault, FaultyToken, Function, Hex};
use crate::support::server::Server;
use crate::support::site::{ISSUER, KEY_LABEL, SOFTHSM, Site, TOKEN_LABEL, root};
use crate::support::{eventually, http};

const PATIENCE: Duration = Duration::from_secs(60);
/// What a p11-kit server is spoken to through.
const P11_KIT: &str = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so";
/// Signatures a second of each token: both are at work for a while, on any machine.
const CAP: u32 = 50;

/// A configuration with a second token, and this for the responders.
fn two_tokens(site: &Site, module: &str, responders: &str) {
    let pin = site.path("softhsm/pin");
    let second = format!(
        "max_rate = {CAP}\n[[token]]\nname = \"hsm-b\"\nmodule = \"{module}\"\nlabel = \"second\"\npin_file = \"{}\"\nmax_rate = {CAP}\n[[issuer]]",
        pin.display()
    );
    let text = site.default_configuration().replace("[[issuer]]", &second);
    site.configure(&format!("{text}{responders}"));
    run(Command::new(root().join("softhsm/token")).arg(site.path("softhsm")).arg("second")).ok();
}

fn responder(token: &str, key: &str, certificate: &str) -> String {
    format!(
        "  [[issuer.responder]]\n  token = \"{token}\"\n  key = \"{key}\"\n  certificate = \"{certificate}\"\n"
    )
}

/// Certificates that were issued, by an `index.txt` of them.
fn import(site: &Site, count: u32) {
    let lines: String = (1..=count)
        .map(|number| format!("V\t351231235959Z\t\t{number:08X}\tunknown\t/CN={number}\n"))
        .collect();
    let file = site.path("fleet.txt");
    fs::write(&file, lines).unwrap();
    site.goodstanding(&["import", "index", utf8(&file), "--issuer", ISSUER]).ok();
}

/// What each token has signed, by its metric.
fn signed(site: &Site) -> BTreeMap<String, u64> {
    let Ok(reply) = http::get(site.control, "/metrics") else { return BTreeMap::new() };
    let text = String::from_utf8(reply.body).unwrap();
    let of_tokens =
        text.lines().filter_map(|line| line.strip_prefix("goodstanding_token_signatures_total{token=\""));
    of_tokens
        .filter_map(|line| line.split_once("\"} "))
        .map(|(token, count)| (token.to_owned(), count.parse().unwrap()))
        .collect()
}

/// Runs the server until every certificate has its answer; what each token signed.
fn serve_until_signed(site: &Site, count: u32) -> BTreeMap<String, u64> {
    let mut server = Server::launch(site);
    let (signed, _) = eventually("every answer", PATIENCE, || {
        let signed = signed(site);
        (signed.values().sum::<u64>() >= u64::from(count)).then_some(signed)
    });
    let metrics = String::from_utf8(http::get(site.control, "/metrics").unwrap().body).unwrap();
    for figure in [
        "token_state{token=\"hsm-a\",state=\"serving\"} 1",
        "token_state{token=\"hsm-b\",state=\"down\"} 0",
        "token_queued{token=\"hsm-a\",lane=\"revocation\"} 0",
        "token_oldest_wait_seconds{token=\"hsm-b\",lane=\"refresh\"}",
        "token_expected_wait_seconds{token=\"hsm-b\",lane=\"live\"}",
        "token_signature_seconds_bucket{le=\"+Inf\",token=\"hsm-a\"}",
        "token_timeouts_total{token=\"hsm-a\"} 0",
    ] {
        assert!(metrics.contains(&format!("\ngoodstanding_{figure}")), "{figure} is not in\n{metrics}");
    }
    for rate in metrics.lines().filter_map(|line| line.strip_prefix("goodstanding_token_rate{")) {
        let (token, rate) = rate.split_once("} ").unwrap();
        let rate: f64 = rate.parse().unwrap();
        assert!((rate / f64::from(CAP) - 1.0).abs() < 0.2, "{token}: {rate} at a cap of {CAP}");
    }
    assert!(!server.log().contains("ERROR"), "{}", server.log());
    server.terminate();
    assert!(server.wait().success());
    signed
}

fn both_signed(signed: &BTreeMap<String, u64>) {
    let counts: Vec<u64> = signed.values().copied().collect();
    assert!(counts.len() == 2 && counts.iter().all(|count| *count >= 50), "{signed:?}");
}

#[test]
fn a_cloned_key_signs_on_both_tokens_under_one_certificate() {
    let site = Site::bare(KeyKind::P256);
    let certificate = site.responder_certificate();
    two_tokens(&site, SOFTHSM, &responder("hsm-b", "the clone", utf8(&certificate)));
    // Made outside, as by a key ceremony, and taken into both.
    let key = site.path("key.pem");
    sh(
        "openssl",
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", utf8(&key)],
    )
    .ok();
    let pin = fs::read_to_string(site.path("softhsm/pin")).unwrap();
    for (token, label) in [(TOKEN_LABEL, KEY_LABEL), ("second", "the clone")] {
        let mut import = Command::new("softhsm2-util");
        import.args(["--import", utf8(&key), "--token", token, "--label", label, "--id", "0a"]);
        run(import.args(["--pin", pin.trim()]).envs(site.environment.iter().cloned())).ok();
    }
    let request = site.path("responder.csr");
    let csr = ["responder", "csr", "--issuer", ISSUER, "--token", "hsm-a", "--out", utf8(&request)];
    site.goodstanding(&csr).ok();
    site.certify(&request);
    site.goodstanding(&["hsm", "test"]).ok().says(&["in token hsm-a", "the clone in token hsm-b"]);
    assert_eq!(site.json(&["responder", "list"]).as_array().unwrap().len(), 1, "one certificate, one number");
    import(&site, 250);
    both_signed(&serve_until_signed(&site, 250));
    site.goodstanding(&["presign"]).ok().says(&["0 of 250"]);
}

#[test]
fn tokens_with_a_key_each_sign_side_by_side() {
    let site = Site::new(KeyKind::P256);
    let other = site.path("other.pem");
    two_tokens(&site, SOFTHSM, &responder("hsm-b", "ocsp-test-2", utf8(&other)));
    let own = |command: &'static str| vec!["responder", command, "--issuer", ISSUER, "--token", "hsm-b"];
    site.goodstanding(&own("key")).ok();
    let request = site.path("other.csr");
    site.goodstanding(&[&own("csr")[..], &["--out", utf8(&request)]].concat()).ok();
    let certify = ["responder", "certify", "--issuer", ISSUER, "--csr", utf8(&request)];
    let ca_key = site.ca.key();
    site.goodstanding(&[&certify[..], &["--ca-key", utf8(&ca_key), "--out", utf8(&other)]].concat()).ok();
    import(&site, 250);
    both_signed(&serve_until_signed(&site, 250));
    assert_eq!(site.json(&["responder", "list"]).as_array().unwrap().len(), 2);
}

#[test]
fn a_token_that_hangs_at_the_start_holds_no_other_up() {
    let mut site = Site::new(KeyKind::P256);
    let certificate = site.responder_certificate();
    two_tokens(&site, P11_KIT, &responder("hsm-b", "the clone", utf8(&certificate)));
    let socket = site.path("socket");
    let mut hsm = Command::new("p11-kit")
        .args(["server", "-f", "-n", utf8(&socket), "--provider", SOFTHSM, "pkcs11:token=second"])
        .envs(site.environment.iter().cloned())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the HSM", PATIENCE, || socket.exists().then_some(()));
    sh("sh", &["-c", &format!("kill -STOP {}", hsm.id())]).ok();
    site.environment.push(("P11_KIT_SERVER_ADDRESS".to_owned(), format!("unix:path={}", socket.display())));
    import(&site, 20);
    let mut server = Server::launch(&site);
    // Logging in to the other one is given up only after 10 s, and the key is asked for after that.
    eventually("the answers", Duration::from_secs(8), || {
        (signed(&site).get("hsm-a").is_some_and(|signed| *signed >= 20)).then_some(())
    });
    assert!(!server.log().contains("hsm-b"), "still in the call: {}", server.log());
    hsm.kill().unwrap();
    hsm.wait().unwrap();
    server.terminate();
    assert!(server.wait().success());
}

#[test]
fn a_missing_module_is_told_with_its_token_and_the_other_one_signs() {
    let site = Site::new(KeyKind::P256);
    let certificate = site.responder_certificate();
    two_tokens(&site, "/nowhere/libhsm.so", &responder("hsm-b", "the clone", utf8(&certificate)));
    site.goodstanding(&["hsm", "test"]).exits(1).says(&[
        "[[token]] hsm-b",
        "/nowhere/libhsm.so",
        "install",
        "in token hsm-a",
    ]);
    import(&site, 20);
    site.goodstanding(&["presign"]).ok().says(&["20 answers signed"]);
}

/// Whatever the token says of it, with a code for items or with one for broken tokens.
#[test]
fn a_message_that_the_token_cannot_sign_fails_alone() {
    const POISON: &str = "4AC0FFEE12345678";
    let mut site = Site::new(KeyKind::Rsa2048);
    let configuration = site.default_configuration();
    let faulty = FaultyToken::under(&mut site, &configuration);
    let message = Hex(vec![0x4a, 0xc0, 0xff, 0xee, 0x12, 0x34, 0x56, 0x78]);
    for (round, code) in
        ["CKR_DATA_LEN_RANGE", "CKR_FUNCTION_FAILED", "CKR_GENERAL_ERROR", "CKR_DEVICE_ERROR", "0x80000001"]
            .into_iter()
            .enumerate()
    {
        let certificates: String = (1..=20)
            .map(|number| format!("{round}{number:07X}"))
            .chain([format!("{POISON}{round:02X}")])
            .map(|serial| format!("V\t351231235959Z\t\t4A{serial}\tunknown\t/CN={serial}\n"))
            .collect();
        let file = site.path("fleet.txt");
        fs::write(&file, certificates).unwrap();
        site.goodstanding(&["import", "index", utf8(&file), "--issuer", ISSUER]).ok();
        let poison = Fault { message: Some(message.clone()), ..Fault::fails(&[Function::C_Sign], code) };
        // With the mechanism that hashes in the token, which then sees the whole message.
        faulty.set(&Control { faults: vec![poison], hidden_mechanisms: vec![1], ..faulty.sound() });
        let initialised = faulty.count(Function::C_Initialize).called;
        let signed = site.goodstanding(&["presign"]).says(&["20 answers signed", "1 FAILED"]);
        let initialised = faulty.count(Function::C_Initialize).called - initialised;
        assert_eq!(initialised, 1, "{code}: the token was not to blame\n{}", signed.transcript());
        faulty.set(&Control { hidden_mechanisms: vec![1], ..faulty.sound() });
        site.goodstanding(&["presign"]).ok().says(&["1 answers signed"]);
    }
}
