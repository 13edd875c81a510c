"""Every verb that prints, with an output that is closed, full or of another encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT
from synthetic_folder import write_walk

from duqsweep import exit_codes, files
from duqsweep.control.config.sweep_config import compose

VERBS = [["--help"], ["front", "DIR"], ["status", "DIR", "--json"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / "smoke"
    write_walk(folder, 0, "complete", 6)
    config = compose(["+sweep=smoke", f"dir={folder}"])
    files.write_text(folder / files.SWEEP_YAML, config.yaml)
    return folder


def run(words: list[str], folder: Path, redirect: str, **environment: str):
    quoted = " ".join(word.replace("DIR", str(folder)) for word in words)
    return subprocess.run(
        ["bash", "-c", f"{sys.executable} -m duqsweep {quoted} {redirect}"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_full_output_is_told_in_one_line(verb, folder):
    done = run(verb, folder, ">/dev/full")
    assert (done.returncode, done.stderr.count("\n")) == (exit_codes.ERROR, 1), done.stderr
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_closed_output_and_a_reader_that_left_are_no_traceback(verb, folder):
    done = run(verb, folder, ">&-")
    assert (done.returncode, done.stderr) == (exit_codes.OK, "")
    assert run(verb, folder, "| true").stderr == ""
    assert run(verb, folder, ">/dev/full 2>&1").returncode == exit_codes.ERROR


# Every verb meets such an output in test_places.py; here it is the interpreter's own.
@pytest.mark.parametrize(
    ("verb", "encoding"), [*zip(VERBS, ["ascii", "latin-1", "ascii"], strict=True)]
)
def test_an_encoding_without_our_letters_does_not_matter(verb, encoding, folder):
    done = run(verb, folder, "", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (exit_codes.OK, "")
    assert done.stdout
