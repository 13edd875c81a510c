"""LIBERO-PRO's suites: every varied task can be played, on LIBERO's own simulator code."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exhaustive import EXHAUSTIVE, exhaustive
from official import find_official_assets, write_quick_policy
from plain import write_plain_assets
from pro import SUITES, check_pro_assets, find_pro_files, pro_suite

from duqsweep.control.config.sweep_config import check_inputs, compose
from duqsweep.envs import assets, libero_pro, pro_objects
from duqsweep.envs.libero import LiberoEnvironment, open_environment
from duqsweep.envs.setup import prepare_libero
from duqsweep.envs.simulator import Simulator
from duqsweep.envs.suite_tasks import SuiteTask
from duqsweep.errors import ConfigError
from duqsweep.spec import LedgerEntry
from duqsweep.verbs import evaluate

UP = np.array([0, 0, 1.0, 0, 0, 0, -1.0])


@pytest.fixture(scope="module")
def pro_files() -> Path:
    return find_pro_files()


@pytest.fixture(scope="module")
def pro_assets() -> Path:
    folder = find_official_assets().resolve()
    check_pro_assets(folder)
    return folder


@pytest.fixture(scope="module")
def plain_assets(pro_assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with tiny pictures and meshes."""
    folder = tmp_path_factory.mktemp("plain_assets")
    write_plain_assets(pro_assets, folder, SUITES)
    return folder


@pytest.fixture(scope="module")
def tasks(plain_assets: Path, pro_files: Path) -> dict[str, list[SuiteTask]]:
    """The tasks of each suite."""
    return {suite: opened(suite, plain_assets, pro_files)._tasks for suite in SUITES}


@pytest.fixture(scope="module")
def parsed(tasks: dict[str, list[SuiteTask]]) -> dict[Path, dict[str, Any]]:
    """What LIBERO's own parser finds in the description of each varied task."""
    from libero.libero.envs import bddl_utils  # after a suite was opened

    varied = [task.bddl for of_suite in tasks.values() for task in of_suite[10:]]
    return {bddl: bddl_utils.robosuite_parse_problem(str(bddl)) for bddl in varied}


def opened(suite: str, pro_assets: Path, pro_files: Path) -> LiberoEnvironment:
    environment = open_environment(pro_suite(suite, pro_assets, pro_files))
    assert isinstance(environment, LiberoEnvironment)
    return environment


def is_built(suite: str, number: int) -> bool:
    """One task per suite and category, in each suite others; DUQSWEEP_EXHAUSTIVE=1: all 40."""
    category, task = divmod(number, 10)
    return EXHAUSTIVE or task == (2 * SUITES.index(suite) + category) % 10


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_varied_tasks_are_built_reset_and_stepped(suite, tasks, plain_assets, pro_files):
    """Without cameras."""
    suite_spec = pro_suite(suite, plain_assets, pro_files)
    prepare_libero("osmesa", plain_assets)
    assert len(tasks[suite]) == suite_spec.total_tasks == 50
    for number, task in enumerate(tasks[suite]):
        assert task.init_states.shape[0] == suite_spec.init_states
        if suite_spec.category(number) == libero_pro.ORIGINAL or not is_built(suite, number):
            continue  # original ones are played by the tests of LIBERO's own suites
        simulator = Simulator(task.bddl, task.instruction, None)
        simulator.reset(task.init_states[0], settle_steps=1, as_libero=True)
        before = simulator.observe_robot().eef_pos
        for _ in range(3):
            assert not simulator.step(UP), f"{task.bddl}: its goal holds from the start"
        assert np.isfinite(simulator.state()).all()
        assert simulator.observe_robot().eef_pos[2] > before[2]
        simulator.close()


@pytest.mark.parametrize("suite", SUITES)
def test_the_policy_reads_other_words_only_where_words_or_goals_differ(
    suite, tasks, plain_assets, pro_files
):
    suite_spec = pro_suite(suite, plain_assets, pro_files)
    words = {
        category: [task.instruction for task in tasks[suite][10 * i : 10 * i + 10]]
        for i, category in enumerate(suite_spec.categories)
    }
    assert words["object"] == words["swap"] == words["original"]
    for category in libero_pro.OTHER_WORDS:
        assert not set(words[category]) & set(words["original"])
    assert [task.instruction for task in tasks[suite]] == assets.instructions(suite_spec)


def test_instructions_are_those_of_liberos_own_parser(parsed):
    assert len(parsed) == 4 * 40
    for bddl, found in parsed.items():
        assert " ".join(found["language_instruction"]) == libero_pro.language(bddl)


@pytest.mark.parametrize(
    "category",
    [
        category if category == "object" else pytest.param(category, marks=exhaustive)
        for category in libero_pro.CATEGORIES
    ],
)
def test_a_task_of_each_category_is_seen_by_both_cameras(category, pro_assets, pro_files):
    """With LIBERO's own textures."""
    more = [f"suite.categories=[{category}]"]
    suite = pro_suite("libero_pro_goal", pro_assets, pro_files, *more)
    environment = open_environment(suite)
    seen = environment.reset(LedgerEntry(0, suite.name, task=8, init_state=3, seed=7))
    environment.close()
    assert seen.instruction
    for camera in ("agentview", "wrist"):
        assert seen.images[camera].std() > 20, f"{category}: {camera} sees nothing"


SHOW_OBJECTS = """
    import json, sys
    from libero.libero.envs.objects import OBJECTS_DICT
    from libero.libero.envs.base_object import VISUAL_CHANGE_OBJECTS_DICT
    found = {}
    for category in json.loads(sys.argv[1]):
        made = OBJECTS_DICT[category](name="it_1")
        found[category] = {
            "class": type(made).__name__,
            "category": made.category_name,
            "rotation": made.rotation,
            "rotation_axis": made.rotation_axis,
            "properties": made.object_properties,
            "joints": len(made.joints),
            "file": made.file,
            "changes_its_look": category in VISUAL_CHANGE_OBJECTS_DICT,
        }
    print("found:" + json.dumps(found))
"""


def test_our_objects_are_those_of_liberos_variation_package(pro_assets, pro_files, tmp_path):
    """The package's own classes, imported in a process of their own."""
    inside = pro_files / libero_pro.INSIDE
    folders = {"bddl_files": "bddl_files", "init_states": "init_files", "datasets": "datasets"}
    config = {"benchmark_root": str(inside), "assets": str(pro_assets)}
    config |= {key: str(inside / name) for key, name in folders.items()}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    names = json.dumps(sorted(pro_objects.LIKE))
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SHOW_OBJECTS), names],
        env={
            "PYTHONPATH": str(pro_files),
            "LIBERO_CONFIG_PATH": str(tmp_path),
            "MUJOCO_GL": "osmesa",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = json.loads(run.stdout.partition("found:")[2])
    opened("libero_pro_goal", pro_assets, pro_files)
    assert ours(sorted(pro_objects.LIKE)) == theirs


def ours(categories: list[str]) -> dict[str, object]:
    code = textwrap.dedent(SHOW_OBJECTS).replace('print("found:" + json.dumps(found))', "")
    space: dict[str, object] = {}
    before, sys.argv = sys.argv, ["", json.dumps(categories)]
    try:
        exec(code, space)
    finally:
        sys.argv = before
    return json.loads(json.dumps(space["found"]))


def test_no_other_object_of_the_tasks_is_missing(parsed):
    """Every category that a description names is LIBERO's, one of ours, or a part of the arena."""
    from libero.libero.envs.objects import OBJECTS_DICT

    used = {name for found in parsed.values() for name in (*found["objects"], *found["fixtures"])}
    arena = {name for name in used if name.endswith(("table", "floor"))}
    assert used - arena <= set(OBJECTS_DICT)
    assert set(pro_objects.LIKE) <= used


def test_the_embedded_policy_is_refused_for_words_that_it_does_not_know(pro_assets, pro_files):
    files = [f"suite.assets={pro_assets}", f"suite.pro_files={pro_files}"]
    words = ["name=test", "enqueue=[reference]", "suite=libero_pro_goal", *files]
    with pytest.raises(ConfigError, match="cannot read the tasks of libero_pro_goal"):
        check_inputs(compose(words))


def test_evaluate_plays_its_categories_from_the_command_line(
    plain_assets: Path,
    pro_files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    write_quick_policy(tmp_path / "checkpoint")
    policy = ["policy=pi05_libero", "policy.checkpoint=checkpoint"]
    suite = [
        "suite=libero_pro_object",
        f"suite.assets={plain_assets}",
        f"suite.pro_files={pro_files}",
    ]
    quick = ["suite.tasks=1", "suite.image_px=64", "suite.max_steps=6"]
    categories = "suite.categories=[language,object]"
    assert evaluate.main([*policy, *suite, categories, "--episodes", "2", *quick]) == 0
    (trial,) = tmp_path.glob("sweeps/*/trials/0000")
    lines = map(json.loads, (trial / "episodes.jsonl").read_text().splitlines())
    played = [(e["task"], e["suite"], e["steps"], e["error"]) for e in lines]
    assert sorted(played) == [(task, "libero_pro_object", 6, None) for task in (0, 1)]
    said = capsys.readouterr().out
    assert "language: 0 of 1 (0–79 %)" in said
    assert "object: 0 of 1 (0–79 %)" in said
