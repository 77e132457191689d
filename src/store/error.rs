//! Why the store did not do what was asked.

/// Why the store did not do what was asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened or does not answer.
    #[error("{action} {url}: {source}")]
    Unavailable {
        /// What was tried, for example `opening`.
        action: &'static str,
        /// The database, without credentials.
        url: String,
        /// What the driver said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database was made by another version of this program.
    #[error(
        "{url} has schema version {found}, this program knows up to {known}: use the version of goodstanding that made it, or a newer one"
    )]
    UnknownSchema {
        /// The database, without credentials.
        url: String,
        /// The version found.
        found: i64,
        /// The newest version known.
        known: i64,
    },
    /// A name or certificate is taken by another one.
    #[error("{0}")]
    Conflict(String),
    /// An issuer or responder that the call refers to is not there.
    #[error("{url} has no {what}: add it first")]
    Missing {
        /// The database, without credentials.
        url: String,
        /// What is not there, for example `issuer 3`.
        what: String,
    },
    /// A stored value cannot be what this program wrote.
    #[error("{url} holds something that this program did not write: {what}")]
    Corrupt {
        /// The database, without credentials.
        url: String,
        /// The table and value.
        what: String,
    },
}
