//! Replies kept for idempotency keys: what is asked again gets the reply it got before.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use super::audit::Digest;
use crate::clock::UnixTime;

/// How long a reply is kept.
pub const KEPT: Duration = Duration::from_secs(24 * 3_600);

/// How long a request may be under way before another may take its key over: its process is gone.
pub const UNDER_WAY: Duration = Duration::from_secs(60);

/// A key as its caller gave it. Each caller has keys of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplyKey {
    /// Who calls.
    pub caller: String,
    /// The caller's key.
    pub key: String,
}

/// A reply to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers that belong to it, a `name: value` line each.
    pub headers: String,
    /// The body.
    pub body: Vec<u8>,
}

/// What a key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing yet: the caller does the work, then finishes or abandons it.
    New,
    /// The same request is under way.
    UnderWay,
    /// Another request was made with this key.
    Mismatch,
    /// It was done, with this reply.
    Done(Reply),
}

/// The part of the storage contract that keeps replies.
///
/// Rules that every engine keeps: of calls at the same time one gets [`Begun::New`]; a reply is kept
/// for [`KEPT`] from the begin; a request that was neither finished nor abandoned within
/// [`UNDER_WAY`] is forgotten.
#[async_trait]
pub trait ReplyLog: Send + Sync + 'static {
    /// Takes the key for a request with this digest, or says what it stands for. Forgets what is too
    /// old.
    async fn begin_reply(&self, key: &ReplyKey, request: Digest, now: UnixTime) -> Result<Begun, StoreError>;

    /// Keeps the reply to a request that was begun.
    async fn finish_reply(&self, key: &ReplyKey, reply: &Reply) -> Result<(), StoreError>;

    /// Gives the key back: the request failed in a way that may be tried again.
    async fn abandon_reply(&self, key: &ReplyKey) -> Result<(), StoreError>;
}
