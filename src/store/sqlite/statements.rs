//! Every statement, as a constant: a test prepares each one and looks at its query plan.
//!
//! Lists of keys go in as one JSON array, so that a statement is the same for every length; rows
//! with blobs go in as a table of values of a few fixed lengths ([`Bulk`]).

use std::sync::LazyLock;

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

pub(super) const BEGIN_WRITE: &str = "BEGIN IMMEDIATE";

pub(super) const ISSUER_BY_NAME_OR_CERTIFICATE: &str = "SELECT id, name, certificate FROM issuer WHERE name = ?1 UNION SELECT id, name, certificate FROM issuer WHERE certificate = ?2";
pub(super) const ISSUER_INSERT: &str = "INSERT INTO issuer (name, certificate) VALUES (?1, ?2)";
pub(super) const ISSUERS: &str = "SELECT id, name, certificate FROM issuer ORDER BY id";
pub(super) const ISSUER_EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM issuer WHERE id = ?1)";

pub(super) const RESPONDER_BY_CERTIFICATE: &str =
    "SELECT number, issuer, token, key, algorithm, certificate, not_after, installed_at, use_from, retired_at
     FROM responder WHERE issuer = ?1 AND certificate = ?2 AND algorithm = ?3";
pub(super) const RESPONDER_INSERT: &str =
    "INSERT INTO responder (issuer, token, key, algorithm, certificate, not_after, installed_at, use_from)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
pub(super) const RESPONDER_UPDATE: &str =
    "UPDATE responder SET token = ?2, key = ?3, not_after = ?4, use_from = ?5 WHERE number = ?1";
pub(super) const RESPONDER_BY_NUMBER: &str =
    "SELECT number, issuer, token, key, algorithm, certificate, not_after, installed_at, use_from, retired_at
     FROM responder WHERE number = ?1";
pub(super) const RESPONDER_RETIRE: &str = "UPDATE responder SET retired_at = ?2 WHERE number = ?1";
pub(super) const RESPONDERS: &str =
    "SELECT number, issuer, token, key, algorithm, certificate, not_after, installed_at, use_from, retired_at
     FROM responder ORDER BY number";

pub(super) const RESPONDER_TOKEN: &str = "SELECT token FROM responder WHERE number = ?1";

/// The last row of each shard in the JSON array `?1`.
pub(super) const LAST_ROWS: &str = "SELECT s.value, (SELECT c.row FROM certificate AS c WHERE c.row BETWEEN s.value << 32 AND (s.value << 32) + 4294967295
             ORDER BY c.row DESC LIMIT 1)
     FROM json_each(?1) AS s";

/// The certificates of issuer `?1` whose serials are in the JSON array of hex `?2`: for each its place
/// in the array, row, not_before, not_after, revoked_at, reason and version, all in one text. The
/// driver hands rows over one at a time between threads, which costs more than finding them. CROSS
/// JOIN keeps the array outside.
pub(super) const FIND: &str =
    "SELECT group_concat(concat_ws(',', k.key, c.row, ifnull(c.not_before, ''), c.not_after,
            ifnull(c.revoked_at, ''), ifnull(c.reason, ''), c.version), ';')
     FROM json_each(?2) AS k CROSS JOIN certificate AS c
     WHERE c.issuer = ?1 AND c.serial = unhex(k.value)";

/// A certificate and its answer as one text, the octets in hex: as in [`FIND`], because each value that
/// the driver hands over costs more than finding the row. Read by [`super::rows::Packed::state`].
macro_rules! state {
    () => {
        "concat_ws(',', c.row, c.issuer, hex(c.serial), ifnull(c.not_before, ''), c.not_after,
            ifnull(c.revoked_at, ''), ifnull(c.reason, ''), c.version, ifnull(a.version, ''),
            ifnull(a.responder, ''), ifnull(a.this_update, ''), ifnull(a.next_update, ''), ifnull(a.pack, ''),
            ifnull(p.broken, ''), hex(coalesce(p.response_data, a.response_data)),
            hex(coalesce(p.signature, a.signature)))"
    };
}

pub(super) const STATE_BY_SERIAL: &str = concat!(
    "SELECT ",
    state!(),
    " FROM certificate AS c LEFT JOIN answer AS a ON a.row = c.row LEFT JOIN pack AS p ON p.number = a.pack
     WHERE c.issuer = ?1 AND c.serial = ?2"
);
pub(super) const STATES_BY_ROW: &str = concat!(
    "SELECT group_concat(",
    state!(),
    ", ';') FROM json_each(?1) AS k CROSS JOIN certificate AS c LEFT JOIN answer AS a ON a.row = c.row
         LEFT JOIN pack AS p ON p.number = a.pack
     WHERE c.row = k.value"
);
/// A certificate without its answer's octets, and only an answer for its present version.
/// Read by [`super::rows::Packed::due`].
pub(super) const DUE_BY_ROW: &str =
    "SELECT group_concat(concat_ws(',', c.row, c.issuer, hex(c.serial), ifnull(c.not_before, ''), c.not_after,
            ifnull(c.revoked_at, ''), ifnull(c.reason, ''), c.version, ifnull(a.this_update, ''),
            ifnull(a.next_update, ''), ifnull(a.responder, ''), ifnull(p.broken, '')), ';')
     FROM json_each(?1) AS k CROSS JOIN certificate AS c
         LEFT JOIN answer AS a ON a.row = c.row AND a.version = c.version
         LEFT JOIN pack AS p ON p.number = a.pack
     WHERE c.row = k.value";
/// Rows after `?1` up to `?2`, not expired at `?3`, `?4` at the most.
pub(super) const STATES_PAGE: &str = concat!(
    "SELECT group_concat(entry, ';') FROM (SELECT ",
    state!(),
    " AS entry FROM certificate AS c LEFT JOIN answer AS a ON a.row = c.row
         LEFT JOIN pack AS p ON p.number = a.pack
     WHERE c.row > ?1 AND c.row <= ?2 AND c.not_after >= ?3 ORDER BY c.row LIMIT ?4)"
);
/// The same rows without octets.
pub(super) const SCHEDULE_PAGE: &str = "SELECT group_concat(entry, ';') FROM (
         SELECT concat_ws(',', c.row, c.issuer, hex(c.serial), ifnull(c.not_before, ''), c.not_after,
             ifnull(a.this_update, ''), ifnull(a.next_update, ''), ifnull(a.responder, ''),
             ifnull(p.broken, '')) AS entry
         FROM certificate AS c LEFT JOIN answer AS a ON a.row = c.row AND a.version = c.version
             LEFT JOIN pack AS p ON p.number = a.pack
         WHERE c.row > ?1 AND c.row <= ?2 AND c.not_after >= ?3 ORDER BY c.row LIMIT ?4)";

/// For the rows in the JSON array `?1`: place, version, and version and thisUpdate of the answer, as
/// in [`FIND`].
pub(super) const VERSIONS: &str = "SELECT group_concat(concat_ws(',', k.key, c.version, ifnull(a.version, ''), ifnull(a.this_update, '')), ';')
     FROM json_each(?1) AS k CROSS JOIN certificate AS c LEFT JOIN answer AS a ON a.row = c.row
     WHERE c.row = k.value";

pub(super) const PACK_PUT: &str =
    "INSERT INTO pack (broken, response_data, signature) VALUES (?1, ?2, ?3) RETURNING number";
pub(super) const PACK_MEMBERS: &str = "SELECT row FROM answer WHERE pack = ?1";
/// Breaks the packs that are answers for an older version of a certificate in the JSON array `?1` of rows.
pub(super) const PACK_BREAK: &str = "UPDATE pack SET broken = 1 WHERE number IN (
         SELECT a.pack FROM json_each(?1) AS k CROSS JOIN answer AS a ON a.row = k.value
             CROSS JOIN certificate AS c ON c.row = a.row
         WHERE a.pack IS NOT NULL AND a.version <> c.version)
     RETURNING number";

/// Reads the whole fleet, for reports. The unary plus keeps it off the index: one walk through the
/// rows is cheaper than a seek for each.
pub(super) const COUNTS: &str = "SELECT coalesce(sum(c.not_after >= ?2), 0),
            coalesce(sum(c.not_after >= ?2 AND c.revoked_at IS NOT NULL), 0),
            coalesce(sum(c.not_after < ?2), 0),
            coalesce(sum(c.not_after >= ?2 AND a.version = c.version AND a.next_update > ?2), 0)
     FROM certificate AS c LEFT JOIN answer AS a ON a.row = c.row
     WHERE +c.issuer = ?1";

/// Unexpired certificates between two rows by issuer, lifetime, day of expiry and whether revoked.
pub(super) const FLEET_DAYS: &str = "SELECT issuer, (not_after - not_before + 43200) / 86400 AS lifetime,
            not_after / 86400 AS ends, revoked_at IS NOT NULL AS revoked, count(*)
     FROM certificate WHERE row > ?1 AND row <= ?2 AND not_after >= ?3 GROUP BY 1, 2, 3, 4";

pub(super) const GUARD_PUT: &str = "INSERT INTO capacity_guard (one, at, document) VALUES (1, ?1, ?2)
     ON CONFLICT (one) DO UPDATE SET at = excluded.at, document = excluded.document";
pub(super) const GUARD: &str = "SELECT at, document FROM capacity_guard WHERE one = 1";

pub(super) const OFFERED_ADD: &str = "UPDATE limits_offered SET orders = orders + ?1 WHERE one = 1";
pub(super) const OFFERED: &str = "SELECT orders FROM limits_offered WHERE one = 1";

/// The last position pruned, and the end of the feed.
pub(super) const FEED_BOUNDS: &str =
    "SELECT p.position, max(p.position, coalesce((SELECT max(position) FROM feed), 0))
     FROM feed_pruned AS p WHERE p.one = 1";
/// After position `?1`; the keys that writer `?2` changed are left out.
pub(super) const FEED_AFTER: &str =
    "SELECT position, registry AND writer <> ?2, CASE WHEN writer <> ?2 THEN keys END
     FROM feed WHERE position > ?1 ORDER BY position LIMIT ?3";
pub(super) const FEED_APPEND: &str = "INSERT INTO feed (writer, registry, keys) VALUES (?1, ?2, ?3)";
pub(super) const FEED_MARK: &str = "INSERT INTO feed_mark (position, at) VALUES (?1, ?2) ON CONFLICT (position) DO UPDATE SET at = min(at, excluded.at)";
/// The newest position that is known to be as old as `?1`.
pub(super) const FEED_MARKED: &str = "SELECT max(position) FROM feed_mark WHERE at <= ?1";
pub(super) const FEED_UNMARK: &str = "DELETE FROM feed_mark WHERE position <= ?1";
pub(super) const FEED_PRUNE: &str = "DELETE FROM feed WHERE position <= ?1";
pub(super) const FEED_PRUNED: &str = "UPDATE feed_pruned SET position = ?1 WHERE one = 1 AND position < ?1";

pub(super) const PROFILE_PUT: &str = "INSERT INTO capacity_profile (token, algorithm, sessions, rate, raw_rate, p50, p99, measured_at)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
     ON CONFLICT (token, algorithm, sessions) DO UPDATE SET rate = excluded.rate, raw_rate = excluded.raw_rate,
         p50 = excluded.p50, p99 = excluded.p99, measured_at = excluded.measured_at";
pub(super) const PROFILES: &str = "SELECT token, algorithm, sessions, rate, raw_rate, p50, p99, measured_at
     FROM capacity_profile ORDER BY token, algorithm, sessions";

pub(super) const AUDIT_HEAD: &str = "SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1";
pub(super) const AUDIT_APPEND: &str = "INSERT INTO audit (number, time, actor, action, detail, previous, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
pub(super) const AUDIT_LINES: &str = "SELECT number, time, actor, action, detail, previous, hash FROM audit
     WHERE number > ?1 ORDER BY number LIMIT ?2";

/// How many lines there are up to the one that is `?1` by number and hash.
pub(super) const AUDIT_UP_TO: &str = "SELECT (SELECT count(*) FROM audit WHERE number <= ?1) FROM audit
     WHERE number = ?1 AND hash = ?2";
pub(super) const AUDIT_PRUNE: &str = "DELETE FROM audit WHERE number <= ?1";

/// Begun before `?1`, or before `?2` and still without a reply.
pub(super) const REPLY_FORGET: &str = "DELETE FROM reply WHERE begun < ?2 AND (begun < ?1 OR status IS NULL)";
pub(super) const REPLY_FIND: &str =
    "SELECT request, status, headers, body FROM reply WHERE caller = ?1 AND key = ?2";
pub(super) const REPLY_BEGIN: &str =
    "INSERT INTO reply (caller, key, request, begun) VALUES (?1, ?2, ?3, ?4)";
pub(super) const REPLY_FINISH: &str =
    "UPDATE reply SET status = ?3, headers = ?4, body = ?5 WHERE caller = ?1 AND key = ?2";
pub(super) const REPLY_ABANDON: &str = "DELETE FROM reply WHERE caller = ?1 AND key = ?2 AND status IS NULL";
pub(super) const LEDGER_END: &str = "SELECT position FROM ledger_end WHERE one = 1";
pub(super) const LEDGER_AFTER: &str =
    "SELECT id, position, keep_until, entry FROM ledger WHERE position > ?1 ORDER BY position LIMIT ?2";
/// By `?2`, if it is `?1`.
pub(super) const LEDGER_MOVE: &str =
    "UPDATE ledger_end SET position = position + ?2 WHERE one = 1 AND position = ?1";
pub(super) const LEDGER_FORGET: &str =
    "DELETE FROM ledger WHERE id IN (SELECT value FROM json_each(?1)) AND keep_until <= ?2";

/// A statement over a table of values, `?` for each.
///
/// It is prepared for a few lengths only; a part that is shorter than its length leaves the rest
/// unbound, which is NULL, and the statement passes over rows that begin with NULL.
pub(super) struct Bulk {
    /// Values in a row.
    pub(super) columns: usize,
    lengths: [usize; 4],
    statements: LazyLock<[SqlStr; 4]>,
}

/// Rows for each prepared length: below SQLite's limit of 32,766 values, and short ones for the
/// short lists of a running service.
const LENGTHS: [usize; 4] = [1, 8, 64, 512];

impl Bulk {
    /// The statement for the next part of `rows` rows, and how many it takes.
    pub(super) fn part(&self, rows: usize) -> (SqlStr, usize) {
        let fit = self.lengths.iter().position(|length| *length >= rows).unwrap_or(self.lengths.len() - 1);
        (self.statements[fit].clone(), rows.min(self.lengths[fit]))
    }

    /// Every statement it is made of.
    #[cfg(test)]
    pub(super) fn all(&self) -> &[SqlStr] {
        self.statements.as_slice()
    }
}

/// Writes `head`, the table of values of each length, and `tail`.
fn stamp(head: &str, columns: usize, tail: &str) -> [SqlStr; 4] {
    let row = format!("({})", vec!["?"; columns].join(","));
    LENGTHS.map(|length| {
        let values = vec![row.as_str(); length].join(",");
        let shared: std::sync::Arc<str> = format!("{head}(VALUES {values}){tail}").into();
        AssertSqlSafe(shared).into_sql_str()
    })
}

/// Row, issuer, serial, not_before, not_after, revoked_at, reason, version. OR FAIL: undoing the
/// statement alone is not needed, a failure undoes the transaction.
pub(super) static CERTIFICATE_INSERT: Bulk = Bulk {
    columns: 8,
    lengths: LENGTHS,
    statements: LazyLock::new(|| {
        stamp(
            "INSERT OR FAIL INTO certificate (row, issuer, serial, not_before, not_after, revoked_at, reason, version)
             SELECT * FROM ",
            8,
            " WHERE column1 IS NOT NULL",
        )
    }),
};

/// Row, not_before, not_after, revoked_at, reason, version.
pub(super) static CERTIFICATE_UPDATE: Bulk = Bulk {
    columns: 6,
    lengths: LENGTHS,
    statements: LazyLock::new(|| {
        stamp(
            "UPDATE certificate SET not_before = v.column2, not_after = v.column3, revoked_at = v.column4,
                 reason = v.column5, version = v.column6 FROM ",
            6,
            " AS v WHERE certificate.row = v.column1",
        )
    }),
};

/// Row, version, responder, this_update, next_update, response_data, signature, pack.
pub(super) static ANSWER_PUT: Bulk = Bulk {
    columns: 8,
    lengths: LENGTHS,
    statements: LazyLock::new(|| {
        stamp(
            "INSERT INTO answer (row, version, responder, this_update, next_update, response_data, signature,
                 pack)
             SELECT * FROM ",
            8,
            " WHERE column1 IS NOT NULL
             ON CONFLICT (row) DO UPDATE SET version = excluded.version, responder = excluded.responder,
                 this_update = excluded.this_update, next_update = excluded.next_update,
                 response_data = excluded.response_data, signature = excluded.signature,
                 pack = excluded.pack",
        )
    }),
};

/// Id, position, keep_until, entry.
pub(super) static LEDGER_PUT: Bulk = Bulk {
    columns: 4,
    lengths: LENGTHS,
    statements: LazyLock::new(|| {
        stamp(
            "INSERT INTO ledger (id, position, keep_until, entry) SELECT * FROM ",
            4,
            " WHERE column1 IS NOT NULL
             ON CONFLICT (id) DO UPDATE SET position = excluded.position, keep_until = excluded.keep_until,
                 entry = excluded.entry",
        )
    }),
};

/// Every statement that is no [`Bulk`].
#[cfg(test)]
pub(super) const ALL: &[&str] = &[
    ISSUER_BY_NAME_OR_CERTIFICATE,
    ISSUER_INSERT,
    ISSUERS,
    ISSUER_EXISTS,
    RESPONDER_BY_CERTIFICATE,
    RESPONDER_INSERT,
    RESPONDER_UPDATE,
    RESPONDER_BY_NUMBER,
    RESPONDER_RETIRE,
    RESPONDERS,
    RESPONDER_TOKEN,
    LAST_ROWS,
    FIND,
    STATE_BY_SERIAL,
    STATES_BY_ROW,
    DUE_BY_ROW,
    STATES_PAGE,
    SCHEDULE_PAGE,
    VERSIONS,
    PACK_PUT,
    PACK_MEMBERS,
    PACK_BREAK,
    COUNTS,
    FEED_BOUNDS,
    FEED_AFTER,
    FEED_APPEND,
    FEED_MARK,
    FEED_MARKED,
    FEED_UNMARK,
    FEED_PRUNE,
    FEED_PRUNED,
    PROFILE_PUT,
    PROFILES,
    OFFERED_ADD,
    OFFERED,
    AUDIT_HEAD,
    AUDIT_APPEND,
    AUDIT_LINES,
    AUDIT_UP_TO,
    AUDIT_PRUNE,
    REPLY_FORGET,
    REPLY_FIND,
    REPLY_BEGIN,
    REPLY_FINISH,
    REPLY_ABANDON,
    LEDGER_END,
    LEDGER_AFTER,
    LEDGER_MOVE,
    LEDGER_FORGET,
];
