//! Between rows and the contract's types.

use data_encoding::HEXUPPER;
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{Decode, Row, Type};

use super::StoreError;
use crate::clock::UnixTime;
use crate::ocsp::{CrlReason, Revocation, Serial};
use crate::store::rules::Standing;
use crate::store::{
    AnswerTimes, CertificateKey, CertificateRecord, CertificateState, DueCertificate, InPack, IssuerId,
    PackNumber, ResponderNumber, ScheduleEntry, Shard, StoredAnswer,
};

/// How far the shard stands above the number in the shard, in a rowid.
const SHARD_SHIFT: u32 = 32;

/// The highest number in a shard.
pub(super) const LAST_IN_SHARD: i64 = (1 << SHARD_SHIFT) - 1;

/// The rowid of a key; none for one that no certificate can have.
pub(super) fn rowid(key: CertificateKey) -> Option<i64> {
    (1..=LAST_IN_SHARD).contains(&key.row).then(|| shard_start(key.shard) + key.row)
}

/// The rowid before the first of a shard.
pub(super) fn shard_start(shard: Shard) -> i64 {
    i64::from(shard.0) << SHARD_SHIFT
}

/// The key of a rowid.
pub(super) fn key_of(rowid: i64) -> CertificateKey {
    CertificateKey { shard: Shard((rowid >> SHARD_SHIFT) as u8), row: rowid & LAST_IN_SHARD }
}

/// Reads the values of a row, naming the database when one is not what was written.
pub(super) struct Reader<'r> {
    pub(super) url: &'r str,
    pub(super) row: &'r SqliteRow,
}

impl<'r> Reader<'r> {
    pub(super) fn get<T: Decode<'r, Sqlite> + Type<Sqlite>>(&self, column: usize) -> Result<T, StoreError> {
        self.row.try_get(column).map_err(|error| self.corrupt(error.to_string()))
    }

    pub(super) fn corrupt(&self, what: String) -> StoreError {
        StoreError::Corrupt { url: self.url.to_owned(), what }
    }

    pub(super) fn time(&self, column: usize) -> Result<UnixTime, StoreError> {
        self.get(column).map(UnixTime)
    }
}

/// The revocation in the columns revoked_at and reason.
fn revocation(time: Option<i64>, reason: Option<i64>) -> Result<Option<Revocation>, String> {
    let reason = match reason {
        None => None,
        Some(code) => Some(
            u8::try_from(code)
                .ok()
                .and_then(CrlReason::from_code)
                .ok_or_else(|| format!("certificate.reason is {code}"))?,
        ),
    };
    Ok(time.map(|time| Revocation { time: UnixTime(time), reason }))
}

/// An entry of a text that holds many: integers, some of them left empty, and octets in hex.
pub(super) struct Packed<'t>(std::str::Split<'t, char>);

impl<'t> Packed<'t> {
    /// The entries of what `group_concat` gave.
    pub(super) fn entries(text: Option<&'t str>) -> impl Iterator<Item = Self> {
        text.into_iter().flat_map(|text| text.split(';')).map(|entry| Self(entry.split(',')))
    }

    fn next(&mut self) -> Result<&'t str, String> {
        self.0.next().ok_or_else(|| "a row is cut off".to_owned())
    }

    /// The next integer, where there is one.
    pub(super) fn optional(&mut self) -> Result<Option<i64>, String> {
        match self.next()? {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| format!("{text:?} is no integer")),
        }
    }

    /// The next octets.
    fn octets(&mut self) -> Result<Vec<u8>, String> {
        HEXUPPER.decode(self.next()?.as_bytes()).map_err(|error| format!("octets are not in hex: {error}"))
    }

    fn serial(&mut self) -> Result<Serial, String> {
        Serial::from_der_content(&self.octets()?).map_err(|error| format!("certificate.serial: {error}"))
    }

    fn time(&mut self) -> Result<UnixTime, String> {
        self.integer().map(UnixTime)
    }

    fn optional_time(&mut self) -> Result<Option<UnixTime>, String> {
        Ok(self.optional()?.map(UnixTime))
    }

    /// The next integer, which must be there.
    pub(super) fn integer(&mut self) -> Result<i64, String> {
        self.optional()?.ok_or_else(|| "a value is NULL".to_owned())
    }

    /// not_before, not_after, revoked_at, reason and version.
    pub(super) fn standing(&mut self) -> Result<Standing, String> {
        Ok(Standing {
            not_before: self.optional_time()?,
            not_after: self.time()?,
            revocation: revocation(self.optional()?, self.optional()?)?,
            version: self.integer()?,
        })
    }

    fn certificate(&mut self) -> Result<CertificateRecord, String> {
        let (row, issuer, serial) = (self.integer()?, IssuerId(self.integer()?), self.serial()?);
        Ok(record(row, issuer, serial, self.standing()?))
    }

    /// A row of [`super::statements::DUE_BY_ROW`].
    pub(super) fn due(mut self) -> Result<DueCertificate, String> {
        Ok(DueCertificate { certificate: self.certificate()?, answer: self.times()? })
    }

    /// A row of one of the `STATE…` statements.
    pub(super) fn state(mut self) -> Result<CertificateState, String> {
        let certificate = self.certificate()?;
        let Some(version) = self.optional()? else {
            return Ok(CertificateState { certificate, answer: None });
        };
        let responder = ResponderNumber(self.integer()?);
        let (this_update, next_update) = (self.time()?, self.time()?);
        let pack = match (self.optional()?, self.optional()?) {
            (None, _) => None,
            (Some(number), Some(broken)) => Some(InPack { number: PackNumber(number), broken: broken != 0 }),
            (Some(number), None) => return Err(format!("pack {number} is not there")),
        };
        let (response_data, signature) = (self.octets()?.into(), self.octets()?.into());
        let answer =
            StoredAnswer { version, responder, this_update, next_update, response_data, signature, pack };
        Ok(CertificateState { certificate, answer: Some(answer) })
    }

    /// A row of [`super::statements::SCHEDULE_PAGE`].
    pub(super) fn schedule_entry(mut self) -> Result<ScheduleEntry, String> {
        Ok(ScheduleEntry {
            key: key_of(self.integer()?),
            issuer: IssuerId(self.integer()?),
            serial: self.serial()?,
            not_before: self.optional_time()?,
            not_after: self.time()?,
            answer: self.times()?,
        })
    }

    /// thisUpdate, nextUpdate, responder and whether its pack is broken, of an answer where there is one.
    fn times(&mut self) -> Result<Option<AnswerTimes>, String> {
        let Some(this_update) = self.optional_time()? else { return Ok(None) };
        Ok(Some(AnswerTimes {
            this_update,
            next_update: self.time()?,
            responder: ResponderNumber(self.integer()?),
            broken: self.optional()?.is_some_and(|broken| broken != 0),
        }))
    }
}

/// The certificate in a row.
pub(super) fn record(rowid: i64, issuer: IssuerId, serial: Serial, standing: Standing) -> CertificateRecord {
    let Standing { not_before, not_after, revocation, version } = standing;
    CertificateRecord { key: key_of(rowid), issuer, serial, not_before, not_after, revocation, version }
}

/// A JSON array of integers.
pub(super) fn json_integers(values: impl IntoIterator<Item = i64>) -> String {
    let mut json = String::from("[");
    for value in values {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&value.to_string());
    }
    json.push(']');
    json
}

/// A JSON array of serials: their content octets in hex.
pub(super) fn json_serials<'a>(serials: impl IntoIterator<Item = &'a Serial>) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut json = String::from("[");
    for serial in serials {
        json.push_str(if json.len() > 1 { ",\"" } else { "\"" });
        for octet in serial.as_der_content() {
            json.push(char::from(DIGITS[usize::from(octet >> 4)]));
            json.push(char::from(DIGITS[usize::from(octet & 15)]));
        }
        json.push('"');
    }
    json.push(']');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_its_rowid_agree_at_the_edges_of_a_shard() {
        for shard in [Shard(0), Shard(1), Shard(255)] {
            for row in [1, 2, LAST_IN_SHARD] {
                let key = CertificateKey { shard, row };
                assert_eq!(key_of(rowid(key).unwrap()), key);
            }
            for row in [i64::MIN, -1, 0, LAST_IN_SHARD + 1, i64::MAX] {
                assert_eq!(rowid(CertificateKey { shard, row }), None);
            }
        }
    }

    #[test]
    fn packed_rows_are_read_and_what_was_not_written_is_told() {
        let mut entries = Packed::entries(Some("0,77,,5,9,1,2;1,78,3,5,,,1"));
        let mut first = entries.next().unwrap();
        assert_eq!((first.integer(), first.integer()), (Ok(0), Ok(77)));
        let standing = first.standing().unwrap();
        assert_eq!((standing.not_before, standing.version), (None, 2));
        let lost = Revocation { time: UnixTime(9), reason: Some(CrlReason::KeyCompromise) };
        assert_eq!(standing.revocation, Some(lost));
        assert!(first.integer().is_err());
        let mut second = entries.next().unwrap();
        assert_eq!((second.optional(), second.integer()), (Ok(Some(1)), Ok(78)));
        assert_eq!(second.standing().unwrap().revocation, None);
        assert!(entries.next().is_none());
        assert_eq!(Packed::entries(None).count(), 0);
        for text in ["", "x", "1.5"] {
            assert!(Packed::entries(Some(text)).next().unwrap().integer().is_err(), "{text}");
        }
    }

    #[test]
    fn lists_go_to_the_database_as_json() {
        assert_eq!(json_integers([]), "[]");
        assert_eq!(json_integers([1, -2]), "[1,-2]");
        let serials: [Serial; 2] = ["80".parse().unwrap(), "-01".parse().unwrap()];
        assert_eq!(json_serials(&serials), r#"["0080","ff"]"#);
    }
}
