//! A whole installation in a folder of its own: token, authority, configuration, database.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use goodstanding::clock::UnixTime;
use serde_json::Value;
use tempfile::TempDir;

use super::ca::{KeyKind, Leaf, TestCa, utf8};
use super::command::{Ran, run};
use super::free_port;

/// The name that the tests' issuer has everywhere.
pub(crate) const ISSUER: &str = "test";
/// The token's CKA_LABEL.
pub(crate) const TOKEN_LABEL: &str = "tests";
/// The CKA_LABEL of the responder's key.
pub(crate) const KEY_LABEL: &str = "ocsp-test-1";
/// Where Debian's libsofthsm2 is.
pub(crate) const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// The installation. Everything goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Site {
    // Last to go, so that children that a test forgot still find their files.
    dir: TempDir,
    /// The authority whose certificates are kept in good standing.
    pub(crate) ca: TestCa,
    /// The port of the OCSP listener.
    pub(crate) ocsp: u16,
    /// The port of the control listener.
    pub(crate) control: u16,
    /// Added to the environment of every command.
    pub(crate) environment: Vec<(String, String)>,
}

impl Site {
    /// An installation with an authority and a token, and nothing done by Goodstanding yet.
    pub(crate) fn bare(kind: KeyKind) -> Self {
        let dir = TempDir::new().unwrap();
        let (ocsp, control) = (free_port(), free_port());
        let ca = TestCa::new(&dir.path().join("ca"), kind, &format!("http://127.0.0.1:{ocsp}"));
        let token = dir.path().join("softhsm");
        let script = root().join("softhsm/token");
        run(Command::new(script).arg(&token).arg(TOKEN_LABEL)).ok();
        let environment = vec![("SOFTHSM2_CONF".to_owned(), utf8(&token.join("softhsm2.conf")).to_owned())];
        let site = Self { dir, ca, ocsp, control, environment };
        site.configure(&site.default_configuration());
        site
    }

    /// An installation that is ready to import certificates and to sign with a key of this kind.
    pub(crate) fn new(kind: KeyKind) -> Self {
        let site = Self::bare(kind);
        site.establish(kind);
        site
    }

    /// The ceremony: issuer, key in the token, delegated certificate.
    pub(crate) fn establish(&self, kind: KeyKind) {
        let ca = self.ca.certificate();
        self.goodstanding(&["issuer", "add", "--name", ISSUER, "--certificate", utf8(&ca)]).ok();
        self.make_key(kind);
        let request = self.path("responder.csr");
        self.goodstanding(&["responder", "csr", "--issuer", ISSUER, "--out", utf8(&request)]).ok();
        self.certify(&request);
        let made = self.responder_certificate();
        let install = ["responder", "install", "--issuer", ISSUER, "--certificate", utf8(&made)];
        self.goodstanding(&install).ok();
    }

    /// `responder key`, with the token and label from the configuration.
    pub(crate) fn make_key(&self, kind: KeyKind) {
        self.goodstanding(&["responder", "key", "--issuer", ISSUER, "--algorithm", kind.algorithm()]).ok();
    }

    /// `responder certify`: the test CA signs the delegated certificate, into the file that the
    /// configuration names.
    pub(crate) fn certify(&self, request: &Path) {
        let (key, made) = (self.ca.key(), self.responder_certificate());
        let certify = ["responder", "certify", "--issuer", ISSUER, "--csr", utf8(request)];
        let files = ["--ca-key", utf8(&key), "--out", utf8(&made)];
        self.goodstanding(&[&certify[..], &files].concat()).ok();
    }

    /// A file of the installation.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The delegated responder certificate, PEM.
    pub(crate) fn responder_certificate(&self) -> PathBuf {
        self.path("responder.pem")
    }

    /// The URL of the OCSP listener.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ocsp)
    }

    /// The URL of the database.
    pub(crate) fn database(&self) -> String {
        format!("sqlite://{}", self.path("goodstanding.db").display())
    }

    /// The configuration as [`Site::bare`] writes it.
    pub(crate) fn default_configuration(&self) -> String {
        format!(
            "[store]
url = \"{database}\"
[ocsp]
listen = [\"127.0.0.1:{ocsp}\"]
[control]
listen = \"127.0.0.1:{control}\"
[policy]
preset = \"web-pki\"
validity = \"7d\"
refresh = \"3d12h\"
[[token]]
name = \"hsm-a\"
module = \"{SOFTHSM}\"
label = \"{TOKEN_LABEL}\"
pin_file = \"{dir}/softhsm/pin\"
sessions = 2
[[issuer]]
name = \"{ISSUER}\"
certificate = \"{dir}/ca/ca.pem\"
  [[issuer.responder]]
  token = \"hsm-a\"
  key = \"{KEY_LABEL}\"
  certificate = \"{dir}/responder.pem\"
",
            database = self.database(),
            ocsp = self.ocsp,
            control = self.control,
            dir = self.dir.path().display(),
        )
    }

    /// Writes the configuration file.
    pub(crate) fn configure(&self, text: &str) {
        fs::write(self.path("goodstanding.toml"), text).unwrap();
    }

    /// Replaces one piece of the default configuration, which must be in it.
    pub(crate) fn reconfigure(&self, old: &str, new: &str) {
        let text = self.default_configuration();
        assert!(text.contains(old), "{old:?} is not in the configuration");
        self.configure(&text.replace(old, new));
    }

    /// Adds to the configuration as it stands.
    pub(crate) fn extend(&self, more: &str) {
        let text = std::fs::read_to_string(self.path("goodstanding.toml")).unwrap();
        self.configure(&format!("{text}{more}"));
    }

    /// The program, ready to be given a subcommand.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_goodstanding"));
        command.current_dir(self.dir.path()).arg("--config").arg(self.path("goodstanding.toml"));
        command.env_remove("GOODSTANDING_CONFIG").env_remove("RUST_LOG");
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn goodstanding(&self, arguments: &[&str]) -> Ran {
        run(self.command().args(arguments))
    }

    /// Runs the program with `--json`, which must do its work and print one document.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let ran = run(self.command().arg("--json").args(arguments)).ok();
        document(&ran)
    }

    /// `import index` of the authority's own database.
    pub(crate) fn import_index(&self) -> Value {
        self.json(&["import", "index", utf8(&self.ca.index()), "--issuer", ISSUER])
    }

    /// What `explain` says of a certificate.
    pub(crate) fn explain(&self, serial: &str) -> Value {
        self.json(&["explain", "--issuer", ISSUER, "--serial", serial])
    }

    /// One good and one revoked certificate, imported and signed for.
    pub(crate) fn good_and_revoked(&self) -> Pair {
        let (good, revoked) = (self.ca.issue("good.example.org"), self.ca.issue("revoked.example.org"));
        let at = self.ca.revoke(&revoked, REASON);
        self.import_index();
        self.goodstanding(&["presign"]).ok();
        Pair { good, revoked, at }
    }
}

/// Why [`Pair::revoked`] is.
pub(crate) const REASON: &str = "keyCompromise";

/// A good certificate and one that was revoked `at` a time for [`REASON`].
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) good: Leaf,
    pub(crate) revoked: Leaf,
    pub(crate) at: UnixTime,
}

/// The one JSON document that a command printed on standard output.
pub(crate) fn document(ran: &Ran) -> Value {
    let mut documents = serde_json::Deserializer::from_slice(&ran.stdout).into_iter::<Value>();
    let document = documents.next().and_then(Result::ok);
    let document = document.unwrap_or_else(|| panic!("no JSON document\n{}", ran.transcript()));
    assert!(documents.next().is_none(), "more than one JSON document\n{}", ran.transcript());
    document
}

/// The checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
