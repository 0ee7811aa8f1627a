-- A claim is a lease of which nobody knows yet whether its holder got the message: `claim` names it, and
-- `tentative` is 1 until the holder shows that it has it. What ends before costs the message no delivery,
-- `forgiven` times at most.
ALTER TABLE deliveries ADD COLUMN claim TEXT;
ALTER TABLE deliveries ADD COLUMN tentative INTEGER;
ALTER TABLE deliveries ADD COLUMN forgiven INTEGER NOT NULL DEFAULT 0;

CREATE INDEX deliveries_claimed ON deliveries (id) WHERE claim IS NOT NULL;

-- Ends that somebody has to be told of: kept until they are confirmed.
ALTER TABLE ended ADD COLUMN untold INTEGER;

CREATE INDEX ended_untold ON ended (id) WHERE untold IS NOT NULL;

CREATE TABLE runners (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    digest     BLOB NOT NULL UNIQUE,  -- SHA-256 of the token
    labels     TEXT NOT NULL,         -- JSON array
    features   TEXT NOT NULL,         -- JSON array
    created_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL       -- an hour behind at most
) STRICT;
