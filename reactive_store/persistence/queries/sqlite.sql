-- Every statement of the SQLite store. A timestamp is an integer of nanoseconds; a version or entry
-- is seen at T when ts <= T and, once it has ended, T < end_ts.

-- name: create_log
-- The log's table: a batch of commits under the timestamp of its last one.
CREATE TABLE log (ts INTEGER PRIMARY KEY, batch BLOB NOT NULL);

-- name: create_pairing
-- Whose log it is: the id of the data file, and the newest commit of which it was told that it is
-- there. Logs made before ids were given have no such table.
CREATE TABLE IF NOT EXISTS pairing (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    store BLOB NOT NULL,
    forgotten_ts INTEGER NOT NULL
);

-- name: create
-- The tables of the data file. `documents` holds each document's newest version (value NULL: deleted),
-- `history` the ones before it in the order in which they ended. `entries` holds the present keys
-- of each index and points at the document's row, so an update that moves no key leaves it alone;
-- `entry_history` holds ended entries, newest last within an index, which keeps the two questions
-- asked of it cheap: "what ended after T" and "what ended before T". `dropped` names indexes whose
-- rows are still being deleted.
CREATE TABLE documents (
    doc INTEGER PRIMARY KEY,
    tbl INTEGER NOT NULL,
    id BLOB NOT NULL,
    ts INTEGER NOT NULL,
    value BLOB,
    UNIQUE (tbl, id)
);
CREATE INDEX tombstones ON documents (ts) WHERE value IS NULL;
CREATE TABLE history (
    seq INTEGER PRIMARY KEY,
    doc INTEGER NOT NULL,
    end_ts INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    value BLOB NOT NULL
);
CREATE INDEX history_by_document ON history (doc, end_ts);
CREATE TABLE entries (
    idx INTEGER NOT NULL,
    key BLOB NOT NULL,
    doc INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    PRIMARY KEY (idx, key)
) WITHOUT ROWID;
CREATE TABLE entry_history (
    idx INTEGER NOT NULL,
    end_ts INTEGER NOT NULL,
    key BLOB NOT NULL,
    doc INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    PRIMARY KEY (idx, end_ts, key)
) WITHOUT ROWID;
CREATE TABLE dropped (idx INTEGER PRIMARY KEY);
CREATE TABLE globals (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE clock (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    last_ts INTEGER NOT NULL,
    next_doc INTEGER NOT NULL
);
INSERT INTO clock VALUES (1, 0, 1);

-- name: read_clock
-- The newest commit's timestamp and the next free document number.
SELECT last_ts, next_doc FROM clock;

-- name: set_clock
-- Closes a batch of commits.
UPDATE clock SET last_ts = ?, next_doc = ?;

-- name: get
-- The newest version of one document.
SELECT id, id, ts, value FROM documents WHERE tbl = ? AND id = ?;

-- name: version_of_document
-- The version of one document that a later one had ended after T: parameters T, table, id.
SELECT h.ts, h.value FROM history h
WHERE h.doc = (SELECT doc FROM documents WHERE tbl = ?2 AND id = ?3) AND h.end_ts > ?1
ORDER BY h.end_ts LIMIT 1;

-- name: version_of_entry
-- The same for the document a present entry points at: parameters T, index, key.
SELECT h.ts, h.value FROM history h
WHERE h.doc = (SELECT doc FROM entries WHERE idx = ?2 AND key = ?3) AND h.end_ts > ?1
ORDER BY h.end_ts LIMIT 1;

-- name: scan_ascending
-- Present entries of a range that existed at T, with the newest version of their documents.
SELECT e.key, d.id, d.ts, d.value FROM entries e CROSS JOIN documents d ON d.doc = e.doc
WHERE e.idx = ?1 AND e.key >= ?2 AND e.key < ?3 AND e.ts <= ?4 ORDER BY e.key LIMIT ?5;

-- name: scan_ascending_unbounded
-- The same without an upper bound (?3 is NULL). SQL has no greatest blob to stand for one.
SELECT e.key, d.id, d.ts, d.value FROM entries e CROSS JOIN documents d ON d.doc = e.doc
WHERE e.idx = ?1 AND e.key >= ?2 AND ?3 IS NULL AND e.ts <= ?4 ORDER BY e.key LIMIT ?5;

-- name: scan_descending
-- The same from the upper end.
SELECT e.key, d.id, d.ts, d.value FROM entries e CROSS JOIN documents d ON d.doc = e.doc
WHERE e.idx = ?1 AND e.key >= ?2 AND e.key < ?3 AND e.ts <= ?4 ORDER BY e.key DESC LIMIT ?5;

-- name: scan_descending_unbounded
-- The same from the upper end, without an upper bound.
SELECT e.key, d.id, d.ts, d.value FROM entries e CROSS JOIN documents d ON d.doc = e.doc
WHERE e.idx = ?1 AND e.key >= ?2 AND ?3 IS NULL AND e.ts <= ?4 ORDER BY e.key DESC LIMIT ?5;

-- name: scan_past_ascending
-- Entries of a range seen at T that have ended since, with the document's version of T. The newest
-- version cannot be it: whatever ended the entry wrote the document too.
SELECT p.key, d.id, h.ts, h.value
FROM (
    SELECT key, doc FROM entry_history
    WHERE idx = ?1 AND end_ts > ?4 AND key >= ?2 AND (?3 IS NULL OR key < ?3) AND ts <= ?4
    ORDER BY key LIMIT ?5
) p
CROSS JOIN documents d ON d.doc = p.doc
CROSS JOIN history h ON h.seq = (
    SELECT seq FROM history WHERE doc = p.doc AND end_ts > ?4 ORDER BY end_ts LIMIT 1
)
WHERE h.ts <= ?4;

-- name: scan_past_descending
-- The same from the upper end.
SELECT p.key, d.id, h.ts, h.value
FROM (
    SELECT key, doc FROM entry_history
    WHERE idx = ?1 AND end_ts > ?4 AND key >= ?2 AND (?3 IS NULL OR key < ?3) AND ts <= ?4
    ORDER BY key DESC LIMIT ?5
) p
CROSS JOIN documents d ON d.doc = p.doc
CROSS JOIN history h ON h.seq = (
    SELECT seq FROM history WHERE doc = p.doc AND end_ts > ?4 ORDER BY end_ts LIMIT 1
)
WHERE h.ts <= ?4;

-- name: scan_table_ascending
-- Documents of a table that may have existed at T: present now, or changed since.
SELECT id, id, ts, value FROM documents
WHERE tbl = ?1 AND id >= ?2 AND id < ?3 AND (value IS NOT NULL OR ts > ?4) ORDER BY id LIMIT ?5;

-- name: scan_table_ascending_unbounded
-- The same without an upper bound.
SELECT id, id, ts, value FROM documents
WHERE tbl = ?1 AND id >= ?2 AND ?3 IS NULL AND (value IS NOT NULL OR ts > ?4) ORDER BY id LIMIT ?5;

-- name: scan_table_descending
-- The same from the upper end.
SELECT id, id, ts, value FROM documents
WHERE tbl = ?1 AND id >= ?2 AND id < ?3 AND (value IS NOT NULL OR ts > ?4)
ORDER BY id DESC LIMIT ?5;

-- name: scan_table_descending_unbounded
-- The same from the upper end, without an upper bound.
SELECT id, id, ts, value FROM documents
WHERE tbl = ?1 AND id >= ?2 AND ?3 IS NULL AND (value IS NOT NULL OR ts > ?4)
ORDER BY id DESC LIMIT ?5;

-- name: table_of_index
-- The table whose documents an index holds, seen at any of its entries.
SELECT d.tbl FROM entries e CROSS JOIN documents d ON d.doc = e.doc WHERE e.idx = ? LIMIT 1;

-- name: append_batch
-- One durable write of the log. A statement of its own, so it is a transaction of its own.
INSERT INTO log (ts, batch) VALUES (?, ?);

-- name: read_batches
-- What the log holds above a timestamp.
SELECT ts, batch FROM log WHERE ts > ? ORDER BY ts;

-- name: forget_batches
-- Deletes some of the oldest batches up to a timestamp.
DELETE FROM log WHERE ts IN (SELECT ts FROM log WHERE ts <= ?1 ORDER BY ts LIMIT ?2);

-- name: note_forgotten
-- Remembers how far batches were deleted; changes nothing when it is known.
UPDATE pairing SET forgotten_ts = ?1 WHERE forgotten_ts < ?1;

-- name: has_pairing
-- Whether anybody can have said whose log it is.
SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'pairing');

-- name: read_pairing
-- Whose log it is, and whether it holds anything. No row: nobody has said yet.
SELECT store, forgotten_ts, EXISTS (SELECT 1 FROM log) FROM pairing;

-- name: set_pairing
-- Makes it the log of a data file.
INSERT INTO pairing (id, store, forgotten_ts) VALUES (1, ?1, 0)
ON CONFLICT (id) DO UPDATE SET store = excluded.store, forgotten_ts = 0;

-- name: load_documents
-- The newest versions of the documents a batch touches.
WITH wanted (tbl, id) AS (VALUES (?, ?))
SELECT d.tbl, d.id, d.doc, d.ts, d.value
FROM wanted w CROSS JOIN documents d ON d.tbl = w.tbl AND d.id = w.id;

-- name: load_entries
-- The present entries under the keys a batch touches.
WITH wanted (idx, key) AS (VALUES (?, ?))
SELECT e.idx, e.key, e.doc, e.ts
FROM wanted w CROSS JOIN entries e ON e.idx = w.idx AND e.key = w.key;

-- name: store_documents
-- New and changed documents; only the version changes, so the index on (tbl, id) is left alone.
INSERT INTO documents (doc, tbl, id, ts, value) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (doc) DO UPDATE SET ts = excluded.ts, value = excluded.value;

-- name: store_history
-- Versions that have ended, in the order of their ends.
INSERT INTO history (doc, end_ts, ts, value) VALUES (?, ?, ?, ?);

-- name: remove_entries
-- Entries that are no longer present.
DELETE FROM entries WHERE (idx, key) IN (VALUES (?, ?));

-- name: store_entries
-- Entries that have begun. A key that is taken is an error of the caller.
INSERT INTO entries (idx, key, doc, ts) VALUES (?, ?, ?, ?);

-- name: store_entry_history
-- Entries that have ended.
INSERT INTO entry_history (idx, end_ts, key, doc, ts) VALUES (?, ?, ?, ?, ?);

-- name: backfill
-- Entries of documents whose newest version is the one they were computed from. INSERT comes first
-- because the driver counts rows only of statements that begin with it.
INSERT INTO entries (idx, key, doc, ts)
WITH seen (idx, key, tbl, id, ts) AS (VALUES (?, ?, ?, ?, ?))
SELECT s.idx, s.key, d.doc, d.ts
FROM seen s CROSS JOIN documents d ON d.tbl = s.tbl AND d.id = s.id
WHERE d.ts = s.ts AND d.value IS NOT NULL
ON CONFLICT (idx, key) DO NOTHING;

-- name: begin_drop
-- Remembers that an index is going, should the process end half-way.
INSERT INTO dropped (idx) VALUES (?1) ON CONFLICT DO NOTHING;

-- name: drop_entries
-- Deletes some present entries of an index.
DELETE FROM entries WHERE (idx, key) IN (SELECT idx, key FROM entries WHERE idx = ?1 LIMIT ?2);

-- name: drop_entry_history
-- Deletes some ended entries of an index.
DELETE FROM entry_history WHERE (idx, end_ts, key) IN (
    SELECT idx, end_ts, key FROM entry_history WHERE idx = ?1 LIMIT ?2
);

-- name: end_drop
-- Nothing of the index is left.
DELETE FROM dropped WHERE idx = ?1;

-- name: list_drops
-- Indexes a process had begun to drop when it ended.
SELECT idx FROM dropped;

-- name: next_index_with_history
-- Walks the indexes that have ended entries, one seek each.
SELECT min(idx) FROM entry_history WHERE idx > ?;

-- name: trim_entries
-- Some entries of one index that ended early enough.
DELETE FROM entry_history WHERE (idx, end_ts, key) IN (
    SELECT idx, end_ts, key FROM entry_history
    WHERE idx = ?1 AND end_ts <= ?2 ORDER BY end_ts, key LIMIT ?3
);

-- name: trim_versions
-- Some versions that ended early enough: ends ascend with seq, so they are the first rows.
DELETE FROM history WHERE seq <= (
    SELECT max(seq) FROM (SELECT seq, end_ts FROM history ORDER BY seq LIMIT ?2)
    WHERE end_ts <= ?1
);

-- name: trim_tombstones
-- Some documents deleted early enough. Only after everything that ended by then is gone, since
-- ended entries and versions refer to these rows.
DELETE FROM documents WHERE doc IN (
    SELECT doc FROM documents WHERE value IS NULL AND ts <= ?1 ORDER BY ts LIMIT ?2
);

-- name: get_global
-- One named byte string.
SELECT value FROM globals WHERE name = ?;

-- name: set_global
-- Stores one named byte string.
INSERT INTO globals (name, value) VALUES (?1, ?2)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: check_entries
-- A present entry points at a document that is there and was written when the entry began or later.
SELECT 'index ' || e.idx || ', key ' || hex(e.key) || ': points at no live document'
FROM entries e LEFT JOIN documents d ON d.doc = e.doc
WHERE (d.doc IS NULL OR d.value IS NULL OR d.ts < e.ts) AND e.idx NOT IN (SELECT idx FROM dropped)
LIMIT 20;

-- name: check_entry_history
-- An ended entry has a length, a document row, and does not overlap the present one of its key.
SELECT 'index ' || p.idx || ', key ' || hex(p.key) || ': ended entry of ' || p.ts || ' is wrong'
FROM entry_history p
LEFT JOIN documents d ON d.doc = p.doc
LEFT JOIN entries e ON e.idx = p.idx AND e.key = p.key
WHERE (p.ts >= p.end_ts OR d.doc IS NULL OR e.ts < p.end_ts)
    AND p.idx NOT IN (SELECT idx FROM dropped)
LIMIT 20;

-- name: check_history
-- An ended version has a length and ends no later than the next one of its document begins.
SELECT 'document ' || h.doc || ': version of ' || h.ts || ' is wrong'
FROM history h LEFT JOIN documents d ON d.doc = h.doc
WHERE h.ts >= h.end_ts OR d.doc IS NULL OR d.ts < h.end_ts OR EXISTS (
    SELECT 1 FROM history g WHERE g.doc = h.doc AND g.end_ts > h.end_ts AND g.ts < h.end_ts
)
LIMIT 20;

-- name: check_clock
-- Nothing is newer than the clock says, and no document number at or above the next is taken.
SELECT 'document ' || d.doc || ': newer than the clock' FROM documents d, clock c
WHERE d.doc >= c.next_doc OR d.ts > c.last_ts
LIMIT 20;
