"""Version 2 of the database's format: tables of raftdb's own, and the bounds replicas agree on.

Whatever decides how a request is applied must be the same on every replica and in every replay, so
these bounds are constants of the format and not settings of a node (rule M4). A later format
changes them only together with FORMAT_VERSION.
"""

from __future__ import annotations

FORMAT_VERSION = 2
FORMAT_FENCED = 3
"""As stored from feature level 2 on: the same tables, and no release of level 1 opens it."""

DATABASE_FILE = "database.sqlite"
CURRENT_FILE = "CURRENT"
CAPTURE_FILE = "capture.json"

PREFIX = "_raftdb_"
"""Names that begin so, in any case, belong to raftdb."""

MARK = "/*raftdb*/"
"""Every statement of raftdb's own carries this comment. SQL from users that contains it is never
looked up in the statement cache, so that it cannot run as one of raftdb's (the authorizer speaks
only when a statement is compiled)."""

PAGE_BYTES = 4096

MIB = 1 << 20
SQL_BYTES_MAX = 1 * MIB
PARAMETERS_MAX = 32_766
ROW_BYTES_MAX = 64 * MIB
"""Of one value and of one row (SQLITE_LIMIT_LENGTH)."""
COLUMNS_MAX = 1_999
"""Of a table, without VIRTUAL ones: SQLite takes 2,000, and no more in a result, where the hash
needs the rowid too."""
RESULT_BYTES_MAX = 32 * MIB
"""Of the encoded reply of one request."""
MESSAGE_CHARACTERS_MAX = 2_000
"""An error's message is cut here."""

SESSIONS_MAX = 10_000
SESSION_IDLE_MS = 24 * 3_600_000
"""A session ends when session time has moved this far since its last request."""
SESSION_STEP_MS_MAX = 5 * 60_000
"""Session time follows logged time by at most this much per request, so that a leader's clock that
jumps, or a cluster that was down for days, ends no session."""
SESSION_EVICT_MS = 10 * 60_000
"""With SESSIONS_MAX open, a new one takes the place of the session that has been idle longest, if
that is at least this long; otherwise it is refused."""
SESSION_REPLIES_MAX = 1_024
SESSION_REPLY_BYTES_MAX = 1 * MIB
"""Of all replies kept for one session; the oldest are forgotten first."""
REPLY_KEPT_BYTES_MAX = 64 * 1024
"""A longer reply is kept as ResultDropped."""
LABEL_CHARACTERS_MAX = 200
TOKEN_BYTES = 16

CRISISMERGE_MAX = 250
"""Segments of an FTS5 index on one level. With 2,000 in all it says that the disk is full, and it
takes 250^7 writes to get there."""

SAVEPOINTS_MAX = 100
"""Open at the same time in one interactive transaction."""

KEY_KEPT_MS = 7 * 24 * 3_600_000
"""An idempotency key is forgotten when session time has moved this far since it was used."""
KEYS_MAX = 100_000
KEYS_BYTES_MAX = 64 * MIB
"""Of the replies kept for keys; beyond either, the oldest are forgotten first."""

TIME_MS_MAX = 253_402_300_799_999
"""9999-12-31 23:59:59.999, the last moment that SQLite's date functions know."""
JULIAN_EPOCH_MS = 210_866_760_000_000
"""1970-01-01 in milliseconds of the Julian day, as the VFS method xCurrentTimeInt64 counts."""

HASH_BYTES = 16
HASH_MASK = (1 << 128) - 1
ROWID_MAX = (1 << 63) - 1

TABLES = f"""
CREATE TABLE {PREFIX}meta(
    key TEXT PRIMARY KEY, value ANY NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE {PREFIX}applied(
    id INTEGER PRIMARY KEY CHECK (id = 1),
    idx INTEGER NOT NULL, term INTEGER NOT NULL, position INTEGER NOT NULL,
    time_ms INTEGER NOT NULL, session_ms INTEGER NOT NULL, results BLOB NOT NULL
) STRICT;
CREATE TABLE {PREFIX}session(
    number INTEGER PRIMARY KEY,
    token BLOB NOT NULL, label TEXT NOT NULL, opened_ms INTEGER NOT NULL,
    used_ms INTEGER NOT NULL, sequence INTEGER NOT NULL, floor INTEGER NOT NULL,
    reply BLOB
) STRICT;
CREATE TABLE {PREFIX}reply(
    session INTEGER NOT NULL, sequence INTEGER NOT NULL, reply BLOB NOT NULL,
    PRIMARY KEY (session, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE {PREFIX}key(
    name TEXT PRIMARY KEY,
    used_ms INTEGER NOT NULL, digest BLOB NOT NULL, reply BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE {PREFIX}horizon(
    id INTEGER PRIMARY KEY CHECK (id = 1), kept_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE {PREFIX}hash(
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, total BLOB NOT NULL
) STRICT;
CREATE TABLE {PREFIX}row(
    tbl INTEGER NOT NULL, row INTEGER NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (tbl, row)
) STRICT, WITHOUT ROWID;
"""
"""docs/formats.md describes them column by column."""

OWN_TABLES = frozenset(
    PREFIX + name
    for name in ("meta", "applied", "session", "reply", "key", "horizon", "hash", "row")
)
