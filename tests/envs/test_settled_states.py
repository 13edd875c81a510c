"""Objects settle where they settle under the MuJoCo that openpi pins, in 1,000 initial states.

MuJoCo 3.4 and later eject some of them: docs/decisions/0011-simulator.md.
`settled/record_settled.py` recorded the positions with the steps that an evaluation takes. Here
physics alone runs, with the arm held by torques that balance its weight: seven times cheaper.
"""

from __future__ import annotations

import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest
from official import SUITES

sys.path.insert(0, str(Path(__file__).parent / "settled"))
import record_settled as record

from duqsweep.envs.setup import prepare_libero
from duqsweep.envs.simulator import Simulator
from duqsweep.envs.suite_tasks import official_tasks

SUBSTEPS = 25  # of one control step: 50 ms at 2 ms


def idle(simulator: Simulator, state: np.ndarray) -> None:
    """Put the simulator into a state and let ten control steps pass while the arm stays."""
    model, data = simulator.env.sim.model._model, simulator.env.sim.data._data
    robot = simulator.env.robots[0]
    mujoco.mj_resetData(model, data)
    simulator.env.sim.set_state_from_flattened(state)
    for _ in range(record.SETTLE_STEPS * SUBSTEPS):
        mujoco.mj_step1(model, data)
        bias = data.qfrc_bias[robot._ref_joint_vel_indexes]
        data.ctrl[robot._ref_joint_actuator_indexes] = bias
        mujoco.mj_step2(model, data)
    mujoco.mj_forward(model, data)


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_objects_settle_where_they_do_under_mujoco_3_2_3(suite: str, plain_official_assets: Path):
    recorded = record.read()[suite]
    assert len(recorded) == 10 * record.STATES
    prepare_libero("osmesa", plain_official_assets)
    far = {}
    for number, task in enumerate(official_tasks(suite, 10)):
        simulator = Simulator(task.bddl, task.instruction, None, record.SEED)
        for state in range(record.STATES):
            idle(simulator, task.init_states[state])
            expected, found = recorded[f"{number}/{state}"], record.positions(simulator)
            assert expected.keys() == found.keys()
            metres = max(record.distance(expected[name], found[name]) for name in expected)
            if metres > record.SAME_M:
                far[f"{number}/{state}"] = round(metres, 4)
        simulator.close()
    assert not far, f"MuJoCo {mujoco.__version__} moves objects: task/state → metres {far}"
