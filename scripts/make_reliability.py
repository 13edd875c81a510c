"""The table of faults of docs/reliability.md, from the marks of the tests that play them.

    python scripts/make_reliability.py

A test that plays a fault carries `@pytest.mark.fault(FAULT, SEEN)`; with `lost=` and `repeated=`
where its assertions allow more than none.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reliability.md"
HEADER = "| fault | injected | seen | episodes lost | episodes repeated |\n|---|---|---|---|---|\n"


def rows() -> Iterator[tuple[str, str, str, str, str]]:
    """Fault, test, what is seen, episodes lost and repeated; by file and line."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.fault(" not in text:
            continue
        for function in ast.walk(ast.parse(text)):
            if not isinstance(function, ast.FunctionDef):
                continue
            for mark in function.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    fault, seen = (ast.literal_eval(value) for value in mark.args)
                    counts = {word.arg: ast.literal_eval(word.value) for word in mark.keywords}
                    test = f"`{path.relative_to(ROOT)}::{function.name}`"
                    lost, repeated = (str(counts.get(name, 0)) for name in ("lost", "repeated"))
                    yield fault, test, seen, lost, repeated


def text() -> str:
    """The whole page, with the table as the tests have it now."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(HEADER)
    _, _, after = rest.partition("\n\n")
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows())
    return f"{before}{HEADER}{table}\n{after}"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
