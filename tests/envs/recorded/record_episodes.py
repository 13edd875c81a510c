"""Records the episodes beside this file: a scripted arm that knows where everything is.

    python tests/envs/recorded/record_episodes.py ASSETS

writes, for each suite, the actions of one episode that ends in success: (steps, 7) float32.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).parents[1]))
from official import official_suite

from duqsweep.envs.setup import prepare_libero
from duqsweep.envs.simulator import Simulator
from duqsweep.envs.suite_tasks import official_tasks

Array = NDArray[np.float64]

HERE = Path(__file__).parent
OPEN, CLOSE = -1.0, 1.0
DOWN = np.diag([1.0, -1.0, -1.0])  # the gripper's home orientation
YAWS = (0.0, np.pi / 2, np.pi / 4, -np.pi / 4)
BELOW_TOP = 0.03  # metres that the fingers reach down beside an object


@dataclass(frozen=True)
class Move:
    """Take `thing` and let it go over `target`."""

    thing: str
    target: str
    rim: bool = False  # take it by its rim: it is wider than the fingers open


@dataclass(frozen=True)
class Episode:
    """One episode to record."""

    suite: str
    task: int
    state: int
    moves: tuple[Move, ...]

    @property
    def file(self) -> Path:
        return HERE / f"{self.suite}-{self.task}-{self.state}.npy"


EPISODES = (
    Episode("libero_spatial", 2, 3, (Move("akita_black_bowl_1", "plate_1", rim=True),)),
    Episode("libero_object", 1, 4, (Move("cream_cheese_1", "basket_1"),)),
    Episode("libero_goal", 8, 5, (Move("akita_black_bowl_1", "plate_1", rim=True),)),
    Episode(
        "libero_10",
        0,
        6,
        (Move("alphabet_soup_1", "basket_1"), Move("tomato_sauce_1", "basket_1")),
    ),
)


class Arm:
    """Moves the gripper and keeps every action that it takes."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.actions: list[NDArray[np.float32]] = []
        self.done = False

    def run(self, move: Move) -> None:
        """Take and put; stops where the goal holds."""
        for target, yaw, grip, steps, near in self._waypoints(move):
            for _ in range(steps):
                if self.done or self._step(target, yaw, grip) < near:
                    break

    def _waypoints(self, move: Move) -> Iterator[tuple[Array, float, float, int, float]]:
        """Where to, gripper's yaw, fingers, at most how many steps, how near is there."""
        corners = self._corners(move.thing)
        low, high = corners.min(0), corners.max(0)
        yaw = min(YAWS, key=lambda y: np.ptp(corners[:, :2] @ [-np.sin(y), np.cos(y)]))
        grasp = np.array([*(low + high)[:2] / 2, max(high[2] - BELOW_TOP, low[2] + 0.012)])
        if move.rim:
            yaw, grasp[1] = 0.0, high[1] - 0.008
        up = np.array([0.0, 0.0, 0.12])
        yield grasp + up, yaw, OPEN, 60, 0.015
        yield grasp, yaw, OPEN, 40, 0.006
        yield grasp, yaw, CLOSE, 12, 0.0
        over = self._corners(move.target)
        lift = max(over.max(0)[2] + grasp[2] - low[2] + 0.06, grasp[2] + 0.1)
        yield np.array([*grasp[:2], lift]), yaw, CLOSE, 50, 0.03
        held = self._grip() - self.simulator.body_pose(move.thing)[0]
        middle = (over.min(0) + over.max(0))[:2] / 2
        put = np.array([*(middle + held[:2]), lift])
        yield put, yaw, CLOSE, 70, 0.012
        put[2] = over.max(0)[2] + grasp[2] - low[2] + (0.01 if move.rim else 0.03)
        yield put, yaw, CLOSE, 40, 0.012
        yield put, yaw, OPEN, 8, 0.0
        yield put + up, yaw, OPEN, 25, 0.02

    def _grip(self) -> Array:
        return self.simulator.observe_robot().eef_pos

    def _step(self, target: Array, yaw: float, grip: float) -> float:
        """One step of proportional control; metres that were left before it."""
        seen = self.simulator.observe_robot()
        error = target - seen.eef_pos
        wanted = Rotation.from_euler("z", yaw).as_matrix() @ DOWN
        turn = Rotation.from_matrix(wanted @ Rotation.from_quat(seen.eef_quat).as_matrix().T)
        action = np.clip([*(error / 0.05 * 3.0), *(turn.as_rotvec() / 0.5), grip], -1.0, 1.0)
        self.actions.append(action.astype(np.float32))
        self.done = self.simulator.step(self.actions[-1].astype(np.float64))
        return float(np.linalg.norm(error))

    def _corners(self, name: str) -> Array:
        """Corners of the boxes around an object's collision geometry, (n, 3) in metres."""
        model, data = self.simulator.env.sim.model._model, self.simulator.env.sim.data._data
        root = self.simulator.env.obj_body_id[name]
        found = []
        for geom in np.flatnonzero(model.geom_group == 0):
            body = model.geom_bodyid[geom]
            while body not in (0, root):
                body = model.body_parentid[body]
            if body == root:
                signs = np.stack(np.meshgrid(*[[-1, 1]] * 3), -1).reshape(-1, 3)
                box = model.geom_aabb[geom][:3] + signs * model.geom_aabb[geom][3:]
                found.append(box @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom])
        return np.concatenate(found)


def record(episode: Episode, assets: Path) -> None:
    suite = official_suite(episode.suite, assets)
    task = official_tasks(episode.suite, suite.tasks)[episode.task]
    simulator = Simulator(task.bddl, task.instruction, None, suite.seed)
    state = task.init_states[episode.state]
    simulator.reset(state, suite.settle_steps, as_libero=True)
    arm = Arm(simulator)
    for move in episode.moves:
        arm.run(move)
    simulator.close()
    print(f"{task.instruction}: {'success' if arm.done else 'FAILURE'} in {len(arm.actions)} steps")
    if arm.done:
        np.save(episode.file, np.array(arm.actions))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    prepare_libero("osmesa", folder)
    for one in EPISODES:
        record(one, folder)
