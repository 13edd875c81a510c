"""`--help` answers at once, without importing slow packages."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from command_line import ROOT, Command

from duqsweep import __version__, cli
from duqsweep.conf_dir import group_options

HELP_CPU_S = 1.0


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], []])
def test_help_names_every_verb_sweep_and_group(words, capsys):
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    for name in [*cli.VERBS, *group_options()["sweep"], "sampler=gp|grid|", "suite=duq_mini|"]:
        assert name in text
    assert max(map(len, text.splitlines())) <= 120


def test_help_takes_less_than_a_second_of_cpu_time():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "duqsweep", "--help"],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert spent < HELP_CPU_S


def test_the_version_is_the_packages(command: Command):
    done = command("--version")
    assert (done.returncode, done.stdout) == (0, f"duqsweep {__version__}\n")


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])
    assert ended.value.code == 0
    assert f"duqsweep {verb}" in capsys.readouterr().out
