-- Times are whole seconds since 1970-01-01T00:00:00Z.

CREATE TABLE issuer (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL UNIQUE,
    certificate BLOB NOT NULL UNIQUE
) STRICT;

-- AUTOINCREMENT: a number is never used again for another certificate.
CREATE TABLE responder (
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    issuer       INTEGER NOT NULL REFERENCES issuer (id),
    token        TEXT NOT NULL,
    key          TEXT NOT NULL,
    algorithm    TEXT NOT NULL,
    certificate  BLOB NOT NULL,
    not_after    INTEGER NOT NULL,
    installed_at INTEGER NOT NULL,
    UNIQUE (issuer, certificate, algorithm)
) STRICT;

-- The row is shard * 2^32 + the certificate's number in its shard, from 1: a shard is a range of
-- rows, so that paging through one needs no index of its own. The reference is checked at commit:
-- checked at once, each bulk insert would keep a copy of every page it touches, to undo it.
CREATE TABLE certificate (
    row        INTEGER PRIMARY KEY,
    issuer     INTEGER NOT NULL REFERENCES issuer (id) DEFERRABLE INITIALLY DEFERRED,
    serial     BLOB NOT NULL,
    not_before INTEGER,
    not_after  INTEGER NOT NULL,
    revoked_at INTEGER,
    reason     INTEGER,
    version    INTEGER NOT NULL,
    UNIQUE (issuer, serial)
) STRICT;

CREATE TABLE answer (
    row           INTEGER PRIMARY KEY REFERENCES certificate (row),
    version       INTEGER NOT NULL,
    responder     INTEGER NOT NULL REFERENCES responder (number),
    this_update   INTEGER NOT NULL,
    next_update   INTEGER NOT NULL,
    response_data BLOB NOT NULL,
    signature     BLOB NOT NULL
) STRICT;

-- One row a transaction (a few for a very large one). The keys are packed, five octets each: the
-- shard, then the number in it, little-endian. AUTOINCREMENT: positions only ever rise.
CREATE TABLE feed (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    writer   INTEGER NOT NULL,
    registry INTEGER NOT NULL,
    keys     BLOB NOT NULL
) STRICT;

-- Where the feed ended at a call of prune_feed: how the age of an entry is known.
CREATE TABLE feed_mark (
    position INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL
) STRICT;

-- The last position that was pruned.
CREATE TABLE feed_pruned (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    position INTEGER NOT NULL
) STRICT;

INSERT INTO feed_pruned (one, position) VALUES (1, 0);

-- Times in nanoseconds, rates in signatures a second.
CREATE TABLE capacity_profile (
    token       TEXT NOT NULL,
    algorithm   TEXT NOT NULL,
    sessions    INTEGER NOT NULL,
    rate        REAL NOT NULL,
    raw_rate    REAL NOT NULL,
    p50         INTEGER NOT NULL,
    p99         INTEGER NOT NULL,
    measured_at INTEGER NOT NULL,
    PRIMARY KEY (token, algorithm, sessions)
) STRICT;
