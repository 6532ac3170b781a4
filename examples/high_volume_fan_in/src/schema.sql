-- The lease queues, told apart by their number. A row is somebody's until it expires, by the token of
-- its last lease; what is settled is deleted.
CREATE TABLE queue(queue INTEGER NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL,
    token INTEGER NOT NULL DEFAULT 0, expires INTEGER NOT NULL DEFAULT 0,
    deliveries INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY(queue, number)) STRICT, WITHOUT ROWID;

-- The partitions of the log: how far each is committed, and whose it is for now.
CREATE TABLE partitions(partition INTEGER PRIMARY KEY, records INTEGER NOT NULL,
    committed INTEGER NOT NULL DEFAULT 0, owner TEXT, generation INTEGER NOT NULL DEFAULT 0,
    expires INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE members(owner TEXT PRIMARY KEY, expires INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- What handling a message leaves. `delivery` is the number of the delivery whose row it is, `undo` its
-- key.
CREATE TABLE tokens(token TEXT PRIMARY KEY, feed INTEGER NOT NULL, position INTEGER NOT NULL,
    delivery INTEGER NOT NULL, run INTEGER NOT NULL, undo TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE outbox(token TEXT PRIMARY KEY, feed INTEGER NOT NULL, position INTEGER NOT NULL,
    delivery INTEGER NOT NULL, run INTEGER NOT NULL, undo TEXT NOT NULL,
    body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_of_message ON tokens(feed, position);
CREATE INDEX events_of_message ON outbox(feed, position);

-- Messages that were given up, byte for byte.
CREATE TABLE dead(feed INTEGER NOT NULL, position INTEGER NOT NULL,
    delivery INTEGER NOT NULL, run INTEGER NOT NULL, body BLOB NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY(feed, position)) STRICT, WITHOUT ROWID;

-- Which input this is, and who has worked on it. A run that was killed has no end.
CREATE TABLE input(fingerprint TEXT NOT NULL) STRICT;
CREATE TABLE runs(run INTEGER PRIMARY KEY, ended INTEGER NOT NULL DEFAULT 0,
    settled INTEGER NOT NULL DEFAULT 0, unsure INTEGER NOT NULL DEFAULT 0) STRICT;

-- For the audit: what happened, in its order. The database writes it by itself, in the transaction of
-- each change, so that it does not depend on what a worker says or lives to say.
CREATE TABLE journal(step INTEGER PRIMARY KEY, act TEXT NOT NULL, feed INTEGER NOT NULL,
    position INTEGER NOT NULL, undo TEXT) STRICT;
CREATE INDEX journal_by_act ON journal(act, feed, position);

CREATE TRIGGER token_put AFTER INSERT ON tokens BEGIN
    INSERT INTO journal(act, feed, position, undo)
        VALUES ('token put', new.feed, new.position, new.undo); END;
CREATE TRIGGER token_taken_over AFTER UPDATE OF undo ON tokens BEGIN
    INSERT INTO journal(act, feed, position, undo)
        VALUES ('token put', new.feed, new.position, new.undo); END;
CREATE TRIGGER token_undone AFTER DELETE ON tokens BEGIN
    INSERT INTO journal(act, feed, position, undo)
        VALUES ('token undone', old.feed, old.position, old.undo); END;
CREATE TRIGGER event_put AFTER INSERT ON outbox BEGIN
    INSERT INTO journal(act, feed, position, undo)
        VALUES ('event put', new.feed, new.position, new.undo); END;
CREATE TRIGGER event_taken_over AFTER UPDATE OF undo ON outbox BEGIN
    INSERT INTO journal(act, feed, position, undo)
        VALUES ('event put', new.feed, new.position, new.undo); END;
CREATE TRIGGER event_undone AFTER DELETE ON outbox BEGIN
    INSERT INTO journal(act, feed, position, undo)
        VALUES ('event undone', old.feed, old.position, old.undo); END;
CREATE TRIGGER row_settled AFTER DELETE ON queue BEGIN
    INSERT INTO journal(act, feed, position) VALUES ('settled', old.queue, old.number); END;
CREATE TRIGGER offset_committed AFTER UPDATE OF committed ON partitions BEGIN
    INSERT INTO journal(act, feed, position)
        VALUES ('committed', new.partition, new.committed); END;
