"""`python -O` removes every assert, so no assert may do work or check user input."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import duqsweep

PACKAGE = Path(duqsweep.__file__).parent


def only_tells_the_type_checker(test: ast.expr) -> bool:
    is_not_none = isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.IsNot)
    is_instance = isinstance(test, ast.Call) and ast.unparse(test.func) == "isinstance"
    calls = [node for node in ast.walk(test) if isinstance(node, ast.Call)]
    return (is_not_none or is_instance) and len(calls) == is_instance


def test_an_assert_only_tells_the_type_checker_what_is_known() -> None:
    found = [
        (f"{path.relative_to(PACKAGE)}:{node.lineno}", node.test)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert len(found) > 20  # they were looked at
    others = [
        (at, ast.unparse(test)) for at, test in found if not only_tells_the_type_checker(test)
    ]
    assert others == []


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("x is not None", True),
        ("isinstance(x, str)", True),
        ("x", False),
        ("x == 1", False),
        ("f(x) is not None", False),
        ("isinstance(f(x), str)", False),
    ],
)
def test_which_asserts_those_are(code: str, allowed: bool) -> None:
    assert only_tells_the_type_checker(ast.parse(code, mode="eval").body) is allowed
