"""Fixed observations for calibration, timing and fidelity, none from a searched episode.

They are rolled out once for a sweep, or read from a file that was recorded before; then no
simulator is needed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from duqsweep.codec import encode
from duqsweep.files import write_bytes
from duqsweep.fingerprint import digest
from duqsweep.seams import Environment, Observation, Policy
from duqsweep.spec import SuiteSpec
from duqsweep.worker.ledger import make_ledger
from duqsweep.worker.lock import exclusive
from duqsweep.worker.noise import episode_key, flow_noise

KEPT_PER_TASK = 4
CALLS_APART = 3  # between kept observations: 15 steps at 5 actions per call
# A dead holder frees it at once, and a large policy on a CPU may take long to look at ten tasks.
LOCK_WAIT_S = 3600.0
FIELDS = ("eef_pos", "eef_quat", "gripper_qpos")


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
    open_environment: Callable[[], Environment],
    cache_dir: Path,
) -> FixedObservations:
    """The observations of `collect`, made by the first process that asks and read by all others.

    Args:
        policy: Unquantized, with its default number of steps.
        policy_id: Hash of its weights.
        suite: The suite and its constants.
        open_environment: Called only when nothing is cached.
        cache_dir: Existing folder that the sweep's processes share.
    """
    identity = _identity(policy_id, suite)
    path = cache_dir / f"observations-{identity}.npz"
    with exclusive(path.with_suffix(".lock"), LOCK_WAIT_S):
        if not path.exists():
            save_observations(path, collect(policy, suite, open_environment()))
    return _halved(identity, load_observations(path))


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


def collect(policy: Policy, suite: SuiteSpec, environment: Environment) -> list[Observation]:
    """What the unquantized policy sees at the start of one reserved episode of every task.

    Where the suite has categories, of every task of the first: a policy is calibrated on what it
    knows, and the others are there to test it. Half of each predicted chunk is executed. The
    episodes are the last of the reserved ledger, which a confirmation reaches last.
    """
    kept: list[Observation] = []
    last = make_ledger(suite, reserved=True)[-suite.total_tasks :]
    for entry in [entry for entry in last if entry.task < suite.tasks]:
        observation = environment.reset(entry)
        kept.append(observation)
        for call in range(CALLS_APART * (KEPT_PER_TASK - 1)):
            noise = flow_noise(episode_key(entry, call), policy.horizon, policy.action_dim)
            for action in policy.act(observation, noise)[: policy.horizon // 2]:
                environment.step(action)
            observation = environment.observe()
            if (call + 1) % CALLS_APART == 0:
                kept.append(observation)
    return kept


def _identity(policy_id: str, suite: SuiteSpec) -> str:
    shaped = encode(suite)
    # How long an episode is, how it is counted and how it is replanned do not reach `collect`.
    del shaped["max_steps"], shaped["nominal_steps"], shaped["replan_steps"]
    return digest([policy_id, shaped, KEPT_PER_TASK, CALLS_APART])


def save_observations(path: Path, observations: Sequence[Observation]) -> None:
    """Write at least one observation, whole or not at all."""
    arrays = {name: np.stack([getattr(seen, name) for seen in observations]) for name in FIELDS}
    arrays["instruction"] = np.array([seen.instruction for seen in observations])
    for camera in observations[0].images:
        arrays[f"images.{camera}"] = np.stack([seen.images[camera] for seen in observations])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def load_observations(path: Path) -> list[Observation]:
    """What `save_observations` wrote."""
    with np.load(path, allow_pickle=False) as file:
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
