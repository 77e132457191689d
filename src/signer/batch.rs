//! Many signatures in flight, with one channel for all results.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use super::error::SignError;
use super::handle::Signer;
use super::key::PreparedKey;
use super::lane::Order;
use super::queue::Reply;

/// Hands jobs in. Every job takes one of the batch's places until its result is received, so no more
/// results wait than there are places.
#[derive(Debug)]
pub struct BatchSender<T> {
    signer: Signer,
    places: Arc<Semaphore>,
    results: mpsc::UnboundedSender<Signed<T>>,
}

/// Receives results, in the order in which they are done.
#[derive(Debug)]
pub struct BatchReceiver<T> {
    places: Arc<Semaphore>,
    results: mpsc::UnboundedReceiver<Signed<T>>,
}

/// The result of one job of a batch.
#[derive(Debug)]
pub struct Signed<T> {
    /// What the caller gave along.
    pub tag: T,
    /// The verified signature.
    pub signature: Result<Vec<u8>, SignError>,
}

impl Signer {
    /// A batch with at most `in_flight` jobs between handing in and receiving; a few hundred keep any
    /// token busy. The two halves may be used by one task or by two.
    #[must_use]
    pub fn batch<T: Send + 'static>(&self, in_flight: usize) -> (BatchSender<T>, BatchReceiver<T>) {
        let places = Arc::new(Semaphore::new(in_flight.max(1)));
        let (sender, results) = mpsc::unbounded_channel();
        (
            BatchSender { signer: self.clone(), places: Arc::clone(&places), results: sender },
            BatchReceiver { places, results },
        )
    }
}

/// Sees to it that a job never vanishes without a result.
struct Ticket<T> {
    tag: Option<T>,
    results: mpsc::UnboundedSender<Signed<T>>,
    token: Arc<str>,
}

impl<T> Ticket<T> {
    fn deliver(&mut self, signature: Result<Vec<u8>, SignError>) {
        if let Some(tag) = self.tag.take() {
            // The receiver may have gone: then nobody wants the result.
            drop(self.results.send(Signed { tag, signature }));
        }
    }
}

impl<T> Drop for Ticket<T> {
    fn drop(&mut self) {
        let token = Arc::clone(&self.token);
        self.deliver(Err(SignError::Stopped { token }));
    }
}

impl<T: Send + 'static> BatchSender<T> {
    /// Hands a job in, after waiting for a place in the batch and in the lane. Every job handed in
    /// comes back through the receiver, failed ones too.
    ///
    /// One task that both hands in and receives must not wait here with all places taken: receive
    /// first, or use [`BatchSender::is_full`].
    pub async fn submit(&self, key: &PreparedKey, message: Bytes, order: Order, tag: T) {
        if let Ok(place) = self.places.acquire().await {
            place.forget();
        }
        let mut ticket =
            Ticket { tag: Some(tag), results: self.results.clone(), token: self.signer.token().into() };
        let reply = Reply::Batch(Box::new(move |signature| ticket.deliver(signature)));
        self.signer.submit_sign(key, message, order, reply).await;
    }

    /// Whether [`BatchSender::submit`] would wait for a result to be received.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.places.available_permits() == 0
    }
}

impl<T> BatchReceiver<T> {
    /// The next result; none when the sender is gone and every job has come back.
    pub async fn next(&mut self) -> Option<Signed<T>> {
        let signed = self.results.recv().await?;
        self.places.add_permits(1);
        Some(signed)
    }

    /// A result that is ready, without waiting.
    pub fn ready(&mut self) -> Option<Signed<T>> {
        let signed = self.results.try_recv().ok()?;
        self.places.add_permits(1);
        Some(signed)
    }
}
