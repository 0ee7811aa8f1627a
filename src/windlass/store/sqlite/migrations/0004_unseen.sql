-- `forgiven` counts the deliveries that were given back and do not count; those that ran out unseen, with a
-- tentative lease, have a number of their own. Before, both were in `forgiven`.
ALTER TABLE deliveries ADD COLUMN unseen INTEGER NOT NULL DEFAULT 0;
