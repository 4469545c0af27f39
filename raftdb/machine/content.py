"""The incremental content hash of the writer connection.

SQLite's preupdate hook tells every change of a row before it is made
(https://www.sqlite.org/c3ref/preupdate_blobwrite.html). What a request changed is gathered in
`_delta` and added to the sums only once the request stands; so a rolled-back savepoint costs
nothing. What the hook does not tell (sqlite_schema, sqlite_sequence, ALTER TABLE, CREATE TABLE AS,
tables with VIRTUAL generated columns) is found by `schema_changed` and by `flush`.
"""

from __future__ import annotations

from typing import Any

import apsw

from raftdb.base.errors import Error, FatalError
from raftdb.machine import failures
from raftdb.machine.format import COLUMNS_MAX, HASH_MASK, MARK, PREFIX, ROWID_MAX
from raftdb.machine.lastrowid import check_last, check_sequence
from raftdb.machine.layout import (
    Run,
    TouchedNow,
    read_all,
    read_chunk,
    read_images,
    read_layout,
    with_reals,
)
from raftdb.machine.longrows import LongRows, Running
from raftdb.machine.rowhash import RowHasher, from_bytes, to_bytes
from raftdb.machine.schemasum import schema_sum, users_objects
from raftdb.machine.settings import Settings
from raftdb.machine.tables import BY_ROWID, PLAIN, REAL, WHOLE, Table
from raftdb.machine.totals import RequestTotals
from raftdb.machine.virtual import VirtualTables

_TOUCHED_MAX = 100_000
"""More changed rows than this in a table that is followed by rowid: read all of it again."""

_CHUNK_ROWS = 1_000

_INSERT, _DELETE = int(apsw.SQLITE_INSERT), int(apsw.SQLITE_DELETE)


class ContentHasher:
    """Follows one connection. All methods on the apply lane."""

    def __init__(
        self,
        connection: apsw.Connection,
        run: Run,
        key: bytes,
        settings: Settings,
        running: Running,
    ) -> None:
        self._run = run
        self._settings = settings
        self._write = connection.cursor().execute
        self._hasher = RowHasher(key)
        self._hash = self._hasher.hash
        self._fresh = self._hasher.fresh
        self._long = LongRows(connection, run, self._hasher, running)
        self._tables: dict[str, Table] = {}
        self._delta: dict[str, int] = {}
        self._changed: dict[int, Table] = {}
        """By id: tables whose sum may differ from the stored one."""
        self._dropped: list[int] = []
        self._schema = 0
        self._schema_committed = 0
        self._sequences = 0
        self._sequences_committed = 0
        self._sequence_rows: list[tuple[Any, ...]] | None = None
        """None: not read yet."""
        self._has_sequences = False
        self._saved: tuple[Any, ...] | None = None
        self.virtual = VirtualTables(run)
        self.totals = RequestTotals(self._hasher)
        """Hashes after each request, of those that `note_request` was called for."""
        self._next_id = 1
        self.digest = 0
        """A weighted sum of all parts' sums at the last commit, modulo 2^128: what replicas compare
        continuously. Made anew only when the schema changed."""
        self._weights = (self._hasher.weight("s"), self._hasher.weight("q"))
        self._digest_stale = False
        self.touched_now: TouchedNow = {}
        """What the running request touched of tables that are read afterwards."""
        self.mentions_fail = False
        """Some object's SQL has the word FAIL: a failed statement may keep rows."""
        self.unknown_table = False
        """The hook met a table that `schema_changed` has not seen yet."""
        self._blobs: dict[tuple[str, int | None], None] = {}
        """Table and rowid of rows that were written in place, and are in no sum for now."""
        self.careful = True
        """The running request may bring long values."""
        self.error: Error | None = None
        """Why a row may not be stored; the request must fail."""
        connection.preupdate_hook(self._hook, id="raftdb")

    # The hook

    def _hook(self, update: apsw.PreUpdate) -> None:
        name = update.table_name
        table = self._tables.get(name)
        if table is None:
            if name == "sqlite_sequence":
                self.error = check_sequence(self._settings, update) or self.error
            elif not name.startswith(PREFIX):
                self.unknown_table = True
                self.error = self.virtual.refusal(name, update) or self.error
            return
        try:
            plain = table.kind == PLAIN and update.opcode == _INSERT and not self.careful
            if plain and not self.virtual.exist:
                # `_change` of the commonest kind, without its calls: each is a tenth of the price.
                rowid = update.rowid_new if table.has_rowid else None
                if update.rowid_new == ROWID_MAX:
                    check_last(self._settings, table.name, table.has_rowid)
                new: Any = update.new
                state = self._fresh()
                state.update(self._hasher.pack((rowid, *new)))
                change = int.from_bytes(state.digest(), "little")
            elif table.kind <= REAL:
                change = self._change(table, update)
            else:
                self._touch(table, update)
                return
            delta = self._delta
            delta[name] = delta.get(name, 0) + change
        except (Error, UnicodeError) as error:
            self.error = error if isinstance(error, Error) else failures.no_utf8(name)
            self.virtual.undone((name,))

    def _change(self, table: Table, update: apsw.PreUpdate) -> int:
        """By how much the row's change moves the table's sum."""
        operation = update.opcode
        if self.virtual.exist and (no := self.virtual.refusal(table.name, update)):
            raise no
        change = 0
        if operation != _DELETE:
            rowid = update.rowid_new if table.has_rowid else None
            if update.rowid_new == ROWID_MAX:
                check_last(self._settings, table.name, table.has_rowid)
            values: Any = update.new
            if table.kind == REAL:
                values = with_reals(values, table.layout.reals)
            change = self._hash((rowid, *values))
        if operation != _INSERT:
            rowid = update.rowid if table.has_rowid else None
            in_place = operation == _DELETE and update.blob_write >= 0
            if (in_place or self._blobs) and self._is_taken_off((table.name, rowid), in_place):
                return change
            if table.looks > 0 and rowid is not None:
                long = self._long.old_hash(table, rowid)
                if long is not None:
                    return change - long
            values = update.old
            if table.kind == REAL:
                values = with_reals(values, table.layout.reals)
            change -= self._hash((rowid, *values))
        if self._hasher.longest:
            self._long.noticed(table)
        return change

    def _is_taken_off(self, place: tuple[str, int | None], in_place: bool) -> bool:
        """A row is about to be changed, `in_place` or otherwise: whether what it holds now is in no
        sum. FTS5 writes some bytes of its structure in place when it is configured: for the hook
        that is a DELETE, and what is there then is not told."""
        taken_off = place in self._blobs
        if in_place:
            self._blobs[place] = None
        elif taken_off:
            del self._blobs[place]
        return taken_off

    def statement_done(self) -> None:
        """After each statement. Raises why a row of it may not be stored."""
        if self.error is not None:
            raise self.error
        if self._blobs:
            self.read_blobs()

    def read_blobs(self) -> None:
        """What was written in place is in the sum from now on."""
        for name, rowid in self._blobs:
            table = self._tables[name]
            for image in read_images(self._run, name, table.layout, rowid):
                self._delta[name] = self._delta.get(name, 0) + self._hash(image)
        self._blobs.clear()

    def _touch(self, table: Table, update: apsw.PreUpdate) -> None:
        rows = self.touched_now.setdefault(table.id, set())
        self._changed[table.id] = table
        if update.opcode != _DELETE and update.rowid_new == ROWID_MAX:
            check_last(self._settings, table.name, table.has_rowid)
        if table.kind == WHOLE:
            self.touched_now[table.id] = table.touched = None
            return
        if rows is not None:
            rows.update((update.rowid, update.rowid_new))
            if len(rows) > _TOUCHED_MAX:
                self.touched_now[table.id] = None
        if table.touched is not None:
            table.touched.update((update.rowid, update.rowid_new))
            if len(table.touched) > _TOUCHED_MAX:
                table.touched = None

    def check_touched(self) -> None:
        """Raises DataError when what the request leaves in tables that are read afterwards cannot
        be: those would find it when all is about to be committed, on every replica."""
        for id, rows in self.touched_now.items():
            if (table := self._changed.get(id)) is not None:
                try:
                    read_all(self._run, table.name, table.layout, rows)
                except UnicodeError:
                    raise failures.no_utf8(table.name) from None

    # A request's course

    def begin_request(self) -> None:
        """After the savepoint is open: what a virtual table wrote because of it belongs before."""
        if self._delta:
            self._fold()
        if self.virtual.exist:
            self.virtual.read()
        self.error = None
        if self.touched_now:
            self.touched_now = {}

    def keep_request(self) -> None:
        """The request's rows stay."""
        if self._delta:
            self._fold()
        self._saved = None

    def drop_request(self) -> None:
        """The request's savepoint was rolled back."""
        self.virtual.undone(self._delta if self._saved is None else self._tables)
        self._delta.clear()
        self._blobs.clear()
        self.unknown_table = False
        if self._saved is not None:
            self._restore(self._saved)
            self._saved = None

    def _fold(self) -> None:
        if self._blobs:
            self.read_blobs()
        for name, change in self._delta.items():
            table = self._tables[name]
            table.total = (table.total + change) & HASH_MASK
            self._changed[table.id] = table
        self._delta.clear()

    def _save(self) -> tuple[Any, ...]:
        """The way back, should the request fail after its change of the schema. What it changed so
        far is still in `_delta`."""
        tables = dict(self._tables)
        state = {
            t.id: (t.name, t.root, t.sql, t.layout, t.total, t.touched and set(t.touched))
            for t in tables.values()
        }
        changed, dropped = dict(self._changed), list(self._dropped)
        return (tables, state, changed, dropped, self._schema, self._next_id)

    def _restore(self, saved: tuple[Any, ...]) -> None:
        tables, state, changed, dropped, self._schema, self._next_id = saved
        self._tables, self._changed, self._dropped = dict(tables), dict(changed), list(dropped)
        for table in tables.values():
            table.name, table.root, table.sql, layout, table.total, touched = state[table.id]
            table.touched = touched if touched is None else set(touched)
            table.set_layout(layout)
        self._read_schema()

    # Savepoints within a request

    def mark(self) -> tuple[dict[str, int], tuple[Any, ...] | None]:
        """Where the running request stands; right after a savepoint was opened."""
        # Before the request's first change of the schema, all it did is in `_delta`.
        return dict(self._delta), None if self._saved is None else self._save()

    def reset(self, mark: tuple[dict[str, int], tuple[Any, ...] | None]) -> None:
        """The savepoint was rolled back to."""
        delta, state = mark
        self.virtual.undone(self._delta if self._saved is None else self._tables)
        self.unknown_table = False
        self._blobs.clear()
        if state is not None:
            self._restore(state)
        elif self._saved is not None:
            self._restore(self._saved)
            self._saved = None
        self._delta = dict(delta)

    def changed_rows(self) -> bool:
        """Whether the running request changed any row, undone or not."""
        return bool(self._delta or self.touched_now)

    def rows_remain(self) -> bool:
        """Whether what the failed request changed is still there. Reads whole tables: only for the
        rare statement of which SQLite does not tell."""
        tables = [self._tables[name] for name in self._delta]
        tables += [t for t in self._changed.values() if t.touched is None or t.touched]
        for table in tables:
            images = read_images(self._run, table.name, table.layout)
            if self._hasher.sum(images) != table.total:
                return True
        return False

    # The schema

    def schema_changed(self) -> None:
        """Look at the schema again; sum tables that are new or whose rows read differently now."""
        if self._saved is None:
            self._saved = self._save()
        self._digest_stale = True
        self._fold()
        self.unknown_table = False
        rows = self._read_schema()
        names = {row[1] for row in rows if row[0] == "table"}
        vanished = {t.root: t for t in self._tables.values() if t.name not in names}
        tables: dict[str, Table] = {}
        for kind, name, _table, root, sql in rows:
            if kind != "table" or not root or name == "sqlite_sequence":
                continue
            table = self._tables.get(name)
            if table is None or table.sql != sql or table.is_statistics:
                table = self._look_at(table or vanished.pop(root, None), name, root, sql)
            table.root = root
            tables[name] = table
        kept = {table.id for table in tables.values()}
        for table in self._tables.values():
            if table.id not in kept:
                self._dropped.append(table.id)
                self._changed.pop(table.id, None)
        self._tables = tables

    def _read_schema(self) -> list[tuple[Any, ...]]:
        query = f"SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema {MARK}"
        rows = users_objects(self._run(query))
        self._schema = schema_sum(self._hasher, self._run, rows)
        self.virtual.take(rows)
        self.mentions_fail = any("FAIL" in (row[4] or "").upper() for row in rows)
        self._has_sequences = any(row[1] == "sqlite_sequence" for row in rows)
        return rows

    def _look_at(self, table: Table | None, name: str, root: int, sql: str) -> Table:
        """A table that is new, was renamed or was altered."""
        layout = read_layout(self._run, name)
        if len(layout.columns) > COLUMNS_MAX:
            raise failures.too_many_columns(name)
        if table is None:
            table = Table(self._next_id, name, root, sql, layout)
            self._next_id += 1
            scan = True
        else:
            scan = table.layout.shape != layout.shape or table.is_statistics
            table.name, table.sql = name, sql
            table.set_layout(layout)
        self._changed[table.id] = table
        if scan and table.kind == BY_ROWID and self._settings.counts_users_changes():
            # At the end: what is written for it then is none of what changes() tells of.
            table.touched = self.touched_now[table.id] = None
        elif scan:
            self._scan(table)
        return table

    def _scan(self, table: Table) -> None:
        """Sum all of a table's rows."""
        table.touched = set()
        if table.kind != BY_ROWID:
            images = read_images(self._run, table.name, table.layout)
            table.total = self._hasher.sum(images)
            return
        self._write(f"DELETE FROM {PREFIX}row WHERE tbl = ? {MARK}", (table.id,))
        total = 0
        last = None
        while chunk := read_chunk(self._run, table.name, table.layout, last, _CHUNK_ROWS):
            for image in chunk:
                total += self._write_row(table, image)
            last = chunk[-1][0]
            chunk.clear()
        table.total = total & HASH_MASK

    def _write_row(self, table: Table, image: tuple[Any, ...]) -> int:
        value = self._hasher.hash(image)
        self._write(
            f"INSERT OR REPLACE INTO {PREFIX}row(tbl, row, hash) VALUES (?, ?, ?) {MARK}",
            (table.id, image[0], to_bytes(value)),
        )
        return value

    # Into the database and back

    def flush(self) -> None:
        """Write what changed, inside the transaction that is about to be committed."""
        self._fold()
        self.settle()
        for table in self._changed.values():
            if table.committed is None:
                self._write(
                    f"INSERT INTO {PREFIX}hash(id, kind, name, total) VALUES (?, 't', ?, ?) {MARK}",
                    (table.id, table.name, to_bytes(table.total)),
                )
            elif (table.total, table.name) != table.committed:
                self._write(
                    f"UPDATE {PREFIX}hash SET name = ?, total = ? WHERE id = ? {MARK}",
                    (table.name, to_bytes(table.total), table.id),
                )
        self._flush_schema()

    def _flush_schema(self) -> None:
        for id in self._dropped:
            self._write(f"DELETE FROM {PREFIX}hash WHERE id = ? {MARK}", (id,))
            self._write(f"DELETE FROM {PREFIX}row WHERE tbl = ? {MARK}", (id,))
        self._sequence_sum()
        for kind, total, committed in (
            ("s", self._schema, self._schema_committed),
            ("q", self._sequences, self._sequences_committed),
        ):
            if total != committed:
                self._write(
                    f"UPDATE {PREFIX}hash SET total = ? WHERE kind = ? AND name = '' {MARK}",
                    (to_bytes(total), kind),
                )

    def _sequence_sum(self) -> None:
        if not self._has_sequences:
            self._sequences, self._sequence_rows = 0, []
            return
        rows = sorted(self._run(f"SELECT name, seq FROM sqlite_sequence {MARK}"), key=repr)
        if rows != self._sequence_rows:
            self._sequence_rows = rows
            self._sequences = self._hasher.sum(rows)

    def note_request(self, index: int, position: int) -> None:
        """Remember the content after the request that was just kept or dropped."""
        if self._delta:
            self._fold()
        alone = not (self._has_sequences or self._sequences or self._dropped)
        if alone and len(self._changed) == 1:
            (table,) = self._changed.values()
            rest = self._schema, self._sequences
            if table.kind <= REAL and self.totals.note_one(index, position, table, rest):
                return
        self._sequence_sum()
        self.settle()
        rest = self._schema, self._sequences
        every = self._tables.values()
        self.totals.note(index, position, self._changed.values(), every, rest, self._dropped)

    def settle(self) -> None:
        """Bring the sums of tables that are read afterwards up to date."""
        for table in self._changed.values():
            if table.kind >= BY_ROWID:
                self._settle(table)

    def _settle(self, table: Table) -> None:
        touched = table.touched
        if touched is None:
            self._scan(table)
            return
        for rowid in sorted(touched):
            old = self._run(
                f"SELECT hash FROM {PREFIX}row WHERE tbl = ? AND row = ? {MARK}", (table.id, rowid)
            )
            before = sum(from_bytes(value) for (value,) in old)
            images = list(read_images(self._run, table.name, table.layout, rowid))
            after = 0
            if images:
                after = self._write_row(table, images[0])
            elif before:
                self._write(
                    f"DELETE FROM {PREFIX}row WHERE tbl = ? AND row = ? {MARK}", (table.id, rowid)
                )
            table.total = (table.total + after - before) & HASH_MASK
        table.touched = set()

    def committed(self) -> None:
        """The transaction that `flush` wrote into is committed."""
        if self._delta:
            raise FatalError(
                "rows changed between the content hash and the commit",
                code="internal",
                hint="please report it",
            )
        digest = self.digest
        for table in self._changed.values():
            if table.committed is not None:
                digest += table.weight * (table.total - table.committed[0])
            table.committed = (table.total, table.name)
            table.touched = set()
        if self._sequences != self._sequences_committed:
            digest += self._weights[1] * (self._sequences - self._sequences_committed)
        self._changed.clear()
        self._dropped.clear()
        self._schema_committed = self._schema
        self._sequences_committed = self._sequences
        self.digest = digest & HASH_MASK
        if self._digest_stale:
            self._make_digest()

    def _make_digest(self) -> None:
        """From all sums, which are those of the last commit."""
        self._digest_stale = False
        digest = self._weights[0] * self._schema + self._weights[1] * self._sequences
        for table in self._tables.values():
            table.weight = self._hasher.weight("t" + table.name)
            digest += table.weight * table.total
        self.digest = digest & HASH_MASK

    def sums(self) -> dict[str, bytes]:
        """Of each table at the last commit; schema and sequences by names that no table has."""
        sums = {name: to_bytes(table.total) for name, table in sorted(self._tables.items())}
        return {
            **sums,
            "(schema)": to_bytes(self._schema),
            "(sequences)": to_bytes(self._sequences),
        }

    def revert(self) -> None:
        """The transaction was lost, and it had not changed the schema."""
        for table in self._changed.values():
            assert table.committed is not None, "its table is as old as the last commit"
            table.total = table.committed[0]
            table.touched = set()
        self._delta.clear()
        self._blobs.clear()
        self._changed.clear()
        self.totals.forget()
        self.error, self.unknown_table = None, False

    def load(self) -> None:
        """Take all sums from the database, as of its last commit. Raises FatalError."""
        self._delta.clear()
        self._blobs.clear()
        self._changed.clear()
        self._dropped.clear()
        self.totals.forget()
        self._saved, self.error, self.unknown_table = None, None, False
        stored = {
            (kind, name): (id, from_bytes(total))
            for id, kind, name, total in self._run(
                f"SELECT id, kind, name, total FROM {PREFIX}hash {MARK}"
            )
        }
        self._next_id = max(id for id, _total in stored.values()) + 1
        self._schema_committed = stored.pop(("s", ""))[1]
        self._sequences = self._sequences_committed = stored.pop(("q", ""))[1]
        self._tables = {}
        for kind, name, _table, root, sql in self._read_schema():
            if kind == "table" and root and name != "sqlite_sequence":
                if ("t", name) not in stored:
                    raise failures.wrong_sums(f"table {name} has no stored hash")
                id, total = stored.pop(("t", name))
                table = Table(id, name, root, sql, read_layout(self._run, name))
                table.total = total
                table.committed = (total, name)
                self._tables[name] = table
        if stored:
            raise failures.wrong_sums(f"the table of a stored hash is missing: {min(stored)[1]}")
        if self._schema != self._schema_committed:
            raise failures.wrong_sums("the schema is not the one that was written")
        self._sequence_rows = None
        self._make_digest()
