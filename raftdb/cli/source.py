"""Options that name an archive, and a moment in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from raftdb.base.errors import ConfigError

if TYPE_CHECKING:
    from raftdb.archive import Near
    from raftdb.ops.archive import Destinations

Moment = dict[str, str | None]
"""The four ways to name a moment; at most one is not None."""
_Function = TypeVar("_Function", bound=Callable[..., Any])


def archive_options(function: _Function) -> _Function:
    """`--from URL… --key-file FILE`, or `--config raftdb.toml`, which has both."""
    function = click.option(
        "--config",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        default=None,
        help="A node's raftdb.toml, instead of --from and --key-file.",
    )(function)
    function = click.option(
        "--key-file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        default=None,
        help="Keys of an encrypted archive. Default: the variable RAFTDB_ARCHIVE_KEYS.",
    )(function)
    return click.option(
        "--from",
        "urls",
        multiple=True,
        metavar="URL[,URL]",
        help="Where the archive is: file:///directory, s3://bucket/prefix, gs://…, az://…",
    )(function)


def moment_options(function: _Function) -> _Function:
    """`--at --index --mark --before-statement`: at most one of them."""
    for name, metavar, text in reversed(
        (
            ("--at", "TIME", "As of a time, such as 2026-11-23T10:30:00Z."),
            ("--index", "N", "As of a log entry: N, or N.P as `raftdb archive log` shows it."),
            ("--mark", "NAME", "As of a mark that `raftdb archive mark` made."),
            (
                "--before-statement",
                "TEXT",
                "Right before the last statement that contains this text.",
            ),
        )
    ):
        function = click.option(name, metavar=metavar, default=None, help=text)(function)
    return function


def where(
    urls: tuple[str, ...], key_file: Path | None, config: Path | None
) -> tuple[tuple[str, ...], str | None]:
    """URLs and key file."""
    if config is not None:
        from raftdb.base.config import load_config

        archive = load_config(str(config), os.environ).archive
        if not archive.destinations:
            raise ConfigError(f"{config} has no archive", hint="set archive.destinations")
        return archive.destinations, archive.key_file or None
    given = tuple(part for url in urls for part in url.split(",") if part)
    return given, None if key_file is None else str(key_file)


def archive_config(urls: tuple[str, ...], key_file: Path | None, config: Path | None) -> Any:
    """The same, as the configuration of a node that goes on archiving there."""
    from raftdb.base.config import ArchiveConfig, load_config

    if config is not None:
        return load_config(str(config), os.environ).archive
    found, keys = where(urls, key_file, config)
    return ArchiveConfig(destinations=found, key_file=os.path.abspath(keys) if keys else "")


def open_archive(
    urls: tuple[str, ...],
    key_file: Path | None,
    config: Path | None,
    *,
    newest: bool = False,
    near: Near | None = None,
    summary: bool = False,
) -> Destinations:
    """Read what the archive's destinations hold, or what of it one moment needs, or with `summary`
    what is no segment."""
    from raftdb.ops.archive import keys_of, open_destinations
    from raftdb.runtime.files import RealFiles

    found, keys = where(urls, key_file, config)
    keyring = keys_of(keys, os.environ, RealFiles())
    return open_destinations(found, keyring, newest=newest, near=near, summary=summary)


def open_moment(
    urls: tuple[str, ...],
    key_file: Path | None,
    config: Path | None,
    *,
    at: str | None,
    index: str | None,
    mark: str | None,
    before_statement: str | None,
) -> tuple[Destinations, Moment]:
    """What of the archive one moment needs, and the moment for `find_point`: a mark is found first,
    and is an index then. Raises ConfigError."""
    from raftdb.ops.archive import near_of

    given = [one for one in (at, index, mark, before_statement) if one is not None]
    if mark is not None and len(given) == 1:
        marked = open_archive(urls, key_file, config, summary=True)
        index, mark = str(marked.sources.find_mark(mark)), None
    near = near_of(at, index) if (mark, before_statement) == (None, None) else None
    found = open_archive(urls, key_file, config, newest=not given, near=near)
    return found, {"at": at, "index": index, "mark": mark, "before_statement": before_statement}


@contextmanager
def progress_bar(shown: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Done, rate and time left, on the standard error."""
    if not shown:
        yield lambda _what, _done, _of: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    tasks: dict[str, Any] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as progress:

        def show(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=of)
            progress.update(tasks[what], completed=done, total=of)

        yield show
