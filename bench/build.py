"""Builds the peers' native load clients (Go) into a cache outside of the work tree's history."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bench.errors import Missing

SOURCES = Path(__file__).resolve().parent / "peers"
GO_MINIMUM = (1, 23)


def cache_directory() -> Path:
    """`BENCH_CACHE`, or bench/.cache (ignored by git)."""
    found = Path(os.environ.get("BENCH_CACHE") or Path(__file__).resolve().parent / ".cache")
    found.mkdir(parents=True, exist_ok=True)
    return found


def missing_go() -> list[str]:
    """What to do when there is no usable Go toolchain; empty when there is one."""
    minimum = ".".join(map(str, GO_MINIMUM))
    go = shutil.which("go")
    if go is None:
        return [f"the Go toolchain, {minimum} or newer (apt-get install golang-go, or go.dev/dl)"]
    version = subprocess.run(
        [go, "env", "GOVERSION"], capture_output=True, text=True, check=False, cwd="/"
    ).stdout.strip()
    numbers = version.removeprefix("go").split(".")[:2]
    if not all(number.isdigit() for number in numbers) or tuple(map(int, numbers)) < GO_MINIMUM:
        return [f"the Go toolchain, {minimum} or newer ({go} is {version or 'unusable'})"]
    return []


def go_program(name: str) -> Path:
    """Build bench/peers/NAME and return the binary. Go's own cache makes a second build quick.

    Raises Missing when it doesn't build.
    """
    target = cache_directory() / name
    go = shutil.which("go")
    assert go is not None, "callers check missing_go() first"
    environment = {
        **os.environ,
        "CGO_LDFLAGS_ALLOW": "-Wl,-z,now",  # what go-dqlite asks its users to set
        "GOFLAGS": "-buildvcs=false -mod=readonly",
    }
    built = subprocess.run(
        [go, "build", "-o", str(target), f"./{name}"],
        cwd=SOURCES,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        raise Missing(f"go build of bench/peers/{name} failed:\n{built.stderr.strip()}")
    return target
