//! The audit log: who changed what, each line chained to the one before by its hash.
//!
//! A line is written in the transaction of the change it tells of, so that neither is there without
//! the other. Who acts is not handed from call to call: whoever takes in a request or runs a command
//! wraps it in [`acting_as`]; what the process does by itself needs no wrapping.
//!
//! The chain finds a line that was changed, removed, put in or moved. Whoever can write to the database
//! can also cut off its end, or write a whole new chain: only an anchor kept elsewhere finds that, the
//! number and hash of a line as the log file, the metrics or an export have it.

mod chain;

use std::fmt;
use std::future::Future;
use std::sync::OnceLock;

use async_trait::async_trait;
use serde_json::Value;

use super::StoreError;
use crate::clock::UnixTime;

pub use chain::{Checkpoint, Digest, Fault, Verifier};

/// Who acts when nobody said who: the process, keeping the fleet fresh.
const ITSELF: &str = "goodstanding";

/// Names and numbers listed in a line; a longer list is told by its count and digest.
pub(super) const LISTED: usize = 16;

tokio::task_local! {
    static ACTOR: String;
}

/// Who acts in this process when nobody else is named.
static PROCESS: OnceLock<String> = OnceLock::new();

/// From now on what this process does by itself is done by `actor`: for commands that somebody runs.
pub fn process_acts_as(actor: String) {
    // The first word stands: a process runs one command.
    _ = PROCESS.set(actor);
}

/// Runs `what`; the lines of the changes that it makes name `actor`. Tasks that it spawns act for
/// the process again.
pub async fn acting_as<T>(actor: String, what: impl Future<Output = T>) -> T {
    ACTOR.scope(actor, what).await
}

/// Who acts here.
#[must_use]
pub fn actor() -> String {
    ACTOR
        .try_with(Clone::clone)
        .unwrap_or_else(|_| PROCESS.get().cloned().unwrap_or_else(|| ITSELF.to_owned()))
}

/// What a new line tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLine {
    /// What was done, for example `certificate.revoke`.
    pub action: &'static str,
    /// To what: a JSON object. The octets are what is hashed.
    pub detail: String,
}

impl NewLine {
    /// A line about `detail`.
    #[must_use]
    pub fn new(action: &'static str, detail: &Value) -> Self {
        Self { action, detail: detail.to_string() }
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// Its number; numbers rise by one from 1.
    pub number: i64,
    /// When it was written, by the machine's clock.
    pub time: UnixTime,
    /// Who acted.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what: a JSON object as it was written.
    pub detail: String,
    /// The hash of the line before; zeroes before the first.
    pub previous: Digest,
    /// The hash of this line and the one before.
    pub hash: Digest,
}

/// Where the log ends. Kept elsewhere it is an anchor: the log must still have this line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditHead {
    /// The last line's number; 0 when there is none.
    pub number: i64,
    /// Its hash.
    pub hash: Digest,
}

impl Default for AuditHead {
    fn default() -> Self {
        Self { number: 0, hash: Digest::ZERO }
    }
}

impl fmt::Display for AuditHead {
    /// `NUMBER:HASH`, as `audit verify --anchor` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

/// The text is no anchor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no anchor: it is written NUMBER:HASH with 64 hexadecimal digits, as `audit verify` prints it"
)]
pub struct NoAnchor(String);

impl std::str::FromStr for AuditHead {
    type Err = NoAnchor;

    fn from_str(text: &str) -> Result<Self, NoAnchor> {
        let parts = text.split_once(':');
        let read = parts.and_then(|(number, hash)| Some((number.parse().ok()?, Digest::from_hex(hash)?)));
        let (number, hash) = read.ok_or_else(|| NoAnchor(text.to_owned()))?;
        Ok(Self { number, hash })
    }
}

/// The part of the storage contract that keeps the audit log.
///
/// Rules that every engine keeps: each call of [`Store`](super::Store) that changed something has
/// written one line in its transaction; one that changed nothing has written none; lines are numbered
/// without gaps in the order in which their transactions took effect, whatever process wrote them.
#[async_trait]
pub trait AuditLog: Send + Sync + 'static {
    /// Writes a line about something that is not in the store, such as a file of credentials.
    async fn append_audit(&self, line: &NewLine) -> Result<(), StoreError>;

    /// Lines after number `after`, `limit` at the most, in order.
    async fn audit_lines(&self, after: i64, limit: u32) -> Result<Vec<AuditLine>, StoreError>;

    /// Removes the lines up to and with `through`, which the caller has put elsewhere for good, and writes
    /// the [`Checkpoint`] for them, in one transaction. `detail` is told in it besides: a JSON object. How
    /// many were removed.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the log has no such line.
    async fn prune_audit(&self, through: AuditHead, detail: Value) -> Result<u64, StoreError>;

    /// Where the log ends now.
    async fn audit_head(&self) -> Result<AuditHead, StoreError>;
}
