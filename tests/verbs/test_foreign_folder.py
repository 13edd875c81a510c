"""Foreign folders: nothing in them is executed, and they cannot end other processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Command
from synthetic_folder import write_walk

from duqsweep import files
from duqsweep.control.config.sweep_config import as_yaml, load
from duqsweep.errors import ConfigError
from duqsweep.verbs import confirm, status, stop


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A sweep whose sweep.yaml has jobs run a command."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    run = f"touch {tmp_path / 'run'}"
    words = ["+sweep=smoke", "launcher=local", f"launcher.setup=['{run}']", f"dir={folder}"]
    (folder / files.SWEEP_YAML).write_text(as_yaml(load(words)))
    write_walk(folder, 0, "complete", 2)
    return folder


def test_confirm_shows_what_it_would_run_and_does_not_run_it(
    hostile: Path, tmp_path: Path, command: Command
) -> None:
    done = command("confirm", str(hostile), "--trials", "0", "--episodes", "1")
    assert done.returncode == 2
    assert f"launcher.setup=['touch {tmp_path / 'run'}']" in done.stderr
    assert "--trust-launcher" in done.stderr
    assert not (tmp_path / "run").exists()
    assert not (hostile / "confirm").exists()


@pytest.mark.parametrize("verb", [status, stop])
def test_status_and_stop_run_nothing_of_the_folder(
    hostile: Path, tmp_path: Path, verb: object, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = hostile / files.WORKERS_DIR / "0001-abcdef"
    worker.mkdir(parents=True)
    files.write_json(worker / "worker.json", {"id": "0001-abcdef"})
    assert verb.main([str(hostile)]) == 0
    assert not (tmp_path / "run").exists()
    assert "smoke" in capsys.readouterr().out


def test_stop_says_that_there_is_no_controller(
    hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stop.main([str(hostile)]) == 0
    assert "has no controller: no jobs run" in capsys.readouterr().out
    assert not (hostile / files.STOP).exists()


def test_confirm_is_refused_for_options_of_sbatch_as_well(hostile: Path) -> None:
    words = ["+sweep=smoke", "launcher=slurm", "+launcher.additional_parameters.input=secret"]
    (hostile / files.SWEEP_YAML).write_text(as_yaml(load([*words, f"dir={hostile}"])))
    with pytest.raises(ConfigError, match=r"additional_parameters=\{'input': 'secret'\}"):
        confirm.main([str(hostile)])
