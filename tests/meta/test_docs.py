"""Every example in README.md and docs/ is run, against a real three-node cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, running_cluster
from tests.meta.examples import (
    HOSTS,
    Block,
    blocks,
    commands,
    documents,
    expected_prints,
    matches,
)
from tests.meta.source import ROOT

SKIPPED_MAX = 8
"""Examples that are not run are exceptions: each has its reason, and there are few."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Path, Cluster]]:
    """A directory with a running cluster in it: each document has its own."""
    directory = tmp_path / "d"
    directory.mkdir()
    with running_cluster(directory / "cluster") as cluster:
        shutil.copytree(directory / "cluster" / "client", directory / "client")
        yield directory, cluster


def _real(text: str, cluster: Cluster) -> str:
    hosts = ",".join(str(member.client_address) for member in cluster.founded.members)
    return text.replace(HOSTS, hosts)


def _environment(directory: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAFTDB_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "COLUMNS": "100", "RAFTDB_HISTORY": str(directory / "history")}


def _run_console(block: Block, directory: Path, cluster: Cluster) -> None:
    for command in commands(block.body):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", _real(command.text, cluster)],
            cwd=directory,
            env=_environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        shown = f"{block.where}\n$ {command.text}\n{done.stdout}"
        assert done.returncode == command.exit_code, f"exit code {done.returncode}: {shown}"
        expected = _real(command.expected, cluster)
        assert matches(expected, done.stdout), f"{shown}\n--- expected\n{expected}"


def _run_python(body: str, expected: str, directory: Path, where: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", body],
        cwd=directory,
        env=_environment(directory),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, f"{where}: exit code {done.returncode}\n{done.stderr}"
    assert matches(expected, done.stdout), (
        f"{where} printed\n{done.stdout}\n--- expected\n{expected}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_examples_run(path: Path, request: pytest.FixtureRequest) -> None:
    """Console blocks in order; python blocks of the document as one program, at the place of the
    first, so that names carry over."""
    found = [block for block in blocks(path) if not block.skip]
    if not found:
        return
    directory, cluster = request.getfixturevalue("place")
    python = [block for block in found if block.language == "python"]
    ran_python = False
    for block in found:
        if block.language == "console":
            _run_console(block, directory, cluster)
        elif not ran_python:
            ran_python = True
            body = "\n".join(one.body for one in python)
            expected = "\n".join(text for one in python if (text := expected_prints(one.body)))
            _run_python(_real(body, cluster), _real(expected, cluster), directory, block.where)


def test_examples_that_are_not_run_are_few_and_have_a_reason() -> None:
    skipped = [block for path in documents() for block in blocks(path) if block.skip]
    assert len(skipped) <= SKIPPED_MAX, [f"{one.where}: {one.skip}" for one in skipped]
    for block in skipped:
        assert len(block.skip.split()) >= 4, f"{block.where}: say why: {block.skip!r}"


def test_every_document_is_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    missing = [path.name for path in documents()[1:] if f"docs/{path.name}" not in text]
    assert missing == []


def test_links_between_documents_lead_somewhere() -> None:
    import re

    broken = []
    for path in [*documents(), *sorted(ROOT.glob("raftdb/*/DESIGN.md"))]:
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", path.read_text("utf-8")):
            if not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert broken == []


def test_how_examples_are_read() -> None:
    """The harness itself."""
    found = commands("$ a \\\n  b\nout\n$ c # exit 3\n")
    assert [(one.text, one.expected, one.exit_code) for one in found] == [
        ("a \\\n  b", "out", 0),
        ("c", "", 3),
    ]
    assert matches("a ... c\n...\nz", "a b c\nx\ny\nz\n")
    assert matches("a\n...", "a\n")
    assert matches("", "")
    assert not matches("a", "a\nb")
    assert matches("a...c\n...", "a\nb\nc")
    assert not matches("a\n...\nc", "a b\nc")
    assert not matches("", "surprise")
    assert expected_prints("print(1)  #> 1\nx = 2\n#> 3") == "1\n3"
