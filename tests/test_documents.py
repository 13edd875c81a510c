"""What the documents point to exists."""

from __future__ import annotations

import re
import runpy
import subprocess
from pathlib import Path

import pytest

import duqsweep

ROOT = Path(duqsweep.__file__).parent.parent
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def documents() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / line for line in listed.stdout.splitlines()]


def test_every_link_between_documents_leads_somewhere() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in documents()
        for target in LINK.findall(path.read_text(encoding="utf-8"))
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("document", ["docs/reliability.md", "CONTRIBUTING.md"])
def test_every_file_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests|duqsweep|docs|benchmarks|scripts)/[\w./]+\.\w+)`", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


FAULTS = "| fault | injected | seen | episodes lost | episodes repeated |"


def test_every_fault_of_the_table_is_played_by_a_test_that_exists() -> None:
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    lines = text.split(FAULTS, 1)[1].split("\n\n", 1)[0].strip().splitlines()[1:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({row[0] for row in rows}) == len(rows) >= 40
    for fault, test, *rest in rows:
        assert all(rest), fault
        path, _, name = test.strip("`").partition("::")
        code = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", code, re.MULTILINE), test


def test_the_page_of_keys_is_up_to_date_and_explains_each() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_keys.py"))
    page = script["text"]()
    assert page == (ROOT / "docs" / "keys.md").read_text(encoding="utf-8"), "run make_keys.py"
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []
