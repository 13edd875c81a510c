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


def test_the_table_of_faults_is_what_the_tests_are_marked_with() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_reliability.py"))
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert script["text"]() == page, "run make_reliability.py"
    rows = list(script["rows"]())
    assert len({row[0] for row in rows}) == len(rows) >= 60
    assert all(all(row) for row in rows)
    # Only where the records themselves are damaged.
    others = [row for row in rows if row[3:] != ("0", "0")]
    assert all("json" in row[0] or "twenty" in row[0] for row in others)


def test_the_page_of_keys_is_up_to_date_and_explains_each() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_keys.py"))
    page = script["text"]()
    assert page == (ROOT / "docs" / "keys.md").read_text(encoding="utf-8"), "run make_keys.py"
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []
