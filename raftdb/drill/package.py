"""Whether an installed release is what it should be, and starts on these nodes' configurations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raftdb.base.errors import ConfigError
from raftdb.drill.previous import Release, installed_at
from raftdb.ops.upgrade_check import Check

__all__ = ["check_package"]

LINE_MAX = 300


def check_package(place: Path, version: str, configs: Sequence[Path]) -> list[Check]:
    """`place` holds that version, and it reads each of these raftdb.toml: a key that only a later
    release knows is an error, which would be found when the node has been stopped already."""
    try:
        release = installed_at(place)
    except ConfigError as error:
        return [Check("package", False, error.message)]
    if release.version != version:
        return [Check("package", False, f"{place} is raftdb {release.version}, not {version}")]
    found = [Check("package", True, f"{place} is raftdb {version}")]
    if configs:
        wrong = [f"{path}: {said}" for path in configs if (said := _refused(release, path))]
        fine = f"{version} reads the configuration of {len(configs)} nodes"
        found.append(Check("config", not wrong, "; ".join(wrong) or fine))
    return found


def _refused(release: Release, config: Path) -> str:
    """What that release says against a configuration; `` for nothing."""
    try:
        done = release.ask(*release.command, "start", "--config", str(config), "--print-config")
    except ConfigError as error:
        return error.message
    if done.returncode == 0:
        return ""
    return " ".join(done.stderr.split())[:LINE_MAX] or f"exit code {done.returncode}"
