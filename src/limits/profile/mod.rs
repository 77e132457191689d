//! A profile: the numbers of every limit, read from TOML with every error at its line.

mod read;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::identifiers::PrefixLength;
use super::tier::Tier;
use crate::reader::Problem;

/// The numbers in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Where the limits are explained: `Link rel="help"` and the end of each refusal; empty for nowhere.
    pub help: Arc<str>,
    /// How long an order's places are held.
    pub reservation: Duration,
    /// From how many hundredths of a tier on a warning is given.
    pub warn_percent: u64,
    /// The most identifiers in one certificate.
    pub identifiers_most: usize,
    /// How long after its end a certificate can still be renewed.
    pub renewal_grace: Duration,
    /// The limits, in the order of the file.
    pub limits: Vec<Limit>,
}

/// One limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Its name, a word of lower-case letters, digits and hyphens.
    pub name: Arc<str>,
    /// What it counts.
    pub counts: Counts,
    /// For whom it counts them together.
    pub per: Per,
    /// The tiers, all of which must allow, by period.
    pub tiers: Vec<Tier>,
    /// e: the effective number is max(1, ⌊number · mᵉ⌋).
    pub exponent: f64,
    /// Counts and logs, does not refuse.
    pub shadow: bool,
    /// Whether the operator may set other numbers for one key.
    pub overridable: bool,
    /// Whether renewals pass without being counted.
    pub renewals_exempt: bool,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counts {
    /// Accounts made; each counts from its making.
    Registrations,
    /// Orders accepted; each counts from its acceptance, whatever becomes of it.
    Orders,
    /// Certificates: held by the order, counted from issuance.
    Certificates,
    /// Orders released because the authorisation of an identifier failed.
    FailedAuthorizations,
}

/// For whom a limit counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// The IP address, IPv6 cut to this length.
    Ip {
        /// Leading bits of an IPv6 address.
        ipv6: PrefixLength,
    },
    /// IPv6 networks of this length only; IPv4 addresses do not count.
    Ipv6Range {
        /// Leading bits.
        ipv6: PrefixLength,
    },
    /// The account.
    Account,
    /// The registered domain; IPv4 addresses exactly, IPv6 cut to this length.
    Domain {
        /// Leading bits of an IPv6 address.
        ipv6: PrefixLength,
    },
    /// The exact set of identifiers.
    Identifiers,
    /// One identifier of one account.
    AccountAndIdentifier,
    /// Everybody together.
    Everything,
}

impl Serialize for Per {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// A profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("cannot read the limits profile {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It holds errors.
    #[error("the limits profile has {} error{}:{}", problems.len(), if problems.len() == 1 { "" } else { "s" }, listing(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every one of them, by line.
        problems: Vec<Problem>,
    },
}

fn listing(path: &Path, problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("\n  {}:{}: {}", path.display(), problem.line, problem.message))
        .collect()
}

/// Whether a text is the http(s) URL of a page, fit for a header field.
#[must_use]
pub fn is_help_page(text: &str) -> bool {
    let web = text.starts_with("https://") || text.starts_with("http://");
    web && text.is_ascii()
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "<>\"".contains(c))
}

impl Profile {
    /// Reads and validates a profile.
    ///
    /// # Errors
    /// [`ProfileError`] with every error in the file.
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ProfileError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|problems| ProfileError::Invalid { path: path.to_owned(), problems })
    }

    /// Validates the text of a profile.
    ///
    /// # Errors
    /// Every problem in it, by line.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        read::profile(text)
    }

    /// A profile without limits, which allows everything: what is in force when none is configured.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            name: "unlimited".to_owned(),
            help: Arc::default(),
            reservation: Duration::from_secs(3_600),
            warn_percent: 80,
            identifiers_most: 100,
            renewal_grace: Duration::from_secs(30 * 86_400),
            limits: Vec::new(),
        }
    }

    /// The limit of a name.
    #[must_use]
    pub fn limit(&self, name: &str) -> Option<(usize, &Limit)> {
        self.limits.iter().enumerate().find(|(_, limit)| &*limit.name == name)
    }

    /// The longest period of all limits.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.limits.iter().map(Limit::longest).max().unwrap_or_default()
    }
}

impl Limit {
    /// Whether the capacity guard sets its number.
    #[must_use]
    pub fn is_by_capacity(&self) -> bool {
        self.tiers.iter().any(Tier::is_by_capacity)
    }

    /// Its longest period.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.tiers.iter().map(|tier| tier.period).max().unwrap_or_default()
    }
}

impl Counts {
    /// Every kind with the name it has in a profile.
    pub(super) const ALL: [(Self, &'static str); 4] = [
        (Self::Registrations, "registrations"),
        (Self::Orders, "orders"),
        (Self::Certificates, "certificates"),
        (Self::FailedAuthorizations, "failed-authorizations"),
    ];
}

impl Per {
    /// The name it has in a profile.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ip { .. } => "ip",
            Self::Ipv6Range { .. } => "ipv6-range",
            Self::Account => "account",
            Self::Domain { .. } => "domain",
            Self::Identifiers => "identifiers",
            Self::AccountAndIdentifier => "account-and-identifier",
            Self::Everything => "everything",
        }
    }
}
