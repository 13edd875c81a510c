"""The tab key, in real shells."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from duqsweep import cli, exit_codes
from duqsweep.verbs.completion import SHELLS, script

PRESS = {
    # bash splits words at = too; only what follows the last one is replaced.
    "bash": "source {script}; COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; {function}; "
    'printf "%s|" "${{COMPREPLY[@]}}"',
    # What zsh's bashcompinit sets before it calls the function.
    "zsh": "emulate -L zsh; setopt kshglob noshglob; autoload -U compinit bashcompinit; "
    "compinit -D -u; source {script}; COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; "
    'COMPREPLY=(); _duqsweep; printf "%s|" "${{COMPREPLY[@]}}"',
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scripts")
    paths = {shell: folder / shell for shell in SHELLS}
    for shell, path in paths.items():
        path.write_text(script(shell))
    return paths


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for path in ("sweeps/mine/sweep.yaml", "other/sweep.yaml", "conf/sweep/own.yaml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    return tmp_path


def press(shell: str, scripts: dict[str, Path], place: Path, line: str) -> set[str]:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    function = "_duqsweep_python" if line.startswith("python") else "_duqsweep"
    code = PRESS[shell].format(script=scripts[shell], line=line, function=function)
    flags = ["--norc"] if shell == "bash" else ["-f"]
    done = subprocess.run(
        [program, *flags, "-c", code], cwd=place, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return {word for word in done.stdout.split("|") if word}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("duqsweep st", {"status ", "stop "}),
        ("duqsweep --n", {"--notify "}),
        ("duqsweep launcher.ti", {"launcher.timeout_min="}),
        ("duqsweep +sw", {"+sweep="}),
        ("duqsweep plan space.quant.k", {"space.quant.kernel="}),
        ("duqsweep status ", {"sweeps/mine/", "--json "}),
        ("duqsweep status oth", {"other/"}),
        ("duqsweep export sweeps/mine/ --p", {"--pick "}),
        ("duqsweep completion z", {"zsh "}),
    ],
)
def test_words_are_completed(shell, line, some, scripts, place) -> None:
    assert some <= press(shell, scripts, place, line)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "key", "some"),
    [
        ("duqsweep +sweep=", "+sweep", {"own", "dit_speed", "smoke"}),
        ("duqsweep +sweep=x launcher=s", "launcher", {"slurm"}),
        ("duqsweep evaluate quant.kernel=w", "quant.kernel", {"w4a8"}),
        ("duqsweep +sweep=x runtime.compile=t", "runtime.compile", {"true"}),
    ],
)
def test_values_are_completed(shell, line, key, some, scripts, place) -> None:
    whole = "" if shell == "bash" else f"{key}="
    assert {f"{whole}{word} " for word in some} <= press(shell, scripts, place, line)


def test_python_is_completed_for_this_module_alone(scripts, place) -> None:
    assert "sweeps/mine/" in press("bash", scripts, place, "python -m duqsweep front ")
    assert press("bash", scripts, place, "python -m json ") == set()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_printed(shell, capsys) -> None:
    assert cli.main(["completion", shell]) == exit_codes.OK
    assert capsys.readouterr().out == script(shell)


def test_another_shell_is_refused(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["completion", "fish"])
    assert ended.value.code == exit_codes.CONFIG
    assert "invalid choice: 'fish'" in capsys.readouterr().err
