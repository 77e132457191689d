-- Who changed what. A line's hash covers the hash of the line before: see store/audit.
CREATE TABLE audit (
    number   INTEGER PRIMARY KEY,
    time     INTEGER NOT NULL,
    actor    TEXT NOT NULL,
    action   TEXT NOT NULL,
    detail   TEXT NOT NULL,
    previous BLOB NOT NULL,
    hash     BLOB NOT NULL
) STRICT;

-- Replies kept for idempotency keys; no status while the request is under way.
CREATE TABLE reply (
    caller  TEXT NOT NULL,
    key     TEXT NOT NULL,
    request BLOB NOT NULL,
    begun   INTEGER NOT NULL,
    status  INTEGER,
    headers TEXT,
    body    BLOB,
    PRIMARY KEY (caller, key)
) STRICT;

CREATE INDEX reply_begun ON reply (begun);
