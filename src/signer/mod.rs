//! Signing through PKCS#11: everything that touches the HSM.
//!
//! A [`Signer`] owns one token: a bounded queue of four [`Lane`]s, session threads that each keep one session for life,
//! verifier threads, and a watcher. [`Signer::prepare_key`] proves that a key belongs to a certificate,
//! [`Signer::sign`] returns a verified signature, [`Signer::batch`] keeps hundreds in flight.
//!
//! ```text
//! sign / batch ─► queue ─► session threads ─► C_Sign ─► verifiers ─► caller
//!                              ▲   watcher: hung calls, replacements
//!                              └── mending: new session, or C_Finalize, C_Initialize, probe
//! ```

pub mod admin;
pub mod bench;

mod batch;
mod chart;
mod class;
mod crew;
mod error;
mod handle;
mod key;
mod lane;
mod load;
mod mechanism;
mod module;
mod pace;
mod pool;
mod prepare;
mod queue;
mod settings;
mod spki;
mod stats;
mod supervisor;
mod token;
mod verify;
mod worker;

#[cfg(test)]
mod outage_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use batch::{BatchReceiver, BatchSender, Signed};
pub use error::{FailureClass, SignError, SignerError};
pub use handle::Signer;
pub use key::{BadKeyReference, KeyReference, PreparedKey};
pub use lane::{Lane, Order};
pub use load::Rate;
pub use queue::LaneFigures;
pub use settings::{PinError, PinSource, Settings};
pub use spki::PublicKey;
pub use stats::{Latency, Snapshot, TokenState};
pub use token::KeyEntry;
