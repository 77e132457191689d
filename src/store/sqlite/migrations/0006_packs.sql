-- An answer for several certificates under one signature. Its octets stand here once; they are empty in its
-- certificates' rows of `answer`. Broken: the status of one of them has changed since. AUTOINCREMENT: a
-- number is never used again for another pack.
CREATE TABLE pack (
    number        INTEGER PRIMARY KEY AUTOINCREMENT,
    broken        INTEGER NOT NULL,
    response_data BLOB NOT NULL,
    signature     BLOB NOT NULL
) STRICT;

-- No foreign key: its check at the end of each pack would read every answer, since it does not use an
-- index of some rows.
ALTER TABLE answer ADD COLUMN pack INTEGER;
CREATE INDEX answer_by_pack ON answer (pack) WHERE pack IS NOT NULL;

-- A pack goes with the last certificate that it is the answer of.
CREATE TRIGGER answer_leaves_pack AFTER UPDATE OF pack ON answer
WHEN OLD.pack IS NOT NULL AND OLD.pack IS NOT NEW.pack
BEGIN
    DELETE FROM pack WHERE number = OLD.pack AND NOT EXISTS (SELECT 1 FROM answer WHERE pack = OLD.pack);
END;
CREATE TRIGGER answer_ends_in_pack AFTER DELETE ON answer
WHEN OLD.pack IS NOT NULL
BEGIN
    DELETE FROM pack WHERE number = OLD.pack AND NOT EXISTS (SELECT 1 FROM answer WHERE pack = OLD.pack);
END;
