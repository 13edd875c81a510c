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


def official(protocol, folder: Path | None, suite: str = "libero_goal"):
    named = None if folder is None else str(folder)
    return replace(protocol, suite=suite, tasks=10, assets=named)


def fill(folder: Path, suite: str = "libero_goal") -> None:
    """Empty files under all the names that a suite needs."""
    for name in assets.needed_files(suite):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_named_folder_that_is_not_there_is_refused(protocol, tmp_path: Path):
    with pytest.raises(ConfigError, match=f"must be a folder, there is none at {tmp_path}/no"):
        assets.check_suite(official(protocol, tmp_path / "no"))


def test_a_folder_of_something_else_is_refused_and_the_right_one_inside_is_hinted(
    protocol, tmp_path: Path
):
    (tmp_path / "scenes").mkdir()
    with pytest.raises(ConfigError, match=f"{tmp_path}, which is not a folder of LIBERO's assets"):
        assets.check_suite(official(protocol, tmp_path))
    fill(tmp_path / "assets")
    with pytest.raises(ConfigError, match=f"did you mean {tmp_path}/assets"):
        assets.check_suite(official(protocol, tmp_path))
    assets.check_suite(official(protocol, tmp_path / "assets"))


def test_missing_files_are_counted_and_named(protocol, tmp_path: Path):
    fill(tmp_path)
    gone = assets.needed_files("libero_goal")[5:10]
    for name in gone:
        (tmp_path / name).unlink()
    said = rf"of the 40 files that libero_goal loads, 5 are missing: {gone[0]}, .* and 2 more"
    with pytest.raises(ConfigError, match=said):
        assets.check_suite(official(protocol, tmp_path))


def test_each_suite_needs_its_own_files_only(protocol, tmp_path: Path):
    fill(tmp_path, "libero_object")
    assets.check_suite(official(protocol, tmp_path, "libero_object"))
    with pytest.raises(ConfigError, match="that libero_goal loads"):
        assets.check_suite(official(protocol, tmp_path))


@pytest.mark.parametrize(
    "place",
    [
        "package/assets",
        "home/.cache/libero/assets",
        "hub/datasets--lerobot--libero-assets/snapshots/0f3a",
    ],
)
def test_downloads_are_found_where_each_tool_puts_them(
    place, protocol, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(assets, "libero_root", lambda: tmp_path / "package")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    wanted = official(protocol, None)
    with pytest.raises(ConfigError, match="hf download"):
        assets.check_suite(wanted)
    fill(tmp_path / place)
    assert assets.find_assets(wanted) == tmp_path / place
    (tmp_path / place / assets.needed_files("libero_goal")[0]).unlink()
    with pytest.raises(ConfigError, match=f"{place} are not whole: of the 40 files"):
        assets.check_suite(wanted)


def test_instructions_are_known_without_libero(protocol):
    told = assets.instructions(official(protocol, None, "libero_10"))
    assert len(told) == 10
    assert "put both moka pots on the stove" in told
    assert "push the plate onto the green zone" in assets.instructions(protocol)


def test_missing_assets_say_how_to_get_them(protocol, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(assets, "libero_root", lambda: tmp_path)
    monkeypatch.setattr(assets, "_hub_snapshots", lambda: [])
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"suite\.assets=PATH"):
        assets.check_suite(replace(protocol, suite="libero_10", tasks=10))


def test_checking_imports_neither_libero_nor_torch():
    code = (
        "import sys, duqsweep.envs.assets;"
        "print([m for m in ('libero', 'torch', 'mujoco', 'robosuite') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
