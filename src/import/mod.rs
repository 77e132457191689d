//! What a CA knows of its certificates, read from its files.
//!
//! Each source has a pure parser and a loop that writes what was read to the store in portions: the
//! memory used does not grow with the file. Bad entries are counted and listed, the good ones go in,
//! and repeating an import changes nothing.

pub mod certificates;
pub mod crl;
pub mod files;
pub mod index_txt;
pub mod pem;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;

use crate::clock::UnixTime;
use crate::limits::LimitsError;
use crate::ocsp::Revocation;
use crate::store::{Registered, StoreError};

/// Entries kept in each list of a report; all are counted.
pub const LISTED: usize = 100;

/// Entries written in one transaction: short enough that another writer gets its turn within a fraction of
/// a second.
const PORTION: usize = 65_536;

/// Portions read ahead of the store.
const READ_AHEAD: usize = 2;

/// How far ahead of ours a CA's clock may be. A revocation date is when the CA processed the
/// revocation (RFC 5280 section 5.1.2.6), so one that lies further ahead is a mistake, or a plan.
const CLOCK_SKEW: Duration = Duration::from_secs(3_600);

/// Why a revocation is not taken, if its date lies in the future.
fn still_to_come(revocation: &Revocation, now: UnixTime) -> Option<String> {
    (revocation.time > now.plus(CLOCK_SKEW)).then(|| {
        format!(
            "the revocation date {} lies in the future: no answer can say so before; import it then, or revoke it now with `goodstanding revoke`",
            revocation.time
        )
    })
}

/// Something that was not imported, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, line or entry.
    pub place: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A list that counts everything and keeps the first [`LISTED`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed<T> {
    /// How many there were.
    pub count: u64,
    /// The first of them.
    pub first: Vec<T>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { count: 0, first: Vec::new() }
    }
}

impl<T> Listed<T> {
    /// Counts one more, and keeps it while there is room.
    pub fn push(&mut self, entry: impl FnOnce() -> T) {
        self.count += 1;
        if self.first.len() < LISTED {
            self.first.push(entry());
        }
    }

    fn append(&mut self, mut other: Self) {
        self.count += other.count;
        other.first.truncate(LISTED - self.first.len().min(LISTED));
        self.first.append(&mut other.first);
    }

    /// Whether there were none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// What became of the certificates of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// New ones.
    pub added: u64,
    /// Known ones of which the source said something new.
    pub changed: u64,
    /// Known ones that stayed as they were.
    pub unchanged: u64,
}

impl std::ops::AddAssign<Registered> for Outcome {
    fn add_assign(&mut self, registered: Registered) {
        self.added += registered.added;
        self.changed += registered.changed;
        self.unchanged += registered.unchanged;
    }
}

/// How far an import has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries read and written so far, bad ones included.
    pub rows: u64,
    /// Octets of the source behind them.
    pub octets: u64,
    /// Octets of the whole source.
    pub total: u64,
}

/// Called after each portion.
pub type OnProgress<'a> = &'a mut (dyn FnMut(Progress) + Send);

/// Why an import stopped. What was reported as progress before is in the store.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read.
    #[error("reading {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store did not take a portion.
    #[error("storing what was read: {0}")]
    Store(#[from] StoreError),
    /// The limiter did not take note of a portion.
    #[error(
        "telling the limiter of what was read: {0}; what is in the store stays there, and repeating the import tells it the rest"
    )]
    Limits(#[from] LimitsError),
    /// The certificate of an issuer in the store cannot be read.
    #[error("the certificate of issuer {name:?} in the store: {source}")]
    Issuer {
        /// The operator's name for the issuer.
        name: String,
        /// Why.
        source: crate::ocsp::CertificateError,
    },
    /// The CRL is not one that can be used.
    #[error("{}: {source}", path.display())]
    Crl {
        /// The file.
        path: PathBuf,
        /// Why.
        source: crl::CrlError,
    },
}

impl ImportError {
    fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Read { path, source }
    }
}

/// Runs a reader of files on a thread of its own. It hands over portions, at most [`READ_AHEAD`]
/// before they are taken, and is told `false` when nobody wants more.
fn read_ahead<P: Send + 'static, R: Send + 'static>(
    read: impl FnOnce(&mut dyn FnMut(P) -> bool) -> R + Send + 'static,
) -> (mpsc::Receiver<P>, tokio::task::JoinHandle<R>) {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let thread =
        tokio::task::spawn_blocking(move || read(&mut |portion| sender.blocking_send(portion).is_ok()));
    (receiver, thread)
}

/// What the reading thread returned; its panic goes on here.
async fn finished<R>(
    thread: tokio::task::JoinHandle<Result<R, ImportError>>,
    path: &Path,
) -> Result<R, ImportError> {
    match thread.await {
        Ok(read) => read,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(ended) => Err(ImportError::read(path)(std::io::Error::other(ended))),
        },
    }
}

/// The start of some octets for a message: printable, short, and in quotes.
fn shown(octets: &[u8]) -> String {
    const SHOWN: usize = 40;
    let text = String::from_utf8_lossy(&octets[..octets.len().min(SHOWN)]);
    format!("{text:?}{}", if octets.len() > SHOWN { "…" } else { "" })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_list_counts_all_and_keeps_the_first() {
        let mut all = Listed::default();
        for number in 0..90 {
            all.push(|| number);
        }
        let mut more = Listed::default();
        for number in 90..300 {
            more.push(|| number);
        }
        all.append(more);
        assert_eq!(all.count, 300);
        assert_eq!(all.first, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_shown_is_short_and_printable() {
        assert_eq!(shown(b"a\tb\xff"), "\"a\\tb\u{fffd}\"");
        assert_eq!(shown(&[b'x'; 100]).chars().count(), 43);
    }

    /// Runs a command and gives what it wrote to stdout.
    pub(crate) fn run(folder: &Path, command: &str, arguments: &[&str]) -> Vec<u8> {
        let output =
            std::process::Command::new(command).args(arguments).current_dir(folder).output().unwrap();
        assert!(
            output.status.success(),
            "{command} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    /// A store of one test with one issuer.
    pub(crate) async fn store_with(
        folder: &Path,
        certificate: &[u8],
    ) -> (std::sync::Arc<dyn crate::store::Store>, crate::store::IssuerId) {
        let store = crate::store::open(&format!("sqlite://{}/import.db", folder.display())).await.unwrap();
        let issuer = store.add_issuer("demo", certificate).await.unwrap().id;
        (store, issuer)
    }
}
