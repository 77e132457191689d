//! What can go wrong with a token, and what each failure asks for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::key::KeyReference;
use super::settings::PinError;
use crate::ocsp::{KeyAlgorithm, SignatureAlgorithm};

/// How far a failure reaches, and so what mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureClass {
    /// This item only: its neighbours go on.
    Request,
    /// This session: it is opened anew and the item tried once more.
    Session,
    /// The token or the module: everybody stops, the module is initialised anew with back-off.
    Token,
    /// The PIN: nothing is tried until the operator has acted.
    Pin,
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn whose(token: &Option<String>) -> String {
    token.as_ref().map_or_else(String::new, |token| format!("[[token]] {token}: "))
}

/// Why a signer was not started, a key not prepared, or an administrative act not done.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The settings cannot be used.
    #[error("token {token}: {what}")]
    Settings {
        /// The configured name of the token.
        token: String,
        /// What is wrong and what would be right.
        what: String,
    },
    /// There is no module file.
    #[error(
        "{}the PKCS#11 module {path} cannot be opened: {source}; install the HSM vendor's library (SoftHSM: Debian package softhsm2) or correct `module`",
        whose(.token)
    )]
    ModuleMissing {
        /// The configured name of the token that asked for it, where one did.
        token: Option<String>,
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a module.
    #[error(
        "{}{path} is no PKCS#11 module that this process can load: {code}; `module` must name a shared library with C_GetFunctionList, for this machine's architecture",
        whose(.token)
    )]
    NotAModule {
        /// The configured name of the token that asked for it, where one did.
        token: Option<String>,
        /// The file.
        path: PathBuf,
        /// What the loader said.
        code: String,
    },
    /// The module does not come up, or sees no token at all.
    #[error("{}the PKCS#11 module {path} does not work: {what}", whose(.token))]
    Module {
        /// The configured name of the token that asked for it, where one did.
        token: Option<String>,
        /// The module.
        path: PathBuf,
        /// What was tried, what came back and what to do.
        what: String,
    },
    /// No token has the label.
    #[error("[[token]] {token}: the module {module} has no token labelled {label:?}; the labels there: {}; correct `label`, or see whether the HSM client and its configuration ($SOFTHSM2_CONF for SoftHSM) show the token to this user", listed(.found))]
    TokenMissing {
        /// The configured name of the token.
        token: String,
        /// The label looked for.
        label: String,
        /// The module.
        module: PathBuf,
        /// The labels found.
        found: Vec<String>,
    },
    /// Several tokens have the label.
    #[error(
        "[[token]] {token}: the module {module} has {count} tokens labelled {label:?}; give each a label of its own"
    )]
    TokenAmbiguous {
        /// The configured name of the token.
        token: String,
        /// The label.
        label: String,
        /// The module.
        module: PathBuf,
        /// How many.
        count: usize,
    },
    /// The PIN is not to be had.
    #[error("token {token}: {source}")]
    Pin {
        /// The configured name of the token.
        token: String,
        /// Why.
        source: PinError,
    },
    /// The token did not take the PIN. It is not tried again.
    #[error(
        "token {token} refused the PIN from {pin}: {code}; it was tried once and is not tried again, because HSMs lock after a few failures: correct the PIN and start again"
    )]
    PinRefused {
        /// The configured name of the token.
        token: String,
        /// The source of the PIN.
        pin: String,
        /// What the module said.
        code: String,
    },
    /// The key is not there.
    #[error("token {token} has no private key {key}; the keys there: {}; correct `key`, or make one with `goodstanding responder key`", listed(.found))]
    KeyMissing {
        /// The configured name of the token.
        token: String,
        /// The key looked for.
        key: KeyReference,
        /// The keys found.
        found: Vec<String>,
    },
    /// Several keys answer to the reference.
    #[error(
        "token {token} has {count} private keys {key}; name the right one by `id`, or destroy the others"
    )]
    KeyAmbiguous {
        /// The configured name of the token.
        token: String,
        /// The key looked for.
        key: KeyReference,
        /// How many there are.
        count: usize,
    },
    /// A key of that label or id is there already.
    #[error("token {token} already has a key {key}; choose another label, keys are never overwritten")]
    KeyExists {
        /// The configured name of the token.
        token: String,
        /// The label or id.
        key: KeyReference,
    },
    /// The key is there, and cannot be used so.
    #[error("the key {key} in token {token} cannot be used: {what}")]
    KeyUnfit {
        /// The configured name of the token.
        token: String,
        /// The key.
        key: KeyReference,
        /// Why, and what to do.
        what: String,
    },
    /// The certificate's public key is not the key's.
    #[error(
        "the certificate does not belong to the key {key} in token {token}: a signature by the key does not verify ({algorithm}) with the certificate's public key; install the certificate that was issued for this key"
    )]
    KeyMismatch {
        /// The configured name of the token.
        token: String,
        /// The key.
        key: KeyReference,
        /// How it was tried.
        algorithm: SignatureAlgorithm,
    },
    /// The token has no mechanism for the algorithm.
    #[error(
        "token {token} cannot {act} {algorithm}: it has none of the mechanisms {mechanisms}; use another algorithm, `goodstanding hsm list` shows what the token can do"
    )]
    MechanismMissing {
        /// The configured name of the token.
        token: String,
        /// `sign with`, `make a key for`.
        act: &'static str,
        /// The algorithm's name.
        algorithm: String,
        /// The mechanisms looked for.
        mechanisms: String,
    },
    /// A call failed in another way.
    #[error("token {token}: {action} failed: {code}")]
    Call {
        /// The configured name of the token.
        token: String,
        /// What was tried.
        action: String,
        /// What the module said.
        code: String,
        /// What it asks for.
        class: FailureClass,
    },
    /// A call did not come back.
    #[error(
        "token {token}: {action} did not come back within {after:?}; look at the HSM and its network, then at `call_timeout`"
    )]
    TimedOut {
        /// The configured name of the token.
        token: String,
        /// What was tried.
        action: String,
        /// The limit.
        after: Duration,
    },
    /// The signer does not serve at present.
    #[error(transparent)]
    Signing(#[from] SignError),
}

impl SignerError {
    /// The same failure, with the token named that asked for the module: several may share one, or have
    /// one each.
    pub(crate) fn of_token(mut self, name: &str) -> Self {
        if let Self::ModuleMissing { token, .. }
        | Self::NotAModule { token, .. }
        | Self::Module { token, .. } = &mut self
        {
            token.get_or_insert_with(|| name.to_owned());
        }
        self
    }

    /// How far the failure reaches.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Pin { .. } | Self::PinRefused { .. } => FailureClass::Pin,
            Self::Module { .. }
            | Self::ModuleMissing { .. }
            | Self::NotAModule { .. }
            | Self::TokenMissing { .. }
            | Self::TokenAmbiguous { .. }
            | Self::TimedOut { .. } => FailureClass::Token,
            Self::Settings { .. }
            | Self::KeyMissing { .. }
            | Self::KeyAmbiguous { .. }
            | Self::KeyExists { .. }
            | Self::KeyUnfit { .. }
            | Self::KeyMismatch { .. }
            | Self::MechanismMissing { .. } => FailureClass::Request,
            Self::Call { class, .. } => *class,
            Self::Signing(error) => error.class(),
        }
    }

    /// Whether the token has no room for one more session.
    pub(crate) fn is_session_limit(&self) -> bool {
        matches!(self, Self::Call { code, .. } if code.starts_with("SessionCount"))
    }

    /// Whether the same start may succeed later without anybody changing the configuration: the HSM is
    /// away, not misnamed.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Module { .. } | Self::TokenMissing { .. } | Self::TimedOut { .. } => true,
            Self::Call { class, .. } => *class != FailureClass::Pin,
            _ => false,
        }
    }
}

/// Why there is no signature.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SignError {
    /// The token refused this item.
    #[error("token {token}: signing with {key} failed: {code}")]
    Failed {
        /// The configured name of the token.
        token: Arc<str>,
        /// The key.
        key: Arc<str>,
        /// What the module said.
        code: String,
    },
    /// The token returned a signature that does not verify, twice.
    #[error(
        "token {token}: the signature made with {key} does not verify ({algorithm}), also after finding the key anew; it was thrown away"
    )]
    Unverifiable {
        /// The configured name of the token.
        token: Arc<str>,
        /// The key.
        key: Arc<str>,
        /// The algorithm.
        algorithm: SignatureAlgorithm,
    },
    /// The key has gone from the token, which still has others.
    #[error("token {token} has no private key {key} any more; restore it, or install another responder")]
    KeyGone {
        /// The configured name of the token.
        token: Arc<str>,
        /// The key.
        key: Arc<str>,
    },
    /// The call did not come back. Whether the token signed is not known.
    #[error(
        "token {token}: signing did not come back within {after:?}; look at the HSM and its network, then at `call_timeout`"
    )]
    TimedOut {
        /// The configured name of the token.
        token: Arc<str>,
        /// The limit.
        after: Duration,
    },
    /// The token is away; it is tried again with back-off.
    #[error("token {token} does not sign at present: {reason}")]
    Unavailable {
        /// The configured name of the token.
        token: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
    /// The token refused the PIN; only the operator can mend that.
    #[error("token {token} does not sign: {reason}")]
    PinRefused {
        /// The configured name of the token.
        token: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
    /// The key was prepared for another signer.
    #[error("the key {key} was prepared by another signer than that of token {token}")]
    ForeignKey {
        /// The configured name of the token.
        token: Arc<str>,
        /// The key.
        key: Arc<str>,
    },
    /// The signer is stopping.
    #[error("the signer of token {token} is stopping")]
    Stopped {
        /// The configured name of the token.
        token: Arc<str>,
    },
}

impl SignError {
    /// How far the failure reaches: a [`FailureClass::Request`] is this item's own trouble, anything
    /// else is not, and the item may be tried again when the token is back.
    #[must_use]
    pub const fn class(&self) -> FailureClass {
        match self {
            Self::Failed { .. }
            | Self::Unverifiable { .. }
            | Self::KeyGone { .. }
            | Self::ForeignKey { .. } => FailureClass::Request,
            Self::TimedOut { .. } | Self::Unavailable { .. } | Self::Stopped { .. } => FailureClass::Token,
            Self::PinRefused { .. } => FailureClass::Pin,
        }
    }
}

/// `rsa-2048, not p256` and the like, for [`SignerError::KeyUnfit`].
pub(crate) fn misfit(found: Option<KeyAlgorithm>, wanted: SignatureAlgorithm) -> String {
    match found {
        Some(found) => format!("it is a key for {found}, which does not sign with {wanted}"),
        None => format!("it is of a kind or size that is not supported, and does not sign with {wanted}"),
    }
}
