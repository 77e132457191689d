//! nginx between client and responder: HTTP/1.0 with and without keep-alive, HTTP/1.1, a shared cache.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use goodstanding::ocsp::{HashAlgorithm, request};

use super::asker::{Asker, UNAUTHORIZED, random_serial, serial};
use crate::support::ca::{KeyKind, utf8};
use crate::support::command::terminate;
use crate::support::server::Server;
use crate::support::site::Site;
use crate::support::{eventually, free_port, http};

/// nginx as a proxy of the responder, in its variants. Dropping it ends it.
struct Proxy {
    child: Child,
    /// Port by variant: HTTP/1.0, HTTP/1.0 kept alive, HTTP/1.1 kept alive.
    variants: [u16; 3],
    /// The port behind which a shared cache is.
    cache: u16,
}

impl Proxy {
    fn start(site: &Site) -> Self {
        let dir = site.path("proxy");
        fs::create_dir_all(&dir).unwrap();
        let [plain, kept, modern, cache] = [(); 4].map(|()| free_port());
        let (place, ocsp) = (dir.display(), site.ocsp);
        let text = format!(
            "daemon off;
master_process off;
pid {place}/pid;
error_log {place}/error.log info;
events {{ worker_connections 64; }}
http {{
access_log off;
client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;
uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
proxy_cache_path {place}/cache keys_zone=ocsp:1m;
upstream responder {{ server 127.0.0.1:{ocsp}; keepalive 4; }}
merge_slashes off;
server {{ listen 127.0.0.1:{plain}; location / {{ proxy_pass http://responder; }} }}
server {{ listen 127.0.0.1:{kept};
  location / {{ proxy_pass http://responder; proxy_set_header Connection keep-alive; }} }}
server {{ listen 127.0.0.1:{modern};
  location / {{ proxy_pass http://responder; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}
server {{ listen 127.0.0.1:{cache};
  location / {{ proxy_pass http://responder; proxy_cache ocsp; add_header X-Cache $upstream_cache_status; }} }}
}}
"
        );
        let configuration = dir.join("nginx.conf");
        fs::write(&configuration, text).unwrap();
        let child = Command::new("nginx")
            // A user's PATH on Debian lacks sbin.
            .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap()))
            .args(["-p", utf8(&dir), "-c", utf8(&configuration), "-e", utf8(&dir.join("error.log"))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("nginx: {error}: `make test` installs the tools"));
        let proxy = Self { child, variants: [plain, kept, modern], cache };
        eventually("nginx", Duration::from_secs(20), || http::get(cache, "/").ok());
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        terminate(&self.child);
        let _ = self.child.wait();
    }
}

/// H9, H2, B1: what arrives through nginx is what the responder says, over one connection or many.
#[test]
fn nginx_passes_answers_on_over_http_1_0_kept_alive_or_not_and_over_http_1_1() {
    let site = Site::new(KeyKind::P256);
    let pair = site.good_and_revoked();
    let _server = Server::start(&site);
    let direct = Asker::new(&site);
    let proxy = Proxy::start(&site);
    for (variant, port) in proxy.variants.into_iter().enumerate() {
        let through = Asker::at(&site, port);
        for leaf in [&pair.good, &pair.revoked] {
            let asked = request::encode(&[direct.cert_id(HashAlgorithm::Sha1, serial(leaf))], None).unwrap();
            let expected = direct.post(&asked).body;
            direct.read(&expected);
            for _ in 0..10 {
                assert_eq!(through.get(&asked).body, expected, "variant {variant}");
                assert_eq!(through.post(&asked).body, expected, "variant {variant}");
            }
        }
        assert_eq!(through.post(b"hello").body, [0x30, 3, 0x0a, 1, 1]);
    }
}

/// N5, L9, L12: a shared cache keeps what is stored, and neither errors nor what was made for one client.
#[test]
fn a_shared_cache_keeps_stored_answers_and_nothing_else() {
    let site = Site::new(KeyKind::P256);
    site.reconfigure("[control]", "nonce = \"echo\"\n[control]");
    let pair = site.good_and_revoked();
    let _server = Server::start(&site);
    let proxy = Proxy::start(&site);
    let cached = Asker::at(&site, proxy.cache);
    let cert_id = cached.cert_id(HashAlgorithm::Sha256, serial(&pair.good));
    let twice = |asked: &[u8]| [(); 2].map(|()| cached.get(asked));

    let [first, again] = twice(&request::encode(std::slice::from_ref(&cert_id), None).unwrap());
    assert_eq!((first.header("x-cache"), again.header("x-cache")), (Some("MISS"), Some("HIT")));
    assert_eq!(cached.read(&first.body).nonce, None);
    assert_eq!(first.body, again.body);

    let nonced = request::encode(std::slice::from_ref(&cert_id), Some(&[3; 32])).unwrap();
    for reply in twice(&nonced) {
        assert_eq!(reply.header("x-cache"), Some("MISS"));
        assert_eq!(cached.read(&reply.body).nonce.as_deref(), Some(&[3; 32][..]));
    }
    let unassigned = cached.cert_id(HashAlgorithm::Sha1, random_serial());
    for reply in twice(&request::encode(&[unassigned], None).unwrap()) {
        assert_eq!((reply.header("x-cache"), &reply.body[..]), (Some("MISS"), UNAUTHORIZED));
    }
}
