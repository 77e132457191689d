//! What the dashboard shows: a picture of the process at one moment, taken by whoever put it together.

use std::time::Duration;

use super::Check;
use crate::clock::UnixTime;
use crate::limits::{Pressure, Tally};
use crate::store::audit::AuditHead;

/// The process at one moment. Taken from memory: looking at the dashboard must not load the database.
#[derive(Clone, Debug, Default)]
pub struct Situation {
    /// When.
    pub at: UnixTime,
    /// Whether it is ending.
    pub draining: bool,
    /// The checks of `/readyz`.
    pub checks: Vec<Check>,
    /// What is answered for.
    pub fleet: Fleet,
    /// Until the first answer on the shelf is stale; none when it is not known.
    pub until_stale: Option<Duration>,
    /// Until the first answer on the shelf is expired; none when it is not known.
    pub until_expiry: Option<Duration>,
    /// How long an answer lasts: the scale of the two before.
    pub validity: Duration,
    /// What waits for a signature, the most urgent lane first.
    pub lanes: Vec<LaneSituation>,
    /// The tokens in use.
    pub tokens: Vec<TokenSituation>,
    /// What the guard says of new certificates; none in a process without a limiter.
    pub pressure: Option<Pressure>,
    /// What the limiter decided since the start.
    pub tally: Option<Tally>,
    /// Where the audit log ended when it was last read.
    pub audit: AuditHead,
}

/// The certificates and their answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Unexpired certificates.
    pub certificates: u64,
    /// Those with an answer.
    pub answers: u64,
    /// Answers past nextUpdate.
    pub expired: u64,
    /// Certificates on their way through the pipeline.
    pub under_way: u64,
    /// Answers signed since the start.
    pub signed: u64,
    /// Attempts that failed since the start.
    pub failed: u64,
    /// How long the oldest certificate that waits has been due.
    pub oldest_due: Option<Duration>,
}

/// A lane of signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneSituation {
    /// Its name.
    pub name: String,
    /// Signatures that wait.
    pub waiting: u64,
    /// How long the oldest has waited.
    pub oldest: Option<Duration>,
}

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenSituation {
    /// Its configured name.
    pub name: String,
    /// Whether it signs.
    pub serving: bool,
    /// How it stands, in words.
    pub state: String,
    /// Sessions open and logged in.
    pub sessions: usize,
    /// Signatures a second that it sustains, where measured.
    pub rate: Option<f64>,
    /// Median time of a signature.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// Signatures made and verified.
    pub signed: u64,
    /// Failed calls.
    pub failures: u64,
}
