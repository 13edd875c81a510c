"""No verb ends in a traceback for a reason outside the code."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_folder import write_walk

from duqsweep import cli, exit_codes, files
from duqsweep.control.config.sweep_config import compose

VERBS = (
    ["status"],
    ["front"],
    ["front", "--json"],
    ["confirm", "--episodes", "1"],
    ["twins"],
    ["stop"],
    ["retry"],
    ["export", "--trial", "0"],
    ["export", "--trial", "0", "--format", "card"],
    ["logs", "--trial", "0"],
    ["export", "--pick", "knee"],
    ["sync"],
    ["video", "--trial", "0", "--episode", "0"],
)
TRIAL = f"{files.TRIALS_DIR}/0000"


def write(name: str, content: bytes) -> Callable[[Path, pytest.MonkeyPatch], None]:
    return lambda folder, patch: (folder / name).write_bytes(content) and None


def remove_folder(folder: Path, patch: pytest.MonkeyPatch) -> None:
    folder.rename(folder.with_name("elsewhere"))


def put_a_file_in_its_place(folder: Path, patch: pytest.MonkeyPatch) -> None:
    remove_folder(folder, patch)
    folder.write_text("a file")


def break_the_disk(folder: Path, patch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(folder))

    patch.setattr(Path, "read_text", broken)
    patch.setattr(files, "write_bytes", broken)


REASONS = {
    "no folder": remove_folder,
    "a file": put_a_file_in_its_place,
    "broken disk": break_the_disk,
    "empty sweep.yaml": write(files.SWEEP_YAML, b""),
    "list in sweep.yaml": write(files.SWEEP_YAML, b"- 1\n"),
    "word in sweep.yaml": write(files.SWEEP_YAML, b"word\n"),
    "binary sweep.yaml": write(files.SWEEP_YAML, b"\x80\xff\x00"),
    "torn sweep.yaml": write(files.SWEEP_YAML, b"name: [\n"),
    "torn spec": write(f"{TRIAL}/{files.SPEC_JSON}", b'{"number": 0'),
    "binary spec": write(f"{TRIAL}/{files.SPEC_JSON}", b"\x80\xff"),
    "null spec": write(f"{TRIAL}/{files.SPEC_JSON}", b"null"),
    "null result": write(f"{TRIAL}/{files.RESULT_JSON}", b"null"),
    "empty result": write(f"{TRIAL}/{files.RESULT_JSON}", b""),
    "torn vitals": write(f"{TRIAL}/{files.VITALS_JSON}", b"{"),
    "garbage among episodes": write(f"{TRIAL}/{files.EPISODES_JSONL}", b"garbage\n{}\n"),
    "binary episodes": write(f"{TRIAL}/{files.EPISODES_JSONL}", b"\x80\xff\n"),
    "garbage among deaths": write(f"{TRIAL}/{files.FAILURES_JSONL}", b"garbage\n"),
    "torn reference": write(files.REFERENCE_JSON, b"{"),
}


@pytest.fixture(scope="module")
def configuration() -> str:
    return compose(["+sweep=smoke", "tracking=none", "launcher=inline"]).yaml


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_it_is_one_line_and_an_exit_code(
    verb, reason, configuration, tmp_path: Path, monkeypatch, capsys
) -> None:
    folder = tmp_path / "sweep"
    write_walk(folder, 0, "complete", 6)
    (folder / files.SWEEP_YAML).write_text(configuration)
    monkeypatch.setattr("duqsweep.control.tracking.mirror.mirror", lambda folder, uri: 1)
    monkeypatch.setattr("duqsweep.verbs.confirm.evaluate_fixed", lambda *arguments: None)
    with monkeypatch.context() as patch:
        REASONS[reason](folder, patch)
        code = cli.main([verb[0], str(folder), *verb[1:]])
    err = capsys.readouterr().err
    assert code in (exit_codes.OK, exit_codes.ERROR, exit_codes.CONFIG)
    if code != exit_codes.OK:
        assert err.startswith("duqsweep: ")
        assert err.count("\n") == 1
