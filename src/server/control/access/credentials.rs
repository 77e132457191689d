//! The file of credentials: TOML with hashed tokens and their scopes.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use toml::Spanned;

use super::token;

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Registrations and orders of the limiter.
    Orders,
    /// Register certificates.
    Certificates,
    /// Revoke certificates and take back holds.
    Revoke,
    /// Read everything: certificates, limits, capacity, metrics, the dashboard.
    Read,
    /// All of it, and what an operator does: overrides of limits.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] = [Self::Orders, Self::Certificates, Self::Revoke, Self::Read, Self::Admin];

    /// Its name in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Certificates => "certificates",
            Self::Revoke => "revoke",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|scope| scope.name() == text)
            .ok_or_else(|| format!("{text:?} is no scope; known are {}", known()))
    }
}

/// Somebody who may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The name in logs, and in the token.
    pub name: Arc<str>,
    /// The hash of the token's secret: a PHC string of argon2id.
    pub hash: String,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// Calls a minute at the most.
    pub rate: Option<u32>,
}

impl Credential {
    /// Whether it may do what needs `scope`.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }
}

/// An authorising webhook of step-ca, which signs its calls instead of sending a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The id that step-ca gave it (`X-Smallstep-Webhook-ID`).
    pub id: String,
    /// The decoded signing secret.
    pub secret: Vec<u8>,
    /// The account that its orders count for.
    pub account: String,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("id", &self.id)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// Everybody who may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Those with tokens.
    pub credentials: Vec<Credential>,
    /// Those that sign.
    pub webhooks: Vec<Webhook>,
}

/// The file of credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("cannot read the credentials {path} (setting `control.credentials_file`): {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others may alter it, or read the secrets in it.
    #[error(
        "the credentials {path} can be {what} by other users (mode {mode:o}): chmod {right} {path}, or whoever does can call everything"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// `altered` or `read`.
        what: &'static str,
        /// Its mode.
        mode: u32,
        /// The mode to give it.
        right: &'static str,
    },
    /// It holds errors.
    #[error("the credentials have errors:{}", .problems.iter().map(|(line, what)| format!("\n  {}:{line}: {what}", .path.display())).collect::<String>())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line and complaint, each.
        problems: Vec<(usize, String)>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    credential: Vec<CredentialEntry>,
    #[serde(default)]
    step_ca: Vec<WebhookEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialEntry {
    name: Spanned<String>,
    hash: Spanned<String>,
    scopes: Vec<Spanned<String>>,
    rate: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookEntry {
    webhook_id: Spanned<String>,
    secret: Spanned<String>,
    account: String,
}

impl Credentials {
    /// Reads the file.
    ///
    /// # Errors
    /// [`CredentialsError`], with every error in it.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        use std::os::unix::fs::MetadataExt;
        let unreadable = |source| CredentialsError::Unreadable { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mode = std::fs::metadata(path).map_err(unreadable)?.mode() & 0o777;
        let credentials = Self::parse(&text)
            .map_err(|problems| CredentialsError::Invalid { path: path.to_owned(), problems })?;
        let exposed = |what, right| CredentialsError::Exposed { path: path.to_owned(), what, mode, right };
        if mode & 0o022 != 0 {
            return Err(exposed("altered", "go-w"));
        }
        // Hashes may be read; step-ca's secrets are in clear, since they make an HMAC.
        if !credentials.webhooks.is_empty() && mode & 0o004 != 0 {
            return Err(exposed("read", "o-r"));
        }
        Ok(credentials)
    }

    /// Reads the text of the file.
    ///
    /// # Errors
    /// Line and complaint, each.
    pub fn parse(text: &str) -> Result<Self, Vec<(usize, String)>> {
        let line =
            |at: usize| 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|o| **o == b'\n').count();
        let file: File = toml::from_str(text).map_err(|error| {
            vec![(line(error.span().map_or(0, |span| span.start)), error.message().to_owned())]
        })?;
        let mut problems = Vec::new();
        let mut credentials = Self::default();
        for entry in file.credential {
            let mut complain = |at: usize, what: String| problems.push((line(at), what));
            let name = entry.name.get_ref();
            if let Err(error) = check_name(name) {
                complain(entry.name.span().start, error);
            }
            if credentials.credentials.iter().any(|other| *other.name == **name) {
                complain(entry.name.span().start, format!("two credentials are named {name:?}"));
            }
            if let Err(error) = token::check_hash(entry.hash.get_ref()) {
                complain(entry.hash.span().start, format!("the hash of {name:?}: {error}"));
            }
            let mut scopes = BTreeSet::new();
            for scope in &entry.scopes {
                match scope.get_ref().parse() {
                    Ok(scope) => drop(scopes.insert(scope)),
                    Err(error) => complain(scope.span().start, error),
                }
            }
            if let Some(rate) = entry.rate.as_ref().filter(|rate| *rate.get_ref() == 0) {
                complain(
                    rate.span().start,
                    "a rate of 0 lets nothing through: take the scopes away".to_owned(),
                );
            }
            credentials.credentials.push(Credential {
                name: name.as_str().into(),
                hash: entry.hash.into_inner(),
                scopes,
                rate: entry.rate.map(Spanned::into_inner),
            });
        }
        for entry in file.step_ca {
            let secret = STANDARD.decode(entry.secret.get_ref()).unwrap_or_default();
            if secret.len() < 16 {
                problems.push((
                    line(entry.secret.span().start),
                    "step_ca.secret is no base64 of at least 16 octets, as `step ca provisioner webhook add` prints it".to_owned(),
                ));
            }
            if credentials.webhooks.iter().any(|other| other.id == *entry.webhook_id.get_ref()) {
                problems.push((line(entry.webhook_id.span().start), "two webhooks have one id".to_owned()));
            }
            credentials.webhooks.push(Webhook {
                id: entry.webhook_id.into_inner(),
                secret,
                account: entry.account,
            });
        }
        if problems.is_empty() { Ok(credentials) } else { Err(problems) }
    }

    /// The credential of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Credential> {
        self.credentials.iter().find(|credential| *credential.name == *name)
    }
}

/// What is wrong with a credential's name.
///
/// # Errors
/// What a name looks like.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if (1..=64).contains(&name.len()) && name.chars().all(fits) {
        return Ok(());
    }
    Err(format!("{name:?} is no name for a credential: 1 to 64 letters, digits, - and _"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const HASH: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";

    #[test]
    fn a_file_with_tokens_and_a_webhook_is_read() {
        let text = format!(
            "[[credential]]\nname = \"ra-1\"\nhash = \"{HASH}\"\nscopes = [\"certificates\", \"revoke\"]\nrate = 600\n
             [[step_ca]]\nwebhook_id = \"w\"\nsecret = \"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\"\naccount = \"step\"\n"
        );
        let read = Credentials::parse(&text).unwrap();
        let credential = read.find("ra-1").unwrap();
        assert!(credential.may(Scope::Revoke) && !credential.may(Scope::Read));
        assert_eq!((credential.rate, read.webhooks[0].secret.len()), (Some(600), 32));
        assert!(!format!("{:?}", read.webhooks[0]).contains("48, 49"), "secrets are not printed");
        assert_eq!(Credentials::parse("").unwrap(), Credentials::default());
    }

    #[test]
    fn every_error_is_told_with_its_line() {
        let text = format!(
            "[[credential]]\nname = \"a b\"\nhash = \"plain\"\nscopes = [\"write\"]\nrate = 0\n[[credential]]\nname = \"c\"\nhash = \"{HASH}\"\nscopes = []\n[[credential]]\nname = \"c\"\nhash = \"{HASH}\"\nscopes = []\n[[step_ca]]\nwebhook_id = \"w\"\nsecret = \"short\"\naccount = \"x\"\n"
        );
        let problems = Credentials::parse(&text).unwrap_err();
        let lines: Vec<_> = problems.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 11, 16], "{problems:?}");
        assert!(problems[2].1.contains("orders, certificates, revoke, read, admin"));
        let problems = Credentials::parse("[[credential]]\nname = \"a\"\ntoken = \"x\"\n").unwrap_err();
        assert_eq!(problems[0].0, 3, "{problems:?}");
    }

    #[test]
    fn a_file_that_others_may_alter_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.toml");
        std::fs::write(&path, "").unwrap();
        for (mode, fits) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Credentials::load(&path).is_ok(), fits, "{mode:o}");
        }
        std::fs::write(
            &path,
            "[[step_ca]]\nwebhook_id = \"w\"\nsecret = \"MDEyMzQ1Njc4OTAxMjM0NQ==\"\naccount = \"x\"\n",
        )
        .unwrap();
        for (mode, fits) in [(0o600, true), (0o640, true), (0o644, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Credentials::load(&path).is_ok(), fits, "{mode:o}");
        }
        assert!(Credentials::load(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
