//! Tests with real tokens.
//!
//! PKCS#11 modules are one a process, read their configuration from the environment and remember wrong
//! PINs; so a test that uses one runs in a process of its own, with a token directory of its own.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Lane, Order, PinSource, Settings};
use crate::clock::Stopwatch;
use crate::signer::admin;

const INSIDE: &str = "GOODSTANDING_TEST_TOKEN_DIR";
pub(crate) const SPY: &str = "/usr/lib/x86_64-linux-gnu/pkcs11/pkcs11-spy.so";
/// SoftHSM behind a p11-kit server: an HSM that can be killed.
pub(crate) const REMOTE: &str = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so";
/// For tests in which nothing else waits.
pub(crate) const ANY: Order = Order::at_once(Lane::Refresh);
pub(crate) const LABEL: &str = "test token";

/// The SoftHSM library, wherever this machine has it.
pub(crate) fn softhsm() -> PathBuf {
    let places = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
    ];
    places
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .expect("SoftHSM is not installed: apt-get install softhsm2")
}

/// The folder of the test's own, with the token in it.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn settings(&self) -> Settings {
        Settings::new("test", softhsm(), LABEL, PinSource::File(self.0.join("pin")))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// One more token in the same folder, with the same PIN.
    pub(crate) fn another(&self, name: &str, label: &str) -> Settings {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("softhsm/token");
        let made = Command::new(&script).arg(&self.0).arg(label).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Settings { name: name.into(), label: label.into(), ..self.settings() }
    }

    /// Makes a key and returns its public half.
    pub(crate) fn key(&self, label: &str, algorithm: crate::ocsp::KeyAlgorithm) -> super::PublicKey {
        admin::generate_key(&self.settings(), label, label.as_bytes(), algorithm).unwrap()
    }
}

/// Runs the test's body in a process of its own, with a fresh SoftHSM token. `name` is the test's path.
pub(crate) fn with_token(name: &str, body: impl FnOnce(&Place)) {
    with_token_and(name, |_| Vec::new(), body);
}

/// As [`with_token`], with more environment, made from the folder.
pub(crate) fn with_token_and(
    name: &str,
    environment: impl FnOnce(&Path) -> Vec<(&'static str, OsString)>,
    body: impl FnOnce(&Place),
) {
    if let Some(place) = std::env::var_os(INSIDE) {
        return body(&Place(place.into()));
    }
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("softhsm/token");
    let made = Command::new(&script).arg(folder.path()).arg(LABEL).output().unwrap();
    assert!(made.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&made.stderr));
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, folder.path())
        .env("SOFTHSM2_CONF", folder.path().join("softhsm2.conf"))
        .envs(environment(folder.path()))
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "in its own process:\n{said}");
    println!("{said}");
}

/// The environment of a test whose token is behind a p11-kit server.
pub(crate) fn remote(folder: &Path) -> Vec<(&'static str, OsString)> {
    let address = format!("unix:path={}", folder.join("socket").display());
    vec![("P11_KIT_SERVER_ADDRESS", address.into())]
}

/// A p11-kit server and its children, in a process group of their own.
pub(crate) struct Hsm(Child);

impl Hsm {
    pub(crate) fn plug_in(place: &Place) -> Self {
        let socket = place.path("socket");
        let _ = std::fs::remove_file(&socket);
        let server = Command::new("p11-kit")
            .args(["server", "-f", "-n"])
            .arg(&socket)
            .arg("--provider")
            .arg(softhsm())
            .arg("pkcs11:token=test%20token")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("p11-kit is not installed: apt-get install p11-kit p11-kit-modules");
        let watch = Stopwatch::start();
        while !socket.exists() {
            assert!(watch.elapsed() < Duration::from_secs(20), "the p11-kit server makes no socket");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self(server)
    }

    pub(crate) fn signal(&self, signal: &str) {
        let group = format!("-{}", self.0.id());
        let status = Command::new("/bin/kill").args([signal, "--", &group]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Hsm {
    fn drop(&mut self) {
        self.signal("-KILL");
        let _ = self.0.wait();
    }
}

/// Runs a future to its end on a small runtime.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// The path of the test function that this is called in, as libtest knows it.
macro_rules! test_name {
    () => {{
        fn here() {}
        let path = std::any::type_name_of_val(&here);
        let path = path.strip_suffix("::here").unwrap_or(path);
        path.split_once("::").map_or(path, |(_, rest)| rest)
    }};
}
pub(crate) use test_name;
