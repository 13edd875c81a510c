"""Commands of arm and fingers, as robosuite computes them, with arrays that are made once.

Replaces these parts of robosuite 1.4.0, the only version that `simulator_info` accepts:

- `controllers/base_controller.py`: `Controller.update`, `scale_action`, `torque_compensation`
- `controllers/osc.py`: `OperationalSpaceController.set_goal`, `run_controller`, `reset_goal`
- `robots/single_arm.py`: `SingleArm.control`, without its records of recent values, which nothing
  reads
- `robots/manipulator.py`: `Manipulator.grip_action`
- `models/grippers/panda_gripper.py`: `PandaGripper.format_action`

What robosuite compiles (`utils/control_utils.py`) is called as it is. Everything else keeps
robosuite's operands, their order and their memory layout, because BLAS rounds differently for
another layout. So commands are equal to robosuite's to the bit (tests/envs/test_control_step.py).
Import after `prepare_libero`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray
from robosuite.utils.control_utils import (
    nullspace_torques,
    opspace_matrices,
    orientation_error,
    set_goal_orientation,
    set_goal_position,
)

Array = NDArray[np.float64]

POSE = 6  # numbers of a pose command: position, then orientation
FINGER_SIGNS = np.array([-1.0, 1.0])  # of a command to close


class Commands(NamedTuple):
    """What a controller is about to do; it does not change."""

    goal_pos: Array
    goal_mat: Array
    fingers: tuple[float, ...]
    finger_change: tuple[float, ...]


class PandaController:
    """The operational space controller of a Panda arm, and its gripper.

    Call `look` when positions and velocities of the simulator have been computed, `aim` once per
    action, and `act` in every substep.
    """

    def __init__(self, robot: Any) -> None:
        """Take the constants of a robosuite robot, and views of its simulator's data.

        Args:
            robot: A `SingleArm` with a fixed-impedance `OperationalSpaceController` on position and
                orientation, without interpolators, and a `PandaGripper` (`control_step` checks).
        """
        model, data = robot.sim.model._model, robot.sim.data._data
        osc, gripper = robot.controller, robot.gripper
        self._model, self._data = model, data

        # robosuite's settings
        self._position_limits = osc.position_limits
        self._orientation_limits = osc.orientation_limits
        self._input_min, self._input_max = osc.input_min, osc.input_max
        self._scale = abs(osc.output_max - osc.output_min) / abs(osc.input_max - osc.input_min)
        self._output_middle = (osc.output_max + osc.output_min) / 2.0
        self._input_middle = (osc.input_max + osc.input_min) / 2.0
        self._kp, self._minus_kd = osc.kp, -osc.kd  # a sign changes no other bit of a product
        self._initial_joint = osc.initial_joint
        self._torque_min, self._torque_max = robot.torque_limits

        # views of the simulator's data: MuJoCo allocates them once
        joints, fingers = len(osc.qvel_index), len(FINGER_SIGNS)
        self._qvel, self._inertia = data.qvel, data.qM
        self._joint_pos_now, self._joint_vel_now = data.qpos[:joints], data.qvel[:joints]
        self._bias = data.qfrc_bias[:joints]
        self._site = robot.sim.model.site_name2id(osc.eef_name)
        self._pos_now, self._mat_now = data.site_xpos[self._site], data.site_xmat[self._site]
        self._arm_ctrl = data.ctrl[:joints]
        self._finger_ctrl = data.ctrl[joints : joints + fingers]

        # what `look` sees; Jacobians and masses in Fortran's order, as robosuite's indexing gives
        self._ee_pos, self._ee_mat = np.zeros(3), np.zeros((3, 3))
        self._ee_mat_flat = self._ee_mat.ravel()
        self._ee_vel, self._ee_vel_pos, self._ee_vel_ori = _with_halves(np.zeros(POSE))
        self._joint_pos, self._joint_vel = np.zeros(joints), np.zeros(joints)
        self._jac = np.zeros((POSE, joints), order="F")
        self._jac_pos = np.zeros((3, joints), order="F")
        self._jac_ori = np.zeros((3, joints), order="F")
        self._jac_transposed = self._jac.T
        self._mass = np.zeros((joints, joints), order="F")
        # of all bodies' joints, and the arm's columns of them
        self._jac_pos_all, self._jac_ori_all = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        self._jac_pos_arm = self._jac_pos_all[:, :joints]
        self._jac_ori_arm = self._jac_ori_all[:, :joints]
        self._mass_all = np.zeros((model.nv, model.nv))
        self._mass_arm = self._mass_all[:joints, :joints]

        # goals and intermediate results
        self._goal_pos, self._goal_mat = np.zeros(3), np.eye(3)
        self._error, self._error_pos, self._error_ori = _with_halves(np.zeros(POSE))
        self._force, self._force_pos, self._force_ori = _with_halves(np.zeros(POSE))
        self._wrench, self._wrench_pos, self._wrench_ori = _with_halves(np.zeros(POSE))
        self._damping, self._torques = np.zeros(POSE), np.zeros(joints)
        # numbers, not arrays: for two of them, a call of numpy takes longer than the arithmetic
        self._fingers = self._finger_change = (0.0,) * fingers
        self._finger_speed = gripper.speed
        limits = model.actuator_ctrlrange[joints : joints + fingers]
        self._finger_middle = (0.5 * (limits[:, 1] + limits[:, 0])).tolist()
        self._finger_weight = (0.5 * (limits[:, 1] - limits[:, 0])).tolist()

    def look(self) -> None:
        """Take pose, velocity, Jacobians and masses from the simulator."""
        self._ee_pos[:] = self._pos_now
        self._ee_mat_flat[:] = self._mat_now
        self._joint_pos[:] = self._joint_pos_now
        self._joint_vel[:] = self._joint_vel_now
        jac_pos, jac_ori, qvel = self._jac_pos_all, self._jac_ori_all, self._qvel
        mujoco.mj_jacSite(self._model, self._data, jac_pos, jac_ori, self._site)
        np.dot(jac_pos, qvel, out=self._ee_vel_pos)
        np.dot(jac_ori, qvel, out=self._ee_vel_ori)
        self._jac_pos[:] = self._jac[:3] = self._jac_pos_arm
        self._jac_ori[:] = self._jac[3:] = self._jac_ori_arm
        mujoco.mj_fullM(self._model, self._mass_all, self._inertia)
        self._mass[:] = self._mass_arm

    def hold(self) -> None:
        """Make the pose that was seen last the goal, and forget the fingers' commands."""
        self._goal_pos, self._goal_mat = self._ee_pos.copy(), self._ee_mat.copy()
        self._fingers = (0.0,) * len(self._fingers)

    def aim(self, action: Array) -> None:
        """Set the goals of a new action, relative to the pose that was seen last.

        Args:
            action: (7,) position, orientation as axis and angle, fingers; in [-1, 1].
        """
        pose = np.clip(action[:POSE], self._input_min, self._input_max)
        delta = (pose - self._input_middle) * self._scale + self._output_middle
        if delta[3:].any():  # else the former goal stays
            self._goal_mat = set_goal_orientation(
                delta[3:], self._ee_mat, orientation_limit=self._orientation_limits
            )
        self._goal_pos = set_goal_position(
            delta[:3], self._ee_pos, position_limit=self._position_limits
        )
        change = FINGER_SIGNS * self._finger_speed * np.sign(action[POSE:])
        self._finger_change = tuple(change.tolist())

    def commands(self) -> Commands:
        """What it is about to do, to be repeated later."""
        goals = self._goal_pos.copy(), self._goal_mat.copy()
        return Commands(*goals, self._fingers, self._finger_change)

    def repeat(self, commands: Commands) -> None:
        """Be about to do what it was about to do earlier."""
        self._goal_pos, self._goal_mat = commands.goal_pos.copy(), commands.goal_mat.copy()
        self._fingers, self._finger_change = commands.fingers, commands.finger_change

    def act(self) -> None:
        """Write the commands of one substep into the simulator."""
        force, damping = self._force, self._damping
        np.subtract(self._goal_pos, self._ee_pos, out=self._error_pos)
        self._error_ori[:] = orientation_error(self._goal_mat, self._ee_mat)
        np.multiply(self._error, self._kp, out=force)
        np.multiply(self._ee_vel, self._minus_kd, out=damping)
        np.add(force, damping, out=force)

        mass, torques = self._mass, self._torques
        _, lambda_pos, lambda_ori, nullspace = opspace_matrices(
            mass, self._jac, self._jac_pos, self._jac_ori
        )
        np.dot(lambda_pos, self._force_pos, out=self._wrench_pos)
        np.dot(lambda_ori, self._force_ori, out=self._wrench_ori)
        np.dot(self._jac_transposed, self._wrench, out=torques)
        np.add(torques, self._bias, out=torques)
        posture = nullspace_torques(
            mass, nullspace, self._initial_joint, self._joint_pos, self._joint_vel
        )
        np.add(torques, posture, out=torques)
        np.maximum(torques, self._torque_min, out=torques)
        np.minimum(torques, self._torque_max, out=self._arm_ctrl)

        (one, other), (one_change, other_change) = self._fingers, self._finger_change
        one = min(max(one + one_change, -1.0), 1.0)
        other = min(max(other + other_change, -1.0), 1.0)
        self._fingers = one, other
        ctrl, middle, weight = self._finger_ctrl, self._finger_middle, self._finger_weight
        ctrl[0] = middle[0] + weight[0] * one
        ctrl[1] = middle[1] + weight[1] * other


def _with_halves(pose: Array) -> tuple[Array, Array, Array]:
    """A pose, and views of its position and its orientation."""
    return pose, pose[:3], pose[3:]
