//! Reading certificates when one of them cannot be read: its neighbours must not suffer.

use crate::clock::UnixTime;
use crate::store::{CertificateKey, CertificateState, DueCertificate, Shard, Store, StoreError};

/// Rows that are looked through for the one that cannot be read, at a time.
const STRETCH: i64 = 512;

/// How far it is looked for: rows that have gone leave holes, and expired ones are not paged.
const FARTHEST: i64 = 1 << 22;

/// Whether a row is the matter, and not the store.
pub(super) const fn is_of_one_row(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt { .. } | StoreError::Missing { .. })
}

/// Certificates that could be read, and each that could not, with why.
pub(super) type Read<T> = (Vec<T>, Vec<(CertificateKey, StoreError)>);

/// Reads certificates by key, as [`Store::certificates`]; one that cannot be read is set apart.
///
/// # Errors
/// [`StoreError`] when the store does not answer.
pub(super) async fn certificates(
    store: &dyn Store,
    keys: &[CertificateKey],
) -> Result<Read<CertificateState>, StoreError> {
    apart(keys, |part| store.certificates(part)).await
}

/// The same as [`Store::due`].
///
/// # Errors
/// [`StoreError`] when the store does not answer.
pub(super) async fn due(
    store: &dyn Store,
    keys: &[CertificateKey],
) -> Result<Read<DueCertificate>, StoreError> {
    apart(keys, |part| store.due(part)).await
}

/// Reads keys together, and by halves where one of them cannot be read.
async fn apart<'k, T, F: Future<Output = Result<Vec<T>, StoreError>>>(
    keys: &'k [CertificateKey],
    read: impl Fn(&'k [CertificateKey]) -> F,
) -> Result<Read<T>, StoreError> {
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    let mut parts = vec![keys];
    while let Some(part) = parts.pop() {
        match read(part).await {
            Ok(read) if found.is_empty() => found = read,
            Ok(read) => found.extend(read),
            Err(error) if is_of_one_row(&error) => {
                if let [only] = part {
                    unreadable.push((*only, error));
                } else {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right, left]);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok((found, unreadable))
}

/// A page of a shard, or the row that has to be left out to go on.
pub(super) enum Page<T> {
    /// What was read; an empty one ends the shard.
    Rows(Vec<T>),
    /// This row cannot be read; the next page begins after it.
    Unreadable(CertificateKey, StoreError),
}

/// Reads a page with `read`, given a limit; where one row cannot be read, those before it, then the
/// row itself.
///
/// # Errors
/// [`StoreError`] when the store does not answer, or the row cannot be found.
pub(super) async fn page<T, F: Future<Output = Result<Vec<T>, StoreError>>>(
    store: &dyn Store,
    shard: Shard,
    after: i64,
    limit: u32,
    read: impl Fn(u32) -> F,
) -> Result<Page<T>, StoreError> {
    let mut limit = limit;
    loop {
        match read(limit).await {
            Ok(rows) => return Ok(Page::Rows(rows)),
            Err(error) if is_of_one_row(&error) && limit > 1 => limit /= 2,
            Err(error) if is_of_one_row(&error) => break,
            Err(error) => return Err(error),
        }
    }
    let mut from = after + 1;
    while from <= after + FARTHEST {
        let keys: Vec<_> = (from..from + STRETCH).map(|row| CertificateKey { shard, row }).collect();
        let (_, unreadable) = certificates(store, &keys).await?;
        if let Some((key, error)) = unreadable.into_iter().next() {
            return Ok(Page::Unreadable(key, error));
        }
        from += STRETCH;
    }
    read(limit).await.map(Page::Rows)
}

/// The states of a shard after a row, as [`Store::states`].
///
/// # Errors
/// As [`page`].
pub(super) async fn states(
    store: &dyn Store,
    shard: Shard,
    after: i64,
    limit: u32,
    now: UnixTime,
) -> Result<Page<CertificateState>, StoreError> {
    page(store, shard, after, limit, |limit| store.states(shard, after, limit, now)).await
}
