//! Signing ahead of time: what is due, in which order, and how it gets from the store through the
//! token back into the store and onto the shelf.

pub mod batch;
pub mod desk;
pub mod engine;
pub mod identity;
pub mod keeper;
mod lanes;
pub mod pipeline;
pub mod planner;
mod reading;

use crate::ocsp::Freshness;
use crate::shelf::{Frame, ShelfAnswer, Slot};
use crate::store::{CertificateState, ResponderNumber};
use std::collections::HashMap;
use std::sync::Arc;

/// The frame of every responder whose answers are in the store, in use or not.
pub type Frames = HashMap<ResponderNumber, Arc<Frame>>;

/// What the shelf holds for a certificate. An answer for an older version is left out: it must not
/// be served. So is one of a responder that is no longer installed.
#[must_use]
pub fn slot(state: &CertificateState, frames: &Frames, freshness: &Freshness) -> Slot {
    let certificate = &state.certificate;
    let current = state.answer.as_ref().filter(|answer| answer.version == certificate.version);
    let answer = current.and_then(|answer| {
        let frame = frames.get(&answer.responder)?;
        let renewed_at = freshness.due_at(answer.this_update, answer.next_update, &certificate.serial);
        let times = [answer.this_update, answer.next_update, renewed_at];
        Some(ShelfAnswer::new(Arc::clone(frame), &answer.response_data, &answer.signature, times))
    });
    Slot {
        version: certificate.version,
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        revocation: certificate.revocation,
        answer,
    }
}
