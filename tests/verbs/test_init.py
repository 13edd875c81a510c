"""`init NAME`: a sweep of one's own in one command."""

from __future__ import annotations

from pathlib import Path

import pytest

from duqsweep import cli, exit_codes
from duqsweep.conf_dir import group_options
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import check_inputs, compose
from duqsweep.errors import ConfigError


def test_the_file_is_a_sweep_that_can_run_as_it_is(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "mine"]) == exit_codes.OK
    said = capsys.readouterr().out
    assert "conf/sweep/mine.yaml" in said
    assert said.endswith("  python -m duqsweep +sweep=mine\n")
    config = compose(["+sweep=mine"])
    check_inputs(config)
    space = Space.from_config(config)
    assert config.name == "mine"
    assert space.size() == 2 * 3 * 9
    assert "mine" in group_options()["sweep"]


def test_every_line_of_it_that_is_a_comment_can_be_uncommented(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "mine"]) == exit_codes.OK
    path = tmp_path / "conf" / "sweep" / "mine.yaml"
    lines = path.read_text().splitlines()
    changed = [line.replace("  # ", "  ", 1) if line.startswith("  # ") else line for line in lines]
    at = changed.index("# when:")
    changed[at : at + 2] = [line.removeprefix("# ") for line in changed[at : at + 2]]
    at = changed.index("# defaults:")
    ours = [line.removeprefix("# ") for line in changed[at : at + 3]]
    path.write_text("\n".join([*changed[:at], *ours, ""]))
    config = compose(["+sweep=mine"])
    assert (config.launcher.name, config.sampler.name) == ("slurm", "kghv")
    assert len(config.objectives) == 3
    assert len(Space.from_config(config).parameters) == 6


def test_another_folder_is_named_in_the_command(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "mine", "--config-dir", "my conf"]) == exit_codes.OK
    assert "python -m duqsweep --config-dir 'my conf' +sweep=mine" in capsys.readouterr().out
    assert compose(["+sweep=mine"], Path("my conf")).name == "mine"
    with pytest.raises(ConfigError, match="'mine'"):
        compose(["+sweep=mine"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smoke", "there is a sweep 'smoke' already"),
        ("mine", "there is a sweep 'mine' already"),
        ("a/b", "name is a folder's name of letters, digits and _ . -, got 'a/b'"),
        ("", "got ''"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name, said, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "mine"]) == exit_codes.OK
    before = (tmp_path / "conf" / "sweep" / "mine.yaml").read_text()
    assert cli.main(["init", name]) == exit_codes.CONFIG
    assert said in capsys.readouterr().err
    assert (tmp_path / "conf" / "sweep" / "mine.yaml").read_text() == before


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").touch()
    assert cli.main(["init", "mine"]) == exit_codes.CONFIG
    assert "cannot write conf/sweep/mine.yaml: " in capsys.readouterr().err
