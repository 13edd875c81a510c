"""Write the shipped initial states: `python -m duqsweep.envs.mini.make_init_states`.

State k of a task depends on BASE_SEED, the task, k, and how MuJoCo lets objects settle. The shipped
states were made with MuJoCo 3.8.1 and are kept, because the model card was measured on them. With
the pinned version, positions differ by up to 3.4 mm.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duqsweep.envs.mini.suite import ASSETS, INIT_STATES, TASKS, MiniTask
from duqsweep.envs.setup import prepare_libero
from duqsweep.envs.simulator import Simulator

BASE_SEED = 20_000
SETTLE_STEPS = 10


def make_states(task: MiniTask, count: int) -> NDArray[np.float64]:
    """The first `count` initial states of `task`, settled, gripper open: float64 (count, n)."""
    from duqsweep.envs.mini import problem  # noqa: F401  (after prepare_libero)

    simulator = Simulator(task.bddl, task.instruction, image_px=None)
    home = simulator.state()
    kept = np.random.get_state()
    states = []
    for k in range(count):
        np.random.seed(BASE_SEED + k)  # LIBERO's samplers draw from the global generator
        simulator.reset(home, settle_steps=0)
        simulator.sample_placements()
        simulator.reset(simulator.state(), SETTLE_STEPS)
        states.append(simulator.state())
    np.random.set_state(kept)
    simulator.close()
    return np.stack(states)


def main(folder: Path | None = None) -> None:
    """Write every task's states, into the package by default."""
    prepare_libero("osmesa", ASSETS)
    for task in TASKS:
        path = task.init_states_file if folder is None else folder / task.init_states_file.name
        np.save(path, make_states(task, INIT_STATES))


if __name__ == "__main__":
    main()
