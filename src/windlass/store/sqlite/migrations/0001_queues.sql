-- The tables of the queue store. All times are milliseconds since 1970, all numbers are never used twice.

-- One-off facts: secret, next_number (reserved up to, exclusive), last_time.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

-- A queue's present contents are the rows of its generation. Purging gives it a new one and deleting
-- takes it away: one row changes, whatever the queue holds, and upkeep sweeps the old rows up later.
CREATE TABLE queues (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    generation INTEGER NOT NULL UNIQUE,
    settings   TEXT NOT NULL,
    paused     INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE abandoned_generations (
    generation INTEGER PRIMARY KEY
) STRICT;

-- How many messages each queue holds. A commit appends its differences to count_log (one page, whatever
-- the number of queues it touched); upkeep folds them into counts.
CREATE TABLE counts (
    queue  INTEGER PRIMARY KEY,
    upto   INTEGER NOT NULL,  -- the last count_log entry that `counts` contains
    counts TEXT NOT NULL      -- JSON array, see counts.py
) STRICT;

CREATE TABLE count_log (
    entry       INTEGER PRIMARY KEY,
    differences TEXT NOT NULL  -- JSON object: queue -> array
) STRICT;

-- Every living message. What changes while it lives is elsewhere, so that a lease never copies a content.
CREATE TABLE messages (
    id         INTEGER PRIMARY KEY,  -- its number
    generation INTEGER NOT NULL,
    seq        INTEGER NOT NULL,     -- its place: the number, until a redrive gives a later one
    at         INTEGER NOT NULL,     -- enqueued
    rank       INTEGER NOT NULL,     -- 9 - priority
    content    BLOB NOT NULL,        -- JSON text
    grp        TEXT,
    headers    BLOB,                 -- JSON text
    expires    INTEGER,
    home       INTEGER,              -- queue it was sent to, where that is another one
    origin     INTEGER               -- queue it was dead-lettered from
) STRICT;

CREATE INDEX messages_expires ON messages (expires) WHERE expires IS NOT NULL;
CREATE INDEX messages_origin ON messages (generation, origin, seq) WHERE origin IS NOT NULL;

-- What receive reads: only messages that may leave now, in the order in which they leave.
CREATE TABLE ready (
    generation INTEGER NOT NULL,
    rank       INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    id         INTEGER NOT NULL,
    PRIMARY KEY (generation, rank, seq)
) STRICT, WITHOUT ROWID;

-- The same for messages with a ttl, and the latest expiry in each run of 256 numbers: see ready.py.
CREATE TABLE fleeting (
    generation INTEGER NOT NULL,
    rank       INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    id         INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    PRIMARY KEY (generation, rank, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE fleeting_blocks (
    generation INTEGER NOT NULL,
    rank       INTEGER NOT NULL,
    block      INTEGER NOT NULL,  -- seq >> 8
    latest     INTEGER NOT NULL,
    PRIMARY KEY (generation, rank, block)
) STRICT, WITHOUT ROWID;

CREATE INDEX fleeting_blocks_latest ON fleeting_blocks (latest);

-- Every rank there is, to go through them in order.
CREATE TABLE ranks (
    rank INTEGER PRIMARY KEY
) STRICT;

INSERT INTO ranks VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9);

-- Every message that was ever leased or delayed, or is dead.
CREATE TABLE deliveries (
    id         INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,
    state      INTEGER NOT NULL,            -- message.State, READY where it is ready or blocked again
    due        INTEGER,                     -- end of the lease or delay
    token      INTEGER NOT NULL DEFAULT 0,  -- deliveries ever: the fencing token, never reset
    count      INTEGER NOT NULL DEFAULT 0,  -- deliveries since the last redrive
    base       INTEGER NOT NULL DEFAULT 0,  -- `count` when it came into this queue
    since      INTEGER,                     -- start of the lease; where it is dead, when it was enqueued
    holder     TEXT,
    lapsed     INTEGER,                     -- 1: its ttl ran out during the lease
    life       TEXT                         -- JSON objects with commas between them: past events
) STRICT;

CREATE INDEX deliveries_due ON deliveries (due, generation) WHERE due IS NOT NULL;
CREATE INDEX deliveries_dead ON deliveries (generation, since, id) WHERE state = 3;

-- The living messages of groups, in order. Only the first of a group is ever ready.
CREATE TABLE grouped (
    generation INTEGER NOT NULL,
    grp        TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    id         INTEGER NOT NULL,
    PRIMARY KEY (generation, grp, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE dedup (
    queue    INTEGER NOT NULL,
    dedup_id TEXT NOT NULL,
    id       INTEGER NOT NULL,
    until    INTEGER NOT NULL,
    PRIMARY KEY (queue, dedup_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX dedup_until ON dedup (until);

-- Answers given under an Idempotency-Key.
CREATE TABLE answers (
    key         BLOB PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    answer      BLOB NOT NULL,
    until       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX answers_until ON answers (until);

-- Messages that ended and whose record is kept for a while.
CREATE TABLE ended (
    id    INTEGER PRIMARY KEY,
    token INTEGER NOT NULL,  -- the delivery that was acknowledged, 0: none
    until INTEGER NOT NULL,
    life  BLOB NOT NULL      -- message.Life as JSON
) STRICT;

CREATE INDEX ended_until ON ended (until);

CREATE TABLE keys (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    digest     BLOB NOT NULL UNIQUE,
    scopes     TEXT NOT NULL,  -- JSON array
    created_at INTEGER NOT NULL
) STRICT;
