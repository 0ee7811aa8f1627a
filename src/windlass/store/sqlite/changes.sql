-- What a commit changes, as rows of one INSERT: see changes.py, whose `Change` names the kinds. The interpreter's
-- lock is let go and taken once, and where nothing else has to be written that statement is the commit.

CREATE TEMP VIEW change (kind, a, b, c, d, e, f, g, h) AS SELECT 0, 0, 0, 0, 0, 0, 0, 0, 0;

-- A plain message: id, generation, at, content.
CREATE TEMP TRIGGER change_message INSTEAD OF INSERT ON change WHEN NEW.kind = 0 BEGIN
    INSERT INTO messages (id, generation, seq, at, rank, content)
    VALUES (NEW.a, NEW.b, NEW.a, NEW.c, 9, NEW.d);
END;

-- Messages become ready: generation, rank, first seq, first id, amount.
CREATE TEMP TRIGGER change_run INSTEAD OF INSERT ON change WHEN NEW.kind = 1 BEGIN
    INSERT INTO ready (generation, rank, seq, id, amount) VALUES (NEW.a, NEW.b, NEW.c, NEW.d, NEW.e);
END;

-- Runs are used up, all to this one: generation, rank, first seq.
CREATE TEMP TRIGGER change_front INSTEAD OF INSERT ON change WHEN NEW.kind = 2 BEGIN
    DELETE FROM ready WHERE generation = NEW.a AND (rank, seq) <= (NEW.b, NEW.c);
END;

-- A run loses its first messages: generation, rank, first seq, how many.
CREATE TEMP TRIGGER change_trim INSTEAD OF INSERT ON change WHEN NEW.kind = 3 BEGIN
    UPDATE ready SET seq = seq + NEW.d, id = id + NEW.d, amount = amount - NEW.d
     WHERE generation = NEW.a AND rank = NEW.b AND seq = NEW.c;
END;

-- A lease: id, generation, since, due, token, count, holder, and the claim of one that is tentative.
CREATE TEMP TRIGGER change_lease INSTEAD OF INSERT ON change WHEN NEW.kind = 4 BEGIN
    INSERT INTO deliveries (id, generation, state, since, due, token, count, holder, claim, tentative)
    VALUES (NEW.a, NEW.b, 1, NEW.c, NEW.d, NEW.e, NEW.f, NEW.g, NEW.h, iif(NEW.h IS NULL, NULL, 1))
        ON CONFLICT (id) DO UPDATE SET state = 1, since = excluded.since, due = excluded.due,
           token = excluded.token, count = excluded.count, holder = excluded.holder,
           claim = excluded.claim, tentative = excluded.tentative;
END;

-- A message is gone that was never leased or delayed: id.
CREATE TEMP TRIGGER change_gone INSTEAD OF INSERT ON change WHEN NEW.kind = 5 BEGIN
    DELETE FROM messages WHERE id = NEW.a;
END;

-- A message is gone: id.
CREATE TEMP TRIGGER change_ended INSTEAD OF INSERT ON change WHEN NEW.kind = 6 BEGIN
    DELETE FROM messages WHERE id = NEW.a;
    DELETE FROM deliveries WHERE id = NEW.a;
END;

-- What the commit does to the counts: entry, differences.
CREATE TEMP TRIGGER change_counts INSTEAD OF INSERT ON change WHEN NEW.kind = 7 BEGIN
    INSERT INTO count_log (entry, differences) VALUES (NEW.a, NEW.b);
END;

-- A one-off fact: name, value.
CREATE TEMP TRIGGER change_meta INSTEAD OF INSERT ON change WHEN NEW.kind = 8 BEGIN
    INSERT INTO meta (name, value) VALUES (NEW.a, NEW.b)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value;
END;

-- A lease ends at another time, and is tentative no more: id, due.
CREATE TEMP TRIGGER change_extend INSTEAD OF INSERT ON change WHEN NEW.kind = 9 BEGIN
    UPDATE deliveries SET due = NEW.b, tentative = NULL WHERE id = NEW.a;
END;

-- What is kept of a message that ended: id, token, until, life, untold.
CREATE TEMP TRIGGER change_record INSTEAD OF INSERT ON change WHEN NEW.kind = 10 BEGIN
    INSERT OR REPLACE INTO ended (id, token, until, life, untold)
    VALUES (NEW.a, NEW.b, NEW.c, NEW.d, NEW.e);
END;
