//! Replies kept for idempotency keys.

use async_trait::async_trait;

use super::{SqliteStore, StoreError, statements};
use crate::clock::UnixTime;
use crate::store::audit::Digest;
use crate::store::replies::{Begun, KEPT, Reply, ReplyKey, ReplyLog, UNDER_WAY};

/// Request, status, headers and body of a row.
type Kept = (Vec<u8>, Option<u16>, Option<String>, Option<Vec<u8>>);

#[async_trait]
impl ReplyLog for SqliteStore {
    async fn begin_reply(&self, key: &ReplyKey, request: Digest, now: UnixTime) -> Result<Begun, StoreError> {
        let mut writing = self.write("looking for an earlier reply in").await?;
        sqlx::query(statements::REPLY_FORGET)
            .bind(now.minus(KEPT).0)
            .bind(now.minus(UNDER_WAY).0)
            .execute(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?;
        let kept: Option<Kept> = sqlx::query_as(statements::REPLY_FIND)
            .bind(&key.caller)
            .bind(&key.key)
            .fetch_optional(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?;
        let begun = match kept {
            Some((other, ..)) if other != request.0 => Begun::Mismatch,
            Some((_, Some(status), headers, body)) => Begun::Done(Reply {
                status,
                headers: headers.unwrap_or_default(),
                body: body.unwrap_or_default(),
            }),
            Some(_) => Begun::UnderWay,
            None => {
                sqlx::query(statements::REPLY_BEGIN)
                    .bind(&key.caller)
                    .bind(&key.key)
                    .bind(request.0.as_slice())
                    .bind(now.0)
                    .execute(&mut *writing.transaction)
                    .await
                    .map_err(|error| writing.failed(error))?;
                Begun::New
            }
        };
        writing.commit().await?;
        Ok(begun)
    }

    async fn finish_reply(&self, key: &ReplyKey, reply: &Reply) -> Result<(), StoreError> {
        let mut writing = self.write("keeping a reply in").await?;
        sqlx::query(statements::REPLY_FINISH)
            .bind(&key.caller)
            .bind(&key.key)
            .bind(reply.status)
            .bind(&reply.headers)
            .bind(&reply.body)
            .execute(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?;
        writing.commit().await
    }

    async fn abandon_reply(&self, key: &ReplyKey) -> Result<(), StoreError> {
        let mut writing = self.write("giving back an idempotency key in").await?;
        sqlx::query(statements::REPLY_ABANDON)
            .bind(&key.caller)
            .bind(&key.key)
            .execute(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?;
        writing.commit().await
    }
}
