"""Running commands in this process: quick, and with everything that they print."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from raftdb.cli.app import run


class Result:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> Any:
        """Its output as one JSON document."""
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


Command = Callable[..., Result]


@pytest.fixture
def raftdb(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """raftdb("status", "--dir", path)"""
    for name in ("RAFTDB_URL", "RAFTDB_DIR", "RAFTDB_CONFIG"):
        monkeypatch.delenv(name, raising=False)

    def command(
        *arguments: Any, stdin: str | None = None, env: dict[str, str] | None = None
    ) -> Result:
        texts = [str(argument) for argument in arguments]
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr("sys.argv", ["raftdb", *texts])
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((stdin or "").encode())))
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            code = run(texts)
        done = capsys.readouterr()
        return Result(code, done.out, done.err)

    return command
