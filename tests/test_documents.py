"""What the documents point to exists."""

from __future__ import annotations

import re
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
