//! Storing signed answers.

use std::collections::{BTreeMap, HashMap};

use serde_json::json;
use sqlx::Arguments;

use super::rows::{self, Packed, key_of, rowid};
use super::statements;
use super::write::Writing;
use super::{SqliteStore, StoreError};
use crate::clock::UnixTime;
use crate::store::audit::{Digest, NewLine};
use crate::store::{AnswerOutcome, CertificateKey, InPack, NewAnswer, PackNumber};

/// Answers checked and written at once, within one transaction.
const PORTION: usize = 8_192;

/// What decides whether an answer is stored.
#[derive(Clone, Copy)]
struct Present {
    version: i64,
    /// Version and thisUpdate of the answer that is there.
    answer: Option<(i64, UnixTime)>,
}

impl Present {
    fn takes(self, answer: &NewAnswer, now: UnixTime) -> bool {
        self.version == answer.version
            && self.answer.is_none_or(|(version, this_update)| {
                // One from the future was made while the clock was wrong: nobody may serve it.
                version != answer.version || this_update <= answer.this_update || this_update > now
            })
    }
}

impl Writing<'_> {
    async fn versions(&mut self, mut rowids: Vec<i64>) -> Result<HashMap<i64, Present>, StoreError> {
        rowids.sort_unstable();
        rowids.dedup();
        let found: Option<String> = sqlx::query_scalar(statements::VERSIONS)
            .bind(rows::json_integers(rowids.iter().copied()))
            .fetch_one(&mut *self.transaction)
            .await
            .map_err(|error| self.failed(error))?;
        Packed::entries(found.as_deref())
            .map(|mut entry| present(&mut entry, &rowids).map_err(|what| self.corrupt("answer", &what)))
            .collect()
    }
}

impl Writing<'_> {
    /// Keeps the packs among these answers that anything is stored of, and tells so in the outcomes.
    async fn put_packs<'a>(
        &mut self,
        answers: &'a [NewAnswer],
        outcomes: &mut [AnswerOutcome],
    ) -> Result<HashMap<&'a [u8], InPack>, StoreError> {
        let mut members: HashMap<&[u8], Vec<usize>> = HashMap::new();
        let packed = answers.iter().enumerate().filter(|(_, answer)| answer.packed);
        for (place, answer) in packed {
            members.entry(&answer.signature).or_default().push(place);
        }
        let mut packs = HashMap::with_capacity(members.len());
        for (signature, places) in members {
            let is_stored = |place: &usize| outcomes[*place] == AnswerOutcome::Stored;
            let Some(first) = places.iter().copied().find(is_stored) else { continue };
            let broken = !places.iter().all(is_stored);
            let number: i64 = sqlx::query_scalar(statements::PACK_PUT)
                .bind(broken)
                .bind(&answers[first].response_data[..])
                .bind(signature)
                .fetch_one(&mut *self.transaction)
                .await
                .map_err(|error| self.failed(error))?;
            let pack = InPack { number: PackNumber(number), broken };
            for place in places {
                if outcomes[place] == AnswerOutcome::Stored {
                    outcomes[place] = AnswerOutcome::Packed(pack);
                }
            }
            packs.insert(signature, pack);
        }
        Ok(packs)
    }

    /// Breaks the packs of certificates whose status has changed, and announces those that are left in
    /// them.
    pub(super) async fn break_packs(&mut self, rowids: &[i64]) -> Result<(), StoreError> {
        let broken: Vec<i64> = sqlx::query_scalar(statements::PACK_BREAK)
            .bind(rows::json_integers(rowids.iter().copied()))
            .fetch_all(&mut *self.transaction)
            .await
            .map_err(|error| self.failed(error))?;
        for pack in broken {
            let members: Vec<i64> = sqlx::query_scalar(statements::PACK_MEMBERS)
                .bind(pack)
                .fetch_all(&mut *self.transaction)
                .await
                .map_err(|error| self.failed(error))?;
            self.changed.extend(members);
        }
        Ok(())
    }

    /// One line for each token that signed some of these: how many, and what.
    async fn note_signatures(&mut self, stored: &[(i64, &NewAnswer)]) -> Result<(), StoreError> {
        let mut by_responder: BTreeMap<i64, Vec<&(i64, &NewAnswer)>> = BTreeMap::new();
        for each in stored {
            by_responder.entry(each.1.responder.0).or_default().push(each);
        }
        for (responder, signed) in by_responder {
            let token: Option<String> = sqlx::query_scalar(statements::RESPONDER_TOKEN)
                .bind(responder)
                .fetch_optional(&mut *self.transaction)
                .await
                .map_err(|error| self.failed(error))?;
            let digests =
                signed.iter().flat_map(|(_, answer)| [&answer.response_data[..], &answer.signature[..]]);
            let detail = json!({
                "responder": responder,
                "token": token,
                "count": signed.len(),
                "sha256": Digest::of(digests).to_string(),
            });
            self.audited.push(NewLine::new("answer.sign", &detail));
        }
        Ok(())
    }
}

/// Reads an entry of [`statements::VERSIONS`].
fn present(entry: &mut Packed<'_>, rowids: &[i64]) -> Result<(i64, Present), String> {
    let place = usize::try_from(entry.integer()?).unwrap_or(usize::MAX);
    let rowid = rowids.get(place).ok_or("a place is beyond the list")?;
    let version = entry.integer()?;
    let answer = match entry.optional()? {
        None => None,
        Some(version) => Some((version, UnixTime(entry.integer()?))),
    };
    Ok((*rowid, Present { version, answer }))
}

impl SqliteStore {
    pub(super) async fn put_answers(
        &self,
        answers: &[NewAnswer],
        now: UnixTime,
    ) -> Result<Vec<AnswerOutcome>, StoreError> {
        let mut writing = self.write("storing answers in").await?;
        let mut outcomes = Vec::with_capacity(answers.len());
        for portion in answers.chunks(PORTION) {
            let rowids = portion.iter().filter_map(|answer| rowid(answer.key)).collect();
            let mut present = writing.versions(rowids).await?;
            let mut stored = Vec::with_capacity(portion.len());
            let mut told = Vec::with_capacity(portion.len());
            for answer in portion {
                let row = rowid(answer.key);
                let place = row.and_then(|row| present.get_mut(&row));
                if let (Some(row), Some(place)) = (row, place)
                    && place.takes(answer, now)
                {
                    place.answer = Some((answer.version, answer.this_update));
                    stored.push((row, answer));
                    told.push(AnswerOutcome::Stored);
                } else {
                    told.push(AnswerOutcome::Superseded);
                }
            }
            let packs = writing.put_packs(portion, &mut told).await?;
            outcomes.append(&mut told);
            // By row, for locality; the sort is stable, so the last of a repeated key wins.
            stored.sort_by_key(|(row, _)| *row);
            let written = writing.bulk(&statements::ANSWER_PUT, &stored, |values, (row, answer)| {
                values.add(*row)?;
                values.add(answer.version)?;
                values.add(answer.responder.0)?;
                values.add(answer.this_update.0)?;
                values.add(answer.next_update.0)?;
                let pack = answer.packed.then(|| packs.get(&answer.signature[..])).flatten();
                let [data, signature] = match pack {
                    None => [&answer.response_data[..], &answer.signature[..]],
                    Some(_) => [&[][..]; 2],
                };
                values.add(data)?;
                values.add(signature)?;
                values.add(pack.map(|pack| pack.number.0))
            });
            match written.await {
                Ok(()) => {
                    writing.changed.extend(stored.iter().map(|(row, _)| *row));
                    writing.note_signatures(&stored).await?;
                }
                Err(error) if is_foreign_key(&error) => {
                    return Err(StoreError::Missing {
                        url: self.url.clone(),
                        what: "responder that one of the answers names".to_owned(),
                    });
                }
                Err(error) => return Err(writing.failed(error)),
            }
        }
        writing.commit().await?;
        Ok(outcomes)
    }
}

impl SqliteStore {
    pub(super) async fn members_of(&self, pack: PackNumber) -> Result<Vec<CertificateKey>, StoreError> {
        let rows: Vec<i64> = sqlx::query_scalar(statements::PACK_MEMBERS)
            .bind(pack.0)
            .fetch_all(&self.pools.readers)
            .await
            .map_err(self.failed("reading a pack of"))?;
        Ok(rows.into_iter().map(key_of).collect())
    }
}

/// Rows come from the table itself, so only the responder can be missing.
fn is_foreign_key(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}
