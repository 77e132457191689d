//! Certificates: registering, changes of status, reading with their answers.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::Arguments;

use super::rows::{self, LAST_IN_SHARD, Packed, record, rowid, shard_start};
use super::statements;
use super::write::Writing;
use super::{SqliteStore, StoreError};
use crate::clock::UnixTime;
use crate::ocsp::{Revocation, Serial};
use crate::store::audit::{self, Digest, NewLine};
use crate::store::rules::{RevokeRule, Standing};
use crate::store::{
    CertificateEntry, CertificateKey, CertificateState, DueCertificate, FleetCounts, IssuerId, Registered,
    ScheduleEntry, Shard, StatusChange,
};

/// Entries looked up and written at once, within one transaction.
const PORTION: usize = 65_536;

/// A serial that a call speaks of, with what the store has of it.
struct Subject {
    serial: Serial,
    /// Its rowid, when it is in the table.
    row: Option<i64>,
    /// What it is now; none when it is not there.
    standing: Option<Standing>,
    changed: bool,
}

/// The different serials of a portion, in the order of the index (so that neighbours in the list
/// are neighbours in the file), and for each entry which of them it is about.
fn subjects<'a>(serials: impl ExactSizeIterator<Item = &'a Serial>) -> (Vec<Subject>, Vec<u32>) {
    let mut order: Vec<(&Serial, u32)> = serials.zip(0..).collect();
    order.sort_unstable_by(|(a, i), (b, j)| a.as_der_content().cmp(b.as_der_content()).then(i.cmp(j)));
    let mut subjects: Vec<Subject> = Vec::with_capacity(order.len());
    let mut places = vec![0; order.len()];
    for (serial, entry) in order {
        if subjects.last().is_none_or(|last| last.serial != *serial) {
            subjects.push(Subject { serial: *serial, row: None, standing: None, changed: false });
        }
        places[entry as usize] = subjects.len() as u32 - 1;
    }
    (subjects, places)
}

/// The last number given out in each shard that a transaction has touched.
#[derive(Default)]
struct LastRows(BTreeMap<Shard, i64>);

impl Writing<'_> {
    async fn find(&mut self, issuer: IssuerId, subjects: &mut [Subject]) -> Result<(), StoreError> {
        let serials = rows::json_serials(subjects.iter().map(|subject| &subject.serial));
        let found: Option<String> = sqlx::query_scalar(statements::FIND)
            .bind(issuer.0)
            .bind(serials)
            .fetch_one(&mut *self.transaction)
            .await
            .map_err(|error| self.failed(error))?;
        for mut entry in Packed::entries(found.as_deref()) {
            take(&mut entry, subjects).map_err(|what| self.corrupt("certificate", &what))?;
        }
        Ok(())
    }

    /// Gives rows to those that have none yet.
    async fn number(
        &mut self,
        issuer: IssuerId,
        last: &mut LastRows,
        subjects: &mut [&mut Subject],
    ) -> Result<(), StoreError> {
        let mut unread: Vec<Shard> = subjects
            .iter()
            .map(|subject| Shard::of(issuer, &subject.serial))
            .filter(|shard| !last.0.contains_key(shard))
            .collect();
        if !unread.is_empty() {
            unread.sort_unstable();
            unread.dedup();
            let shards = rows::json_integers(unread.iter().map(|shard| i64::from(shard.0)));
            let found: Vec<(u8, Option<i64>)> = sqlx::query_as(statements::LAST_ROWS)
                .bind(shards)
                .fetch_all(&mut *self.transaction)
                .await
                .map_err(|error| self.failed(error))?;
            for (shard, row) in found {
                let shard = Shard(shard);
                last.0.insert(shard, row.unwrap_or_else(|| shard_start(shard)));
            }
        }
        for subject in subjects {
            let shard = Shard::of(issuer, &subject.serial);
            let row = last.0.entry(shard).or_insert_with(|| shard_start(shard));
            if *row - shard_start(shard) >= LAST_IN_SHARD {
                return Err(self.unavailable("a shard holds as many certificates as it can number"));
            }
            *row += 1;
            subject.row = Some(*row);
        }
        Ok(())
    }

    /// Writes what was changed, new rows and old ones.
    async fn write_back(
        &mut self,
        issuer: IssuerId,
        last: &mut LastRows,
        subjects: &mut [Subject],
    ) -> Result<(), StoreError> {
        let (mut new, mut old) = (Vec::new(), Vec::new());
        for subject in subjects.iter_mut().filter(|subject| subject.changed) {
            if subject.row.is_none() { new.push(subject) } else { old.push(subject) }
        }
        if !new.is_empty() {
            self.number(issuer, last, &mut new).await?;
        }
        let written = async {
            self.bulk(&statements::CERTIFICATE_INSERT, &new, |values, subject| {
                let Some(standing) = subject.standing else { return Ok(()) };
                values.add(subject.row)?;
                values.add(issuer.0)?;
                values.add(subject.serial.as_der_content())?;
                values.add(standing.not_before.map(|time| time.0))?;
                values.add(standing.not_after.0)?;
                values.add(standing.revocation.map(|revocation| revocation.time.0))?;
                values.add(standing.revocation.and_then(|revocation| revocation.reason).map(|r| r.code()))?;
                values.add(standing.version)
            })
            .await?;
            self.bulk(&statements::CERTIFICATE_UPDATE, &old, |values, subject| {
                let Some(standing) = subject.standing else { return Ok(()) };
                values.add(subject.row)?;
                values.add(standing.not_before.map(|time| time.0))?;
                values.add(standing.not_after.0)?;
                values.add(standing.revocation.map(|revocation| revocation.time.0))?;
                values.add(standing.revocation.and_then(|revocation| revocation.reason).map(|r| r.code()))?;
                values.add(standing.version)
            })
            .await
        };
        let written: Result<(), sqlx::Error> = written.await;
        written.map_err(|error| self.failed(error))?;
        self.changed.extend(new.iter().chain(&old).filter_map(|subject| subject.row));
        if old.is_empty() {
            return Ok(());
        }
        let old: Vec<_> = old.iter().filter_map(|subject| subject.row).collect();
        self.break_packs(&old).await
    }
}

impl Writing<'_> {
    /// One line for the certificates that were changed, as they are now.
    fn note_subjects(&mut self, action: &'static str, issuer: IssuerId, subjects: &[Subject]) {
        let changed: Vec<_> = subjects.iter().filter(|subject| subject.changed).collect();
        if changed.is_empty() {
            return;
        }
        let text = |subject: &&Subject| {
            let mut item = json!({ "serial": subject.serial.to_string() });
            if let Some(standing) = &subject.standing {
                item["version"] = json!(standing.version);
                item["not_after"] = json!(standing.not_after.to_string());
                if let Some(revocation) = standing.revocation {
                    item["revoked_at"] = json!(revocation.time.to_string());
                    item["reason"] = json!(revocation.reason.map(|reason| reason.name()));
                }
            }
            item
        };
        let listed: Vec<_> = changed.iter().take(audit::LISTED).map(text).collect();
        let octets: Vec<_> = changed.iter().map(|subject| (subject.serial, packed(subject))).collect();
        let digest =
            Digest::of(octets.iter().flat_map(|(serial, rest)| [serial.as_der_content(), rest.as_slice()]));
        let detail = json!({
            "issuer": issuer.0,
            "count": changed.len(),
            "certificates": listed,
            "sha256": digest.to_string(),
        });
        self.audited.push(NewLine::new(action, &detail));
    }
}

impl SqliteStore {
    pub(super) async fn put_certificates(
        &self,
        issuer: IssuerId,
        entries: &[CertificateEntry],
    ) -> Result<Registered, StoreError> {
        let mut writing = self.write("registering certificates in").await?;
        writing.require_issuer(issuer).await?;
        let mut last = LastRows::default();
        let mut registered = Registered::default();
        for portion in entries.chunks(PORTION) {
            let (mut subjects, places) = subjects(portion.iter().map(|entry| &entry.serial));
            writing.find(issuer, &mut subjects).await?;
            for (entry, place) in portion.iter().zip(places) {
                let subject = &mut subjects[place as usize];
                match &mut subject.standing {
                    None => {
                        subject.standing = Some(Standing::begin(entry));
                        subject.changed = true;
                        registered.added += 1;
                    }
                    Some(standing) => {
                        if standing.register(entry) {
                            subject.changed = true;
                            registered.changed += 1;
                        } else {
                            registered.unchanged += 1;
                        }
                    }
                }
            }
            writing.write_back(issuer, &mut last, &mut subjects).await?;
            writing.note_subjects("certificate.register", issuer, &subjects);
        }
        writing.commit().await?;
        Ok(registered)
    }

    pub(super) async fn put_revocations(
        &self,
        issuer: IssuerId,
        entries: &[(Serial, Revocation)],
    ) -> Result<Vec<StatusChange>, StoreError> {
        let mut writing = self.write("revoking certificates in").await?;
        let mut outcomes = Vec::with_capacity(entries.len());
        for portion in entries.chunks(PORTION) {
            let (mut subjects, places) = subjects(portion.iter().map(|(serial, _)| serial));
            writing.find(issuer, &mut subjects).await?;
            for ((_, asked), place) in portion.iter().zip(places) {
                outcomes
                    .push(change(issuer, &mut subjects[place as usize], |standing| standing.revoke(*asked)));
            }
            writing.write_back(issuer, &mut LastRows::default(), &mut subjects).await?;
            writing.note_subjects("certificate.revoke", issuer, &subjects);
        }
        writing.commit().await?;
        Ok(outcomes)
    }

    pub(super) async fn end_hold(
        &self,
        issuer: IssuerId,
        serial: &Serial,
    ) -> Result<StatusChange, StoreError> {
        let mut writing = self.write("taking back a hold in").await?;
        let (mut subjects, _) = subjects([serial].into_iter());
        writing.find(issuer, &mut subjects).await?;
        let outcome = change(issuer, &mut subjects[0], Standing::unhold);
        writing.write_back(issuer, &mut LastRows::default(), &mut subjects).await?;
        writing.note_subjects("certificate.unhold", issuer, &subjects);
        writing.commit().await?;
        Ok(outcome)
    }

    pub(super) async fn state_by_serial(
        &self,
        issuer: IssuerId,
        serial: &Serial,
    ) -> Result<Option<CertificateState>, StoreError> {
        let found: Option<String> = sqlx::query_scalar(statements::STATE_BY_SERIAL)
            .bind(issuer.0)
            .bind(serial.as_der_content())
            .fetch_optional(&self.pools.readers)
            .await
            .map_err(self.failed("reading a certificate of"))?;
        Ok(self.entries(found.as_deref(), Packed::state)?.pop())
    }

    pub(super) async fn states_by_key(
        &self,
        keys: &[CertificateKey],
    ) -> Result<Vec<CertificateState>, StoreError> {
        let found = self.by_key(statements::STATES_BY_ROW, keys).await?;
        self.entries(found.as_deref(), Packed::state)
    }

    pub(super) async fn due_by_key(
        &self,
        keys: &[CertificateKey],
    ) -> Result<Vec<DueCertificate>, StoreError> {
        let found = self.by_key(statements::DUE_BY_ROW, keys).await?;
        self.entries(found.as_deref(), Packed::due)
    }

    /// What a statement gives for these keys.
    async fn by_key(
        &self,
        statement: &'static str,
        keys: &[CertificateKey],
    ) -> Result<Option<String>, StoreError> {
        let mut rowids: Vec<_> = keys.iter().filter_map(|key| rowid(*key)).collect();
        rowids.sort_unstable();
        rowids.dedup();
        sqlx::query_scalar(statement)
            .bind(rows::json_integers(rowids))
            .fetch_one(&self.pools.readers)
            .await
            .map_err(self.failed("reading certificates of"))
    }

    /// The rows that are in one text.
    fn entries<'t, T>(
        &self,
        text: Option<&'t str>,
        read: impl Fn(Packed<'t>) -> Result<T, String>,
    ) -> Result<Vec<T>, StoreError> {
        let corrupt = |what| StoreError::Corrupt { url: self.url.clone(), what };
        Packed::entries(text).map(|entry| read(entry).map_err(corrupt)).collect()
    }

    pub(super) async fn states_page(
        &self,
        shard: Shard,
        after: i64,
        limit: u32,
        now: UnixTime,
    ) -> Result<Vec<CertificateState>, StoreError> {
        let found = self.page(statements::STATES_PAGE, shard, after, limit, now).await?;
        let mut states = self.entries(found.as_deref(), Packed::state)?;
        states.sort_unstable_by_key(|state| state.certificate.key);
        Ok(states)
    }

    pub(super) async fn schedule_page(
        &self,
        shard: Shard,
        after: i64,
        limit: u32,
        now: UnixTime,
    ) -> Result<Vec<ScheduleEntry>, StoreError> {
        let found = self.page(statements::SCHEDULE_PAGE, shard, after, limit, now).await?;
        let mut entries = self.entries(found.as_deref(), Packed::schedule_entry)?;
        entries.sort_unstable_by_key(|entry| entry.key);
        Ok(entries)
    }

    /// What a statement gives for the rows after number `after` of a shard.
    async fn page(
        &self,
        statement: &'static str,
        shard: Shard,
        after: i64,
        limit: u32,
        now: UnixTime,
    ) -> Result<Option<String>, StoreError> {
        let start = shard_start(shard);
        sqlx::query_scalar(statement)
            .bind(start + after.clamp(0, LAST_IN_SHARD))
            .bind(start + LAST_IN_SHARD)
            .bind(now.0)
            .bind(limit)
            .fetch_one(&self.pools.readers)
            .await
            .map_err(self.failed("reading a shard of"))
    }

    pub(super) async fn count_fleet(
        &self,
        issuer: IssuerId,
        now: UnixTime,
    ) -> Result<FleetCounts, StoreError> {
        let (unexpired, revoked, expired, answered): (i64, i64, i64, i64) =
            sqlx::query_as(statements::COUNTS)
                .bind(issuer.0)
                .bind(now.0)
                .fetch_one(&self.pools.readers)
                .await
                .map_err(self.failed("counting the certificates of"))?;
        Ok(FleetCounts {
            unexpired: unexpired.unsigned_abs(),
            revoked: revoked.unsigned_abs(),
            expired: expired.unsigned_abs(),
            answered: answered.unsigned_abs(),
        })
    }
}

/// Reads an entry of [`statements::FIND`] into its subject.
fn take(entry: &mut Packed<'_>, subjects: &mut [Subject]) -> Result<(), String> {
    let place = usize::try_from(entry.integer()?).unwrap_or(usize::MAX);
    let subject = subjects.get_mut(place).ok_or("a place is beyond the list")?;
    subject.row = Some(entry.integer()?);
    subject.standing = Some(entry.standing()?);
    Ok(())
}

/// Version, not_after, revocation time and reason, as they go into a digest; −1 for what is not there.
fn packed(subject: &Subject) -> Vec<u8> {
    let Some(standing) = &subject.standing else { return Vec::new() };
    let revocation = standing.revocation;
    let reason = revocation.and_then(|revocation| revocation.reason);
    [
        standing.version,
        standing.not_after.0,
        revocation.map_or(-1, |revocation| revocation.time.0),
        reason.map_or(-1, |reason| i64::from(reason.code())),
    ]
    .iter()
    .flat_map(|value| value.to_be_bytes())
    .collect()
}

/// Applies a change of status to one subject.
fn change(
    issuer: IssuerId,
    subject: &mut Subject,
    apply: impl FnOnce(&mut Standing) -> RevokeRule,
) -> StatusChange {
    let (Some(standing), Some(row)) = (&mut subject.standing, subject.row) else {
        return StatusChange::NotFound;
    };
    let rule = apply(standing);
    let record = record(row, issuer, subject.serial, *standing);
    match rule {
        RevokeRule::Apply => {
            subject.changed = true;
            StatusChange::Changed(record)
        }
        RevokeRule::Unchanged => StatusChange::Unchanged(record),
        RevokeRule::Refuse => StatusChange::Refused(record),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_serials_are_one_subject_in_index_order() {
        let serials: Vec<Serial> =
            ["0100", "02", "01", "02"].iter().map(|text| text.parse().unwrap()).collect();
        let (subjects, places) = subjects(serials.iter());
        let order: Vec<_> = subjects.iter().map(|subject| subject.serial.to_string()).collect();
        assert_eq!(order, ["01", "0100", "02"]);
        assert_eq!(places, [1, 2, 0, 2]);
    }
}
