//! Between rows and the contract's types.

use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{Decode, Row, Type};

use super::StoreError;
use crate::clock::UnixTime;
use crate::ocsp::{CrlReason, Revocation, Serial};
use crate::store::rules::Standing;
use crate::store::{
    CertificateKey, CertificateRecord, CertificateState, InPack, IssuerId, PackNumber, ResponderNumber,
    Shard, StoredAnswer,
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

    fn optional_time(&self, column: usize) -> Result<Option<UnixTime>, StoreError> {
        Ok(self.get::<Option<i64>>(column)?.map(UnixTime))
    }

    pub(super) fn serial(&self, column: usize) -> Result<Serial, StoreError> {
        Serial::from_der_content(self.get(column)?)
            .map_err(|error| self.corrupt(format!("certificate.serial: {error}")))
    }

    fn revocation(&self, time: usize, reason: usize) -> Result<Option<Revocation>, StoreError> {
        revocation(self.get(time)?, self.get(reason)?).map_err(|what| self.corrupt(what))
    }

    /// not_before, not_after, revoked_at, reason and version from column `first` on.
    pub(super) fn standing(&self, first: usize) -> Result<Standing, StoreError> {
        Ok(Standing {
            not_before: self.optional_time(first)?,
            not_after: self.time(first + 1)?,
            revocation: self.revocation(first + 2, first + 3)?,
            version: self.get(first + 4)?,
        })
    }

    /// A row of one of the `STATE…` statements.
    pub(super) fn state(&self) -> Result<CertificateState, StoreError> {
        let certificate = record(self.get(0)?, IssuerId(self.get(1)?), self.serial(2)?, self.standing(3)?);
        let answer = match self.get::<Option<i64>>(8)? {
            None => None,
            Some(version) => Some(StoredAnswer {
                version,
                responder: ResponderNumber(self.get(9)?),
                this_update: self.time(10)?,
                next_update: self.time(11)?,
                response_data: self.get::<Vec<u8>>(12)?.into(),
                signature: self.get::<Vec<u8>>(13)?.into(),
                pack: match self.get::<Option<i64>>(14)? {
                    None => None,
                    Some(number) => Some(InPack {
                        number: PackNumber(number),
                        broken: self
                            .get::<Option<bool>>(15)?
                            .ok_or_else(|| self.corrupt(format!("pack {number} is not there")))?,
                    }),
                },
            }),
        };
        Ok(CertificateState { certificate, answer })
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

/// An entry of a text that holds many: integers, some of them left empty.
pub(super) struct Packed<'t>(std::str::Split<'t, char>);

impl<'t> Packed<'t> {
    /// The entries of what `group_concat` gave.
    pub(super) fn entries(text: Option<&'t str>) -> impl Iterator<Item = Self> {
        text.into_iter().flat_map(|text| text.split(';')).map(|entry| Self(entry.split(',')))
    }

    /// The next integer, where there is one.
    pub(super) fn optional(&mut self) -> Result<Option<i64>, String> {
        match self.0.next() {
            None => Err("a row is cut off".to_owned()),
            Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| format!("{text:?} is no integer")),
        }
    }

    /// The next integer, which must be there.
    pub(super) fn integer(&mut self) -> Result<i64, String> {
        self.optional()?.ok_or_else(|| "a value is NULL".to_owned())
    }

    /// not_before, not_after, revoked_at, reason and version.
    pub(super) fn standing(&mut self) -> Result<Standing, String> {
        Ok(Standing {
            not_before: self.optional()?.map(UnixTime),
            not_after: UnixTime(self.integer()?),
            revocation: revocation(self.optional()?, self.optional()?)?,
            version: self.integer()?,
        })
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
