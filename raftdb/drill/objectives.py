"""Objectives: what a drill has to achieve, from a TOML file with a table for each scenario."""

from __future__ import annotations

import importlib.resources
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from raftdb.base.errors import ConfigError
from raftdb.base.settings import nearest

FILE_BYTES_MAX = 1 << 20
DEFAULT_FILE = "objectives.toml"


@dataclass(frozen=True, slots=True)
class Objective:
    """Bounds of one scenario; None: not judged."""

    rpo_writes: float | None = None
    rpo_s: float | None = None
    rto_s: float | None = None
    full_s: float | None = None

    def as_dict(self) -> dict[str, float]:
        """Those that are judged."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def load_objectives(path: Path | None, scenarios: tuple[str, ...]) -> dict[str, Objective]:
    """Read a file, or the one that comes with raftdb; every scenario has an entry in what is
    returned. Raises ConfigError."""
    if path is None:
        text = importlib.resources.files("raftdb.drill").joinpath(DEFAULT_FILE).read_text("utf-8")
        return _parse(text, DEFAULT_FILE, scenarios)
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the objectives {path}: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} has more than {FILE_BYTES_MAX} bytes: these are no objectives")
    return _parse(data.decode(errors="replace"), str(path), scenarios)


def _parse(text: str, source: str, scenarios: tuple[str, ...]) -> dict[str, Objective]:
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source} is not TOML: {error}", hint="https://toml.io") from error
    for name in tree:
        if name not in scenarios:
            raise ConfigError(
                f"{source}: there is no drill called {name!r}",
                hint="there are " + ", ".join(scenarios),
            )
    return {name: _objective(tree.get(name, {}), f"{source}: [{name}]") for name in scenarios}


def _objective(table: Any, where: str) -> Objective:
    if not isinstance(table, dict):
        raise ConfigError(f"{where} is no table")
    known = [one.name for one in fields(Objective)]
    for key, value in table.items():
        if key not in known:
            hint = nearest(key, known).partition("? ")
            raise ConfigError(
                f"{where}: unknown key {key!r}",
                hint=f"{hint[0]}?" if hint[1] else "keys are " + ", ".join(known),
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise ConfigError(f"{where}: {key} is {value!r}, and should be a number from 0 on")
    return Objective(**{key: float(value) for key, value in table.items()})
