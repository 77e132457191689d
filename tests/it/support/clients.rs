//! OCSP clients that we did not write, and what each of them said of a certificate.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::NaiveDateTime;
use goodstanding::clock::UnixTime;
use serde_json::Value;

use super::ca::{Leaf, TestCa, utf8};
use super::command::{Ran, sh};
use super::http;
use super::site::root;

/// A client's reading of a verified answer. What a client does not print is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    Revoked { at: Option<UnixTime>, reason: Option<String> },
    Unknown,
}

impl Verdict {
    /// Revoked at a time for a reason.
    pub(crate) fn revoked(at: UnixTime, reason: &str) -> Self {
        Self::Revoked { at: Some(at), reason: Some(reason.to_owned()) }
    }
}

/// The hash in the CertID that `openssl ocsp` asks with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AskWith {
    /// OpenSSL's default.
    Sha1,
    Sha256,
}

impl AskWith {
    fn option(self) -> &'static str {
        match self {
            Self::Sha1 => "-sha1",
            Self::Sha256 => "-sha256",
        }
    }
}

/// `openssl ocsp`, which asks by POST.
pub(crate) fn openssl_post(url: &str, ca: &TestCa, leaf: &Leaf, hash: AskWith) -> Verdict {
    openssl_verdict(&openssl(ca, leaf, hash, &["-url", url]).ok())
}

/// `openssl ocsp -reqout`, GET by hand, `openssl ocsp -respin`.
pub(crate) fn openssl_get(port: u16, ca: &TestCa, leaf: &Leaf, hash: AskWith) -> Verdict {
    let request = request(ca, leaf, hash);
    let path: String = STANDARD.encode(request).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let reply = http::get(port, &format!("/{path}")).unwrap();
    assert_eq!(reply.status, 200);
    let answer = scratch(leaf, "get.der");
    std::fs::write(&answer, reply.body).unwrap();
    openssl_verdict(&openssl(ca, leaf, hash, &["-respin", utf8(&answer)]).ok())
}

/// An OCSPRequest as OpenSSL writes it, without a nonce.
pub(crate) fn request(ca: &TestCa, leaf: &Leaf, hash: AskWith) -> Vec<u8> {
    let file = scratch(leaf, "request.der");
    openssl(ca, leaf, hash, &["-reqout", utf8(&file)]).ok();
    std::fs::read(file).unwrap()
}

/// The octets of the answer about a certificate, as POST gets them.
pub(crate) fn answer(port: u16, ca: &TestCa, leaf: &Leaf) -> Vec<u8> {
    let reply = http::post(port, &request(ca, leaf, AskWith::Sha1)).unwrap();
    assert_eq!(reply.status, 200);
    reply.body
}

/// GnuTLS's `ocsptool --ask`; it prints no reason.
pub(crate) fn ocsptool(url: &str, ca: &TestCa, leaf: &Leaf) -> Verdict {
    let (ask, authority) = (format!("--ask={url}"), ca.certificate());
    let authority = utf8(&authority);
    let files = ["--load-issuer", authority, "--load-cert", utf8(&leaf.certificate)];
    let ran = sh("ocsptool", &[&[ask.as_str()], &files[..], &["--load-trust", authority]].concat())
        .ok()
        .says(&["Verifying OCSP Response: Success."]);
    let at = field(&ran, "Revocation time:").map(|text| time(&text, "%a %b %e %H:%M:%S UTC %Y"));
    verdict(&field(&ran, "Certificate Status:").unwrap_or_else(|| panic!("{}", ran.transcript())), at, None)
}

/// NSS's `ocspclnt`, with the responder's address from the certificate itself. Its exit status is 0
/// whatever it finds, and it prints neither time nor reason.
pub(crate) fn ocspclnt(ca: &TestCa, leaf: &Leaf) -> Verdict {
    let database = nss_database(ca, leaf);
    let at = format!("sql:{}", database.display());
    let text = sh("ocspclnt", &["-S", "leaf", "-d", &at]).ok().text();
    if text.contains("Check of certificate \"leaf\" succeeded.") {
        Verdict::Good
    } else if text.contains("Peer's Certificate has been revoked.") {
        Verdict::Revoked { at: None, reason: None }
    } else {
        panic!("ocspclnt said neither good nor revoked: {text}")
    }
}

fn nss_database(ca: &TestCa, leaf: &Leaf) -> PathBuf {
    let database = scratch(leaf, "nss");
    if !database.exists() {
        std::fs::create_dir_all(&database).unwrap();
        let at = format!("sql:{}", database.display());
        sh("certutil", &["-N", "-d", &at, "--empty-password"]).ok();
        let authority = ca.certificate();
        let add = |name, trust, file: &Path| {
            sh("certutil", &["-A", "-d", &at, "-n", name, "-t", trust, "-a", "-i", utf8(file)]).ok();
        };
        add("ca", "CT,C,C", &authority);
        add("leaf", ",,", &leaf.certificate);
    }
    database
}

/// Python's cryptography reads an answer and verifies its signature with the delegated certificate
/// that it carries.
pub(crate) fn python_cryptography(answer: &Path) -> (Verdict, Value) {
    let script = root().join("tests/it/support/read_answer.py");
    let ran = sh(utf8(&python("python")), &[script.as_path(), answer]).ok();
    let read: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let text = |name: &str| read[name].as_str().map(str::to_owned);
    let at = text("revocation_time").map(|text| UnixTime::parse_rfc3339(&text).unwrap());
    (verdict(&text("certificate_status").unwrap().to_lowercase(), at, text("revocation_reason")), read)
}

/// pkilint's findings, each as its code and severity.
pub(crate) fn pkilint(linter: &str, options: &[&str], file: &Path) -> Vec<(String, String)> {
    let ran = sh(utf8(&python(linter)), &[&["lint"], options, &["-f", "JSON", utf8(file)]].concat());
    let report: Value =
        serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}\n{}", ran.transcript()));
    let results = report["results"].as_array().unwrap_or_else(|| panic!("{}", ran.transcript()));
    let findings = results.iter().flat_map(|result| result["finding_descriptions"].as_array().unwrap());
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    findings.map(|finding| (text(finding, "code"), text(finding, "severity"))).collect()
}

/// A program of the tests' Python environment.
fn python(program: &str) -> PathBuf {
    let path = root().join("var/venv/bin").join(program);
    assert!(path.exists(), "{} is missing: run scripts/venv (make test does)", path.display());
    path
}

fn openssl(ca: &TestCa, leaf: &Leaf, hash: AskWith, rest: &[&str]) -> Ran {
    let authority = ca.certificate();
    let authority = utf8(&authority);
    let question = ["ocsp", hash.option(), "-no_nonce", "-issuer", authority, "-cert"];
    sh("openssl", &[&question[..], &[utf8(&leaf.certificate), "-CAfile", authority], rest].concat())
}

fn openssl_verdict(ran: &Ran) -> Verdict {
    let text = ran.text();
    assert!(text.contains("Response verify OK"), "{}", ran.transcript());
    // "FILE: good", where FILE is what -cert was given.
    let status = text.lines().find_map(|line| line.split_once(".pem: ").map(|(_, status)| status));
    let status = status.unwrap_or_else(|| panic!("{}", ran.transcript()));
    let at = field(ran, "Revocation Time:").map(|text| time(&text, "%b %e %H:%M:%S %Y GMT"));
    verdict(status, at, field(ran, "Reason:"))
}

fn verdict(status: &str, at: Option<UnixTime>, reason: Option<String>) -> Verdict {
    match status {
        "good" => Verdict::Good,
        "revoked" => Verdict::Revoked { at, reason },
        "unknown" => Verdict::Unknown,
        other => panic!("{other:?} is no certificate status"),
    }
}

fn field(ran: &Ran, name: &str) -> Option<String> {
    let text = ran.text();
    text.lines().find_map(|line| line.trim().strip_prefix(name)).map(|value| value.trim().to_owned())
}

fn time(text: &str, format: &str) -> UnixTime {
    let time =
        NaiveDateTime::parse_from_str(text, format).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    UnixTime::from(time.and_utc())
}

/// A file beside the certificate, for what a client wants on disk.
fn scratch(leaf: &Leaf, what: &str) -> PathBuf {
    leaf.certificate.with_extension(what)
}
