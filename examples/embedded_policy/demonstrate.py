"""Generate demonstrations of the scripted expert, in parallel.

Example:
    python examples/embedded_policy/demonstrate.py --workers 16 --episodes-per-task 300 --out demos

Every attempted episode has its own generator, seeded by (seed, task, number): the same command
gives the same files with any number of workers. Start states are sampled afresh, never those
shipped with the suite. Failures are dropped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import expert
import numpy as np
from numpy.typing import NDArray

from duqsweep.envs.mini.suite import ASSETS, TASKS
from duqsweep.envs.setup import prepare_libero

MAX_STEPS = 160
EXTRA_STEPS = 5  # after success, so that the last chunks are full
FRAME_EVERY = 2
EITHER = 5  # its two-way choice must not be taught away from by kicks
NOISE_STD = (0.05, 0.1, 0.15, 0.25)
KICK_CHANCE = (0.0, 0.02, 0.04)
RANDOM_START_CHANCE = 0.4
ARM_JOINTS = 7
JOINT_NOISE_RAD = 0.02

Built = tuple[Any, NDArray[np.float64]]  # a simulator and its home state
_simulators: dict[int, Built] = {}  # of this process, by task


@dataclass
class Record:
    """What one episode leaves behind; one entry a control step, images every FRAME_EVERY steps."""

    frame_index: list[int] = field(default_factory=list)
    agentview: list[Any] = field(default_factory=list)
    wrist: list[Any] = field(default_factory=list)
    eef_pos: list[Any] = field(default_factory=list)
    eef_quat: list[Any] = field(default_factory=list)
    gripper_qpos: list[Any] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    valid: list[bool] = field(default_factory=list)

    def save(self, path: Path, task: int) -> None:
        """Write the episode as one .npz (see README.md for its arrays)."""
        np.savez(
            path,
            agentview=np.stack(self.agentview),
            wrist=np.stack(self.wrist),
            frame_index=np.array(self.frame_index),
            eef_pos=np.array(self.eef_pos, np.float32),
            eef_quat=np.array(self.eef_quat, np.float32),
            gripper_qpos=np.array(self.gripper_qpos, np.float32),
            actions=np.array(self.actions, np.float32),
            valid=np.array(self.valid),
            instruction=np.array(TASKS[task].instruction),
            task=np.array(task),
            success=np.array(True),
        )


def start(simulator: Any, home: NDArray[np.float64], task: int, rng: np.random.Generator) -> None:
    """A fresh start: new placements, slightly bent arm, now and then some random motion."""
    np.random.seed(int(rng.integers(2**32)))  # LIBERO samples from the global generator
    simulator.reset(home, 0)
    simulator.sample_placements()
    state = simulator.state()
    scale = 0.5 * JOINT_NOISE_RAD if task == EITHER else JOINT_NOISE_RAD
    state[1 : 1 + ARM_JOINTS] += rng.normal(size=ARM_JOINTS) * scale
    simulator.reset(state, int(rng.integers(8, 14)))
    if rng.random() < RANDOM_START_CHANCE and task != EITHER:
        drift = _random_push(rng)
        for _ in range(int(rng.integers(4, 16))):
            simulator.step(np.clip(drift + 0.3 * rng.normal(size=7), -1, 1))


def _random_push(rng: np.random.Generator) -> NDArray[np.float64]:
    push = np.zeros(7)
    push[:3], push[3:6], push[6] = rng.uniform(-1, 1, 3), rng.uniform(-0.3, 0.3, 3), expert.OPEN
    return push


def demonstrate(simulator: Any, task: int, rng: np.random.Generator) -> Record | None:
    """Play one episode; labels are the clean expert's, executed actions carry noise and kicks.

    `valid` is False at steps in which a kick moved the arm: labels of *later* steps in a chunk that
    began at or before such a step answer a push that nobody could foresee.

    Returns:
        The record, or None if the goal was not reached.
    """
    record = Record()
    noise = float(rng.choice(NOISE_STD[:2] if task == EITHER else NOISE_STD))
    kick_chance = 0.0 if task == EITHER else float(rng.choice(KICK_CHANCE))
    side = 1 if rng.random() < 0.5 else -1
    kick, kick_left, extra = np.zeros(7), 0, EXTRA_STEPS
    reached = False
    for t in range(MAX_STEPS):
        seen = simulator.observe() if t % FRAME_EVERY == 0 else simulator.observe_robot()
        action = expert.label(simulator, task, side)
        if kick_left == 0 and rng.random() < kick_chance:
            kick, kick_left = _random_push(rng), int(rng.integers(3, 8))
        if t % FRAME_EVERY == 0:
            record.frame_index.append(t)
            record.agentview.append(seen.images["agentview"])
            record.wrist.append(seen.images["wrist"])
        record.eef_pos.append(seen.eef_pos)
        record.eef_quat.append(seen.eef_quat)
        record.gripper_qpos.append(seen.gripper_qpos)
        record.actions.append(action)
        record.valid.append(kick_left == 0)
        executed = action.copy()
        executed[:6] = kick[:6] if kick_left else action[:6] + noise * rng.normal(size=6)
        kick_left = max(0, kick_left - 1)
        reached = simulator.step(np.clip(executed, -1, 1)) or reached
        if reached:
            extra -= 1
            if extra < 0:
                break
    return record if reached else None


def work(job: tuple[int, int, int, int, str]) -> tuple[int, bool, int]:
    """Play (task, number, seed, image_px, folder) in this process: task, success, steps."""
    task, number, seed, image_px, out = job
    simulator, home = _simulator(task, image_px)
    rng = np.random.default_rng([seed, task, number])
    start(simulator, home, task, rng)
    record = demonstrate(simulator, task, rng)
    if record is None:
        return task, False, MAX_STEPS
    record.save(Path(out) / f"task{task}_{number:05d}.npz", task)
    return task, True, len(record.actions) - EXTRA_STEPS


def _simulator(task: int, image_px: int) -> Built:
    if task not in _simulators:
        from duqsweep.envs.mini import problem  # noqa: F401  (after prepare_libero)
        from duqsweep.envs.simulator import Simulator

        simulator = Simulator(TASKS[task].bddl, TASKS[task].instruction, image_px)
        _simulators[task] = (simulator, simulator.state())
    return _simulators[task]


def main() -> None:
    """Parse the command line and generate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--episodes-per-task", type=int, default=100, help="attempts")
    parser.add_argument("--first", type=int, default=0, help="number of the first attempt")
    parser.add_argument("--tasks", type=int, nargs="*", default=list(range(len(TASKS))))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--image-px", type=int, default=64)
    parser.add_argument("--renderer", choices=("osmesa", "egl"), default="osmesa")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    numbers = range(args.first, args.first + args.episodes_per_task)
    jobs = [(t, k, args.seed, args.image_px, str(args.out)) for k in numbers for t in args.tasks]
    began = time.perf_counter()
    tried = dict.fromkeys(args.tasks, 0)
    steps: dict[int, list[int]] = {task: [] for task in args.tasks}
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.workers, prepare_libero, (args.renderer, ASSETS)) as pool:
        for done, (task, success, length) in enumerate(pool.imap_unordered(work, jobs), 1):
            tried[task] += 1
            if success:
                steps[task].append(length)
            if done % 100 == 0 or done == len(jobs):
                rate = done / (time.perf_counter() - began)
                print(f"{done}/{len(jobs)} episodes, {rate:.2f} a second", flush=True)
    for task in args.tasks:
        mean = float(np.mean(steps[task])) if steps[task] else float("nan")
        print(f"task {task}: {len(steps[task])} of {tried[task]} succeeded, {mean:.1f} steps")


if __name__ == "__main__":
    main()
