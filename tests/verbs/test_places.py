"""Every verb where a folder cannot be written or read, and where its output cannot be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import ROOT
from synthetic_folder import write_walk

from duqsweep import cli, exit_codes, files
from duqsweep.checkpoint.contents import checkpoint_contents
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import compose
from duqsweep.control.study.identity import identity
from duqsweep.spec import Trial

HERE = Path(__file__).parent
Answers = Callable[..., dict[str, Any]]

# A command's name here → its words; DIR is a sweep with a front, SWEPT one whose trials failed.
COMMANDS = {
    "--help": ["--help"],
    "plan": ["plan", "+sweep=smoke"],
    "explain": ["explain", "quant.include=dit_mlp"],
    "status": ["status", "DIR"],
    "status --json": ["status", "DIR", "--json"],
    "front": ["front", "DIR"],
    "front --json": ["front", "DIR", "--json"],
    "confirm": ["confirm", "DIR", "--episodes", "1", "--trials", "0"],
    "stop": ["stop", "DIR"],
    "retry": ["retry", "SWEPT"],
    "export": ["export", "DIR", "--trial", "0"],
    "sync": ["sync", "DIR"],
    "evaluate": ["evaluate", "--episodes", "0", "CHECKPOINT"],
    "sweep, again": ["+sweep=tiny", "--config-dir", "CONF", "CHECKPOINT", "dir=SWEPT"],
    "sweep, new": ["+sweep=tiny", "--config-dir", "CONF", "CHECKPOINT", "dir=new/deeper"],
}
# `stop` finds no controller, and so nothing to ask to stop.
READING = {"--help", "plan", "explain", "status", "status --json", "front", "front --json"} | {
    "export",
    "stop",
}
# Those that evaluate nothing: quick enough to be tried with outputs of every kind.
QUICK = [name for name in COMMANDS if name in READING | {"retry", "sync"}]
# What may be there after a write was refused: a lock, and a log without a line.
LEFT = (".controller", files.FAILURES_JSONL)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, broken_checkpoint: Path) -> Path:
    """A folder with two sweeps; the policy of both has no weights, so that no trial takes long."""
    folder = tmp_path_factory.mktemp("template")
    walked = folder / "walked"
    write_walk(walked, 0, "complete", 6)
    path = files.trial_dir(walked, 0) / files.SPEC_JSON
    trial = Trial.from_json(files.read_json(path))
    policy = replace(trial.spec.policy, checkpoint=str(broken_checkpoint))
    files.write_json(path, replace(trial, spec=replace(trial.spec, policy=policy)).to_json())
    config = compose(["+sweep=smoke", "tracking=none", "launcher=inline"])
    (walked / files.SWEEP_YAML).write_text(config.yaml)
    parts = {
        **identity(config, Space.from_config(config)),
        "checkpoint": checkpoint_contents(policy),
    }
    files.write_json(walked / files.IDENTITY_JSON, parts)
    words = words_of("sweep, again", broken_checkpoint)
    words[-1] = f"dir={folder / 'swept'}"
    assert cli.main(words) == exit_codes.FAILED_TRIALS
    shutil.rmtree(folder / "swept" / files.CACHE_DIR)
    return folder


def words_of(name: str, checkpoint: Path) -> list[str]:
    given = {
        "DIR": "walked",
        "dir=SWEPT": "dir=swept",
        "SWEPT": "swept",
        "CONF": str(HERE / "conf"),
        "CHECKPOINT": f"policy.checkpoint={checkpoint}",
    }
    return [given.get(word, word) for word in COMMANDS[name]]


@pytest.fixture(scope="module")
def answers(template: Path, broken_checkpoint: Path) -> Iterator[Answers]:
    """What a command answers in a place; all commands of a place run when one is asked for."""
    known: dict[tuple[str, ...], dict[str, Any]] = {}
    program = subprocess.Popen(
        [sys.executable, str(HERE / "places.py"), str(template)],
        env={
            **{k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"},
            **{"PYTHONPATH": f"{ROOT}:{HERE.parent}", "OMP_NUM_THREADS": "1"},
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask(name: str, place: str, output: str = "kept", encoding: str = "utf-8") -> Any:
        key = (place, output, encoding)
        names = list(COMMANDS) if output == "kept" else QUICK
        if key not in known:
            commands = [words_of(command, broken_checkpoint) for command in names]
            request = {"place": place, "output": output, "encoding": encoding}
            print(json.dumps({**request, "commands": commands}), file=program.stdin, flush=True)
            found = json.loads(program.stdout.readline())
            known[key] = found and dict(zip(names, found, strict=True))
        if known[key] is None:
            pytest.skip(f"this machine has no means for a place that is {place}")
        return known[key][name]

    yield ask
    program.stdin.close()
    assert program.wait() == 0


def only_line(answer: dict[str, Any]) -> str:
    err: str = answer["err"]
    assert err.startswith("duqsweep: "), err
    assert err.count("\n") == 1, err
    return err


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("read-only", "Read-only file system|cannot write"),
        ("full", "No space left on device"),
        ("forbidden", "Permission denied|cannot write"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(name, place, reason, answers):
    answer = answers(name, place)
    if name in READING:
        assert (answer["code"], answer["changed"]) == (exit_codes.OK, [])
        remark = "trial 0 succeeds in at least" if name == "export" else ""
        assert answer["err"].startswith(remark) if remark else answer["err"] == ""
        return
    left = [path for path in answer["changed"] if not path.endswith(LEFT)]
    assert answer["code"] in (exit_codes.ERROR, exit_codes.CONFIG)
    assert any(word in only_line(answer) for word in reason.split("|")), answer["err"]
    assert left == (["walked/confirm"] if (place, name) == ("full", "confirm") else [])


@pytest.mark.parametrize("name", COMMANDS)
def test_what_cannot_be_read_is_one_line(name, answers):
    answer = answers(name, "unreadable")
    if name in ("--help", "plan", "explain", "evaluate", "sweep, new"):
        assert answer["code"] in (exit_codes.OK, exit_codes.FAILED_TRIALS)
        return
    assert answer["code"] in (exit_codes.ERROR, exit_codes.CONFIG)
    assert "Permission denied" in only_line(answer) or "cannot read" in answer["err"]
    assert answer["changed"] == []


def code_of(name: str) -> int:
    """Its exit code where nothing is in the way: no trial of these sweeps has weights."""
    failing = ("confirm", "evaluate", "sweep, again", "sweep, new")
    return exit_codes.FAILED_TRIALS if name in failing else exit_codes.OK


@pytest.mark.parametrize("name", COMMANDS)
def test_an_encoding_without_our_letters_does_not_matter(name, answers):
    answer = answers(name, "usual", encoding="ascii")
    assert answer["code"] == code_of(name), answer["err"]
    assert "UnicodeEncodeError" not in answer["err"]
    assert answer["out"].isascii()
    assert answer["out"]


@pytest.mark.parametrize("name", QUICK)
def test_a_full_output_is_told_in_one_line(name, answers):
    answer = answers(name, "usual", "full", "latin-1")
    assert answer["code"] == exit_codes.ERROR
    assert "No space left on device" in only_line(answer)
