"""Each room says what it owns, what it promises, what it may import and what it never does."""

from __future__ import annotations

import ast
import importlib
import re

import pytest

from tests.meta.source import PACKAGE, modules, rooms

HEADINGS = ("Owns:", "Promises:", "May import:", "Never:")


@pytest.mark.parametrize("room", rooms())
def test_the_docstring_has_its_four_parts(room: str) -> None:
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8"))
    text = ast.get_docstring(tree) or ""
    missing = [heading for heading in HEADINGS if not re.search(f"^{heading}", text, re.M)]
    assert missing == [], f"raftdb/{room}/__init__.py"


@pytest.mark.parametrize("room", rooms())
def test_there_is_a_design_note(room: str) -> None:
    note = PACKAGE / room / "DESIGN.md"
    assert note.is_file(), f"raftdb/{room}/DESIGN.md is missing"
    assert len(note.read_text("utf-8").split()) >= 100, f"{note} says too little"


@pytest.mark.parametrize("room", rooms())
def test_exports_are_explicit_and_exist(room: str) -> None:
    module = importlib.import_module(f"raftdb.{room}")
    exported = getattr(module, "__all__", None)
    assert exported is not None, f"raftdb/{room} has no __all__"
    assert len(set(exported)) == len(exported), "a name is there twice"
    missing = [name for name in exported if not hasattr(module, name)]
    assert missing == [], f"raftdb/{room} exports what it does not have"


def _documented(node: ast.AST) -> bool:
    return isinstance(
        node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    ) and not node.name.startswith("_")


def test_public_names_are_documented() -> None:
    """Every public module, class and function of the package has a docstring."""
    bare = []
    for module in modules("raftdb"):
        if ast.get_docstring(module.tree) is None:
            bare.append(module.name)
        for node in module.tree.body:
            if _documented(node) and ast.get_docstring(node) is None:  # type: ignore[arg-type]
                bare.append(f"{module.name}:{node.lineno}")
    assert bare == []
