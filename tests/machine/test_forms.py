"""Every form of time and randomness, in every place of SQL.

One replica applies it, another one does so later, by another clock, after other random numbers, in
other groups. Content hash and replies are equal, or the refusal is.
"""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from raftdb.command import Failed, Results, decode_reply
from raftdb.machine import Machine
from tests.machine.support import FILES, HISTORY, Database, MemoryLog, stamp

AT_MS = 4_133_980_800_123
NOW = "'2101-01-01 00:00:00.123'"
"""When all of it happens: far from when the tests run."""

TIME = {
    "CURRENT_TIMESTAMP": "datetime({})",
    "CURRENT_DATE": "date({})",
    "CURRENT_TIME": "time({})",
    "datetime()": "datetime({})",
    "datetime('now')": "datetime({})",
    "date()": "date({})",
    "time('now', 'subsec')": "time({}, 'subsec')",
    "time('NoW', 'subsecond')": "time({}, 'subsec')",
    "datetime('subsec')": "datetime({}, 'subsec')",
    "julianday()": "julianday({})",
    "julianday('now')": "julianday({})",
    "unixepoch()": "unixepoch({})",
    "unixepoch('subsec')": "unixepoch({}, 'subsec')",
    "unixepoch('now', 'subsec')": "unixepoch({}, 'subsec')",
    "strftime('%Y-%m-%d %H:%M:%f %j %W', 'now')": "strftime('%Y-%m-%d %H:%M:%f %j %W', {})",
    "strftime('%s')": "strftime('%s', {})",
    "strftime('%J', 'now', 'localtime')": "strftime('%J', {})",
    "datetime('now', 'localtime')": "datetime({})",
    "datetime('now', 'utc')": "datetime({})",
    "datetime('now', 'localtime', 'utc', 'subsec')": "datetime({}, 'subsec')",
    "datetime('2024-07-01', 'localtime')": "'2024-07-01 00:00:00'",
    "datetime('2024-07-01', 'utc')": "'2024-07-01 00:00:00'",
    "datetime(1700000000, 'auto', 'localtime')": "'2023-11-14 22:13:20'",
    "datetime('now', '+1 day', 'start of month', 'weekday 0')": (
        "datetime({}, '+1 day', 'start of month', 'weekday 0')"
    ),
    "date('now', '+1 month', 'floor')": "date({}, '+1 month', 'floor')",
    "date('now', '-13 months', 'ceiling')": "date({}, '-13 months', 'ceiling')",
    "datetime(unixepoch('subsec'), 'unixepoch', 'subsec')": "datetime({}, 'subsec')",
    "datetime(julianday(), 'julianday')": "datetime(julianday({}), 'julianday')",
    "timediff('now', '2000-02-29')": "timediff({}, '2000-02-29')",
    "timediff('2000-02-29', datetime())": "timediff('2000-02-29', datetime({}))",
}
"""Each form, and what it has to be where `{}` is the request's time."""

RANDOM = (
    "random()",
    "abs(random()) % 1000",
    "hex(randomblob(8))",
    "randomblob(3)",
    "max(random(), random(), random())",
    "(SELECT x FROM src ORDER BY random() LIMIT 1)",
    "(SELECT group_concat(x) FROM (SELECT x FROM src ORDER BY randomblob(4)))",
    "json_array(random(), hex(randomblob(2)), unixepoch('subsec'))",
    "jsonb_array(random(), datetime())",
    "printf('%d %s', random(), strftime('%f'))",
    "iif(random() > 0, datetime(), hex(randomblob(2)))",
    "last_insert_rowid()",
    "changes() + total_changes()",
)
FORMS = (*TIME, *RANDOM)

PLACES: dict[str, tuple[str, ...]] = {
    "statement": ("SELECT {f}", "INSERT INTO out(v) VALUES ({f}), ({f})", "DELETE FROM out"),
    "update": ("INSERT INTO out SELECT x, x FROM src", "UPDATE out SET v = {f} WHERE {f} NOTNULL"),
    "delete": ("INSERT INTO out SELECT x, {f} FROM src", "DELETE FROM out WHERE v IS {f}"),
    "default": ("CREATE TABLE d(a, v DEFAULT ({f}))", "INSERT INTO d(a) VALUES (1), (2)"),
    "added default": (
        "CREATE TABLE d(a)",
        "INSERT INTO d VALUES (1)",
        "ALTER TABLE d ADD COLUMN v DEFAULT ({f})",
    ),
    "check": ("CREATE TABLE d(a CHECK ({f} IS NOT a))", "INSERT INTO d VALUES (1), ({f})"),
    "trigger": (
        "CREATE TABLE d(a)",
        "CREATE TRIGGER tr AFTER INSERT ON d BEGIN"
        " INSERT INTO out(v) VALUES ({f}); UPDATE out SET k = {f} WHERE k IS NULL; END",
        "INSERT INTO d VALUES (1), ({f})",
    ),
    "trigger's WHEN": (
        "CREATE TABLE d(a)",
        "CREATE TRIGGER tr BEFORE INSERT ON d WHEN unicode({f}) % 2 BEGIN"
        " INSERT INTO out(v) VALUES ('odd'); END",
        "INSERT INTO d SELECT {f} FROM src",
    ),
    "instead of": (
        "CREATE VIEW d AS SELECT k, v FROM out",
        "CREATE TRIGGER tr INSTEAD OF INSERT ON d BEGIN"
        " INSERT INTO out VALUES (new.k, {f}), ({f}, new.v); END",
        "INSERT INTO d VALUES ({f}, 7)",
    ),
    "view": ("CREATE VIEW d AS SELECT x, {f} AS v FROM src", "INSERT INTO out SELECT * FROM d"),
    "generated column": ("CREATE TABLE d(a, v AS ({f}))", "INSERT INTO d(a) VALUES (1)"),
    "stored column": ("CREATE TABLE d(a, v AS ({f}) STORED)", "INSERT INTO d(a) VALUES (1)"),
    "index": ("CREATE TABLE d(a)", "CREATE INDEX i ON d({f})", "INSERT INTO d VALUES (1)"),
    "index by value": (
        "CREATE TABLE d(a)",
        "CREATE INDEX i ON d(date(a), hex(a))",
        "INSERT INTO d SELECT {f}",
    ),
    "partial index": (
        "CREATE TABLE d(a)",
        "CREATE INDEX i ON d(a) WHERE a > {f}",
        "INSERT INTO d VALUES (1)",
    ),
    "upsert": (
        "CREATE TABLE d(a PRIMARY KEY, v)",
        "INSERT INTO d VALUES (1, 1), (1, {f}) ON CONFLICT DO UPDATE SET v = {f}"
        " WHERE {f} IS NOT excluded.v RETURNING v, {f}",
    ),
    "returning": ("INSERT INTO out(k) SELECT x FROM src RETURNING {f}, v",),
    "window": (
        "INSERT INTO out SELECT first_value({f}) OVER (ORDER BY x),"
        " count(*) FILTER (WHERE {f} IS NOT x) OVER (ROWS 2 PRECEDING) FROM src",
    ),
    "cte": (
        "WITH RECURSIVE c(n, v) AS MATERIALIZED (SELECT 1, {f}"
        " UNION ALL SELECT n + 1, {f} FROM c WHERE n < 4) INSERT INTO out SELECT n, v FROM c",
    ),
    "order, group, limit": (
        "INSERT INTO out SELECT x, count(*) FROM src GROUP BY {f} ORDER BY {f}, x"
        " LIMIT 1 + abs(unicode({f})) % 3",
    ),
    "json": (
        "INSERT INTO out SELECT json_object('v', hex({f})), jsonb_array(hex({f}))",
        "INSERT INTO out SELECT key, value FROM json_each(json_array(hex({f}), hex({f})))",
    ),
    "fts5": (
        "CREATE VIRTUAL TABLE d USING fts5(v)",
        "INSERT INTO d SELECT hex({f}) FROM src",
        "SELECT v FROM d ORDER BY v",
    ),
    "rtree": (
        "CREATE VIRTUAL TABLE d USING rtree(id, x0, x1, +v)",
        "INSERT INTO d SELECT x, length({f}), 99, {f} FROM src",
    ),
    "create as": ("CREATE TABLE d AS SELECT x, {f} AS v FROM src",),
    "strict, without rowid": (
        "CREATE TABLE d(k INTEGER, v ANY DEFAULT ({f}), PRIMARY KEY (k, v)) STRICT, WITHOUT ROWID",
        "INSERT INTO d SELECT x, {f} FROM src",
        "INSERT INTO d(k) VALUES (9)",
    ),
}


def cleaned(statements: tuple[str, ...]) -> list[str]:
    """What takes away what these made."""
    texts = " ".join(statements)
    kinds = [kind for kind in ("VIEW", "TABLE") if f"CREATE {kind} d" in texts]
    if "USING" in texts:
        kinds.append("TABLE")
    return [*(f"DROP {kind} IF EXISTS d" for kind in kinds), "DELETE FROM out"]


@pytest.mark.parametrize("place", PLACES)
def test_the_same_everywhere(place: str, tmp_path: Path) -> None:
    first = Database(tmp_path / "first")
    first.run("CREATE TABLE out(k, v)", "CREATE TABLE src(x)", "INSERT INTO src VALUES (1),(2),(3)")
    replies: list[bytes] = []
    number = 0
    applied = 0
    for form in FORMS:
        for sql in PLACES[place]:
            number += 1
            moment = stamp(number, AT_MS)
            entry = first.entry(first.request(sql.replace("{f}", form), stamp=moment))
            [[reply]] = first.apply_entries(entry)
            assert isinstance(decode_reply(reply), Results | Failed), form
            applied += isinstance(decode_reply(reply), Results)
            replies.append(reply)
        for sql in cleaned(PLACES[place]):
            [[reply]] = first.apply_entries(first.entry(first.request(sql, stamp=moment)))
            replies.append(reply)
    assert applied >= len(FORMS) / 2, "most of it is no error"
    first.check_hash()

    apsw.randomness(1000)
    Machine.create(str(tmp_path / "other"), HISTORY, files=FILES)
    options = {"limits": first.options["limits"], "files": FILES, "log": MemoryLog()}
    other = Machine.open(str(tmp_path / "other"), history=HISTORY, **options)
    found: list[bytes] = []
    for start in range(0, len(first.entries), 7):
        other.query_rows("SELECT random(), hex(randomblob(30)), datetime()")
        for of_entry in other.apply(first.entries[start : start + 7]):
            found += of_entry
    # The first two entries opened the session and made the tables.
    assert found[2:] == replies
    assert other.content_hash() == first.machine.content_hash()
    assert other.recompute_content_hash() == first.machine.content_hash()
    other.close()
    first.close()


def test_the_time_is_the_requests(database: Database) -> None:
    """To the millisecond, by SQLite alone as the judge; `localtime` and `utc` change nothing."""
    plain = apsw.Connection(":memory:")
    for number, (form, meant) in enumerate(TIME.items()):
        [result] = database.run(f"SELECT {form}", stamp=stamp(number, AT_MS))
        assert result.rows == tuple(plain.execute(f"SELECT {meant.format(NOW)}")), form
    plain.close()


def test_it_never_runs_backwards(database: Database) -> None:
    """Whatever the leaders' clocks say: within an entry, from entry to entry, after a restart."""
    seen: list[float] = []
    for number, step_ms in enumerate((0, -5_000, 900, -900_000, 1, 0, 40, -1, 2)):
        requests = [
            database.request("SELECT unixepoch('subsec')", stamp=stamp(number, AT_MS + more))
            for more in (step_ms, step_ms - 700)
        ]
        for reply in database.batch(*requests):
            assert isinstance(reply, Results)
            seen.append(reply.statements[0].rows[0][0])  # type: ignore[arg-type]
        if number == 4:
            database.restart()
    assert seen == sorted(seen)
    assert seen[-1] * 1000 == AT_MS + 900
