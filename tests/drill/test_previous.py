"""The release before this one: found in a history, named, or missed with what to do about it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from raftdb._version import __version__
from raftdb.base.errors import ConfigError
from raftdb.drill import Objective, Options, run
from raftdb.drill.history import History
from raftdb.drill.package import check_package
from raftdb.drill.previous import HERE, Release, find_previous, present
from raftdb.drill.report import make_console, show
from raftdb.ops.found import found_local

NEEDS = "apsw==1\n"


class Repository:
    """A small history of versions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q")

    def git(self, *arguments: str) -> str:
        environ = {name: value for name, value in os.environ.items() if "GIT" not in name}
        who = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *who, *arguments],
            cwd=self.path,
            env=environ,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, version: str | None = None, **files: str) -> str:
        if version is not None:
            files["raftdb/_version.py"] = f'"""The release."""\n\n__version__ = "{version}"\n'
            files.setdefault("raftdb/__init__.py", "from raftdb._version import __version__\n")
        for name, text in files.items():
            path = self.path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "a change")
        return self.git("rev-parse", "--short", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "checkout")


def test_it_is_the_last_commit_before_the_version_began(repository: Repository) -> None:
    repository.commit("0.0.1", **{"requirements.txt": NEEDS})
    last = repository.commit(work="the last change of 0.0.1")
    repository.commit(__version__)
    repository.commit(work="a change of this one")
    # The file is touched again, and says the same.
    repository.commit(**{"raftdb/_version.py": f'# here\n__version__ = "{__version__}"\n'})
    found = find_previous(checkout=repository.path)
    assert found.version == "0.0.1"
    assert last in found.origin
    assert found.note == ""
    assert found.sources is not None
    assert found.sources.parent == repository.path / ".cache" / "releases"
    assert (found.sources / "work").read_text() == "the last change of 0.0.1"
    assert [path.name for path in found.sources.parent.iterdir()] == [found.sources.name]
    assert find_previous(checkout=repository.path) == found, "it is made once"
    # It is what its processes import, wherever they run.
    done = subprocess.run(
        [*found.command[:2], "-c", "import raftdb; print(raftdb.__version__)"],
        env=found.environ({**os.environ, "PYTHONPATH": str(HERE)}),
        cwd=HERE,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "0.0.1\n"


def test_the_newest_tag_of_an_older_version_goes_first(repository: Repository) -> None:
    for version in ("0.0.9", "0.0.10", "0.0.2", "99.0.0"):
        repository.commit(version, **{"requirements.txt": NEEDS, "at": version})
        repository.git("tag", f"v{version}")
    repository.commit("0.0.11")
    repository.git("tag", "vague")
    repository.commit(__version__, **{"requirements.txt": NEEDS + "msgpack\n"})
    repository.git("tag", f"v{__version__}")
    found = find_previous(checkout=repository.path)
    assert (found.version, found.origin) == ("0.0.10", "tag v0.0.10")
    assert "requirements.txt differs" in found.note


def test_a_history_that_does_not_reach_back_is_an_error(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit("0.0.1")
    repository.commit(__version__)
    repository.commit(work="more")
    shallow = tmp_path / "shallow"
    source = f"file://{repository.path}"
    repository.git("clone", "-q", "--depth", "2", source, str(shallow))
    with pytest.raises(ConfigError, match="it is a shallow clone") as caught:
        find_previous(checkout=shallow)
    assert caught.value.hint == "git fetch --unshallow --tags"
    first = Repository(tmp_path / "first")
    first.commit(__version__)
    with pytest.raises(ConfigError, match="no release before") as caught:
        find_previous(checkout=first.path)
    assert "--previous" in caught.value.hint
    with pytest.raises(ConfigError, match="is no checkout"):
        find_previous(checkout=tmp_path)


def test_another_version_is_named(repository: Repository, tmp_path: Path) -> None:
    repository.commit("0.0.1")
    found = find_previous(repository.path)
    assert (found.version, found.sources) == ("0.0.1", repository.path)
    with pytest.raises(ConfigError, match=f"is raftdb {__version__}, as this is"):
        find_previous(HERE)
    with pytest.raises(ConfigError, match="holds no release"):
        find_previous(tmp_path)
    environment = tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    python = environment / "bin" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={repository.path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    for path in (environment, python):
        found = find_previous(path)
        assert (found.version, found.python, found.sources) == ("0.0.1", str(python), None)
    # What is installed there is run, not what this process has on its path.
    assert "PYTHONPATH" not in found.environ({"PYTHONPATH": "/somewhere"})
    python.write_text("#!/bin/sh\nexec false\n")
    with pytest.raises(ConfigError, match="has no raftdb"):
        find_previous(environment)


def test_a_package_is_asked_for_its_version_and_whether_it_reads_the_configurations(
    tmp_path: Path,
) -> None:
    assert [one.detail for one in check_package(tmp_path, __version__, [])] == [
        f"{tmp_path} holds no release of raftdb"
    ]
    [other] = check_package(HERE, "0.0.9", [tmp_path / "never looked at"])
    assert (other.ok, other.detail) == (False, f"{HERE} is raftdb {__version__}, not 0.0.9")
    founded = found_local(tmp_path / "c", base_port=26400)
    good, bad = (tmp_path / "c" / name / "raftdb.toml" for name in ("n1", "n2"))
    assert len(founded.members) == 3
    bad.write_text("of_a_later_release = 1\n" + bad.read_text())
    package, config = check_package(HERE, __version__, [good, bad])
    assert package.ok
    assert not config.ok
    assert "n1" not in config.detail
    assert "of_a_later_release" in config.detail


def test_this_one_runs_from_where_it_is_and_no_other_is_on_its_path(
    repository: Repository,
) -> None:
    assert present().version == __version__
    repository.commit("0.0.1")
    base = {"PYTHONPATH": os.pathsep.join((str(repository.path), "/b"))}
    found = present().environ(base)
    assert found == {"PYTHONPATH": os.pathsep.join((str(HERE), "/b"))}
    assert present().environ(found) == found


def test_without_it_the_drills_say_that_they_were_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(given: Path | None) -> Release:
        raise ConfigError("there is none", hint="name one")

    monkeypatch.setattr(import_module("raftdb.drill.run"), "find_previous", none)
    bounds = {"release-crash": Objective(rto_s=1.0)}
    with pytest.raises(ConfigError, match="there is none"):
        run(["release-crash"], Options(), bounds)
    with pytest.raises(ConfigError, match="there is none"):
        run(["release-crash"], Options(previous=tmp_path, lenient=True), bounds)
    [found] = results = run(["release-crash"], Options(lenient=True), bounds)
    assert (found.verdict, found.missed, found.broken) == ("not run", [], [])
    assert found.not_run == "there is none; name one"
    assert found.rpo_writes is None, "nothing was lost, since nothing was done"
    show(make_console(), results)
    assert "NOT RUN release-crash: there is none; name one" in capsys.readouterr().out
    History(tmp_path / "drills.jsonl").add(results)
    assert (tmp_path / "drills.jsonl").read_text() == "", "there is no result to remember"
