"""`python -O` removes every assert, so no assert may do work or check user input."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import duqsweep

PACKAGE = Path(duqsweep.__file__).parent
FOUND = [
    pytest.param(node.test, id=f"{path.relative_to(PACKAGE)}:{node.lineno}")
    for path in sorted(PACKAGE.rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Assert)
]


@pytest.mark.parametrize("test", FOUND)
def test_an_assert_only_tells_the_type_checker_what_is_known(test: ast.expr) -> None:
    is_not_none = isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.IsNot)
    is_instance = isinstance(test, ast.Call) and ast.unparse(test.func) == "isinstance"
    assert is_not_none or is_instance, ast.unparse(test)
    calls = [node for node in ast.walk(test) if isinstance(node, ast.Call)]
    assert len(calls) == is_instance
