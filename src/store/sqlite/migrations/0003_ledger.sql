-- The limiter's ledger. The id is the position at which a record was first written, the position the
-- one at which it was written last; the entry is JSON, read and written whole.
CREATE TABLE ledger (
    id         INTEGER PRIMARY KEY,
    position   INTEGER NOT NULL UNIQUE,
    keep_until INTEGER NOT NULL,
    entry      TEXT NOT NULL
) STRICT;

-- Where the ledger ends, also when its last records are forgotten.
CREATE TABLE ledger_end (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    position INTEGER NOT NULL
) STRICT;

INSERT INTO ledger_end (one, position) VALUES (1, 0);
