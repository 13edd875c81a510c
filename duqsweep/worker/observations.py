"""Fixed observations for calibration, timing and fidelity, none from a searched episode.

They are rolled out once per policy, suite and simulator of a user's machine, or read from a file
that was recorded before; then no simulator is needed. Those of the shipped policy in `duq_mini` are
shipped. A sweep's seed changes none of them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile

import numpy as np
import torch

from duqsweep import __version__
from duqsweep.codec import encode
from duqsweep.envs.assets import RECORDING
from duqsweep.envs.rendering import AUTO, resolve_renderer
from duqsweep.errors import InfrastructureError
from duqsweep.files import write_bytes
from duqsweep.fingerprint import digest
from duqsweep.private import cache_folder
from duqsweep.result import SimulatorInfo
from duqsweep.seams import Observation, Policy
from duqsweep.spec import LedgerEntry, SuiteSpec
from duqsweep.worker.episode import Episode
from duqsweep.worker.ledger import LOOKED_AT_SEED, looked_at
from duqsweep.worker.lock import exclusive
from duqsweep.worker.noise import episode_key, flow_noise
from duqsweep.worker.policy_calls import Acted, Ask, PolicyCalls
from duqsweep.worker.shared_gpu import SharedGpu
from duqsweep.worker.simulator_pool import SimulatorPool
from duqsweep.worker.simulator_requests import Answer, Play, Reset

KEPT_PER_TASK = 4
CALLS_APART = 3  # between kept observations: 15 steps at 5 actions per call
# A dead holder frees it at once, and a large policy on a CPU may take long to look at ten tasks.
LOCK_WAIT_S = 3600.0
FIELDS = ("eef_pos", "eef_quat", "gripper_qpos")
# The identity of what `RECORDING` shows: the shipped policy in duq_mini. To collect it again takes
# 25 CPU seconds, and shows the same moments up to what versions of torch and MuJoCo round.
RECORDED_IDENTITY = "64f4ee4d186c4cd6"


@dataclass(frozen=True)
class FixedObservations:
    """Two halves, each with every task, so that nothing is judged on what it was calibrated on."""

    id: str  # hash of what shaped them
    calibration: tuple[Observation, ...]
    measured: tuple[Observation, ...]  # timing and action error


def fixed_observations(
    policy: Policy,
    policy_id: str,
    suite: SuiteSpec,
    open_simulators: Callable[[], SimulatorPool],
    cache_dir: Path,
    shared: Callable[[], Path] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> FixedObservations:
    """The observations of `collect`, made by the first process that asks and read by all others.

    Those of the shipped policy in the shipped suite are read from `RECORDING`.

    Args:
        policy: Unquantized, with its default number of steps.
        policy_id: Hash of its weights.
        suite: The suite and its constants.
        open_simulators: Called only when nothing is cached.
        cache_dir: Existing folder that the sweep's processes share; what it holds counts, so that
            all nodes see the same.
        shared: Names the file of all sweeps of this user, see `shared_file`; asked only when the
            sweep has none, and they are not shipped. None to share nothing.
        meanwhile: Called before the policy is, while simulators build their tasks.
    """
    identity = _identity(policy_id, suite)
    path = cache_dir / f"observations-{identity}.npz"
    with exclusive(path.with_suffix(".lock"), LOCK_WAIT_S):
        if not path.exists():
            make = partial(_make, policy, suite, open_simulators, meanwhile)
            if shared is None:
                content = make()
            elif is_recorded(policy_id, suite):
                content = RECORDING.read_bytes()
            else:
                content = _shared(shared(), make)
            write_bytes(path, content)
    return _halved(identity, load_observations(path))


def shared_file(
    policy_id: str, suite: SuiteSpec, simulator: SimulatorInfo | None, device: str
) -> Path:
    """Where the observations of a policy lie for all sweeps of this user; its folder exists.

    Its name holds everything that may change a pixel or an action: versions, assets and renderer
    of the simulator, and the kind of device on which the policy computed.
    """
    drawn = replace(suite, renderer=resolve_renderer(suite.renderer))
    played = None if simulator is None else encode(simulator)
    kind = device.partition(":")[0]
    name = digest([_identity(policy_id, drawn), played, kind, torch.__version__, __version__])
    return cache_folder("observations") / f"{name}.npz"


def is_recorded(policy_id: str, suite: SuiteSpec) -> bool:
    """Whether `RECORDING` shows this policy in this suite, whichever renderer draws episodes."""
    return _identity(policy_id, replace(suite, renderer=AUTO)) == RECORDED_IDENTITY


def _make(
    policy: Policy,
    suite: SuiteSpec,
    open_simulators: Callable[[], SimulatorPool],
    meanwhile: Callable[[], None] | None,
) -> bytes:
    simulators = open_simulators()
    simulators.begin_to_build(looked_at(suite))
    if meanwhile is not None:
        meanwhile()
    # A cache may be larger: to compress it takes 0.3 s of the time until the first episode.
    return _as_bytes(collect(policy, suite, simulators), np.savez)


def _shared(path: Path, make: Callable[[], bytes]) -> bytes:
    """What the shared file holds; made anew where there is none, or a damaged one.

    A cache that cannot be written, in a home that is full say, is no reason to fail.
    """
    with suppress(OSError, ValueError, KeyError, BadZipFile):
        found = path.read_bytes()
        load_observations(io.BytesIO(found))
        return found
    made = make()
    with suppress(OSError):
        write_bytes(path, made)
    return made


def recorded_observations(path: Path, image_px: int) -> FixedObservations:
    """Observations from a file that `save_observations` wrote, e.g. the shipped one.

    Args:
        path: The file.
        image_px: Side of the images given to the policy; others are enlarged or reduced, pixel by
            pixel.
    """
    identity = digest([hashlib.sha256(path.read_bytes()).hexdigest(), image_px])
    found = [_resized(observation, image_px) for observation in load_observations(path)]
    return _halved(identity, found)


def _halved(identity: str, found: Sequence[Observation]) -> FixedObservations:
    return FixedObservations(identity, tuple(found[::2]), tuple(found[1::2]))


def _resized(observation: Observation, image_px: int) -> Observation:
    images = {}
    for camera, pixels in observation.images.items():
        rows, columns = (np.arange(image_px) * side // image_px for side in pixels.shape[:2])
        images[camera] = pixels[rows[:, None], columns]
    return replace(observation, images=images)


def collect(policy: Policy, suite: SuiteSpec, simulators: SimulatorPool) -> list[Observation]:
    """What the unquantized policy sees at the start of one reserved episode of every task.

    Half of each predicted chunk is executed.
    """
    entries = looked_at(suite)
    kept: dict[int, list[Observation]] = {entry.i: [] for entry in entries}
    waiting = list(entries)

    def begin(simulator: object) -> tuple[int, Episode] | None:
        if not waiting:
            return None
        entry = waiting.pop(0)
        return entry.i, _look_around(policy, entry, kept[entry.i])

    def end(i: int, error: InfrastructureError | None) -> None:
        if error is not None:
            raise error

    # As long as this worker prepares a trial, no other one measures.
    simulators.play(begin, end, PolicyCalls(policy, SharedGpu(None, "")))
    return [observation for entry in entries for observation in kept[entry.i]]


def _look_around(policy: Policy, entry: LedgerEntry, kept: list[Observation]) -> Episode:
    """The start of one episode; what is seen goes to `kept`."""
    found = yield Reset(entry)
    assert isinstance(found, Answer)
    assert found.observation is not None
    kept.append(found.observation)
    for call in range(CALLS_APART * (KEPT_PER_TASK - 1)):
        noise = flow_noise(episode_key(entry, call), policy.horizon, policy.action_dim)
        acted = yield Ask(found.observation, noise)
        assert isinstance(acted, Acted)
        found = yield Play(acted.actions[: policy.horizon // 2], observe=True, to_goal=False)
        assert isinstance(found, Answer)
        assert found.observation is not None
        if (call + 1) % CALLS_APART == 0:
            kept.append(found.observation)


def _identity(policy_id: str, suite: SuiteSpec) -> str:
    shaped = encode(replace(suite, seed=LOOKED_AT_SEED))
    # How long an episode is, how it is counted and how it is replanned do not reach `collect`.
    del shaped["max_steps"], shaped["nominal_steps"], shaped["replan_steps"]
    return digest([policy_id, shaped, KEPT_PER_TASK, CALLS_APART])


def save_observations(path: Path, observations: Sequence[Observation]) -> None:
    """Write at least one observation, whole or not at all."""
    write_bytes(path, _as_bytes(observations, np.savez_compressed))


def _as_bytes(observations: Sequence[Observation], save: Callable[..., None]) -> bytes:
    arrays = {name: np.stack([getattr(seen, name) for seen in observations]) for name in FIELDS}
    arrays["instruction"] = np.array([seen.instruction for seen in observations])
    for camera in observations[0].images:
        arrays[f"images.{camera}"] = np.stack([seen.images[camera] for seen in observations])
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def load_observations(source: Path | BinaryIO) -> list[Observation]:
    """What `save_observations` wrote."""
    with np.load(source, allow_pickle=False) as file:
        arrays = dict(file)
    cameras = [name.removeprefix("images.") for name in arrays if name.startswith("images.")]
    return [
        Observation(
            images={camera: arrays[f"images.{camera}"][i] for camera in cameras},
            eef_pos=arrays["eef_pos"][i],
            eef_quat=arrays["eef_quat"][i],
            gripper_qpos=arrays["gripper_qpos"][i],
            instruction=str(arrays["instruction"][i]),
        )
        for i in range(len(arrays["instruction"]))
    ]
