//! A throwaway SoftHSM token. The module reads its configuration from the environment when it is loaded,
//! so a measurement runs in a process that was started with it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use goodstanding::signer::{PinSource, Settings};

const INSIDE: &str = "GOODSTANDING_BENCH_TOKEN_DIR";
const LABEL: &str = "bench token";
const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// The folder of the measurement's own, with the token in it.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn settings(&self, sessions: u16) -> Settings {
        let module = MODULES.iter().find(|path| Path::new(path).exists());
        let module = module.expect("SoftHSM is not installed: on Debian, apt-get install softhsm2");
        let mut settings = Settings::new("hsm", module, LABEL, PinSource::File(self.0.join("pin")));
        settings.sessions = sessions;
        settings
    }
}

/// Runs `body` in a process of its own beside a fresh token; the folder is gone afterwards.
pub(crate) fn with_token(body: impl FnOnce(&Place)) -> ExitCode {
    if let Some(folder) = std::env::var_os(INSIDE) {
        body(&Place(folder.into()));
        return ExitCode::SUCCESS;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("softhsm/token");
    let made = Command::new(&script).arg(folder.path()).arg(LABEL).output().unwrap();
    assert!(made.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&made.stderr));
    let status = Command::new(std::env::current_exe().unwrap())
        .args(std::env::args_os().skip(1))
        .env(INSIDE, folder.path())
        .env("SOFTHSM2_CONF", folder.path().join("softhsm2.conf"))
        .status()
        .unwrap();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether only a short run that shows that everything works is wanted (`-- --test`).
pub(crate) fn is_smoke() -> bool {
    std::env::args().any(|argument| argument == "--test")
}
