-- New certificates that limiters apart from the capacity guard were asked for, ever: the guard counts on from
-- what it saw last.
CREATE TABLE limits_offered (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    orders INTEGER NOT NULL
) STRICT;

INSERT INTO limits_offered (one, orders) VALUES (1, 0);
