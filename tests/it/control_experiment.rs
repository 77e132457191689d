//! Do the clients and our readings of them work at all? They are asked about OpenSSL's own
//! responder here, so that a failure elsewhere is Goodstanding's.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::ca::{KeyKind, Leaf, TestCa, utf8};
use crate::support::clients::{self, AskWith, Verdict};
use crate::support::nginx::{Nginx, Stapling};
use crate::support::{eventually, free_port};

/// `openssl ocsp` as a responder, signing with the CA's key. Dropping it ends it.
pub(crate) struct OpenSslResponder(Child);

impl OpenSslResponder {
    /// Answers from the index of `ca`.
    pub(crate) fn start(ca: &TestCa, port: u16) -> Self {
        let (index, authority, key) = (ca.index(), ca.certificate(), ca.key());
        let (index, authority, key) = (utf8(&index), utf8(&authority), utf8(&key));
        let log = ca.file("responder.log");
        let child = Command::new("openssl")
            .args(["ocsp", "-port", &port.to_string(), "-index", index, "-CA", authority, "-ndays", "1"])
            .args(["-rsigner", authority, "-rkey", key, "-rmd", "sha256"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let responder = Self(child);
        // Not by connecting: an empty connection keeps OpenSSL's responder busy for ever.
        eventually("openssl's responder", Duration::from_secs(20), || {
            std::fs::read_to_string(&log).unwrap().contains("waiting for OCSP client").then_some(())
        });
        responder
    }
}

impl Drop for OpenSslResponder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_client_tells_good_from_revoked_with_openssls_own_responder() {
    let dir = TempDir::new().unwrap();
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let ca = TestCa::new(dir.path(), KeyKind::P256, &url);
    let (good, revoked) = (ca.issue("good.example.org"), ca.issue("revoked.example.org"));
    let at = ca.revoke(&revoked, "keyCompromise");
    let _responder = OpenSslResponder::start(&ca, port);

    let everything = Verdict::revoked(at, "keyCompromise");
    let time_only = Verdict::Revoked { at: Some(at), reason: None };
    let nothing_more = Verdict::Revoked { at: None, reason: None };
    let ask = |leaf: &Leaf| {
        let answer = dir.path().join("answer.der");
        std::fs::write(&answer, clients::answer(port, &ca, leaf)).unwrap();
        [
            clients::openssl_post(&url, &ca, leaf, AskWith::Sha1),
            clients::openssl_post(&url, &ca, leaf, AskWith::Sha256),
            clients::openssl_get(port, &ca, leaf, AskWith::Sha1),
            clients::python_cryptography(&answer).0,
            clients::ocsptool(&url, &ca, leaf),
            clients::ocspclnt(&ca, leaf),
        ]
    };
    assert_eq!(ask(&good), [const { Verdict::Good }; 6]);
    let all =
        [&everything, &everything, &everything, &everything, &time_only, &nothing_more].map(Clone::clone);
    assert_eq!(ask(&revoked), all);

    let answer = dir.path().join("revoked.der");
    std::fs::write(&answer, clients::answer(port, &ca, &revoked)).unwrap();
    let servers = [Stapling { leaf: &good, file: None }, Stapling { leaf: &revoked, file: Some(answer) }];
    let nginx = Nginx::start(&dir.path().join("nginx"), &ca, &url, &servers);
    eventually("a stapled good", Duration::from_secs(20), || {
        (nginx.curl_cert_status(0).code() == 0).then_some(())
    });
    nginx.curl_cert_status(1).exits(91).says(&["revoked (1)", "keyCompromise (1)"]);
}
