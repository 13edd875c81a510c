"""One control step of LIBERO's environment at a third of its cost, with equal states.

Replaces these parts of robosuite 1.4.0 and hf-libero:

- robosuite `environments/base.py`: `MujocoEnv.step`, `_post_action`
- robosuite `environments/robot_env.py`: `RobotEnv._pre_action`
- LIBERO `envs/bddl_base_domain.py`: `BDDLBaseDomain.step`, `_post_action`

and with them what `panda_controller` names. robosuite computes the forward dynamics three times per
substep: before the controller, in the controller, and in `mj_step`. The controller reads only
what `mj_step1` computes, and `mj_forward` does not change what the solver starts from. So
`mj_step1`, controller, `mj_step2` give the same states, to the bit
(docs/decisions/0015-cheap-step.md). In MuJoCo 3.2.3 `mj_forward` does change it: there robosuite's
other two computations stay.
Import after `prepare_libero`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from libero.libero.envs.bddl_base_domain import BDDLBaseDomain
from numpy.typing import NDArray
from robosuite.controllers.osc import OperationalSpaceController
from robosuite.models.grippers.panda_gripper import PandaGripper
from robosuite.robots.single_arm import SingleArm

from duqsweep.envs.panda_controller import Commands, PandaController
from duqsweep.errors import InfrastructureError

FORWARD_COUNTS = mujoco.__version__ == "3.2.3"  # mj_forward stores the solver's warm start
STATE = mujoco.mjtState.mjSTATE_INTEGRATION  # all that MuJoCo's next step depends on
REPLACED = ("step", "_pre_action", "_post_action", "reward")  # no subclass may have its own


@dataclass(frozen=True)
class Moment:
    """Where an environment was before the last substep of a control step."""

    state: NDArray[np.float64]  # MuJoCo's
    commands: Commands
    timestep: int  # at the end of the control step, as is
    time_s: float


class ControlStep:
    """Steps one environment; its robot's own controller is not used any more."""

    def __init__(self, env: Any) -> None:
        """Take over the control of `env`, a LIBERO environment that was just built.

        Raises:
            InfrastructureError: Environment, robot, controller or integrator is not one for which
                the replaced parts are known to be exact.
        """
        _check_known(env)
        self._env = env
        self._model, self._data = env.sim.model._model, env.sim.data._data
        self._controller = PandaController(env.robots[0])
        self._substeps = int(env.control_timestep / env.model_timestep)
        _require(self._substeps > 1, "one substep only")
        self.hold()

    def hold(self) -> None:
        """Hold the present pose, whose derived quantities must be computed.

        As in robosuite, the first substep of the next action is computed with what is seen here,
        even if the simulator is put into another state in between.
        """
        self._forward(1)
        self._controller.look()
        self._controller.hold()
        self._has_looked = True

    def run(self, action: NDArray[np.float64]) -> None:
        """Apply one action ((7,), finite) for one control step.

        Neither robosuite's observations nor the reward are computed.
        """
        self._begin(action)
        self._end()

    def run_and_keep(self, action: NDArray[np.float64]) -> Moment:
        """The same; `resume` then leads to where this ends."""
        self._begin(action)
        state = np.empty(mujoco.mj_stateSize(self._model, STATE))
        mujoco.mj_getState(self._model, self._data, state, STATE)
        commands = self._controller.commands()
        self._end()
        return Moment(state, commands, self._env.timestep, self._env.cur_time)

    def resume(self, moment: Moment) -> None:
        """Go to the end of the control step that gave `moment`, from wherever the simulator is.

        What MuJoCo derives from its state belongs to the moment before its last step, so that step
        is done again.
        """
        mujoco.mj_resetData(self._model, self._data)
        mujoco.mj_setState(self._model, self._data, moment.state, STATE)
        self._controller.repeat(moment.commands)
        self._has_looked = False
        self._end()
        self._env.timestep, self._env.cur_time = moment.timestep, moment.time_s

    def _begin(self, action: NDArray[np.float64]) -> None:
        """All substeps but the last."""
        self._substep(action)
        for _ in range(self._substeps - 2):
            self._substep()

    def _end(self) -> None:
        self._substep()
        self._env.timestep += 1
        self._env.cur_time += self._env.control_timestep
        self._env._post_process()

    def _substep(self, action: NDArray[np.float64] | None = None) -> None:
        model, data, controller = self._model, self._data, self._controller
        self._forward(1 if self._has_looked else 2)
        mujoco.mj_step1(model, data)
        if not self._has_looked:
            controller.look()
        self._has_looked = False
        if action is not None:
            controller.aim(action)
        controller.act()
        mujoco.mj_step2(model, data)

    def _forward(self, times: int) -> None:
        if FORWARD_COUNTS:
            for _ in range(times):
                mujoco.mj_forward(self._model, self._data)


def _check_known(env: Any) -> None:
    """Refuse what `ControlStep` would not step as robosuite does."""
    robots, opt = env.robots, env.sim.model._model.opt
    _require(len(robots) == 1, f"{len(robots)} robots, not one")
    robot = robots[0]
    for part, known in (
        (robot, SingleArm),
        (robot.controller, OperationalSpaceController),
        (robot.gripper, PandaGripper),
    ):
        _require(type(part) is known, f"a {type(part).__name__} instead of a {known.__name__}")
    for name in REPLACED:
        own = getattr(type(env), name) is getattr(BDDLBaseDomain, name)
        _require(own, f"{type(env).__name__}.{name} is not LIBERO's own")
    osc = robot.controller
    for name, value in {
        "impedance_mode": "fixed",
        "use_delta": True,
        "use_ori": True,
        "uncoupling": True,
        "interpolator_pos": None,
        "interpolator_ori": None,
    }.items():
        found = getattr(osc, name)
        _require(found == value, f"a controller with {name}={found} instead of {value}")
    joints = list(range(len(osc.qvel_index)))
    for what, found, first in (
        ("joints", osc.qpos_index, joints),
        ("joint velocities", osc.qvel_index, joints),
        ("motors", robot._ref_joint_actuator_indexes, joints),
        ("fingers", _actuators(env, robot.gripper), [len(joints), len(joints) + 1]),
    ):
        _require(list(map(int, found)) == first, f"{what} {found} instead of {first}")
    integrator = mujoco.mjtIntegrator(opt.integrator)
    _require(integrator != mujoco.mjtIntegrator.mjINT_RK4, "the integrator RK4")
    _require(env.ignore_done, "an environment that ends at a horizon of its own")
    _require(not env._observables, "observables, which would be sampled in every substep")


def _actuators(env: Any, gripper: Any) -> list[int]:
    return [env.sim.model.actuator_name2id(name) for name in gripper.actuators]


def _require(holds: bool, found: str) -> None:
    if not holds:
        raise InfrastructureError(
            f"the simulator has {found}; duqsweep steps LIBERO's environments with one Panda arm "
            "and OSC_POSE only (docs/decisions/0015-cheap-step.md)"
        )
