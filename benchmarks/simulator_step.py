"""Compare the time of a control step with that of robosuite's own path, per suite.

    python benchmarks/simulator_step.py --suite duq_mini libero_spatial --out FILE.json

Both play the same random actions from the same state, step by step in turn, in one process and
without cameras. Times are of the process's CPU: other work on the machine disturbs them less, and
the ratio least. Official suites need LIBERO's assets. A row holds the median milliseconds of a
step by robosuite (`robosuite_ms`) and by duqsweep (`ours_ms`), the median of their ratios, and
what MuJoCo itself takes for as many substeps (`mujoco_ms`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from duqsweep.envs.libero import LiberoEnvironment, open_environment
from duqsweep.envs.simulator import Simulator
from duqsweep.spec import SuiteSpec

SUITES = ("duq_mini", "libero_spatial", "libero_object", "libero_goal", "libero_10")
STEPS = 60  # per task
HELD_STEPS = 5  # of one random action


def suite_of(suite: str) -> SuiteSpec:
    """The shipped constants of a suite."""
    from duqsweep.control.config.sweep_config import compose  # needs Hydra

    return compose(["name=step", "enqueue=[reference]", f"suite={suite}"]).base.suite


def cpu_ms(run: Callable[[], Any]) -> float:
    """CPU milliseconds of this process for one call."""
    start = time.process_time()
    run()
    return 1e3 * (time.process_time() - start)


def time_task(environment: LiberoEnvironment, task: int, seed: int) -> np.ndarray[Any, Any]:
    """(STEPS, 3) milliseconds of robosuite, ours and MuJoCo alone, on one task."""
    import mujoco  # after LIBERO was prepared

    about = environment._tasks[task]
    ours, theirs, bare = (Simulator(about.bddl, about.instruction, None, seed) for _ in range(3))
    del theirs.env.check_contact  # back to robosuite's own
    for simulator in (ours, theirs, bare):
        simulator.reset(about.init_states[0], settle_steps=10, as_libero=True)
    model, data = bare.env.sim.model._model, bare.env.sim.data._data
    rng = np.random.default_rng(task)
    actions = np.repeat(rng.uniform(-1, 1, (STEPS // HELD_STEPS, 7)), HELD_STEPS, axis=0)
    rows = []
    for action in actions:
        bare._put(ours.state())
        data.ctrl[:] = ours.env.sim.data.ctrl
        rows.append(
            (
                cpu_ms(lambda action=action: theirs.env.step(action)),
                cpu_ms(lambda action=action: ours.step(action)),
                cpu_ms(lambda: mujoco.mj_step(model, data, nstep=25)),
            )
        )
    for simulator in (ours, theirs, bare):
        simulator.close()
    return np.array(rows)


def time_suite(suite: SuiteSpec, tasks: int) -> dict[str, object]:
    """One row of the table."""
    environment = open_environment(suite)
    assert isinstance(environment, LiberoEnvironment)
    measured = [time_task(environment, task, suite.seed) for task in range(tasks)]
    times = np.concatenate(measured)
    robosuite_ms, ours_ms, mujoco_ms = np.median(times, axis=0)
    return {
        "suite": suite.name,
        "tasks": tasks,
        "steps": len(times),
        "robosuite_ms": round(float(robosuite_ms), 2),
        "ours_ms": round(float(ours_ms), 2),
        "mujoco_ms": round(float(mujoco_ms), 2),
        "ratio": round(float(np.median(times[:, 1] / times[:, 0])), 3),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", nargs="+", default=SUITES)
    parser.add_argument("--tasks", type=int, default=2, help="tasks of each suite, from the first")
    parser.add_argument("--out", type=Path)
    parsed = parser.parse_args()
    rows = []
    for suite in parsed.suite:
        rows.append(time_suite(suite_of(suite), parsed.tasks))
        print(json.dumps(rows[-1]), flush=True)
    if parsed.out:
        parsed.out.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
