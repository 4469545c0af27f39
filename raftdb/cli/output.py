"""What commands print: one JSON document or text on the standard output, errors on the other."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])


def json_option(function: _Function) -> _Function:
    """`--json`: one JSON document instead of text."""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print one JSON document; errors are a JSON line on the standard error.",
    )(function)


def wants_json() -> bool:
    """Whether the command line asks for JSON (also where it is too wrong to be parsed)."""
    context = click.get_current_context(silent=True)
    if context is not None and context.params.get("as_json"):
        return True
    return "--json" in sys.argv


def print_json(value: Any) -> None:
    """One document, keys in their own order."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def error_facts(
    message: str,
    code: str,
    exit_code: int,
    hint: str = "",
    outcome: str = "not_applied",
    retryable: bool = False,
) -> dict[str, Any]:
    """An error as plain values."""
    return {
        "code": code,
        "message": message,
        "hint": hint,
        "outcome": outcome,
        "retryable": retryable,
        "exit_code": exit_code,
    }


def show_error(
    message: str,
    code: str,
    exit_code: int,
    hint: str = "",
    outcome: str = "not_applied",
    retryable: bool = False,
) -> None:
    """Say what went wrong, on the standard error."""
    if wants_json():
        body = error_facts(message, code, exit_code, hint, outcome, retryable)
        click.echo(json.dumps({"error": body}, ensure_ascii=False), err=True)
        return
    click.echo(f"error [{code}]: {message}", err=True)
    if outcome != "not_applied":
        click.echo(f"  outcome: {outcome}", err=True)
    if hint:
        click.echo(f"  hint: {hint}", err=True)
