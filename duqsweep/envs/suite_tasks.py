"""The tasks of LIBERO's suites and of LIBERO-PRO's, ready to be played."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duqsweep.envs import assets, libero_pro
from duqsweep.envs.init_states import read_init_states
from duqsweep.spec import SuiteSpec


@dataclass(frozen=True)
class SuiteTask:
    """One task of an open suite."""

    bddl: Path
    instruction: str
    init_states: NDArray[np.float64]  # (states, n): flat simulator states


def suite_tasks(suite: SuiteSpec) -> list[SuiteTask]:
    """The tasks of a suite of LIBERO or LIBERO-PRO."""
    if suite.name in libero_pro.PRO_SUITES:
        return pro_tasks(suite)
    return official_tasks(suite.name, suite.tasks)


def official_tasks(suite_name: str, tasks: int) -> list[SuiteTask]:
    """LIBERO's own first `tasks` tasks of a suite, in its order."""
    root = assets.libero_root()
    return [
        SuiteTask(
            bddl=root / "bddl_files" / suite_name / f"{name}.bddl",
            instruction=assets.task_words(name),
            init_states=read_init_states(root / "init_files" / suite_name / f"{name}.pruned_init"),
        )
        for name in assets.official_task_names(suite_name, tasks)
    ]


def pro_tasks(suite: SuiteSpec) -> list[SuiteTask]:
    """The tasks of a LIBERO-PRO suite, category by category, each in LIBERO's order.

    Raises:
        ConfigError: LIBERO-PRO's files are not there, or not those that were checked.
    """
    root = libero_pro.find_tasks(suite)
    originals = official_tasks(libero_pro.PRO_SUITES[suite.name], suite.tasks)
    return [
        task if category == libero_pro.ORIGINAL else _varied(task, root, suite.name, category)
        for category in suite.categories
        for task in originals
    ]


def _varied(task: SuiteTask, root: Path, suite: str, category: str) -> SuiteTask:
    name = task.bddl.stem
    bddl = libero_pro.bddl_file(root, suite, category, name)
    other_words = category in libero_pro.OTHER_WORDS
    states_file = libero_pro.init_states_file(root, suite, category, name)
    with np.load(states_file, allow_pickle=False) as file:
        states = np.asarray(file["states"], dtype=np.float64)
    return SuiteTask(bddl, libero_pro.language(bddl) if other_words else task.instruction, states)
