"""The reference for `ControlStep`: one environment stepped by robosuite's and LIBERO's own code."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from duqsweep.envs.simulator import IDLE, Simulator


class RobosuiteSimulator(Simulator):
    """A simulator that uses nothing of what duqsweep puts in the place of robosuite's code."""

    def __init__(self, bddl: Path, instruction: str, seed: int) -> None:
        super().__init__(bddl, instruction, None, seed)
        del self.env.check_contact  # back to the class's own

    def reset(self, state: NDArray[np.float64], settle_steps: int, as_libero: bool = False) -> None:
        sim, robot = self.env.sim, self.env.robots[0]
        mujoco.mj_resetData(sim.model._model, sim.data._data)
        robot.gripper.current_action = np.zeros_like(robot.gripper.current_action)
        self.env.timestep, self.env.cur_time, self.env.done = 0, 0, False
        self._put(self._built if as_libero else state)
        robot.controller.update(force=True)
        robot.controller.reset_goal()
        if as_libero:
            self._put(state)
        self.env._post_process()
        for _ in range(settle_steps):
            self.step(IDLE)

    def step(self, action: NDArray[np.float64]) -> bool:
        return bool(self.env.step(action)[2])
