-- A row of `ready` is a run: `amount` messages whose seq and id follow on from the first one's. A batch, or all
-- that a commit brings to one queue, is one row; a message that comes back is a run of its own.
ALTER TABLE ready ADD COLUMN amount INTEGER NOT NULL DEFAULT 1;
