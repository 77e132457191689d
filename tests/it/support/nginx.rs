//! nginx as a TLS server that staples what the OCSP responder says.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::ca::{Leaf, TestCa, utf8};
use super::command::{Ran, sh, terminate};
use super::{eventually, free_port};

/// One TLS server of nginx.
#[derive(Debug)]
pub(crate) struct Stapling<'l> {
    /// Its certificate.
    pub(crate) leaf: &'l Leaf,
    /// An answer to staple as it is; nginx asks the responder where there is none.
    pub(crate) file: Option<PathBuf>,
}

/// The running nginx. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Nginx {
    dir: PathBuf,
    child: Child,
    authority: PathBuf,
    hosts: Vec<(String, u16)>,
}

impl Nginx {
    /// Starts it in `dir` with one server for each of `servers`, asking the responder at `url`.
    pub(crate) fn start(dir: &Path, ca: &TestCa, url: &str, servers: &[Stapling<'_>]) -> Self {
        fs::create_dir_all(dir).unwrap();
        let place = dir.display();
        let authority = ca.certificate();
        let mut text = format!(
            "daemon off;
master_process off;
pid {place}/pid;
error_log {place}/error.log info;
events {{ worker_connections 64; }}
http {{
access_log off;
client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;
uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
ssl_stapling on;
ssl_stapling_verify on;
ssl_trusted_certificate {authority};
ssl_stapling_responder {url}/;
",
            authority = authority.display()
        );
        let mut hosts = Vec::new();
        for (number, Stapling { leaf, file }) in servers.iter().enumerate() {
            // curl finds the issuer, which it needs for the CertID, in what the server sends.
            let chain = dir.join(format!("chain-{number}.pem"));
            let certificates = [&leaf.certificate, &authority].map(|path| fs::read(path).unwrap());
            fs::write(&chain, certificates.concat()).unwrap();
            let port = free_port();
            let staple = file.as_ref().map(|file| format!("ssl_stapling_file {};", file.display()));
            writeln!(
                text,
                "server {{ listen 127.0.0.1:{port} ssl; server_name {name}; ssl_certificate {chain}; \
                 ssl_certificate_key {key}; {staple} return 200 served; }}",
                name = leaf.name,
                chain = chain.display(),
                key = leaf.key.display(),
                staple = staple.unwrap_or_default(),
            )
            .unwrap();
            hosts.push((leaf.name.clone(), port));
        }
        text.push_str("}\n");
        let configuration = dir.join("nginx.conf");
        fs::write(&configuration, text).unwrap();

        let mut command = Command::new("nginx");
        // A user's PATH on Debian lacks sbin.
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap()));
        command.args(["-e", utf8(&dir.join("error.log")), "-p", utf8(dir), "-c", utf8(&configuration)]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let nginx = Self { dir: dir.to_owned(), child, authority, hosts };
        eventually("nginx", Duration::from_secs(20), || nginx.listens().then_some(()));
        nginx
    }

    /// curl on the server of that number, insisting on a stapled status.
    pub(crate) fn curl_cert_status(&self, server: usize) -> Ran {
        let (name, port) = &self.hosts[server];
        let to = format!("{name}:443:127.0.0.1:{port}");
        let url = format!("https://{name}/");
        let authority = utf8(&self.authority);
        let trust = ["-sS", "-v", "--max-time", "20", "--cert-status", "--cacert", authority];
        sh("curl", &[&trust[..], &["--connect-to", &to, &url]].concat())
    }

    /// What nginx has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("error.log")).unwrap_or_default()
    }

    fn listens(&self) -> bool {
        self.hosts.iter().all(|(_, port)| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- nginx's log\n{}", self.log());
        }
        terminate(&self.child);
        let _ = self.child.wait();
    }
}
