"""Every command and every sweep that the documents show is one that duqsweep takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import duqsweep
from duqsweep import cli
from duqsweep.control.config.compose import load
from duqsweep.control.config.sweep_config import to_config

ROOT = Path(duqsweep.__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SWEEP_FILE = re.compile(r"^# (my_conf/\S+\.yaml)", re.MULTILINE)
COMMAND = ("python", "-m", "duqsweep")
OF_A_TRIAL = ("plan", "evaluate", "explain", "doctor")  # verbs that take overrides
COMPLETE = ("completion", "init")  # verbs that need nothing to be there


def commands(page: Path) -> list[list[str]]:
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    scripts = [text.replace("\\\n", " ") for kind, text in blocks if kind in ("sh", "bash")]
    lines = [shlex.split(line, comments=True) for text in scripts for line in text.splitlines()]
    return [line[3:] for line in lines if tuple(line[:3]) == COMMAND]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the sweeps that the documents tell their readers to write."""
    folder = tmp_path_factory.mktemp("reader")
    for page in PAGES:
        for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            named = SWEEP_FILE.search(text)
            if kind == "yaml" and named:
                path = folder / named[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    return folder


CASES = [
    pytest.param(words, id=f"{page.name}: {shlex.join(words)}")
    for page in PAGES
    for words in commands(page)
]


def test_the_documents_show_commands() -> None:
    assert len(CASES) > 20


@pytest.mark.parametrize("words", CASES)
def test_a_documented_command_is_taken(
    words: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    if words[0] not in cli.VERBS or words[0] in OF_A_TRIAL:
        overrides = [word for word in words if "=" in word and not word.startswith("--")]
        own = Path(words[words.index("--config-dir") + 1]) if "--config-dir" in words else None
        config = load(overrides, own)
        if config.name is not None and not config.policy.checkpoint:
            to_config(config)
    elif words[0] in COMPLETE:
        assert cli.main(words[:2]) == 0
    else:  # its folder is not there, which is found once its options were understood
        assert cli.main(words) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert re.search(r"\bsweeps/\w+|\bDIR\b", said)
