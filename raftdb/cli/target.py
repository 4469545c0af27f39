"""Options that name a cluster, and the connection that they lead to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from raftdb.ops.target import Target, find_target

if TYPE_CHECKING:
    from raftdb.client import Connection

_Function = TypeVar("_Function", bound=Callable[..., Any])
TIMEOUT_S = 10.0


def target_options(function: _Function) -> _Function:
    """`[URL] --dir DIR --timeout S`: parameters url, directory and timeout."""
    function = click.option(
        "--timeout",
        type=click.FloatRange(0.1, 3600),
        default=TIMEOUT_S,
        show_default=True,
        help="Seconds until a request is given up.",
    )(function)
    function = click.option(
        "--dir",
        "directory",
        type=click.Path(path_type=Path),
        default=None,
        help="Directory of a cluster that `raftdb init` made, or of its client directory.",
    )(function)
    return click.argument("url", required=False)(function)


def target_of(url: str | None, directory: Path | None) -> Target:
    """The cluster that is meant."""
    return find_target(url, directory, os.environ)


def open_connection(target: Target, timeout_s: float, **options: Any) -> Connection:
    """Connect to the cluster."""
    from raftdb.client import connect

    return connect(target.url, **{**target.options, "timeout": timeout_s, **options})
