-- What the capacity guard knew last: JSON, read and written whole.
CREATE TABLE capacity_guard (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    at       INTEGER NOT NULL,
    document TEXT NOT NULL
) STRICT;
