"""A newcomer's own files, paths and typing errors: one line each, with the corrected form."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from duqsweep import cli, exit_codes
from duqsweep.control.config.sweep_config import compose
from duqsweep.control.config.words import in_hydras_grammar

HEADER = "# @package _global_\n"
SPACE = "name: mine\nspace:\n  policy.num_steps: choice(2, 4)\n"
FILES = {
    "no header": (SPACE.encode(), r"mine.yaml:1: its first line must be `# @package _global_`"),
    "a comment before the header": (
        b"# mine\n" + (HEADER + SPACE).encode(),
        "mine.yaml:1: its first line must be `# @package _global_`, before any other comment",
    ),
    "a list": (b"- 1\n- 2\n", r"mine.yaml:1: its first line must be"),
    "a byte order mark": (
        b"\xef\xbb\xbf" + (HEADER + SPACE).encode(),
        "mine.yaml:1: it starts with a byte order mark",
    ),
    "nothing": (b"", "mine.yaml: it is empty"),
    "comments alone": (HEADER.encode() + b"# later\n---\n", "mine.yaml: it is empty"),
    "another encoding": (
        HEADER.encode() + b"# caf\xe9\n" + SPACE.encode(),
        "mine.yaml:2: byte 0xe9 is not UTF-8",
    ),
    "a wrong type": (
        (HEADER + SPACE + "budget:\n  trials: many\n").encode(),
        "mine.yaml:6: budget.trials: Value 'many'.*Integer",
    ),
    "no YAML": ((HEADER + "space: [1\n").encode(), r"not YAML.*mine.yaml.*line"),
    "a plan with a choice": (
        (
            HEADER + SPACE + "plans:\n  p: {policy.num_steps: 'choice(2, 4)'}\nenqueue: [p]\n"
        ).encode(),
        "plan p: policy.num_steps must be int.*a plan has one value, a choice belongs in the space",
    ),
}
PLAN = ("plan", "+sweep=smoke")
MISTAKES = [
    (["plann", "+sweep=smoke"], r"unknown verb 'plann' \(did you mean 'plan \+sweep=smoke'\?\)"),
    (["statsu", "DIR"], r"did you mean 'status DIR'"),
    (["smoke"], r"did you mean '\+sweep=smoke'"),
    (
        [*PLAN, "policy=pi05_libero", "policy.checkpoint=/no/pi05", "suite=libero_goal"],
        "policy.checkpoint must be a folder, there is none at /no/pi05",
    ),
    (["plan", "+sweep=smoke", "suite.replan_steps=50"], "horizon of 10 actions, got 50"),
    (
        ["plan", "+sweep=dit_speed", "space.suite.replan_steps=choice(5, 11)"],
        "horizon of 10 actions, got 11",
    ),
    (["plan", "+sweep=smoke", "seed=-1"], "seed must be 0 to 2147483647, got -1"),
    (["plan", "+sweep=smoke", "seed=99999999999"], "seed must be 0 to 2147483647"),
    (
        ["plan", "+sweep=latency", "when.quant.block_size=quant.kernel == int8"],
        "when.quant.block_size: its condition can never be true: quant.kernel is one of fake, loop",
    ),
    (
        ["plan", "+sweep=latency", "when.quant.block_size=quant.rotation == none"],
        "can never be true: quant.rotation is hadamard",
    ),
    (["plan", "+sweep=smoke", "hydra.run.dir=/x"], "hydra.run.dir=/x has no effect"),
    (
        ["plan", "+sweep=smoke", "runtime.threads=1000"],
        f"must not exceed the {len(os.sched_getaffinity(0))} cores that a job has, got 1000",
    ),
    (
        ["plan", "+sweep=smoke", "launcher=slurm", "launcher.cpus_per_task=8", "runtime.threads=9"],
        "must not exceed the 8 cores that a job has, got 9",
    ),
    (["plan", "+sweep=smoke", "launcher.mem_gb=0"], "launcher.mem_gb must be positive, or null"),
]


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    code = cli.main(words)
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (exit_codes.CONFIG, "", 1), err
    return err


@pytest.mark.parametrize("mistake", FILES)
def test_a_sweep_file_that_cannot_be_one_is_named_with_its_line(mistake, tmp_path, capsys):
    content, message = FILES[mistake]
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_bytes(content)
    said = refusal(["plan", "--config-dir", str(tmp_path), "+sweep=mine"], capsys)
    assert re.search(message, said), said


@pytest.mark.parametrize(("words", "message"), MISTAKES)
def test_a_slip_is_told_with_what_was_meant_or_is_allowed(words, message, capsys):
    assert re.search(message, refusal(words, capsys))


@pytest.mark.parametrize("regex", [r"(\w+\.?)+#", r"(\w|\w\w|\.)+#", r"(.*)*(.*)*(.*)*#"])
@pytest.mark.parametrize("where", ["quant.include='{}'", "space.quant.include=choice('{}')"])
def test_a_regex_that_explodes_is_refused_within_seconds(regex, where, capsys):
    started = time.monotonic()
    said = refusal(["plan", "+sweep=smoke", where.format(regex)], capsys)
    assert "takes more than 1 s on the names of layers" in said
    assert time.monotonic() - started < 20.0  # one second, and a busy machine


@pytest.mark.parametrize(
    "value",
    ["~/pi05", "/a#b", "/a&b", "/käse", "/a(b)", "/a=b", "/it's", 'say "x"', "a%j b", "/a\\"],
)
def test_paths_need_no_quotes_beyond_the_shells(value):
    config = compose(["+sweep=smoke", f"dir={value}"])
    assert config.directory == Path(value).expanduser().absolute()


@pytest.mark.parametrize(
    "word",
    ["a.b=3", "a=[1, 2]", "a={b: c}", 'a="x y"', "a=choice(1,", "a=[1", "a", "~a", "+a=b", "a="],
)
def test_what_hydra_reads_or_has_a_grammar_of_its_own_is_left_alone(word):
    assert in_hydras_grammar(word) == word
