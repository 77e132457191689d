//! The contract on one SQLite file: one process or a few of one machine.
//!
//! One connection writes, in `BEGIN IMMEDIATE` transactions, four read. A certificate's rowid holds
//! its shard in the high half, so a shard is a range of rows and its pages lie together.

mod answers;
mod audit;
mod certificates;
mod connect;
mod feed;
mod fleet;
mod ledger;
mod registry;
mod replies;
mod rows;
mod statements;
mod write;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ring::rand::{SecureRandom, SystemRandom};

use super::{
    AnswerOutcome, CapacityProfile, CertificateEntry, CertificateKey, CertificateState, Changes,
    DueCertificate, FeedPosition, FleetCounts, FleetDay, GuardRecord, IssuerId, IssuerRecord, Ledger,
    NewAnswer, NewResponder, PackNumber, Registered, ResponderNumber, ResponderRecord, ScheduleEntry, Shard,
    StatusChange, Store, StoreError,
};
use crate::clock::UnixTime;
use crate::ocsp::{Revocation, Serial};

/// A handle on a SQLite database; see [`Store`] for what it does.
pub struct SqliteStore {
    url: String,
    pools: connect::Pools,
    /// Tells this handle's feed entries from those of others.
    writer: i64,
}

impl SqliteStore {
    /// Opens `sqlite://PATH`, creating the file (not its folder) when it is not there.
    ///
    /// # Errors
    /// As [`super::open`].
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let mut writer = [0; 8];
        SystemRandom::new().fill(&mut writer).map_err(|_| StoreError::Unavailable {
            action: "opening",
            url: url.to_owned(),
            source: "the system's random numbers are not available".into(),
        })?;
        let pools = connect::open(url).await?;
        Ok(Self { url: url.to_owned(), pools, writer: i64::from_le_bytes(writer) })
    }

    fn failed(&self, action: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
        move |error| failed(&self.url, action, error)
    }
}

/// The contract's error for the driver's.
fn failed(url: &str, action: &'static str, error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            StoreError::Corrupt { url: url.to_owned(), what: error.to_string() }
        }
        error => StoreError::Unavailable { action, url: url.to_owned(), source: Box::new(error) },
    }
}

/// Whether another connection has the lock (SQLITE_BUSY, in any of its extended forms).
fn is_busy(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.code())
        .and_then(|code| code.parse::<i32>().ok())
        .is_some_and(|code| code & 0xff == 5)
}

#[async_trait]
impl Store for SqliteStore {
    fn url(&self) -> &str {
        &self.url
    }

    async fn add_issuer(&self, name: &str, certificate: &[u8]) -> Result<IssuerRecord, StoreError> {
        self.put_issuer(name, certificate).await
    }

    async fn issuers(&self) -> Result<Vec<IssuerRecord>, StoreError> {
        self.list_issuers().await
    }

    async fn add_responder(
        &self,
        responder: &NewResponder,
        now: UnixTime,
    ) -> Result<ResponderRecord, StoreError> {
        self.put_responder(responder, now).await
    }

    async fn retire_responder(
        &self,
        number: ResponderNumber,
        at: Option<UnixTime>,
    ) -> Result<ResponderRecord, StoreError> {
        self.put_retirement(number, at).await
    }

    async fn responders(&self) -> Result<Vec<ResponderRecord>, StoreError> {
        self.list_responders().await
    }

    async fn register(
        &self,
        issuer: IssuerId,
        entries: &[CertificateEntry],
    ) -> Result<Registered, StoreError> {
        self.put_certificates(issuer, entries).await
    }

    async fn revoke(
        &self,
        issuer: IssuerId,
        entries: &[(Serial, Revocation)],
    ) -> Result<Vec<StatusChange>, StoreError> {
        self.put_revocations(issuer, entries).await
    }

    async fn unhold(&self, issuer: IssuerId, serial: &Serial) -> Result<StatusChange, StoreError> {
        self.end_hold(issuer, serial).await
    }

    async fn certificate(
        &self,
        issuer: IssuerId,
        serial: &Serial,
    ) -> Result<Option<CertificateState>, StoreError> {
        self.state_by_serial(issuer, serial).await
    }

    async fn certificates(&self, keys: &[CertificateKey]) -> Result<Vec<CertificateState>, StoreError> {
        self.states_by_key(keys).await
    }

    async fn due(&self, keys: &[CertificateKey]) -> Result<Vec<DueCertificate>, StoreError> {
        self.due_by_key(keys).await
    }

    async fn states(
        &self,
        shard: Shard,
        after: i64,
        limit: u32,
        now: UnixTime,
    ) -> Result<Vec<CertificateState>, StoreError> {
        self.states_page(shard, after, limit, now).await
    }

    async fn schedule(
        &self,
        shard: Shard,
        after: i64,
        limit: u32,
        now: UnixTime,
    ) -> Result<Vec<ScheduleEntry>, StoreError> {
        self.schedule_page(shard, after, limit, now).await
    }

    async fn store_answers(
        &self,
        answers: &[NewAnswer],
        now: UnixTime,
    ) -> Result<Vec<AnswerOutcome>, StoreError> {
        self.put_answers(answers, now).await
    }

    async fn pack_members(&self, pack: PackNumber) -> Result<Vec<CertificateKey>, StoreError> {
        self.members_of(pack).await
    }

    async fn counts(&self, issuer: IssuerId, now: UnixTime) -> Result<FleetCounts, StoreError> {
        self.count_fleet(issuer, now).await
    }

    async fn fleet_days(&self, shard: Shard, now: UnixTime) -> Result<Vec<FleetDay>, StoreError> {
        self.days_of_shard(shard, now).await
    }

    async fn keep_guard(&self, record: &GuardRecord) -> Result<(), StoreError> {
        self.put_guard(record).await
    }

    async fn guard(&self) -> Result<Option<GuardRecord>, StoreError> {
        self.read_guard().await
    }

    async fn add_offered(&self, orders: u64) -> Result<(), StoreError> {
        self.put_offered(orders).await
    }

    async fn offered(&self) -> Result<u64, StoreError> {
        self.read_offered().await
    }

    async fn feed_position(&self) -> Result<FeedPosition, StoreError> {
        self.feed_end().await
    }

    async fn changes(&self, position: FeedPosition) -> Result<Changes, StoreError> {
        self.feed_after(position).await
    }

    async fn prune_feed(&self, now: UnixTime, keep: Duration) -> Result<(), StoreError> {
        self.feed_prune(now, keep).await
    }

    async fn record_profile(&self, profile: &CapacityProfile) -> Result<(), StoreError> {
        self.put_profile(profile).await
    }

    async fn profiles(&self) -> Result<Vec<CapacityProfile>, StoreError> {
        self.list_profiles().await
    }

    fn ledger(self: Arc<Self>) -> Arc<dyn Ledger> {
        self
    }

    async fn close(&self) {
        self.pools.readers.close().await;
        self.pools.writer.close().await;
    }
}

#[cfg(test)]
mod tests;
