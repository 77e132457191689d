//! What the operator says about one token.

use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use zeroize::Zeroizing;

/// One token and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The operator's name for the token: in messages, metrics and the store.
    pub name: String,
    /// The PKCS#11 module: a shared library.
    pub module: PathBuf,
    /// The token's label, by which its slot is found (slot numbers change between restarts).
    pub label: String,
    /// Where the user PIN comes from.
    pub pin: PinSource,
    /// Sessions that sign at once, each on a thread of its own. At least 1.
    ///
    /// A token in software gains nothing beyond the cores of the machine. A network HSM gains until
    /// `sessions = rate × round trip`: 2,000 signatures/s at 4 ms a call need 8 sessions.
    pub sessions: u16,
    /// Jobs that may wait for a session in each lane; whoever comes later waits before handing in
    /// (back-pressure).
    ///
    /// A job at the end of the last lane waits `queue / rate` for those of its lane alone: at 1,000
    /// signatures/s a queue of 256 makes 256 ms. It need only cover the time in which callers make new jobs; a few
    /// times `sessions` keeps every session busy, at least 64 for tokens faster than 5,000/s.
    pub queue: usize,
    /// How long one call into the module may take before it counts as hung.
    pub call_timeout: Duration,
    /// Signatures a second at the most, where others share the token; none for no cap.
    pub max_rate: Option<NonZeroU32>,
    /// Whether each session signs with a copy of the key that lives and dies with the session.
    ///
    /// SoftHSM reads a key's file anew for each signature unless the key is a session object. A token that
    /// does not let its key be copied signs with the key itself. A key that is destroyed in the token goes
    /// on signing until the session ends.
    pub session_keys: bool,
    /// Threads that verify signatures; none for one a core.
    pub verifiers: Option<u16>,
}

impl Settings {
    /// The settings with the defaults for everything that has one: 2 sessions, a queue of 256, calls of
    /// at most 10 s, no cap, no copies of keys, a verifier a core.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        module: impl Into<PathBuf>,
        label: impl Into<String>,
        pin: PinSource,
    ) -> Self {
        Self {
            name: name.into(),
            module: module.into(),
            label: label.into(),
            pin,
            sessions: 2,
            queue: 256,
            call_timeout: Duration::from_secs(10),
            max_rate: None,
            session_keys: false,
            verifiers: None,
        }
    }
}

/// Where a user PIN comes from. The PIN itself is in no settings, so settings may be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinSource {
    /// The content of a file, less one trailing newline.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A systemd credential: the file of that name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

impl fmt::Display for PinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the PIN file {}", path.display()),
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::Credential(name) => write!(f, "the systemd credential {name}"),
        }
    }
}

/// The PIN is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The file cannot be read.
    #[error(
        "{what} cannot be read: {source}; it must hold the user PIN of the token and be readable by this process only"
    )]
    Unreadable {
        /// The source, with its path.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The environment variable is not set, or is not UTF-8.
    #[error("the environment variable {0} is not set (to UTF-8 text); set it to the user PIN of the token")]
    NoVariable(String),
    /// The process has no credentials of systemd.
    #[error(
        "the systemd credential {0} is asked for, but $CREDENTIALS_DIRECTORY is not set: add LoadCredential={0}:PATH to the unit, or use a PIN file"
    )]
    NoCredentials(String),
    /// There is nothing in it.
    #[error("{0} is empty; it must hold the user PIN of the token")]
    Empty(String),
    /// It is not text.
    #[error("{0} is not UTF-8 text; it must hold the user PIN of the token")]
    NotText(String),
}

impl PinSource {
    /// Reads the PIN. A file that others may read is used, with a warning.
    ///
    /// # Errors
    /// [`PinError`], which names the source.
    pub fn read(&self) -> Result<SecretString, PinError> {
        match self {
            Self::File(path) => read_file(path, self.to_string()),
            Self::Env(name) => {
                let text =
                    Zeroizing::new(std::env::var(name).map_err(|_| PinError::NoVariable(name.clone()))?);
                secret(&text, self.to_string())
            }
            Self::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| PinError::NoCredentials(name.clone()))?;
                let path = Path::new(&folder).join(name);
                read_file(&path, format!("{self} ({})", path.display()))
            }
        }
    }
}

fn read_file(path: &Path, what: String) -> Result<SecretString, PinError> {
    let octets = match std::fs::read(path) {
        Ok(octets) => Zeroizing::new(octets),
        Err(source) => return Err(PinError::Unreadable { what, source }),
    };
    if let Ok(metadata) = std::fs::metadata(path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(
            path = %path.display(),
            mode = format!("{:o}", metadata.permissions().mode() & 0o777),
            "others may read this PIN file: chmod 600 it",
        );
    }
    let text = std::str::from_utf8(&octets).map_err(|_| PinError::NotText(what.clone()))?;
    secret(text, what)
}

fn secret(text: &str, what: String) -> Result<SecretString, PinError> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() { Err(PinError::Empty(what)) } else { Ok(SecretString::from(text)) }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_pin_file_loses_its_newline_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        for (content, pin) in [("1234\n", "1234"), (" 12 34 ", " 12 34 "), ("1234\r\n", "1234")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(PinSource::File(path.clone()).read().unwrap().expose_secret(), pin);
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(PinSource::File(path.clone()).read(), Err(PinError::Empty(_))));
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert!(matches!(PinSource::File(path).read(), Err(PinError::NotText(_))));
    }

    #[test]
    fn a_missing_pin_says_where_it_was_looked_for() {
        let error = PinSource::File("no/such/pin".into()).read().unwrap_err().to_string();
        assert!(error.contains("no/such/pin") && error.contains("readable by this process only"), "{error}");
        let error = PinSource::Env("GOODSTANDING_NO_SUCH_PIN".into()).read().unwrap_err().to_string();
        assert!(error.contains("GOODSTANDING_NO_SUCH_PIN is not set"), "{error}");
    }

    #[test]
    fn settings_print_without_the_pin() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        std::fs::write(&path, "sesame-4711").unwrap();
        let settings = Settings::new("hsm-a", "module.so", "label", PinSource::File(path));
        let pin = settings.pin.read().unwrap();
        assert!(!format!("{settings:?} {pin:?}").contains("sesame"));
    }
}
