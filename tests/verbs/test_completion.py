"""The tab key, in real shells."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from duqsweep import cli, exit_codes
from duqsweep.verbs.completion import SHELLS, script

BEGIN = {
    "bash": "source {script}",
    "zsh": "emulate -L zsh; setopt kshglob noshglob; autoload -U compinit bashcompinit; "
    "compinit -D -u; source {script}",
}
# bash splits words at = too; only what follows the last one is replaced. zsh's bashcompinit sets
# the same before it calls the function.
PRESS = (
    "COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; COMPREPLY=(); {function}; "
    'printf "%s|" "${{COMPREPLY[@]}}"; echo'
)


# A line → some of the words that complete it.
WORDS = {
    "duqsweep st": {"status ", "stop "},
    "duqsweep --n": {"--notify "},
    "duqsweep launcher.ti": {"launcher.timeout_min="},
    "duqsweep +sw": {"+sweep="},
    "duqsweep plan space.quant.k": {"space.quant.kernel="},
    "duqsweep status ": {"sweeps/mine/", "--json "},
    "duqsweep status oth": {"other/"},
    "duqsweep export sweeps/mine/ --p": {"--pick "},
    "duqsweep completion z": {"zsh "},
}
# A line → its last key, and some of the key's values.
VALUES = {
    "duqsweep +sweep=": ("+sweep", {"own", "dit_speed", "smoke"}),
    "duqsweep +sweep=x launcher=s": ("launcher", {"slurm"}),
    "duqsweep evaluate quant.kernel=w": ("quant.kernel", {"w4a8"}),
    "duqsweep +sweep=x runtime.compile=t": ("runtime.compile", {"true"}),
}
OF_PYTHON = ("python -m duqsweep front ", "python -m json ")  # in bash alone
Completed = Callable[[str, str], set[str]]


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> Completed:
    """The words that a shell gives for a line; it gets all lines at once, as it starts slowly."""
    place, known = tmp_path_factory.mktemp("place"), {}
    for path in ("sweeps/mine/sweep.yaml", "other/sweep.yaml", "conf/sweep/own.yaml"):
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).touch()

    def ask(shell: str, line: str) -> set[str]:
        if shell not in known:
            lines = [*WORDS, *VALUES, *(OF_PYTHON if shell == "bash" else ())]
            answers = press(shell, place, lines)
            known[shell] = dict(zip(lines, answers, strict=True))
        return known[shell][line]

    return ask


def press(shell: str, place: Path, lines: list[str]) -> list[set[str]]:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    path = place / shell
    path.write_text(script(shell))
    code = [BEGIN[shell].format(script=path)]
    for line in lines:
        function = "_duqsweep_python" if line.startswith("python") else "_duqsweep"
        code.append(PRESS.format(line=line, function=function))
    flags = ["--norc"] if shell == "bash" else ["-f"]
    done = subprocess.run(
        [program, *flags, "-c", "\n".join(code)],
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return [{word for word in answer.split("|") if word} for answer in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("line", WORDS)
def test_words_are_completed(shell: str, line: str, completed: Completed) -> None:
    assert WORDS[line] <= completed(shell, line)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("line", VALUES)
def test_values_are_completed(shell: str, line: str, completed: Completed) -> None:
    key, some = VALUES[line]
    whole = "" if shell == "bash" else f"{key}="
    assert {f"{whole}{word} " for word in some} <= completed(shell, line)


def test_python_is_completed_for_this_module_alone(completed: Completed) -> None:
    of_ours, of_another = (completed("bash", line) for line in OF_PYTHON)
    assert "sweeps/mine/" in of_ours
    assert of_another == set()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_printed(shell, capsys) -> None:
    assert cli.main(["completion", shell]) == exit_codes.OK
    assert capsys.readouterr().out == script(shell)


def test_another_shell_is_refused(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["completion", "fish"])
    assert ended.value.code == exit_codes.CONFIG
    assert "invalid choice: 'fish'" in capsys.readouterr().err
