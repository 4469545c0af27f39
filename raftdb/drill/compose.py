"""Drills on the cluster of docker-compose.yml: its containers are killed and started for real.

The drill itself runs in the client's container (`elsewhere.py`); here is what reaches docker. Works
with compose v2 (`docker compose`) and with docker-compose 1.29. Which container a node is, is
looked up before the drill, and `docker kill` does it then: compose would need seconds to find out,
which would count as raftdb's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from raftdb.base.errors import ConfigError
from raftdb.base.startup import time_text
from raftdb.drill.objectives import Objective
from raftdb.drill.result import Result
from raftdb.drill.scenarios import COMPOSED
from raftdb.runtime.clock import RealClock

__all__ = ["Compose", "find_compose", "rehearse_composed"]

UP_S = 900.0
"""The first time the image is built."""
DOCKER_S = 120.0
LINE_BYTES_MAX = 16 << 20
"""A result has its timeline in one line."""
_NODE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_ASKS = ("kill", "start")
_SERVICE = '{{index .Config.Labels "com.docker.compose.service"}} {{.Id}}'

Say = Callable[[str], None]


def find_compose() -> tuple[str, ...]:
    """The command there is. Raises ConfigError."""
    for command in (("docker", "compose"), ("docker-compose",)):
        try:
            done = subprocess.run([*command, "version"], capture_output=True, check=False)
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            return command
    raise ConfigError(
        "neither `docker compose` nor `docker-compose` works here",
        hint="install docker; without it the same drills run on processes, without --compose",
    )


class Compose:
    """The project of one file. What fails raises ConfigError with what docker said."""

    def __init__(self, file: Path, command: Sequence[str]) -> None:
        self.file = file.absolute()
        self._command = [*command, "-f", str(self.file)]
        self._containers: dict[str, str] = {}

    def __call__(self, *arguments: str, timeout_s: float = DOCKER_S) -> str:
        """Run it; its output."""
        return _run([*self._command, *arguments], self.file.parent, timeout_s)

    def docker(self, *arguments: str) -> str:
        """Run docker itself; its output."""
        return _run(["docker", *arguments], self.file.parent, DOCKER_S)

    def client(self) -> str:
        """The id of the client's container; `` when it does not run."""
        found = self("ps", "-q", "client").split()
        if not found:
            return ""
        running = self.docker("inspect", "-f", "{{.State.Running}}", found[0]).strip()
        return found[0] if running == "true" else ""

    def look_up(self) -> None:
        """Note which container each service has now; later ones are not known."""
        every = self("ps", "-q").split()
        lines = self.docker("inspect", "-f", _SERVICE, *every).splitlines() if every else []
        self._containers = dict(line.split() for line in lines)

    def do(self, ask: str, nodes: Sequence[str]) -> dict[str, Any]:
        """Kill or start these nodes' containers, all at once; of a kill, when the first and the
        last process ended (`ended_ms`, since 1970). Raises ConfigError."""
        known = self._containers
        named = bool(nodes) and all(_NODE.fullmatch(one) and one in known for one in nodes)
        if ask not in _ASKS or not named:
            raise ConfigError(f"the drill asks for {ask!r} of {nodes!r}"[:200])
        containers = [known[one] for one in nodes]
        self.docker(ask, *containers)
        if ask == "start":
            return {}
        said = self.docker("inspect", "-f", "{{.State.FinishedAt}}", *containers)
        ended = [epoch_ms(line) for line in said.split()]
        return {"ended_ms": [min(ended), max(ended)]}


def epoch_ms(text: str) -> float:
    """Of a time as docker writes it, with nanoseconds. Raises ConfigError."""
    try:
        # Six digits are what is understood.
        return 1000 * datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text)).timestamp()
    except ValueError:
        raise ConfigError(f"docker says {text[:60]!r} for a time") from None


def _run(command: Sequence[str], directory: Path, timeout_s: float) -> str:
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise ConfigError(f"there is no {command[0]} here", hint="install docker") from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"`{shown}` took longer than {timeout_s:g} s") from None
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-500:]
        raise ConfigError(f"`{shown}` failed: {said}", hint="see docs/compose.md")
    return done.stdout


def rehearse_composed(
    names: Sequence[str],
    file: Path,
    bounds: dict[str, Objective],
    say: Say,
    *,
    seconds: float,
    repeat: int,
    consent: bool,
) -> list[Result]:
    """Run these drills there. A cluster that is not up is brought up for it, and taken down with
    all it has; one that is there stays, and needs `consent`. Raises ConfigError."""
    strange = [name for name in names if name not in COMPOSED]
    if strange:
        raise ConfigError(
            f"{strange[0]} is not among the drills on docker-compose",
            hint=f"with --compose there are {', '.join(COMPOSED)}",
        )
    if not file.is_file():
        raise ConfigError(f"{file} is no file", hint="give the path of raftdb's docker-compose.yml")
    compose = Compose(file, find_compose())
    own = not compose.client()
    if not own and not consent:
        raise ConfigError(
            f"the cluster of {file} is up already: the drill would kill nodes of it",
            code="consent_needed",
            hint="give --yes if that is meant, or take it down first",
        )
    try:
        if own:
            say("docker compose up: builds the image the first time")
            compose("up", "-d", "--build", timeout_s=UP_S)
        client = compose.client()
        compose.look_up()
        if not client:
            raise ConfigError("there is no client's container", hint="see docker compose ps -a")
        return [
            _run_one(compose, client, name, bounds[name], say, seconds)
            for _number in range(repeat)
            for name in names
        ]
    finally:
        if own:
            say("docker compose down --volumes")
            compose("down", "--volumes")


def _run_one(
    compose: Compose, client: str, name: str, objective: Objective, say: Say, seconds: float
) -> Result:
    command = ["docker", "exec", "-i", client, "python", "-m", "raftdb.drill.elsewhere"]
    with subprocess.Popen(
        [*command, name, "--seconds", str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        found = converse(process.stdout, process.stdin, compose.do, say)
    if found is None:
        result = Result(name, time_text(RealClock().wall_ms()), nodes=0)
        result.error = f"the drill in the client's container ended with {process.returncode}"
    else:
        result = Result.from_dict(found)
    result.objective = objective
    say(f"{name}: {result.verdict}")
    return result


def converse(
    heard: IO[bytes],
    back: IO[bytes],
    do: Callable[[str, Sequence[str]], dict[str, Any]],
    say: Say,
) -> dict[str, Any] | None:
    """Do what the drill asks for until it tells its result; None when it never does."""
    while line := heard.readline(LINE_BYTES_MAX):
        try:
            word = json.loads(line)
        except ValueError:
            say(line.decode(errors="replace").rstrip())
            continue
        if "result" in word:
            return dict(word["result"])
        if "say" in word:
            say(str(word["say"]))
        if "ask" in word:
            answer: dict[str, Any] = {"done": True}
            try:
                answer |= do(str(word["ask"]), [str(one) for one in word["nodes"]])
            except ConfigError as error:
                answer = {"problem": str(error)}
            back.write(json.dumps(answer).encode() + b"\n")
            back.flush()
    return None
