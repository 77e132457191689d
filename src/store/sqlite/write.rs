//! One writing transaction: its turn, its bulk statements, its entry in the feed.

use std::time::Duration;

use sqlx::Transaction;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{Sqlite, SqliteArguments};

use super::connect::TURN;
use super::statements::{self, Bulk};
use super::{SqliteStore, StoreError, feed, is_busy};
use crate::clock::Stopwatch;
use crate::store::IssuerId;
use crate::store::audit::NewLine;

/// A writing transaction. Dropped without [`Writing::commit`], it changes nothing.
pub(super) struct Writing<'s> {
    store: &'s SqliteStore,
    action: &'static str,
    pub(super) transaction: Transaction<'static, Sqlite>,
    /// The rowids of certificates that were changed.
    pub(super) changed: Vec<i64>,
    /// Whether issuers or responders were.
    pub(super) registry: bool,
    /// What the audit log is to say of it.
    pub(super) audited: Vec<NewLine>,
}

impl SqliteStore {
    /// Waits for the turn to write, at most [`TURN`] in this process and as long again for others.
    pub(super) async fn write(&self, action: &'static str) -> Result<Writing<'_>, StoreError> {
        let waited = Stopwatch::start();
        loop {
            match self.pools.writer.begin_with(statements::BEGIN_WRITE).await {
                Ok(transaction) => {
                    return Ok(Writing {
                        store: self,
                        action,
                        transaction,
                        changed: Vec::new(),
                        registry: false,
                        audited: Vec::new(),
                    });
                }
                Err(error) if is_busy(&error) && waited.elapsed() < TURN => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => return Err(self.failed(action)(error)),
            }
        }
    }
}

impl Writing<'_> {
    /// The error for something in `table` that this program did not write.
    pub(super) fn corrupt(&self, table: &str, what: &str) -> StoreError {
        StoreError::Corrupt { url: self.store.url.clone(), what: format!("{table}: {what}") }
    }

    pub(super) fn failed(&self, error: sqlx::Error) -> StoreError {
        super::failed(&self.store.url, self.action, error)
    }

    pub(super) fn unavailable(&self, why: &str) -> StoreError {
        StoreError::Unavailable { action: self.action, url: self.store.url.clone(), source: why.into() }
    }

    /// [`StoreError::Missing`] unless there is such an issuer.
    pub(super) async fn require_issuer(&mut self, issuer: IssuerId) -> Result<(), StoreError> {
        let there: bool = sqlx::query_scalar(statements::ISSUER_EXISTS)
            .bind(issuer.0)
            .fetch_one(&mut *self.transaction)
            .await
            .map_err(|error| self.failed(error))?;
        if there {
            Ok(())
        } else {
            Err(StoreError::Missing { url: self.store.url.clone(), what: format!("issuer {issuer}") })
        }
    }

    /// Runs a bulk statement over all of `rows`.
    pub(super) async fn bulk<T>(
        &mut self,
        bulk: &Bulk,
        mut rows: &[T],
        bind: impl Fn(&mut SqliteArguments, &T) -> Result<(), BoxDynError>,
    ) -> Result<(), sqlx::Error> {
        use sqlx::Arguments;
        while !rows.is_empty() {
            let (statement, length) = bulk.part(rows.len());
            let (part, rest) = rows.split_at(length);
            let mut arguments = SqliteArguments::default();
            arguments.reserve(part.len() * bulk.columns, 0);
            for row in part {
                bind(&mut arguments, row).map_err(sqlx::Error::Encode)?;
            }
            sqlx::query_with(statement, arguments).execute(&mut *self.transaction).await?;
            rows = rest;
        }
        Ok(())
    }

    /// Announces what was changed, writes it into the audit log, and makes it durable.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        self.write_audit().await?;
        for keys in feed::pack(&self.changed, self.registry) {
            sqlx::query(statements::FEED_APPEND)
                .bind(self.store.writer)
                .bind(self.registry)
                .bind(keys)
                .execute(&mut *self.transaction)
                .await
                .map_err(|error| self.failed(error))?;
        }
        let Self { store, action, transaction, .. } = self;
        transaction.commit().await.map_err(store.failed(action))
    }
}
