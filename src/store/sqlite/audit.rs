//! The audit log: lines written inside the transaction they tell of.

use async_trait::async_trait;
use serde_json::Value;

use super::rows::Reader;
use super::write::Writing;
use super::{SqliteStore, StoreError, statements};
use crate::clock::{Clock, SystemClock, UnixTime};
use crate::store::audit::{self, AuditHead, AuditLine, AuditLog, Checkpoint, Digest, NewLine};

impl Writing<'_> {
    /// Writes the lines of this transaction at the end of the log.
    pub(super) async fn write_audit(&mut self) -> Result<(), StoreError> {
        if self.audited.is_empty() {
            return Ok(());
        }
        let last: Option<(i64, Vec<u8>)> = sqlx::query_as(statements::AUDIT_HEAD)
            .fetch_optional(&mut *self.transaction)
            .await
            .map_err(|error| self.failed(error))?;
        let mut head = match last {
            None => AuditHead::default(),
            Some((number, hash)) => AuditHead {
                number,
                hash: digest(&hash).ok_or_else(|| self.corrupt("audit.hash", "it has not 32 octets"))?,
            },
        };
        let (actor, now) = (audit::actor(), SystemClock.now());
        for line in std::mem::take(&mut self.audited) {
            let line = AuditLine::follow(head, now, actor.clone(), line.action, line.detail);
            sqlx::query(statements::AUDIT_APPEND)
                .bind(line.number)
                .bind(line.time.0)
                .bind(&line.actor)
                .bind(&line.action)
                .bind(&line.detail)
                .bind(line.previous.0.as_slice())
                .bind(line.hash.0.as_slice())
                .execute(&mut *self.transaction)
                .await
                .map_err(|error| self.failed(error))?;
            head = line.head();
        }
        Ok(())
    }
}

fn digest(octets: &[u8]) -> Option<Digest> {
    octets.try_into().ok().map(Digest)
}

fn line(row: &Reader<'_>) -> Result<AuditLine, StoreError> {
    let hash = |column: usize, name: &str| {
        let octets: Vec<u8> = row.get(column)?;
        digest(&octets).ok_or_else(|| row.corrupt(format!("audit.{name} has not 32 octets")))
    };
    Ok(AuditLine {
        number: row.get(0)?,
        time: UnixTime(row.get(1)?),
        actor: row.get(2)?,
        action: row.get(3)?,
        detail: row.get(4)?,
        previous: hash(5, "previous")?,
        hash: hash(6, "hash")?,
    })
}

#[async_trait]
impl AuditLog for SqliteStore {
    async fn append_audit(&self, line: &NewLine) -> Result<(), StoreError> {
        let mut writing = self.write("writing to the audit log of").await?;
        writing.audited.push(line.clone());
        writing.commit().await
    }

    async fn audit_lines(&self, after: i64, limit: u32) -> Result<Vec<AuditLine>, StoreError> {
        let rows = sqlx::query(statements::AUDIT_LINES)
            .bind(after)
            .bind(limit)
            .fetch_all(&self.pools.readers)
            .await
            .map_err(self.failed("reading the audit log of"))?;
        rows.iter().map(|row| line(&Reader { url: &self.url, row })).collect()
    }

    async fn prune_audit(&self, through: AuditHead, mut detail: Value) -> Result<u64, StoreError> {
        let mut writing = self.write("pruning the audit log of").await?;
        let lines: Option<i64> = sqlx::query_scalar(statements::AUDIT_UP_TO)
            .bind(through.number)
            .bind(through.hash.0.as_slice())
            .fetch_optional(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?;
        let Some(lines) = lines else {
            return Err(StoreError::Conflict(format!("the audit log of {} has no line {through}", self.url)));
        };
        detail["through"] = Value::from(through.to_string());
        detail["lines"] = Value::from(lines);
        writing.audited.push(NewLine::new(Checkpoint::ACTION, &detail));
        // Before the others go: it is chained to the last of them when all do.
        writing.write_audit().await?;
        let removed = sqlx::query(statements::AUDIT_PRUNE)
            .bind(through.number)
            .execute(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?;
        writing.commit().await?;
        Ok(removed.rows_affected())
    }

    async fn audit_head(&self) -> Result<AuditHead, StoreError> {
        let last: Option<(i64, Vec<u8>)> = sqlx::query_as(statements::AUDIT_HEAD)
            .fetch_optional(&self.pools.readers)
            .await
            .map_err(self.failed("reading the audit log of"))?;
        last.map_or(Ok(AuditHead::default()), |(number, hash)| {
            let corrupt = || StoreError::Corrupt {
                url: self.url.clone(),
                what: "audit.hash has not 32 octets".to_owned(),
            };
            Ok(AuditHead { number, hash: digest(&hash).ok_or_else(corrupt)? })
        })
    }
}
