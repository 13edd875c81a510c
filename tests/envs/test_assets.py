"""Suites and their files are checked before anything is built."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from duqsweep.envs import assets
from duqsweep.errors import ConfigError


def test_our_suite_needs_nothing(protocol):
    assets.check_suite(protocol)


def test_unknown_suite_names_the_known_ones(protocol):
    with pytest.raises(ConfigError, match=r"'libero_soup'.*duq_mini.*libero_goal"):
        assets.check_suite(replace(protocol, suite="libero_soup"))


def test_more_tasks_or_states_than_the_suite_has_are_refused(protocol):
    with pytest.raises(ConfigError, match="has 6 tasks, not 7"):
        assets.check_suite(replace(protocol, tasks=7))
    with pytest.raises(ConfigError, match="50 initial states a task, not 60"):
        assets.check_suite(replace(protocol, init_states=60))


def test_a_folder_without_assets_is_refused_by_name(protocol, tmp_path: Path):
    official = replace(protocol, suite="libero_goal", tasks=10, assets=str(tmp_path))
    with pytest.raises(ConfigError, match=str(tmp_path)):
        assets.check_suite(official)
    (tmp_path / "scenes").mkdir()
    assets.check_suite(official)


def test_missing_assets_say_how_to_get_them(protocol, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(assets, "libero_root", lambda: tmp_path)
    monkeypatch.setattr(assets, "_hub_snapshots", lambda: [])
    with pytest.raises(ConfigError, match=r"suite\.assets=PATH"):
        assets.check_suite(replace(protocol, suite="libero_10", tasks=10))


def test_checking_imports_neither_libero_nor_torch():
    code = (
        "import sys, duqsweep.envs.assets;"
        "print([m for m in ('libero', 'torch', 'mujoco', 'robosuite') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
