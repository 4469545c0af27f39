"""Compose v2 where there is none: built with the machine's Go from the module that is published.

A program of some 80 MB, built once, in minutes, into the project's cache. It is the same program as
`docker compose`, called by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MODULE = "github.com/docker/compose/v2@v2.40.3"
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "compose"
BUILD_S = 3600.0


def compose_v2() -> Path:
    """The program; built when there is none yet. Raises OSError, subprocess.SubprocessError."""
    program = CACHE / MODULE.rpartition("@")[2] / "docker-compose"
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        raise OSError("compose v2 is built with Go, and there is none here")
    print(f"building {MODULE} into {program.parent} (first time only) …", file=sys.stderr)
    told = subprocess.run(
        [go, "mod", "download", "-json", MODULE], check=True, stdout=subprocess.PIPE, text=True
    )
    # `go install` refuses a module that excludes others; within a copy of it there is no such rule.
    with tempfile.TemporaryDirectory() as scratch:
        sources = Path(scratch) / "compose"
        shutil.copytree(json.loads(told.stdout)["Dir"], sources, copy_function=shutil.copyfile)
        for directory, _, _ in os.walk(sources):
            os.chmod(directory, 0o755)
        subprocess.run(
            [go, "build", "-o", str(Path(scratch) / "program"), "./cmd"],
            cwd=sources,
            env={**os.environ, "CGO_ENABLED": "0"},
            check=True,
            timeout=BUILD_S,
        )
        program.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(scratch) / "program", program)
    return program
