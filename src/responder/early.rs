//! Answers while the shelf is still being filled: what is asked for is read from the store at once.
//!
//! Only a request whose certificate is not on the shelf yet gets here, and none once the shelf is
//! complete. Reads pass a gate, so that the public listener cannot keep the store from filling the
//! shelf: what is asked beyond it is told tryLater.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::gate::{Gate, Limits};
use crate::ocsp::Serial;
use crate::presign::{self, Frames, Policies};
use crate::shelf::Shelf;
use crate::store::{IssuerId, Store, StoreError};

/// How much is read early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Reads under way at once. They share the store's few reading connections with the loader, which
    /// waits for its turn behind so many point reads at the most.
    pub in_flight: usize,
    /// Reads a second: of some 0.1 ms each, they leave most of a core to the loader.
    pub per_second: u32,
    /// How long a client is kept waiting before tryLater.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { in_flight: 64, per_second: 2_000, patience: Duration::from_secs(2) }
    }
}

/// Reads single certificates from the store onto the shelf.
pub struct EarlyReader {
    store: Arc<dyn Store>,
    shelf: Arc<Shelf>,
    frames: Arc<ArcSwap<Frames>>,
    policies: Arc<ArcSwap<Policies>>,
    settings: Settings,
    gate: Gate<(IssuerId, Serial), Result<Read, Arc<StoreError>>>,
}

impl fmt::Debug for EarlyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyReader").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The certificate is on the shelf now.
    Shelved,
    /// The store has no such certificate.
    NoRecord,
}

impl EarlyReader {
    /// Reads from `store` onto `shelf`.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        shelf: Arc<Shelf>,
        frames: Arc<ArcSwap<Frames>>,
        policies: Arc<ArcSwap<Policies>>,
        settings: Settings,
    ) -> Self {
        let limits = Limits { in_flight: settings.in_flight, per_second: settings.per_second };
        Self { store, shelf, frames, policies, settings, gate: Gate::new(limits) }
    }

    /// Reads one certificate; the same one asked for meanwhile is read once. None when it was not let
    /// through, or the store did not answer in time.
    pub(super) async fn read(&self, issuer: IssuerId, serial: Serial) -> Option<Read> {
        let reading = self.gate.pass((issuer, serial), || self.shelve(issuer, serial));
        match tokio::time::timeout(self.settings.patience, reading).await {
            Ok(Ok(Ok(read))) => Some(read),
            Ok(Ok(Err(failure))) => {
                // The loader reads the same store, and tells the operator.
                tracing::debug!(%issuer, %failure, "cannot read a certificate that is not on the shelf yet");
                None
            }
            Ok(Err(_refused)) => None,
            Err(_elapsed) => {
                tracing::debug!(%issuer, "the store did not give a certificate in time");
                None
            }
        }
    }

    async fn shelve(&self, issuer: IssuerId, serial: Serial) -> Result<Read, Arc<StoreError>> {
        let Some(state) = self.store.certificate(issuer, &serial).await? else { return Ok(Read::NoRecord) };
        // What the loader or the feed has put there meanwhile stays if it is newer.
        let entry = presign::entry(&state, &self.frames.load(), &self.policies.load());
        self.shelf.put(issuer, serial, &entry);
        Ok(Read::Shelved)
    }
}
