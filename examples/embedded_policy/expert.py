"""A scripted expert for `duq_mini`: a function of the state alone, so it can label any."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from duqsweep.envs.simulator import Simulator

Array = NDArray[np.float64]

TABLE_Z = 0.90
OPEN, CLOSE = -1.0, 1.0
HELD_WIDTH = 0.052  # fingers around a 40 to 44 mm object
CLOSING_WIDTH = 0.074  # fingers on their way
PUSH_Z = TABLE_Z + 0.012
NEST = 0.052  # grip site behind the plate's centre when both open fingers touch its rim
ZONE_GREEN = np.array([0.13, 0.0])
ZONES_CYAN = np.array([[0.04, 0.165], [0.04, -0.165]])
DOWN = np.diag([1.0, -1.0, -1.0])  # the home orientation of the gripper


@dataclass(frozen=True)
class Robot:
    """The gripper: position (3,) and orientation (3, 3) of the grip site, finger gap in metres."""

    position: Array
    orientation: Array
    width: float


@dataclass(frozen=True)
class Place:
    """Where an object goes: xy, its height there, when let go and on the way; tolerances."""

    xy: Array
    rest_z: float
    drop_z: float
    carry_z: float
    tolerance: float  # metres, before lowering
    keep: float  # metres, within which a resting object is left alone


def label(simulator: Simulator, task: int, side: int) -> Array:
    """The expert's action ((7,), in [-1, 1]) in the simulator's present state.

    Args:
        simulator: Of task `task`; read only.
        task: Index in the suite.
        side: +1 or -1, the zone to choose in `either_zone` while neither is closer.
    """
    seen = simulator.observe_robot()
    robot = Robot(
        seen.eef_pos,
        Rotation.from_quat(seen.eef_quat).as_matrix(),
        float(np.ptp(seen.gripper_qpos)),
    )
    if task == 2:
        return _push(robot, simulator.body_pose("plate_1")[0])
    name = ("red_cube_1", "blue_cube_1", "", "red_cube_1", "yellow_peg_1", "red_cube_1")[task]
    position, rotation = simulator.body_pose(name)
    grip_z = position[2] + (0.018 if task == 4 else -0.003)
    yaw = 0.0 if task == 4 else _nearest_yaw(rotation)
    return _pick_and_place(robot, position, yaw, grip_z, _place(simulator, task, position, side))


def _place(simulator: Simulator, task: int, position: Array, side: int) -> Place:
    if task in (0, 1):
        tray = simulator.body_pose("tray_1")[0]
        return Place(tray[:2], TABLE_Z + 0.032, TABLE_Z + 0.055, TABLE_Z + 0.085, 0.02, 0.045)
    if task == 3:
        block = simulator.body_pose("green_block_1")[0]
        top = block[2] + 0.025 + 0.022
        return Place(block[:2], top, top + 0.003, top + 0.035, 0.006, 0.016)
    if task == 4:
        cup = simulator.body_pose("cup_1")[0]
        rest = TABLE_Z + 0.055
        return Place(cup[:2], rest, rest + 0.008, rest + 0.065, 0.005, 0.012)
    choice = side if abs(position[1]) < 0.03 else np.sign(position[1])
    zone = ZONES_CYAN[0 if choice > 0 else 1]
    return Place(zone, TABLE_Z + 0.022, TABLE_Z + 0.026, TABLE_Z + 0.055, 0.012, 0.03)


def _pick_and_place(robot: Robot, thing: Array, yaw: float, grip_z: float, place: Place) -> Array:
    error = place.xy - thing[:2]
    off = float(np.linalg.norm(error))
    apart = float(np.linalg.norm(thing[:2] - robot.position[:2]))
    near = apart < 0.025 and abs(robot.position[2] - grip_z) < 0.03
    if off < place.keep and abs(thing[2] - place.rest_z) < 0.006:
        rise = 0.15 if robot.width > 0.06 and robot.position[2] < place.rest_z + 0.12 else 0.0
        if apart > 0.06:
            rise = 0.0
        return _servo(robot, robot.position + np.array([0.0, 0.0, rise]), None, OPEN)
    if near and robot.width < HELD_WIDTH:
        return _carry(robot, thing, error, off, place)
    height = grip_z + 0.10 * np.clip((apart - 0.008) / 0.03, 0.0, 1.0)
    there = apart < 0.012 and abs(robot.position[2] - grip_z) < 0.012
    closing = near and robot.width < CLOSING_WIDTH
    target = np.array([thing[0], thing[1], height])
    return _servo(robot, target, yaw, CLOSE if there or closing else OPEN)


def _carry(robot: Robot, thing: Array, error: Array, off: float, place: Place) -> Array:
    height = place.drop_z + (place.carry_z - place.drop_z) * np.clip(
        (off - place.tolerance) / 0.02, 0.0, 1.0
    )
    # Sideways only as far as the object has been lifted: from the table, or over the target's rim.
    floor = place.carry_z - 0.03 if 0.025 < off < 0.11 else TABLE_Z + 0.025
    free = 1.0 if off < 0.025 else float(np.clip((thing[2] - floor) / 0.015, 0.0, 1.0))
    delta = np.array([*(free * error), height - thing[2]])
    let_go = off < place.tolerance and abs(thing[2] - place.drop_z) < 0.006
    return _servo(robot, robot.position + delta, None, OPEN if let_go else CLOSE)


def _push(robot: Robot, plate: Array) -> Array:
    """Nest the plate between the open fingers and drive it to the zone in one stroke."""
    behind = plate[0] - robot.position[0]
    sideways = plate[1] - robot.position[1]
    outside = max(0.035 - behind, behind - 0.10, 0.0) + max(abs(sideways) - 0.012, 0.0)
    height = PUSH_Z + 0.08 * np.clip(outside / 0.03, 0.0, 1.0)
    if outside > 0.0 or robot.position[2] > PUSH_Z + 0.012:
        target = np.array([plate[0] - 0.078, plate[1], height])
        return _servo(robot, target, 0.0, OPEN)
    if behind > NEST + 0.008:
        stroke = np.array([behind - NEST + 0.02, 2.0 * sideways])
    else:
        stroke = ZONE_GREEN - plate[:2]
    return _servo(robot, np.array([*(robot.position[:2] + stroke), PUSH_Z]), 0.0, OPEN)


def _servo(robot: Robot, target: Array, yaw: float | None, grip: float) -> Array:
    """Proportional control of the grip site; `yaw` None keeps the gripper's own, pointing down."""
    move = 3.0 * (target - robot.position) / 0.05
    move[:2] /= max(1.0, float(np.abs(move[:2]).max()))  # keeps the direction
    if yaw is None:
        yaw = _nearest_yaw(robot.orientation @ DOWN)
    wanted = Rotation.from_euler("z", yaw).as_matrix() @ DOWN
    turn = Rotation.from_matrix(wanted @ robot.orientation.T).as_rotvec() / 0.5
    return np.clip(np.concatenate([move, turn, [grip]]), -1.0, 1.0)


def _nearest_yaw(rotation: Array) -> float:
    """Yaw of a square thing, in ±45 degrees."""
    yaw = float(np.arctan2(rotation[1, 0], rotation[0, 0]))
    return (yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4
