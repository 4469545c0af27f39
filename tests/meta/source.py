"""The repository's own source, parsed once: what the house rules are checked on."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "raftdb"


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """One parsed file."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Path from the repository's root, for messages."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def lines(self) -> int:
        """Number of lines."""
        return self.text.count("\n")


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """All modules below these folders of the repository."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return tuple([_parsed(path) for path in paths])


@cache
def _parsed(path: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    # A million nodes that all stay: the collector would look through them again and again.
    gc.disable()
    try:
        return Module(path, text, ast.parse(text, str(path)))
    finally:
        gc.enable()


@cache
def rooms() -> tuple[str, ...]:
    """Names of the package's rooms."""
    return tuple(sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods of a module."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported(module: Module) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of everything that a module imports, wherever in it."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def _roots(module: Module) -> dict[str, str]:
    """Names in the file that stand for modules, or for what was imported from them."""
    found: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    found[alias.asname] = alias.name
                else:
                    root = alias.name.split(".")[0]
                    found[root] = root
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


@cache
def used(module: Module) -> tuple[tuple[int, str], ...]:
    """(line, full name) of what is imported, of attributes of what is imported, and of plain
    functions that are called, sorted. A parameter that is called `random` is no module."""
    return tuple(sorted(set(_used(module))))


def _used(module: Module) -> Iterator[tuple[int, str]]:
    yield from imported(module)
    roots = _roots(module)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            parts: list[str] = [node.attr]
            value: ast.expr = node.value
            while isinstance(value, ast.Attribute):
                parts.append(value.attr)
                value = value.value
            if isinstance(value, ast.Name) and value.id in roots:
                parts.append(roots[value.id])
                yield node.lineno, ".".join(reversed(parts))
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id not in roots
        ):
            yield node.lineno, node.func.id
