//! TLS, and client certificates.

use std::process::Command;

use super::credentials::{credential, guarded};
use crate::support::ca::utf8;
use crate::support::command::{Ran, run, sh};
use crate::support::server::Server;
use crate::support::site::Site;
use crate::support::{eventually, http};

/// A CA with a server's and a client's certificate, by openssl.
fn make(site: &Site) {
    let path = |name: &str| utf8(&site.path(name)).to_owned();
    let new =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
    let root = ["-subj", "/CN=root", "-keyout", &path("root.key"), "-out", &path("root.pem")];
    sh("openssl", &[&new[..], &root].concat()).ok();
    for (name, extension) in
        [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")]
    {
        let files = [path(&format!("{name}.key")), path(&format!("{name}.pem"))];
        let leaf = [
            "-subj",
            &format!("/CN={name}"),
            "-addext",
            extension,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        let signed =
            ["-CA", &path("root.pem"), "-CAkey", &path("root.key"), "-keyout", &files[0], "-out", &files[1]];
        sh("openssl", &[&new[..], &leaf, &signed].concat()).ok();
    }
}

fn curl(site: &Site, path: &str, more: &[&str]) -> Ran {
    let (url, root) = (format!("https://127.0.0.1:{}{path}", site.control), site.path("root.pem"));
    let mut command = Command::new("curl");
    run(command
        .args([
            "-sS",
            "--max-time",
            "20",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{ssl_verify_result}",
            "--cacert",
        ])
        .arg(root)
        .args(more)
        .arg(url))
}

fn with_tls(more: &str) -> Site {
    let site = guarded();
    make(&site);
    let settings = format!(
        "[control]\ncredentials_file = \"credentials.toml\"\ntls_certificate = \"server.pem\"\ntls_key = \"server.key\"\n{more}"
    );
    site.reconfigure("[control]", &settings);
    site
}

#[test]
fn the_listener_speaks_tls_and_asks_for_tokens_within_it() {
    let site = with_tls("");
    let token = credential(&site, "ra-1", "read", &[]);
    let mut server = Server::launch(&site);
    eventually("TLS", std::time::Duration::from_secs(30), || {
        assert!(server.is_running(), "{}", server.log());
        (curl(&site, "/readyz", &[]).out() == "200 0").then_some(())
    });
    assert_eq!(curl(&site, "/openapi.json", &[]).out(), "401 0");
    let bearer = format!("Authorization: Bearer {token}");
    assert_eq!(curl(&site, "/openapi.json", &["-H", &bearer]).out(), "200 0");
    for version in ["1.2", "1.3"] {
        assert_eq!(curl(&site, "/livez", &["--tls-max", version]).out(), "200 0", "TLS {version}");
    }
    assert!(http::get(site.control, "/livez").is_err(), "plain HTTP is not answered");
}

#[test]
fn a_client_without_a_certificate_of_the_set_ca_gets_no_connection() {
    let site = with_tls("client_ca = \"root.pem\"\n");
    let token = credential(&site, "ra-1", "certificates", &[]);
    let _server = Server::launch(&site);
    let (key, certificate) = (site.path("client.key"), site.path("client.pem"));
    let client = ["--key", utf8(&key), "--cert", utf8(&certificate)];
    eventually("TLS", std::time::Duration::from_secs(30), || {
        (curl(&site, "/readyz", &client).out() == "200 0").then_some(())
    });
    assert_ne!(curl(&site, "/livez", &[]).code(), 0, "no certificate, no connection");
    // Its certificate alone opens nothing that needs a token.
    assert_eq!(curl(&site, "/openapi.json", &client).out(), "401 0");
    let bearer = format!("Authorization: Bearer {token}");
    let body = r#"{"issuer":"test","serial":"0a","not_after":"2099-01-01T00:00:00Z"}"#;
    let post = ["-H", &bearer, "-H", "Content-Type: application/json", "-d", body];
    assert_eq!(curl(&site, "/v1/certificates", &[&client[..], &post].concat()).out(), "201 0");
    let log = site.goodstanding(&["audit", "export"]).ok().out();
    assert!(log.contains("credential ra-1 from 127.0.0.1 with the client certificate "), "{log}");
}
