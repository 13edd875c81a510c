"""The tasks of LIBERO's suites and of LIBERO-PRO's, ready to be played."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duqsweep.envs import libero_pro
from duqsweep.envs.setup import quiet
from duqsweep.spec import SuiteSpec


@dataclass(frozen=True)
class SuiteTask:
    """One task of an open suite."""

    bddl: Path
    instruction: str
    init_states: NDArray[np.float64]  # (states, n): flat simulator states


def suite_tasks(suite: SuiteSpec) -> list[SuiteTask]:
    """The tasks of a suite of LIBERO or LIBERO-PRO; `prepare_libero` must have run."""
    if suite.name in libero_pro.PRO_SUITES:
        return pro_tasks(suite)
    return official_tasks(suite.name, suite.tasks)


def official_tasks(suite_name: str, tasks: int) -> list[SuiteTask]:
    """LIBERO's own first `tasks` tasks of a suite, in its order; `prepare_libero` must have run."""
    with quiet():
        from libero.libero.benchmark import get_benchmark  # after prepare_libero

        suite = get_benchmark(suite_name)()
        return [
            SuiteTask(
                bddl=Path(suite.get_task_bddl_file_path(number)),
                instruction=suite.get_task(number).language,
                init_states=np.asarray(suite.get_task_init_states(number), dtype=np.float64),
            )
            for number in range(tasks)
        ]


def pro_tasks(suite: SuiteSpec) -> list[SuiteTask]:
    """The tasks of a LIBERO-PRO suite, category by category, each in LIBERO's order.

    `prepare_libero` must have run.

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
