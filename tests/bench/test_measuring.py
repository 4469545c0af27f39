"""Every measuring command of docs/figures.md runs, quickly, and does what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench import archive, copying, drills, flights, rejoin, rows, size, total_loss, wan
from bench.__main__ import main
from bench.errors import BenchError
from chaos.__main__ import main as chaos
from raftdb.drill import Result

Measure = Callable[[Path], dict[str, Any]]
QUIET: Callable[[str], None] = lambda line: None  # noqa: E731


def measured(name: str, settings: Any, found: dict[str, Any]) -> list[rows.Row]:
    """The figures that would be shown; every one has a value."""
    said = rows.rows({"benchmark": name, "settings": size.command.as_settings(settings), **found})
    assert said
    assert all(row.what and row.measured for row in said)
    return said


@pytest.mark.timeout(900)
def test_a_database_is_grown_and_its_node_killed(tmp_path: Path) -> None:
    settings = size.QUICK
    found = size.run(tmp_path, settings, QUIET)
    [one] = found["sizes"]
    assert one["database_bytes"] >= settings.megabytes[0] * 1e6
    assert one["database_bytes"] > found["small_bytes"]
    for kind in ("cost", "random"):
        assert len(one[kind]["ratios"]) == settings.rounds
        assert all(run["cpu_us"] > 0 for run in one[kind]["small"] + one[kind]["large"])
    assert one["restarts"][0]["read_s"] > 0
    assert one["restarts"][0]["vote_s"] > 0
    measured("size", settings, found)


@pytest.mark.timeout(900)
def test_a_learner_gets_a_copy_while_others_write(tmp_path: Path) -> None:
    settings = copying.QUICK
    found = copying.run(tmp_path, settings, QUIET)
    assert len(found["copy_s"]) == settings.copies
    assert found["during"]["requests"] > 0
    assert found["without"]["requests"] > 0
    measured("copying", settings, found)


@pytest.mark.timeout(900)
def test_nodes_come_back(tmp_path: Path) -> None:
    settings = rejoin.QUICK
    found = rejoin.run(tmp_path, settings, QUIET)
    assert found["divergent"]["times"][0]["entries"] >= settings.divergent
    assert found["missing"]["times"][0]["entries"] >= settings.missing
    measured("rejoin", settings, found)


@pytest.mark.timeout(900)
def test_commits_wait_for_the_round_trip(tmp_path: Path) -> None:
    settings = wan.QUICK
    found = wan.run(tmp_path, settings, QUIET)
    [one] = found["distances"]
    assert one["proxied_ms"] >= one["round_trip_ms"] == settings.round_trips_ms[0]
    assert one["p50_ms"] >= one["round_trip_ms"]
    measured("wan", settings, found)


def test_drills_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/drill runs them; here is what is made of them."""
    times = iter([0.25, 0.5, 6.0])

    def fake(names: tuple[str, ...], options: Any, bounds: Any) -> list[Result]:
        assert options.directory.parent == tmp_path
        return [Result(name, "now", options.nodes, rto_s=next(times)) for name in names]

    monkeypatch.setattr(drills, "run_drills", fake)
    settings = drills.Settings(times=3)
    found = drills.run(tmp_path, settings, QUIET)
    assert found["rto_s"] == {"region-loss": [0.25, 0.5, 6.0]}
    writes, recovery = measured("drills", settings, found)
    assert (writes.met, recovery.met) == (True, False)
    assert "p50 0.50, p99 6.00" in recovery.measured
    broken = Result("region-loss", "now", 3, error="it did not end")
    monkeypatch.setattr(drills, "run_drills", lambda *_: [broken])
    with pytest.raises(BenchError, match="did not end"):
        drills.run(tmp_path, settings, QUIET)


@pytest.mark.timeout(900)
def test_everything_is_lost_and_restored(tmp_path: Path) -> None:
    found = total_loss.run(tmp_path, total_loss.QUICK, QUIET)
    assert found["equal"]
    assert found["database_bytes"] >= total_loss.QUICK.megabytes * 1e6
    assert 0 < found["restore_s"] < found["rto_s"]
    measured("total-loss", total_loss.QUICK, found)


@pytest.mark.timeout(900)
def test_moments_restore_to_their_hashes(tmp_path: Path) -> None:
    found = archive.run(tmp_path, archive.QUICK, QUIET)
    assert found["points"]["equal"] == found["points"]["restored"] == archive.QUICK.points
    assert found["whole"]["proven"]
    measured("archive", archive.QUICK, found)


FLIGHT = "2013,1,{day},UA,{number},N142{number},EWR,IAH,227,1400"


@pytest.mark.timeout(900)
def test_what_an_archive_weighs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the index of packages: rows that look like the real ones."""
    lines = ["year,month,day,carrier,flight,tailnum,origin,dest,air_time,distance"]
    lines += [FLIGHT.format(day=1 + one % 28, number=one * 37 % 997) for one in range(5_000)]
    path = tmp_path / "flights.csv"
    path.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(flights, "flights", lambda: path)
    found = flights.run(tmp_path, flights.QUICK, QUIET)
    settings = flights.QUICK
    for name, count in (("loaded", settings.rows), ("one_by_one", settings.single_rows)):
        one = found[name]
        assert one["rows"] == count
        assert one["ratio"] == round((one["segments"] + one["manifests"]) / one["log"], 3)
        assert 0 < one["ratio"] < 1
    measured("flights", settings, found)


@pytest.mark.timeout(900)
def test_a_leader_is_killed_and_another_hands_over(tmp_path: Path) -> None:
    path = tmp_path / "failover.json"
    code = chaos(["failover", "--quick", "--directory", str(tmp_path), "--output", str(path)])
    found = json.loads(path.read_text())
    assert found["broken"] == []
    assert code == 0
    assert [(one["how"], one["times"]) for one in found["ways"]] == [("kill", 1), ("hand-over", 1)]
    assert all(one["max_ms"] > 0 for one in found["ways"])
    assert rows.rows(found)


@pytest.mark.timeout(900)
def test_a_command_from_its_options_to_its_record(tmp_path: Path) -> None:
    path = tmp_path / "out" / "connections.json"
    arguments = ["connections", "--quick", "--directory", str(tmp_path), "--output", str(path)]
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(path.read_text())
    assert found == json.loads(done.stdout)
    assert found["quick"]
    assert [case["kind"] for case in found["cases"]] == ["writing", "writing", "open"]
    assert all(case["runs"][0]["cpu_us"] > 0 for case in found["cases"])
    assert rows.rows(found)
    assert list(tmp_path.iterdir()) == [path.parent], "the working directory is removed"
