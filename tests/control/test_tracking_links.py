"""Commands that are printed can be pasted, whatever the folder's name."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from duqsweep.control.tracking.links import links
from duqsweep.control.tracking.mlflow_client import default_uri
from duqsweep.control.tracking.runids import remember_runs, sweep_key
from duqsweep.control.tracking.tracker import MlflowTracker

NAMES = ["plain", "with space", "it's", 'say "x"', "a&b;c$(d)"]


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_name_the_folder_to_a_shell(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    sweep_key(folder)
    remember_runs(folder, default_uri(folder), {"experiment": "1", "parent": "x", "trials": {}})
    shown = shlex.split(links(folder)[0])
    assert shown[-2:] == ["--backend-store-uri", default_uri(folder)]
    missing = MlflowTracker(folder).close(0.0)
    assert missing is not None
    assert shlex.split(missing.partition("catch up with: ")[2])[-2:] == ["sync", str(folder)]


def test_a_password_is_not_printed(tmp_path: Path) -> None:
    uri = "http://me:secret@host:5000"
    sweep_key(tmp_path)
    remember_runs(tmp_path, uri, {"experiment": "1", "parent": "x", "trials": {}})
    assert all("secret" not in line for line in links(tmp_path, uri))
