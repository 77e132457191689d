//! The feed of changes.

use std::time::Duration;

use super::rows::{self, Reader};
use super::statements;
use super::{SqliteStore, StoreError};
use crate::clock::UnixTime;
use crate::store::{CertificateKey, Changes, FeedPosition, Shard};

/// Keys in one feed entry at the most: 320 KiB.
const KEYS_AN_ENTRY: usize = 65_536;

/// A portion of changes ends soon after it has reached this many keys.
const KEYS_A_PORTION: usize = 1 << 20;

/// Feed entries read at once: 20 MiB when all of them are full.
const ENTRIES_AT_ONCE: i64 = 64;

/// Octets of a packed key.
const PACKED: usize = 5;

/// The key lists of the feed entries that announce `changed` (rowids); one empty list when only the
/// registry changed.
pub(super) fn pack(changed: &[i64], registry: bool) -> Vec<Vec<u8>> {
    if changed.is_empty() {
        return if registry { vec![Vec::new()] } else { Vec::new() };
    }
    changed
        .chunks(KEYS_AN_ENTRY)
        .map(|part| {
            part.iter()
                .flat_map(|rowid| {
                    let key = rows::key_of(*rowid);
                    let [a, b, c, d, ..] = key.row.to_le_bytes();
                    [key.shard.0, a, b, c, d]
                })
                .collect()
        })
        .collect()
}

/// The keys in a feed entry; none when it is not a list of them.
fn unpack(packed: &[u8]) -> Option<impl Iterator<Item = CertificateKey>> {
    let (keys, rest) = packed.as_chunks::<PACKED>();
    rest.is_empty().then(|| {
        keys.iter().map(|&[shard, a, b, c, d]| CertificateKey {
            shard: Shard(shard),
            row: i64::from(u32::from_le_bytes([a, b, c, d])),
        })
    })
}

impl SqliteStore {
    pub(super) async fn feed_end(&self) -> Result<FeedPosition, StoreError> {
        let (_, end): (i64, i64) = sqlx::query_as(statements::FEED_BOUNDS)
            .fetch_one(&self.pools.readers)
            .await
            .map_err(self.failed("reading the feed of"))?;
        Ok(FeedPosition(end))
    }

    pub(super) async fn feed_after(&self, position: FeedPosition) -> Result<Changes, StoreError> {
        let failed = self.failed("reading the feed of");
        // One transaction, so that nothing is pruned between the two looks.
        let mut snapshot = self.pools.readers.begin().await.map_err(&failed)?;
        let (pruned, end): (i64, i64) =
            sqlx::query_as(statements::FEED_BOUNDS).fetch_one(&mut *snapshot).await.map_err(&failed)?;
        let mut changes = Changes { keys: Vec::new(), registry: false, position, gap: false };
        if position.0 < pruned || position.0 > end {
            return Ok(Changes { gap: true, registry: true, position: FeedPosition(end), ..changes });
        }
        while changes.position.0 < end && changes.keys.len() < KEYS_A_PORTION {
            let entries = sqlx::query(statements::FEED_AFTER)
                .bind(changes.position.0)
                .bind(self.writer)
                .bind(ENTRIES_AT_ONCE)
                .fetch_all(&mut *snapshot)
                .await
                .map_err(&failed)?;
            // Positions may have holes: at the end there is nothing more to read.
            let last = (entries.len() as i64) < ENTRIES_AT_ONCE;
            for entry in &entries {
                self.take_entry(&mut changes, Reader { url: &self.url, row: entry })?;
            }
            if last {
                changes.position = FeedPosition(end);
            }
        }
        Ok(changes)
    }

    fn take_entry(&self, changes: &mut Changes, entry: Reader<'_>) -> Result<(), StoreError> {
        changes.position = FeedPosition(entry.get(0)?);
        changes.registry |= entry.get::<bool>(1)?;
        if let Some(packed) = entry.get::<Option<&[u8]>>(2)? {
            let keys = unpack(packed).ok_or_else(|| {
                entry.corrupt(format!("feed.keys at position {} is cut off", changes.position.0))
            })?;
            changes.keys.extend(keys);
        }
        Ok(())
    }

    pub(super) async fn feed_prune(&self, now: UnixTime, keep: Duration) -> Result<(), StoreError> {
        let mut writing = self.write("pruning the feed of").await?;
        let pruned = async {
            let on = &mut *writing.transaction;
            let (_, end): (i64, i64) = sqlx::query_as(statements::FEED_BOUNDS).fetch_one(&mut *on).await?;
            sqlx::query(statements::FEED_MARK).bind(end).bind(now.0).execute(&mut *on).await?;
            let oldest: Option<i64> = sqlx::query_scalar(statements::FEED_MARKED)
                .bind(now.minus(keep).0)
                .fetch_one(&mut *on)
                .await?;
            if let Some(position) = oldest {
                for statement in [statements::FEED_PRUNE, statements::FEED_PRUNED, statements::FEED_UNMARK] {
                    sqlx::query(statement).bind(position).execute(&mut *on).await?;
                }
            }
            Ok(())
        };
        match pruned.await {
            Ok(()) => writing.commit().await,
            Err(error) => Err(writing.failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_keys_come_back_and_long_lists_are_cut() {
        let keys: Vec<_> = (0..=KEYS_AN_ENTRY as i64)
            .map(|row| CertificateKey { shard: Shard((row % 256) as u8), row: u32::MAX as i64 - row })
            .collect();
        let rowids: Vec<_> = keys.iter().map(|key| rows::rowid(*key).unwrap()).collect();
        let entries = pack(&rowids, false);
        assert_eq!(entries.len(), 2);
        let back: Vec<_> = entries.iter().flat_map(|entry| unpack(entry).unwrap()).collect();
        assert_eq!(back, keys);
        assert!(unpack(&[1, 2, 3]).is_none());
    }

    #[test]
    fn nothing_changed_needs_no_entry() {
        assert!(pack(&[], false).is_empty());
        assert_eq!(pack(&[], true), [Vec::<u8>::new()]);
    }
}
