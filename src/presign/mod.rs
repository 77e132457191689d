//! Signing ahead of time: what is due, in which order, and how it gets from the store through the
//! token back into the store and onto the shelf.

pub mod batch;
pub mod desk;
pub mod engine;
pub mod identity;
pub mod keeper;
mod lanes;
pub mod levers;
pub mod pipeline;
pub mod planner;
pub mod policies;
mod reading;
pub mod rota;
pub mod standing;

use crate::shelf::{Entry, Frame, SignedAnswer};
use crate::store::{CertificateState, ResponderNumber};
use std::collections::HashMap;
use std::sync::Arc;

pub use self::policies::{Policies, Policy};

/// The frame of every responder whose answers are in the store, in use or not.
pub type Frames = HashMap<ResponderNumber, Arc<Frame>>;

/// What the shelf is to hold for a certificate. An answer for an older version is left out: it must not
/// be served. So is one of a responder that is no longer installed.
#[must_use]
pub fn entry<'a>(state: &'a CertificateState, frames: &Frames, policies: &Policies) -> Entry<'a> {
    let certificate = &state.certificate;
    let current = state.answer.as_ref().filter(|answer| answer.version == certificate.version);
    let answer = current.and_then(|answer| {
        Some(SignedAnswer {
            frame: Arc::clone(frames.get(&answer.responder)?),
            response_data: &answer.response_data,
            signature: &answer.signature,
            this_update: answer.this_update,
            next_update: answer.next_update,
            renewed_at: policies.due_at(certificate.issuer, &certificate.serial, &answer.times()),
            pack: answer.pack.map(|pack| pack.number.0),
        })
    });
    Entry {
        version: certificate.version,
        not_before: certificate.not_before,
        not_after: policies.of(certificate.issuer).answered_until(certificate.not_after),
        revocation: certificate.revocation,
        answer,
    }
}
