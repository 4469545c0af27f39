"""The commands against three real nodes that stay up."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import select
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from raftdb.drill import Objective, against
from tests.cli.conftest import Command, Result
from tests.conformance import targets as conformance
from tests.e2e.cluster import Cluster, running_cluster
from tests.e2e.cluster import raftdb as raftdb_process
from tests.shell.test_dump import ROWS, SCHEMA


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("online") / "c") as made:
        yield made


Sql = Callable[..., Result]


@pytest.fixture
def sql(raftdb: Command, cluster: Cluster) -> Sql:
    def run(*arguments: str, stdin: str | None = None) -> Result:
        return raftdb("sql", "--dir", cluster.directory, *arguments, stdin=stdin)

    return run


def test_status(cluster: Cluster, raftdb: Command) -> None:
    done = raftdb("status", "--dir", cluster.directory)
    assert done.code == 0, done
    assert "healthy, 3 of 3 members" in done.out
    facts = raftdb("status", cluster.node_url("n2"), "--json").json()
    assert facts["healthy"]
    assert [node["node_id"] for node in facts["nodes"]] == ["n1", "n2", "n3"]
    assert {node["role"] for node in facts["nodes"]} == {"leader", "follower"}
    assert all(node["certificate_days_left"] > 300 for node in facts["nodes"])
    assert facts["nodes"][1]["facts"]["sqlite_version"]


def test_sql_in_all_its_ways(cluster: Cluster, tmp_path: Path, raftdb: Command, sql: Sql) -> None:
    script = tmp_path / "script.sql"
    script.write_text(
        "INSERT INTO ways VALUES\n  (2, 'b;c'),\n  (3, NULL);\nSELECT max(a) FROM ways"
    )
    done = sql(
        "-c",
        "CREATE TABLE ways (a INTEGER PRIMARY KEY, b)",
        "-c",
        "INSERT INTO ways VALUES (1, x'00ff')",
        "-f",
        str(script),
        "--format",
        "csv",
    )
    assert (done.code, done.out, done.err) == (0, "max(a)\r\n3\r\n", ""), done
    done = sql("--json", stdin="SELECT * FROM ways WHERE a < 3 ORDER BY a;")
    assert json.loads(done.out) == [
        {"a": 1, "b": {"base64": "AP8="}},
        {"a": 2, "b": "b;c"},
    ]
    done = raftdb(
        "sql", "-c", "SELECT 1 AS x", "--format", "jsonl", env={"RAFTDB_URL": cluster.url}
    )
    assert done.json() == {"x": 1}
    done = raftdb(
        "sql",
        "-c",
        "SELECT 1 AS x",
        "--format",
        "jsonl",
        env={"RAFTDB_DIR": str(cluster.directory)},
    )
    assert done.json() == {"x": 1}
    done = sql("--read", "local", "-c", "SELECT count(*) FROM sqlite_schema")
    assert done.code == 0, done


def test_sql_errors(cluster: Cluster, sql: Sql) -> None:
    done = sql("-c", "SELECT 1;\nSELECT * FROM nowhere; SELECT 2", "--format", "csv")
    assert done.code == 1
    assert done.out.split() == ["1", "1"]
    assert done.err.startswith("-c:2: error [")
    assert "nowhere" in done.err
    done = sql("--no-bail", "-c", "SELECT * FROM nowhere; SELECT 2 AS two", "--format", "csv")
    assert (done.code, done.out.split()) == (1, ["two", "2"])
    assert sql("-c", "SELECT 'open").code == 1
    assert sql("-f", "/nonexistent.sql").code == 2


def test_a_transaction_is_all_or_nothing(sql: Sql) -> None:
    text = "CREATE TABLE tx (a PRIMARY KEY);\nBEGIN;\nINSERT INTO tx VALUES (1);\n{}\nCOMMIT;\n"
    done = sql(stdin=text.format("INSERT INTO tx VALUES (1);"))
    assert done.code == 1
    assert "stdin:4: error [constraint" in done.err
    assert sql("-c", "SELECT count(*) AS n FROM tx", "--json").json() == [{"n": 0}]


def test_dot_commands(cluster: Cluster, tmp_path: Path, sql: Sql) -> None:
    people = tmp_path / "people.csv"
    people.write_text("id,name\n1,Ada\n2,Grace\n")
    out = tmp_path / "out.csv"
    done = sql(
        stdin=f".mode csv\n.import '{people}' dotted\n.output {out}\n"
        "SELECT * FROM dotted;\n.output\n.leader\n.schema dotted\n.status\n",
    )
    assert done.code == 0, done
    assert out.read_text() == "id,name\n1,Ada\n2,Grace\n"
    assert done.out.splitlines()[0] in ("n1", "n2", "n3")
    assert 'CREATE TABLE "dotted"' in done.out
    assert "healthy" in done.out
    assert "2 rows loaded" in done.err


def test_load_csv_json_and_the_bad_row(
    cluster: Cluster, tmp_path: Path, raftdb: Command, sql: Sql
) -> None:
    rows = [[n, f"name {n}", n / 4] for n in range(5000)]
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "name", "part"], *rows])
    arguments = ("--dir", cluster.directory, "--table", "rows")
    done = raftdb("load", path, *arguments, "--create", "--pk", "id", "--json")
    assert done.code == 0, done
    assert done.json()[0]["rows"] == 5000
    counted = sql(
        "-c",
        "SELECT count(*) AS n, sum(id) AS ids, sum(part) AS parts, typeof(part) AS kind FROM rows",
        "--json",
    ).json()
    assert counted == [
        {"n": 5000, "ids": sum(range(5000)), "parts": sum(range(5000)) / 4, "kind": "real"}
    ]
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"id": n, "name": "x"}) + "\n" for n in (6000, 6001, 5, 7)))
    done = raftdb("load", more, *arguments, "--json")
    assert done.code == 1
    error = json.loads(done.err)["error"]
    assert "rows, line 3: UNIQUE" in error["message"]
    assert "--skip 2" in error["hint"]
    done = raftdb("load", more, *arguments, "--skip", "2", "--on-conflict", "ignore")
    assert done.code == 0, done
    assert sql("-c", "SELECT count(*) AS n FROM rows", "--json").json() == [{"n": 5002}]


def test_load_a_sqlite_file(cluster: Cluster, tmp_path: Path, raftdb: Command) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.executescript(
            """
            CREATE TABLE author (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE);
            CREATE TABLE book (isbn TEXT PRIMARY KEY, author REFERENCES author (id), blurb BLOB,
                title TEXT, loud AS (upper(title))) WITHOUT ROWID;
            CREATE INDEX by_author ON book (author);
            CREATE VIRTUAL TABLE book_text USING fts5(title);
            CREATE VIEW titles AS SELECT title FROM book;
            INSERT INTO author VALUES (7, 'Ursula'), (9, 'Iain');
            INSERT INTO book VALUES ('1', 7, x'00', 'The Dispossessed');
            INSERT INTO book VALUES ('2', 9, NULL, 'Excession');
            INSERT INTO book_text (rowid, title) VALUES (42, 'The Dispossessed');
            CREATE TRIGGER added AFTER INSERT ON author BEGIN
                INSERT INTO book_text (title) VALUES (NEW.name);
            END;
            """
        )
    done = raftdb("load", path, "--dir", cluster.directory, "--create", "--json")
    assert done.code == 0, done
    assert {one["table"]: (one["rows"], one["notes"]) for one in done.json()} == {
        "author": (2, []),
        "book": (2, []),
        "book_text": (1, []),
    }, done
    queries = [
        "SELECT * FROM author ORDER BY id",
        "SELECT *, loud FROM book ORDER BY isbn",
        "SELECT rowid, title FROM book_text WHERE book_text MATCH 'dispossessed'",
        "SELECT count(*) FROM titles",
        "SELECT seq FROM sqlite_sequence WHERE name = 'author'",
    ]
    with closing(sqlite3.connect(path)) as raw, cluster.connect() as connection:
        for query in queries:
            assert connection.execute(query).fetchall() == raw.execute(query).fetchall(), query
        connection.execute("INSERT INTO author (name) VALUES ('new')")
        found = connection.execute("SELECT count(*) FROM book_text WHERE book_text MATCH 'new'")
        assert found.fetchall() == [(1,)]


def test_check(cluster: Cluster, raftdb: Command) -> None:
    done = raftdb("check", "--dir", cluster.directory)
    assert done.code == 0, done
    assert "equal: all 3 nodes" in done.out
    facts = raftdb("check", "--dir", cluster.directory, "--json").json()
    assert facts["equal"]
    assert facts["complete"]
    assert len({node["hash"] for node in facts["nodes"]}) == 1


def test_vacuum(cluster: Cluster, raftdb: Command) -> None:
    at = ("--dir", cluster.directory)
    with cluster.connect() as db:
        db.execute(
            "CREATE TABLE large AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
            " WHERE i < 2000) SELECT hex(randomblob(500)) AS a FROM n"
        )
        db.execute("DROP TABLE large")
        cluster.wait_for_index(db.last_index)
        found = raftdb("vacuum", *at, "--json").json()
        assert [one["problem"] for one in found] == ["", "", ""]
        assert all(one["given_back_bytes"] > 1_500_000 for one in found), found
        assert all(one["free_bytes"] == 0 for one in found)
        leader = raftdb("leader", "show", *at).out.strip()
        assert found[-1]["node_id"] == leader
        done = raftdb("vacuum", *at)
        assert (done.code, done.out.count(": 0 bytes given back")) == (0, 3), done
    assert raftdb("check", *at).code == 0


def test_a_leaders_loss_is_rehearsed_by_handing_over(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `raftdb drill leader-kill --against` does: nothing is written, and no read fails."""
    monkeypatch.setattr(against, "AROUND_S", 0.05)
    config = cluster.directory / "n1" / "raftdb.toml"
    before = cluster.wait_for_leader()
    done = against.rehearse("leader-kill", config, 0, Objective(rto_s=60.0), lambda _text: None)
    assert done.verdict == "met", done.broken
    assert done.facts["reads"] > 3
    assert cluster.wait_for_leader() == before


def test_leader_moves_where_it_is_told(cluster: Cluster, raftdb: Command) -> None:
    before = raftdb("leader", "show", "--dir", cluster.directory).out.strip()
    target = next(one for one in cluster.node_ids if one != before)
    done = raftdb("leader", "move", "--to", target, "--dir", cluster.directory, "--json")
    assert done.code == 0, done
    assert done.json() == {"from": before, "to": target}
    assert raftdb("leader", "show", "--dir", cluster.directory).out.strip() == target
    rack = f"local/rack{before[1]}"
    done = raftdb("leader", "move", "--to", rack, "--dir", cluster.directory, "--json")
    assert done.json() == {"from": target, "to": before}, done
    assert raftdb("leader", "move", "--to", "n9", "--dir", cluster.directory).code == 2


def test_settings_and_topology(cluster: Cluster, raftdb: Command) -> None:
    at = ("--dir", cluster.directory)
    assert raftdb("cluster", "settings", "get", *at).out == "nothing is set\n"
    done = raftdb("cluster", "settings", "set", "survive=region", *at)
    assert done.code == 2, done
    assert "[survival_goal]" in done.err
    assert "without local (n1, n2, n3) 0 of 3" in done.err
    assert raftdb("cluster", "settings", "set", "colour=red", *at).code == 2
    assert raftdb("cluster", "settings", "set", "durability=locations=4@zone", *at).code == 2
    done = raftdb("cluster", "settings", "set", "survive=zone", "durability=locations=2@zone", *at)
    assert done.code == 0, done
    assert done.out.splitlines() == ["durability = locations=2@zone", "survive = zone"]
    drawn = raftdb("topology", *at)
    assert drawn.code == 0, drawn
    assert "goal survive=zone: kept" in drawn.out
    facts = raftdb("topology", *at, "--json").json()
    assert [place["name"] for place in facts["tree"][0]["places"]] == ["rack1", "rack2", "rack3"]
    assert [one["survives"] for one in facts["losses"]["zone"]] == [True, True, True]
    with cluster.connect() as db:
        db.execute("CREATE TABLE placed(a)")
        db.execute("INSERT INTO placed VALUES (1)", durability="locations=3@zone")
        assert db.await_durable() > 0
        with db.transaction():
            db.execute("INSERT INTO placed VALUES (2)")
    # What breaks the goal can be forced, and then the status says so.
    done = raftdb("cluster", "settings", "set", "survive=region", "--force", *at, "--json")
    assert "without local" in done.json()["problem"]
    assert raftdb("topology", *at).code == 1
    assert any(
        "survive=region is not kept" in one
        for one in raftdb("status", *at, "--json").json()["problems"]
    )
    for name in ("survive", "durability"):
        assert raftdb("cluster", "settings", "unset", name, *at).code == 0


def test_a_running_node_is_not_inspected_nor_started_twice(
    cluster: Cluster, raftdb: Command
) -> None:
    done = raftdb("inspect", cluster.directory / "n1")
    assert done.code == 2
    assert "is running" in done.err
    done = raftdb("start", "--config", cluster.directory / "n1" / "raftdb.toml")
    assert done.code == 2, done


def test_the_wrong_certificate_is_an_error_of_configuration(
    cluster: Cluster, tmp_path: Path, raftdb: Command
) -> None:
    assert raftdb("init", tmp_path / "other", "--local", "3").code == 0
    other = tmp_path / "other" / "client"
    text = (other / "client.toml").read_text().splitlines()
    own = (cluster.directory / "client" / "client.toml").read_text().splitlines()
    text[1] = own[1]
    (other / "client.toml").write_text("\n".join(text))
    done = raftdb("sql", "--dir", tmp_path / "other", "-c", "SELECT 1", "--timeout", "3")
    assert done.code in (2, 3), done
    assert "ertificate" in done.err, done


def test_wide_output_to_a_pipe_is_a_table_still(sql: Sql) -> None:
    done = sql("-c", f"SELECT '{'x' * 300}' AS wide")
    assert done.out.startswith("+-")


def test_csv_goes_through_unharmed(sql: Sql) -> None:
    done = sql("-c", "SELECT 'a\"b,c' AS x, char(10) AS y, 'é日' AS z", "--format", "csv")
    assert list(csv.reader(io.StringIO(done.out))) == [["x", "y", "z"], ['a"b,c', "\n", "é日"]]


def test_as_a_process_in_a_pipe(cluster: Cluster) -> None:
    done = raftdb_process(
        "sql", "--dir", cluster.directory, "--json", stdin="SELECT 'é' AS a;\nSELECT 2 AS b"
    )
    assert (done.code, done.err) == (0, ""), done
    assert [json.loads(line) for line in done.out.splitlines()] == [[{"a": "é"}], [{"b": 2}]]


def test_a_reader_that_has_enough_ends_a_query_without_a_failure(cluster: Cluster) -> None:
    count = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 60000)"
    done = subprocess.run(
        f"{sys.executable} -m raftdb.cli sql --dir {cluster.directory} --format csv "
        f"-c '{count} SELECT n FROM c' | head -2; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout.split(), done.stderr) == (["n", "1", "0"], "")


def test_a_prompt_on_a_terminal(cluster: Cluster, tmp_path: Path) -> None:
    """The interactive way, on a real pseudo-terminal."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "raftdb.cli", "sql", "--dir", str(cluster.directory)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "RAFTDB_HISTORY": str(tmp_path / "history")},
        start_new_session=True,
    ) as process:
        os.close(slave)
        seen = _read_until(master, ".help helps", process)
        os.write(master, b"SELECT\r 40 +\r 2 AS answer;\r")
        seen = _read_until(master, "42 |", process)
        assert "answer" in seen
        os.write(master, b".quit\r")
        assert process.wait(20) == 0
    os.close(master)
    assert "SELECT" in (tmp_path / "history").read_text()


def _read_until(master: int, text: str, process: subprocess.Popen[bytes]) -> str:
    seen = b""
    while text.encode() not in seen:
        ready, _, _ = select.select([master], [], [], 20)
        assert ready, f"{text!r} did not come: {seen!r}"
        seen += os.read(master, 65536)
        if seen.endswith(b"\x1b[6n"):
            os.write(master, b"\x1b[1;1R")
    assert process.poll() is None
    return seen.decode()


def test_outcome(cluster: Cluster, raftdb: Command) -> None:
    with cluster.connect() as connection:
        # Its session lives as long as it is not closed.
        connection.execute("CREATE TABLE outcomes (a PRIMARY KEY)")
        connection.execute(
            "INSERT INTO outcomes VALUES (x'00ff') RETURNING a", idempotency_key="order-1"
        )
        last = connection.last_write
        assert last is not None
        horizon = connection.horizon()
        _check_outcomes(cluster, raftdb, last, horizon)


def _check_outcomes(cluster: Cluster, raftdb: Command, last: tuple[str, int], horizon: int) -> None:
    done = raftdb("outcome", "--dir", cluster.directory, "--key", "order-1", "--json")
    assert done.code == 0, done
    facts = done.json()
    assert facts["outcome"] == "applied"
    assert facts["results"][0]["rows"] == [[{"base64": "AP8="}]]
    session, sequence = last
    place = ("--session", session, "--sequence")
    done = raftdb("outcome", "--dir", cluster.directory, *place, str(sequence))
    assert (done.code, done.out) == (0, "applied\n")
    for arguments in (("--key", "order-2", "--horizon", str(horizon)), (*place, "999")):
        done = raftdb("outcome", "--dir", cluster.directory, *arguments)
        assert (done.code, done.out) == (1, "not_applied\n"), done
    done = raftdb("outcome", "--dir", cluster.directory, *place, "9999")
    assert done.code == 1
    assert "protocol" in done.out
    done = raftdb("outcome", "--dir", cluster.directory, "--session", "0" * 80, "--sequence", "1")
    assert (done.code, "session_other_history" in done.err) == (5, True), done
    assert raftdb("outcome", "--dir", cluster.directory).code == 2


def test_a_dump_that_is_read_brings_the_same_content(
    cluster: Cluster, sql: Sql, tmp_path: Path
) -> None:
    """Everything that there is, with its rowids: the content hash says so."""
    schema = "\n".join(line for line in SCHEMA.splitlines() if " bare " not in line)
    rows = "\n".join(line for line in ROWS.splitlines() if "bare" not in line)
    # Statistics are collected anew, in an order of their own.
    rows = rows.replace("ANALYZE;", "")
    script = tmp_path / "script.sql"
    large = (
        "INSERT INTO log VALUES (zeroblob(900000) || x'01'), (replace(hex(zeroblob(4e5)),0,'é'))"
    )
    script.write_text(f"{schema}\nPRAGMA foreign_keys = OFF;\n{rows};{large};\n", newline="")
    with closing(conformance.Cluster(cluster.url)) as target:
        target.sweep()
    done = sql("-f", script)
    assert done.code == 0, done
    with cluster.connect() as db, closing(conformance.Cluster(cluster.url)) as target:
        before = db.content_hash()
        dumped = sql("-c", ".dump")
        assert dumped.code == 0, dumped
        target.sweep()
        assert db.content_hash(db.last_index)["total"] != before["total"]
        (tmp_path / "dump.sql").write_text(dumped.out, newline="")
        again = sql("-c", f".read {tmp_path / 'dump.sql'}")
        assert (again.code, again.err) == (0, ""), again
        db.execute("SELECT 1")
        after = db.content_hash(db.last_index)
        different = [
            name for name in before["tables"] if before["tables"][name] != after["tables"].get(name)
        ]
        assert different == []
        assert (after["total"], different) == (before["total"], [])
        assert sql("-c", ".dump").out == dumped.out
        target.sweep()


def test_a_query_of_any_length_comes_through_a_pipe(sql: Sql) -> None:
    """More than a result may hold, and more than one page."""
    rows = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000) SELECT"
        " i, t FROM n, (SELECT hex(zeroblob(1000)) AS t)"
    )
    done = sql("--format", "csv", "-c", f"SELECT * FROM ({rows})")
    assert done.code == 0, done.err
    assert done.out.count("\n") == 40_001
    assert done.out.splitlines()[-1].startswith("40000,0000")
