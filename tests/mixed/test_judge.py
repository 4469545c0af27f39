"""The judge of mixed clusters sees what is wrong. The clusters: `python -m tests.mixed`."""

from __future__ import annotations

from raftdb.drill.load import Write
from tests.mixed.judge import failed_writes, judge_requests
from tests.workloads import Record

VERSIONS = ("0.1.0", "0.2.0")
KNOWN = {"0.1.0": ("level", "list"), "0.2.0": ("level", "list", "newer")}


def version_of(client: int) -> str:
    return VERSIONS[client >= 100]


def record(client: int, begin_s: float, outcome: str = "ok", error: str = "") -> Record:
    end_ns = None if outcome == "unknown" else round((begin_s + 0.5) * 1e9)
    begin_ns = round(begin_s * 1e9)
    return Record(client, "list", "append", {}, begin_ns, end_ns, outcome, None, error)


BOTH = [record(1, 0.0), record(101, 0.0)]


def test_requests_that_fail_count_except_after_a_kill() -> None:
    for outcome in ("unknown", "refused"):
        late = record(1, 5.0, outcome, "deadline")
        assert judge_requests([*BOTH, late], version_of, KNOWN, [(4.0, 5.2)]).disturbed == 1
        [problem] = judge_requests([*BOTH, late], version_of, KNOWN, [(6.0, 7.0)]).broken
        assert "failed in a planned step: deadline" in problem
    kept = judge_requests(
        [*BOTH, record(1, 5.0, "refused", "transaction_lost")], version_of, KNOWN, []
    )
    assert (kept.broken, kept.anew) == ([], 1)
    assert kept.operations == {"0.1.0": 2, "0.2.0": 1}


def test_clients_of_both_have_to_get_through() -> None:
    assert judge_requests(BOTH, version_of, KNOWN, []).broken == []
    [problem] = judge_requests(BOTH[:1], version_of, KNOWN, []).broken
    assert problem == "no client of 0.2.0 got through with list"
    newer = Record(101, "newer", "do", {}, 0, 1, "ok")
    assert judge_requests([*BOTH, newer], version_of, KNOWN, []).broken == [], "0.1.0 has it not"
    reads = [
        Record(client, "level", "read", {"level": level}, 0, 1, "ok")
        for client, level in ((1, "local"), (101, "local"), (101, "session"))
    ]
    [problem] = judge_requests([*BOTH, *reads], version_of, KNOWN, []).broken
    assert problem == "no client of 0.1.0 got through with level session"


def test_tries_of_keyed_writes_count_too() -> None:
    write = Write(1, 1, 5.0, 6.0, ["unavailable"])
    assert failed_writes([write], [(5.5, 8.0)]) == []
    assert len(failed_writes([write], [(7.0, 8.0)])) == 1
    assert len(failed_writes([Write(1, 2, 5.0, None, ["closed"])], [])) == 1
