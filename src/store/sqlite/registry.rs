//! Issuers, responders and capacity profiles: short tables that are read whole.

use std::time::Duration;

use serde_json::json;
use sqlx::sqlite::SqliteRow;

use super::rows::Reader;
use super::statements;
use super::{SqliteStore, StoreError};
use crate::clock::UnixTime;
use crate::store::audit::{Digest, NewLine};
use crate::store::{CapacityProfile, IssuerId, IssuerRecord, NewResponder, ResponderNumber, ResponderRecord};

fn issuer(entry: &Reader<'_>) -> Result<IssuerRecord, StoreError> {
    Ok(IssuerRecord { id: IssuerId(entry.get(0)?), name: entry.get(1)?, certificate: entry.get(2)? })
}

fn responder(entry: &Reader<'_>) -> Result<ResponderRecord, StoreError> {
    Ok(ResponderRecord {
        number: ResponderNumber(entry.get(0)?),
        responder: NewResponder {
            issuer: IssuerId(entry.get(1)?),
            token: entry.get(2)?,
            key: entry.get(3)?,
            algorithm: entry.get(4)?,
            certificate: entry.get(5)?,
            not_after: entry.time(6)?,
            from: entry.get::<Option<i64>>(8)?.map(UnixTime),
        },
        installed_at: entry.time(7)?,
        retired_at: entry.get::<Option<i64>>(9)?.map(UnixTime),
    })
}

fn profile(entry: &Reader<'_>) -> Result<CapacityProfile, StoreError> {
    Ok(CapacityProfile {
        token: entry.get(0)?,
        algorithm: entry.get(1)?,
        sessions: entry.get(2)?,
        rate: entry.get(3)?,
        raw_rate: entry.get(4)?,
        p50: Duration::from_nanos(entry.get::<i64>(5)?.unsigned_abs()),
        p99: Duration::from_nanos(entry.get::<i64>(6)?.unsigned_abs()),
        measured_at: entry.time(7)?,
    })
}

fn nanoseconds(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

impl SqliteStore {
    fn read_all<T>(
        &self,
        rows: &[SqliteRow],
        read: impl Fn(&Reader<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        rows.iter().map(|row| read(&Reader { url: &self.url, row })).collect()
    }

    pub(super) async fn put_issuer(
        &self,
        name: &str,
        certificate: &[u8],
    ) -> Result<IssuerRecord, StoreError> {
        let mut writing = self.write("adding an issuer to").await?;
        let there = sqlx::query(statements::ISSUER_BY_NAME_OR_CERTIFICATE)
            .bind(name)
            .bind(certificate)
            .fetch_all(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?;
        if let Some(present) = self.read_all(&there, issuer)?.into_iter().next() {
            if present.name == name && present.certificate == certificate {
                return Ok(present);
            }
            return Err(StoreError::Conflict(if present.name == name {
                format!("issuer {name:?} is there with another certificate: choose another name")
            } else {
                format!("this certificate is there as issuer {:?}: use that name", present.name)
            }));
        }
        let id = sqlx::query(statements::ISSUER_INSERT)
            .bind(name)
            .bind(certificate)
            .execute(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?
            .last_insert_rowid();
        writing.registry = true;
        writing.audited.push(NewLine::new(
            "issuer.add",
            &json!({ "issuer": id, "name": name, "sha256": Digest::plain(certificate).to_string() }),
        ));
        writing.commit().await?;
        Ok(IssuerRecord { id: IssuerId(id), name: name.to_owned(), certificate: certificate.to_vec() })
    }

    pub(super) async fn list_issuers(&self) -> Result<Vec<IssuerRecord>, StoreError> {
        let rows = sqlx::query(statements::ISSUERS)
            .fetch_all(&self.pools.readers)
            .await
            .map_err(self.failed("reading the issuers of"))?;
        self.read_all(&rows, issuer)
    }

    pub(super) async fn put_responder(
        &self,
        new: &NewResponder,
        now: UnixTime,
    ) -> Result<ResponderRecord, StoreError> {
        let mut writing = self.write("installing a responder in").await?;
        writing.require_issuer(new.issuer).await?;
        let there = sqlx::query(statements::RESPONDER_BY_CERTIFICATE)
            .bind(new.issuer.0)
            .bind(&new.certificate)
            .bind(&new.algorithm)
            .fetch_optional(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?;
        let record = if let Some(row) = there {
            let present = responder(&Reader { url: &self.url, row: &row })?;
            let new = NewResponder { from: new.from.or(present.responder.from), ..new.clone() };
            if present.responder == new {
                return Ok(present);
            }
            sqlx::query(statements::RESPONDER_UPDATE)
                .bind(present.number.0)
                .bind(&new.token)
                .bind(&new.key)
                .bind(new.not_after.0)
                .bind(new.from.map(|from| from.0))
                .execute(&mut *writing.transaction)
                .await
                .map_err(|error| writing.failed(error))?;
            ResponderRecord { responder: new, ..present }
        } else {
            let number = sqlx::query(statements::RESPONDER_INSERT)
                .bind(new.issuer.0)
                .bind(&new.token)
                .bind(&new.key)
                .bind(&new.algorithm)
                .bind(&new.certificate)
                .bind(new.not_after.0)
                .bind(now.0)
                .bind(new.from.map(|from| from.0))
                .execute(&mut *writing.transaction)
                .await
                .map_err(|error| writing.failed(error))?
                .last_insert_rowid();
            ResponderRecord {
                number: ResponderNumber(number),
                responder: new.clone(),
                installed_at: now,
                retired_at: None,
            }
        };
        writing.registry = true;
        writing.audited.push(NewLine::new(
            "responder.install",
            &json!({
                "issuer": new.issuer.0,
                "responder": record.number.0,
                "token": new.token,
                "key": new.key,
                "algorithm": new.algorithm,
                "not_after": new.not_after.to_string(),
                "sha256": Digest::plain(&new.certificate).to_string(),
            }),
        ));
        writing.commit().await?;
        Ok(record)
    }

    pub(super) async fn put_retirement(
        &self,
        number: ResponderNumber,
        at: Option<UnixTime>,
    ) -> Result<ResponderRecord, StoreError> {
        let mut writing = self.write("retiring a responder in").await?;
        let there = sqlx::query(statements::RESPONDER_BY_NUMBER)
            .bind(number.0)
            .fetch_optional(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?;
        let Some(row) = there else {
            return Err(StoreError::Missing {
                url: self.url.clone(),
                what: format!("responder {}", number.0),
            });
        };
        let present = responder(&Reader { url: &self.url, row: &row })?;
        if present.retired_at.is_some() == at.is_some() {
            return Ok(present);
        }
        sqlx::query(statements::RESPONDER_RETIRE)
            .bind(number.0)
            .bind(at.map(|at| at.0))
            .execute(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?;
        writing.registry = true;
        writing.commit().await?;
        Ok(ResponderRecord { retired_at: at, ..present })
    }

    pub(super) async fn list_responders(&self) -> Result<Vec<ResponderRecord>, StoreError> {
        let rows = sqlx::query(statements::RESPONDERS)
            .fetch_all(&self.pools.readers)
            .await
            .map_err(self.failed("reading the responders of"))?;
        self.read_all(&rows, responder)
    }

    pub(super) async fn put_profile(&self, profile: &CapacityProfile) -> Result<(), StoreError> {
        let mut writing = self.write("recording a capacity profile in").await?;
        sqlx::query(statements::PROFILE_PUT)
            .bind(&profile.token)
            .bind(&profile.algorithm)
            .bind(profile.sessions)
            .bind(profile.rate)
            .bind(profile.raw_rate)
            .bind(nanoseconds(profile.p50))
            .bind(nanoseconds(profile.p99))
            .bind(profile.measured_at.0)
            .execute(&mut *writing.transaction)
            .await
            .map_err(|error| writing.failed(error))?;
        writing.audited.push(NewLine::new(
            "profile.record",
            &json!({
                "token": profile.token,
                "algorithm": profile.algorithm,
                "sessions": profile.sessions,
                "rate": profile.rate,
            }),
        ));
        writing.commit().await
    }

    pub(super) async fn list_profiles(&self) -> Result<Vec<CapacityProfile>, StoreError> {
        let rows = sqlx::query(statements::PROFILES)
            .fetch_all(&self.pools.readers)
            .await
            .map_err(self.failed("reading the capacity profiles of"))?;
        self.read_all(&rows, profile)
    }
}
