//! What the capacity guard reads and keeps.

use super::rows::{LAST_IN_SHARD, Reader, shard_start};
use super::statements;
use super::{SqliteStore, StoreError};
use crate::clock::UnixTime;
use crate::store::{FleetDay, GuardRecord, IssuerId, Shard};

fn day(entry: &Reader<'_>) -> Result<FleetDay, StoreError> {
    let lifetime: Option<i64> = entry.get(1)?;
    Ok(FleetDay {
        issuer: IssuerId(entry.get(0)?),
        // A certificate that ends before it begins has no lifetime to speak of.
        lifetime: lifetime.map(|days| u32::try_from(days).unwrap_or(0)),
        ends: entry.get(2)?,
        revoked: entry.get(3)?,
        certificates: entry.get::<i64>(4)?.unsigned_abs(),
    })
}

impl SqliteStore {
    pub(super) async fn days_of_shard(
        &self,
        shard: Shard,
        now: UnixTime,
    ) -> Result<Vec<FleetDay>, StoreError> {
        let start = shard_start(shard);
        let rows = sqlx::query(statements::FLEET_DAYS)
            .bind(start)
            .bind(start + LAST_IN_SHARD)
            .bind(now.0)
            .fetch_all(&self.pools.readers)
            .await
            .map_err(self.failed("counting a shard of"))?;
        rows.iter().map(|row| day(&Reader { url: &self.url, row })).collect()
    }

    pub(super) async fn put_guard(&self, record: &GuardRecord) -> Result<(), StoreError> {
        let mut writing = self.write("keeping the capacity guard's record in").await?;
        sqlx::query(statements::GUARD_PUT)
            .bind(record.at.0)
            .bind(&record.document)
            .execute(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?;
        writing.commit().await
    }

    pub(super) async fn read_guard(&self) -> Result<Option<GuardRecord>, StoreError> {
        let row = sqlx::query(statements::GUARD)
            .fetch_optional(&self.pools.readers)
            .await
            .map_err(self.failed("reading the capacity guard's record in"))?;
        row.map(|row| {
            let entry = Reader { url: &self.url, row: &row };
            Ok(GuardRecord { at: entry.time(0)?, document: entry.get(1)? })
        })
        .transpose()
    }

    pub(super) async fn put_offered(&self, orders: u64) -> Result<(), StoreError> {
        let mut writing = self.write("counting the orders asked for in").await?;
        sqlx::query(statements::OFFERED_ADD)
            .bind(i64::try_from(orders).unwrap_or(i64::MAX))
            .execute(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?;
        writing.commit().await
    }

    pub(super) async fn read_offered(&self) -> Result<u64, StoreError> {
        let orders: i64 = sqlx::query_scalar(statements::OFFERED)
            .fetch_one(&self.pools.readers)
            .await
            .map_err(self.failed("reading the orders asked for in"))?;
        Ok(u64::try_from(orders).unwrap_or_default())
    }
}
