"""The release before this one: an installation that is named, or built from the history.

Whoever installed raftdb has no history, and names another version's interpreter, virtual
environment or sources. In a checkout it is found: the newest tag `vX.Y.Z` of a version before this
one, else the last commit before the version became what it is now. Its tree is laid out once, below
`.cache/releases`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from raftdb._version import __version__
from raftdb.base.errors import ConfigError

HERE = Path(__file__).resolve().parents[2]
"""Where the present release is imported from: a checkout, or site-packages."""
VERSION_FILE = "raftdb/_version.py"
NEEDS_FILE = "requirements.txt"
COMMITS_MAX = 200
"""Commits that touched the version file and are looked at."""
TREE_BYTES_MAX = 256 << 20
ASK_S = 60.0
ANOTHER = "name another version by --previous: a virtual environment, its python, or sources"
_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
_TAG = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
_REPORT = "import raftdb; print(raftdb.__version__)"


@dataclass(frozen=True, slots=True)
class Release:
    """One version of raftdb that processes can run."""

    version: str
    python: str
    """The interpreter."""
    sources: Path | None
    """What goes first on its path; None: it is installed there."""
    origin: str
    """Where it comes from, in words."""
    note: str = ""
    """What a reader of the result should know."""

    @property
    def command(self) -> tuple[str, ...]:
        """What runs `raftdb`. `-P`: never what happens to lie in the current directory."""
        return self.python, "-P", "-m", "raftdb.cli"

    def environ(self, base: Mapping[str, str]) -> dict[str, str]:
        """The environment of its processes: no other raftdb is on their path."""
        found = {name: value for name, value in base.items() if name != "PYTHONPATH"}
        if self.sources is not None:
            paths = base.get("PYTHONPATH", "").split(os.pathsep)
            rest = [path for path in paths if path and not (Path(path) / VERSION_FILE).is_file()]
            found["PYTHONPATH"] = os.pathsep.join([str(self.sources), *rest])
        return found

    def ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of its own to the end. Raises ConfigError when it cannot be run."""
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=self.environ(os.environ),
                timeout=ASK_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(f"{self.python} cannot be run: {error}", hint=ANOTHER) from error

    def __str__(self) -> str:
        return f"{self.version} ({self.origin})"


def present() -> Release:
    """This one."""
    return Release(__version__, sys.executable, HERE, "this one")


def find_previous(given: Path | None = None, checkout: Path = HERE) -> Release:
    """The release before this one. `given`: as of `--previous`. Raises ConfigError, with what is to
    be done, when there is none to be had."""
    if given is None:
        return _from_history(checkout)
    release = installed_at(given)
    if release.version == __version__:
        raise ConfigError(
            f"{given} is raftdb {release.version}, as this is", hint="name another version"
        )
    return release


# ---- what is named


def installed_at(place: Path) -> Release:
    """Which release a virtual environment, an interpreter or a tree of sources holds. Raises
    ConfigError."""
    path = place.absolute()
    sources = path if (path / VERSION_FILE).is_file() else None
    python = Path(sys.executable) if sources is not None else _interpreter(path)
    release = Release("", str(python), sources, str(path))
    done = release.ask(str(python), "-P", "-c", _REPORT)
    if done.returncode != 0:
        said = done.stderr.strip().rpartition("\n")[2]
        raise ConfigError(f"{python} has no raftdb: {said}", hint=ANOTHER)
    return Release(done.stdout.strip(), str(python), sources, str(path))


def _interpreter(path: Path) -> Path:
    for found in (path, path / "bin" / "python", path / "Scripts" / "python.exe"):
        if found.is_file():
            return found
    raise ConfigError(f"{path} holds no release of raftdb", hint=ANOTHER)


# ---- what the history has


def _from_history(checkout: Path) -> Release:
    if not (checkout / ".git").exists():
        raise ConfigError(
            f"{checkout} is no checkout, so there is no history that has the release before this"
            " one",
            hint=ANOTHER,
        )
    commit, origin = _tagged(checkout) or _before_this_version(checkout)
    version = _version_at(checkout, commit)
    if version is None:
        raise ConfigError(f"{origin} has no {VERSION_FILE}", hint=ANOTHER)
    return Release(
        version,
        sys.executable,
        _laid_out(checkout, commit, version),
        origin,
        _other_needs(checkout, commit),
    )


def _tagged(checkout: Path) -> tuple[str, str] | None:
    """The newest release with a tag that is older than this one."""
    names = _git(checkout, "tag", "--list", "v*").decode().split()
    older = [name for name in names if (of := _numbers(name)) and of < _numbers(f"v{__version__}")]
    if not older:
        return None
    name = max(older, key=_numbers)
    return _git(checkout, "rev-parse", f"{name}^{{commit}}").decode().strip(), f"tag {name}"


def _numbers(tag: str) -> tuple[int, ...]:
    found = _TAG.fullmatch(tag)
    return tuple(map(int, found.groups())) if found else ()


def _before_this_version(checkout: Path) -> tuple[str, str]:
    """The parent of the commit by which the version became what it is."""
    listed = ("log", f"--max-count={COMMITS_MAX}", "--format=%H %P", "--", VERSION_FILE)
    for line in _git(checkout, *listed).decode().splitlines():
        _commit, *parents = line.split()
        if not parents:
            break
        version = _version_at(checkout, parents[0])
        if version is not None and version != __version__:
            short = _git(checkout, "rev-parse", "--short", parents[0]).decode().strip()
            return parents[0], f"commit {short}, before {__version__} began"
    shallow = _git(checkout, "rev-parse", "--is-shallow-repository").strip() == b"true"
    raise ConfigError(
        f"the history of {checkout} has no release before {__version__}"
        + (": it is a shallow clone" if shallow else ""),
        hint="git fetch --unshallow --tags" if shallow else ANOTHER,
    )


def _version_at(checkout: Path, commit: str) -> str | None:
    text = _file_at(checkout, commit, VERSION_FILE)
    found = None if text is None else _VERSION.search(text)
    return found[1] if found else None


def _file_at(checkout: Path, commit: str, name: str) -> str | None:
    try:
        return _git(checkout, "show", f"{commit}:{name}").decode()
    except ConfigError:
        return None


def _other_needs(checkout: Path, commit: str) -> str:
    then, path = _file_at(checkout, commit, NEEDS_FILE), checkout / NEEDS_FILE
    if not path.is_file() or then == path.read_text("utf-8"):
        return ""
    return (
        f"its {NEEDS_FILE} differs from the present one, whose packages it is run with; for its"
        " own, install it and name it by --previous"
    )


def _laid_out(checkout: Path, commit: str, version: str) -> Path:
    """Its tree, as files. Made once, and whole or not at all."""
    short = _git(checkout, "rev-parse", "--short=12", commit).decode().strip()
    place = checkout / ".cache" / "releases" / f"{version}-{short}"
    if place.is_dir():
        return place
    data = _git(checkout, "archive", "--format=tar", commit)
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
    try:
        with tarfile.open(fileobj=BytesIO(data)) as archive:
            # Python 3.11.0 to 3.11.3 have no filters; what git wrote needs none.
            if hasattr(tarfile, "data_filter"):
                archive.extraction_filter = tarfile.data_filter
            archive.extractall(scratch)
        scratch.chmod(0o755)
        try:
            scratch.rename(place)
        except OSError:
            # Somebody else was quicker.
            if not place.is_dir():
                raise
    except (OSError, tarfile.TarError) as error:
        raise ConfigError(f"cannot lay out {version} in {place}: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return place


def _git(checkout: Path, *arguments: str) -> bytes:
    """What git prints. Raises ConfigError with what it says."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-c", f"safe.directory={checkout}", "-C", str(checkout), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environ,
            timeout=ASK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"git cannot be run: {error}", hint=ANOTHER) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise ConfigError(f"git {' '.join(arguments)}: {said}", hint=ANOTHER)
    if len(done.stdout) > TREE_BYTES_MAX:
        raise ConfigError(f"git {arguments[0]} gave more than {TREE_BYTES_MAX} bytes")
    return done.stdout
