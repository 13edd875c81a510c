"""One task in one simulator: built once, then reset cheaply and exactly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from duqsweep.envs.setup import quiet
from duqsweep.seams import Observation

if TYPE_CHECKING:
    from duqsweep.envs.control_step import Moment

CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}  # ours → robosuite's
IDLE = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])  # stay, gripper open
SEED = 0  # any, where all that it places is in the state


class Simulator:
    """A LIBERO environment with flat states in and observations out.

    `prepare_libero` must have run, and the problem class of `bddl` must be registered.
    """

    def __init__(
        self, bddl: Path, instruction: str, image_px: int | None, seed: int = SEED
    ) -> None:
        """Build the model and the renderer (0.6 to 3 s).

        Args:
            bddl: Task description.
            instruction: What the policy reads.
            image_px: Side of the square images; None: no cameras, and no renderer is loaded.
            seed: Of where fixtures stand; they are in the model, not in the state, so `reset` keeps
                them there. They are drawn once, here: in some tasks, what LIBERO's own reset
                draws depends on the resets before it.
        """
        from libero.libero.envs.env_wrapper import ControlEnv  # after prepare_libero

        from duqsweep.envs.contacts import ContactCheck
        from duqsweep.envs.control_step import ControlStep
        from duqsweep.envs.culling import Culling

        self.instruction = instruction
        self._image_px = image_px
        with quiet(), _global_seed(seed):
            control = ControlEnv(
                bddl_file_name=str(bddl),
                ignore_done=True,  # LIBERO's own horizon ends in an exception
                use_camera_obs=False,  # we render when a picture is wanted
                has_offscreen_renderer=image_px is not None,
                camera_heights=image_px or 64,
                camera_widths=image_px or 64,
            )
        self.env: Any = control.env
        self.env.visualize({part: False for part in self.env._visualizations})  # no grip markers
        self.env._observables = {}  # see observe_robot
        self.env.check_contact = ContactCheck(self.env)
        self._control_step = ControlStep(self.env)
        model = self.env.sim.model._model
        self._culling = None if image_px is None else Culling(model)
        self._built = self.state()
        # where each initial state leads: (state, settle_steps, as_libero) → the last idle step
        self._settled: dict[tuple[bytes, int, bool], Moment] = {}

    def reset(self, state: NDArray[np.float64], settle_steps: int, as_libero: bool = False) -> None:
        """Put the simulator into `state` and idle; what follows depends on nothing before.

        The second time, one of MuJoCo's steps leads to the same, to the bit.

        `set_state` alone restores time and positions only: the gripper's accumulated command, the
        controller's goal and the solver's warm start would leak from episode to episode.

        Args:
            state: Flat, one of the task's initial ones.
            settle_steps: Steps of idling.
            as_libero: Whether the first step still pulls towards the pose in which the model was
                built, some millimetres, as it does where LIBERO's environment is reset and then put
                into a state: published results come from there. False: the arm stays where it is.
        """
        import mujoco

        key = (np.asarray(state, dtype=np.float64).tobytes(), settle_steps, as_libero)
        if key in self._settled:
            self.env.done = False
            self._control_step.resume(self._settled[key])
            return
        sim = self.env.sim
        mujoco.mj_resetData(sim.model._model, sim.data._data)
        self.env.timestep, self.env.cur_time, self.env.done = 0, 0, False
        self._put(self._built if as_libero else state)
        self._control_step.hold()
        if as_libero:
            self._put(state)
        self.env._post_process()
        for step in range(1, settle_steps + 1):
            if step < settle_steps:
                self._control_step.run(IDLE)
            else:
                self._settled[key] = self._control_step.run_and_keep(IDLE)

    def _put(self, state: NDArray[np.float64]) -> None:
        self.env.sim.set_state_from_flattened(np.asarray(state, dtype=np.float64))
        self.env.sim.forward()

    def step(self, action: NDArray[np.float64]) -> bool:
        """Apply one action ((7,), in [-1, 1]) for 50 ms; returns whether the goal holds."""
        self._control_step.run(action)
        return self.goal_holds()

    def goal_holds(self) -> bool:
        """Whether the task's goal holds in the present state."""
        return bool(self.env._check_success())

    def state(self) -> NDArray[np.float64]:
        """The present flat state: time, positions, velocities."""
        flat: NDArray[np.float64] = self.env.sim.get_state().flatten()
        return flat

    def sample_placements(self) -> None:
        """Place every movable object anew, by LIBERO's samplers and numpy's global generator."""
        for position, quaternion, thing in self.env.placement_initializer.sample().values():
            pose = np.concatenate([position, quaternion])
            self.env.sim.data.set_joint_qpos(thing.joints[-1], pose)
        self.env.sim.forward()

    def body_pose(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Position (3,) in metres and rotation matrix (3, 3) of object `name`, world frame."""
        body, data = self.env.obj_body_id[name], self.env.sim.data
        return np.array(data.body_xpos[body]), np.array(data.body_xmat[body]).reshape(3, 3)

    def observe(self) -> Observation:
        """What the robot sees now; images are upright (MuJoCo's are not)."""
        robot = self.observe_robot()
        images = {name: self.render(camera) for name, camera in CAMERAS.items()}
        return dataclasses.replace(robot, images=images)

    def observe_robot(self) -> Observation:
        """The same without images, read from the state.

        robosuite's observables would cost a fifth of a step, and each is sampled at a moment that
        depends on the episodes before.
        """
        robot, data = self.env.robots[0], self.env.sim.data
        w, x, y, z = data.get_body_xquat(robot.robot_model.eef_name)
        return Observation(
            images={},
            eef_pos=np.array(data.site_xpos[robot.eef_site_id]),
            eef_quat=np.array([x, y, z, w]),
            gripper_qpos=np.array(data.qpos[robot._ref_gripper_joint_pos_indexes]),
            instruction=self.instruction,
        )

    def render(self, camera: str) -> NDArray[np.uint8]:
        """The picture of one of robosuite's cameras, (image_px, image_px, 3), upright."""
        side = self._image_px
        self._use_own_context()
        sim = self.env.sim
        assert self._culling is not None
        with self._culling.only_seen(sim.data._data, sim.model.camera_name2id(camera)):
            image = sim.render(camera_name=camera, width=side, height=side)
        return np.ascontiguousarray(image[::-1])

    def close(self) -> None:
        """Free model and renderer."""
        del self._control_step, self._culling  # they hold the model's memory
        self._use_own_context()
        self.env.close()

    def _use_own_context(self) -> None:
        """Direct OpenGL's calls to this simulator's context (11 us), which robosuite does not do.

        Otherwise they go to the simulator built last: this one would be drawn with the other's
        meshes and textures, and closing would free them. Where simulators share a context, what
        was drawn last has left its own buffer there.
        """
        if self._image_px is not None:
            import mujoco

            drawing = self.env.sim._render_context_offscreen
            drawing.gl_ctx.make_current()
            mujoco.mjr_restoreBuffer(drawing.con)


class _global_seed:  # noqa: N801 (a context manager, used like a function)
    """Seed numpy's global generator, which LIBERO samples from, and give it back as it was."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        self._kept = np.random.get_state()
        np.random.seed(self._seed)

    def __exit__(self, *_: object) -> None:
        np.random.set_state(self._kept)
