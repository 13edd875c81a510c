"""Opens a suite, ours or LIBERO's, as one environment that can play any of its tasks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from duqsweep.envs import assets
from duqsweep.envs.libero_pro import PRO_SUITES
from duqsweep.envs.mini import suite as mini
from duqsweep.envs.pro_objects import register_pro_objects
from duqsweep.envs.rendering import OSMESA, resolve_renderer
from duqsweep.envs.setup import prepare_libero
from duqsweep.envs.simulator import SEED, Simulator
from duqsweep.envs.simulator_info import describe_simulator
from duqsweep.envs.suite_tasks import SuiteTask, suite_tasks
from duqsweep.errors import ConfigError, EvaluationError, InfrastructureError
from duqsweep.seams import ACTION_DIM, Environment, Observation
from duqsweep.spec import LedgerEntry, SuiteSpec

KEPT_MINI = 6  # simulators alive at once: 10 MB each
KEPT_OFFICIAL = 3  # up to 300 MB each


def preload(renderer: str, suite: str) -> None:
    """Load what a suite needs, in a process that draws nothing and will be forked.

    Where a GPU draws, its driver stays out: LIBERO loads it, so what LIBERO needs is loaded alone.

    Args:
        renderer: Of all the environments that forks of this process open; not auto.
        suite: Its name.
    """
    if renderer == OSMESA:
        prepare_libero(renderer, mini.ASSETS)
        from duqsweep.envs import control_step  # noqa: F401

        if suite != assets.MINI:  # whose arm has few triangles
            _compile_the_arm()
    import numba

    numba.njit()(_same)(0.0)  # its first call loads half of it


def _compile_the_arm() -> None:
    """Have MuJoCo read the meshes of LIBERO's arm; it keeps them, for the models of all forks.

    It takes a second, of which each fork then needs a tenth.
    """
    import mujoco
    from libero.libero.envs.robots.mounted_panda import MountedPanda
    from robosuite.models.grippers import PandaGripper

    for part in (MountedPanda(), PandaGripper()):
        mujoco.MjModel.from_xml_string(part.get_xml())


def _same(number: float) -> float:
    return number


def open_environment(suite: SuiteSpec) -> Environment:
    """The environment of a suite; simulators are built at the first episode of a task.

    Raises:
        ConfigError: Unknown suite, one without episodes, its assets are missing, or an installed
            simulator is not known to play it as published evaluations do.
    """
    describe_simulator(suite)  # refuses versions that move objects
    if suite.name == assets.RECORDED:
        raise ConfigError(f"suite {suite.name} holds observations and no episodes to play")
    if suite.name == assets.MINI:
        with _machine_faults("LIBERO could not be loaded"):
            prepare_libero(resolve_renderer(suite.renderer), mini.ASSETS)
            from duqsweep.envs.mini import problem  # noqa: F401  (registers the problem class)
        tasks = [SuiteTask(t.bddl, t.instruction, t.init_states()) for t in mini.TASKS]
        return LiberoEnvironment(suite, tasks, KEPT_MINI, official=False)
    with _machine_faults("LIBERO could not be loaded"):
        prepare_libero(resolve_renderer(suite.renderer), assets.find_assets(suite).folder)
        if suite.name in PRO_SUITES:
            register_pro_objects()
    tasks = suite_tasks(suite)
    return LiberoEnvironment(suite, tasks, KEPT_OFFICIAL, official=True)


class LiberoEnvironment:
    """A `seams.Environment` over one simulator per task."""

    def __init__(self, suite: SuiteSpec, tasks: list[SuiteTask], kept: int, official: bool) -> None:
        """Build nothing yet.

        Args:
            suite: Suite, image size, settle steps.
            tasks: In the suite's order.
            kept: Simulators to keep; the one unused longest is closed first.
            official: Whether episodes begin as LIBERO's own evaluation begins them. It also draws
                poses of fixtures from the seed; they are not in the state, so each seed has a
                simulator of its own.
        """
        self._suite = suite
        self._tasks = tasks
        self._kept = kept
        self._official = official
        # (task, seed) → simulator
        self._simulators: OrderedDict[tuple[int, int], Simulator] = OrderedDict()
        self._current: Simulator | None = None

    def reset(self, entry: LedgerEntry) -> Observation:
        """Start the episode of `entry`, settle steps included; equal entries give equal episodes.

        Raises:
            ConfigError: `entry` is not of this suite.
            InfrastructureError: Simulator or renderer failed.
        """
        self._check(entry)
        with _machine_faults(f"reset of {entry.suite} task {entry.task} failed"):
            simulator = self._simulator(entry.task, entry.seed)
            state = self._tasks[entry.task].init_states[entry.init_state]
            simulator.reset(state, self._suite.settle_steps, as_libero=self._official)
            self._current = simulator
            return simulator.observe()

    def step(self, action: NDArray[np.float64]) -> bool:
        """Apply one action; see `seams.Environment`.

        Raises:
            EvaluationError: The action is not seven finite numbers: the policy's fault.
            InfrastructureError: The simulator failed.
        """
        simulator = self._playing()
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
            raise EvaluationError(f"an action is {ACTION_DIM} finite numbers, got {action}")
        with _machine_faults("a simulation step failed"):
            return simulator.step(np.clip(action, -1.0, 1.0))

    def observe(self) -> Observation:
        """What is seen now.

        Raises:
            InfrastructureError: The renderer failed.
        """
        simulator = self._playing()
        with _machine_faults("a picture could not be drawn"):
            return simulator.observe()

    def built(self) -> frozenset[tuple[int, int | None]]:
        """See `seams.Environment`."""
        return frozenset(
            (task, seed if self._official else None) for task, seed in self._simulators
        )

    def _playing(self) -> Simulator:
        if self._current is None:
            raise EvaluationError("no episode is being played: call reset first")
        return self._current

    def close(self) -> None:
        """Free all simulators; `reset` builds them anew."""
        for simulator in self._simulators.values():
            simulator.close()
        self._simulators.clear()
        self._current = None

    def _check(self, entry: LedgerEntry) -> None:
        if entry.suite != self._suite.name:
            raise ConfigError(f"entry of suite {entry.suite!r}; this is {self._suite.name!r}")
        if not 0 <= entry.task < len(self._tasks):
            raise ConfigError(f"{entry.suite} has {len(self._tasks)} tasks, no task {entry.task}")
        states = len(self._tasks[entry.task].init_states)
        if not 0 <= entry.init_state < states:
            raise ConfigError(
                f"{entry.suite} task {entry.task} has initial states 0 to {states - 1},"
                f" not {entry.init_state}"
            )

    def _simulator(self, task: int, seed: int) -> Simulator:
        built = (task, seed if self._official else SEED)
        if built not in self._simulators:
            while len(self._simulators) >= self._kept:
                self._simulators.popitem(last=False)[1].close()
            about, side = self._tasks[task], self._suite.image_px
            self._simulators[built] = Simulator(about.bddl, about.instruction, side, built[1])
        self._simulators.move_to_end(built)
        return self._simulators[built]


@contextmanager
def _machine_faults(what: str) -> Iterator[None]:
    """Whatever LIBERO, MuJoCo or the renderer raise is the machine's fault; the cause is kept."""
    try:
        yield
    except Exception as error:
        raise InfrastructureError(f"{what}: {type(error).__name__}: {error}") from error
