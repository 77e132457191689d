//! The limiter's ledger.

use async_trait::async_trait;
use serde_json::json;
use sqlx::Arguments;

use super::rows::{self, Reader};
use super::statements;
use super::{SqliteStore, StoreError};
use crate::clock::UnixTime;
use crate::store::audit::NewLine;
use crate::store::{Appended, Ledger, LedgerEntry, LedgerId, LedgerPosition, LedgerRecord};

#[async_trait]
impl Ledger for SqliteStore {
    async fn ledger_end(&self) -> Result<LedgerPosition, StoreError> {
        sqlx::query_scalar(statements::LEDGER_END)
            .fetch_one(&self.pools.readers)
            .await
            .map(LedgerPosition)
            .map_err(self.failed("reading the ledger of"))
    }

    async fn ledger_after(
        &self,
        position: LedgerPosition,
        limit: u32,
    ) -> Result<Vec<(LedgerPosition, LedgerRecord)>, StoreError> {
        let found = sqlx::query(statements::LEDGER_AFTER)
            .bind(position.0)
            .bind(limit)
            .fetch_all(&self.pools.readers)
            .await
            .map_err(self.failed("reading the ledger of"))?;
        found
            .iter()
            .map(|row| {
                let row = Reader { url: &self.url, row };
                let id = LedgerId(row.get(0)?);
                let entry = serde_json::from_str(row.get(3)?)
                    .map_err(|error| row.corrupt(format!("ledger.entry of record {id}: {error}")))?;
                let record = LedgerRecord { id, keep_until: row.time(2)?, entry };
                Ok((LedgerPosition(row.get(1)?), record))
            })
            .collect()
    }

    async fn ledger_append(
        &self,
        expected: LedgerPosition,
        records: &[LedgerRecord],
    ) -> Result<Appended, StoreError> {
        let mut rows = Vec::with_capacity(records.len());
        for (position, record) in (expected.0 + 1..).zip(records) {
            let entry = serde_json::to_string(&record.entry).map_err(|error| StoreError::Unavailable {
                action: "encoding a record for",
                url: self.url.clone(),
                source: error.into(),
            })?;
            rows.push((position, record, entry));
        }
        let mut writing = self.write("writing the ledger of").await?;
        let moved = sqlx::query(statements::LEDGER_MOVE)
            .bind(expected.0)
            .bind(records.len() as i64)
            .execute(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?
            .rows_affected();
        if moved == 0 {
            let end: i64 = sqlx::query_scalar(statements::LEDGER_END)
                .fetch_one(&mut *writing.transaction)
                .await
                .map_err(|error| writing.failed(error))?;
            return Ok(Appended::Behind(LedgerPosition(end)));
        }
        writing
            .bulk(&statements::LEDGER_PUT, &rows, |arguments, (position, record, entry)| {
                arguments.add(record.id.0)?;
                arguments.add(*position)?;
                arguments.add(record.keep_until.0)?;
                arguments.add(entry.as_str())
            })
            .await
            .map_err(|error| writing.failed(error))?;
        for record in records {
            if let LedgerEntry::Override(set) = &record.entry {
                let detail = json!({ "override": record.id.0, "set": set });
                writing.audited.push(NewLine::new("override.set", &detail));
            }
        }
        writing.commit().await?;
        Ok(Appended::Done(LedgerPosition(expected.0 + records.len() as i64)))
    }

    async fn ledger_forget(&self, ids: &[LedgerId], now: UnixTime) -> Result<u64, StoreError> {
        let mut writing = self.write("forgetting records of the ledger of").await?;
        let forgotten = sqlx::query(statements::LEDGER_FORGET)
            .bind(rows::json_integers(ids.iter().map(|id| id.0)))
            .bind(now.0)
            .execute(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?
            .rows_affected();
        writing.commit().await?;
        Ok(forgotten)
    }
}
