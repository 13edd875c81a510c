"""What one process keeps between trials: unquantized policy, simulator, activation statistics."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from duqsweep.checkpoint.distilled import reference_policy
from duqsweep.checkpoint.weights_id import begin_to_identify, forget_identity
from duqsweep.envs.assets import RECORDED, find_recording
from duqsweep.envs.rendering import resolve_renderer
from duqsweep.inference.replayed_call import replayed
from duqsweep.policy.load import load_policy
from duqsweep.quant.calibrate import LayerStats, calibrate
from duqsweep.quant.select import Bits
from duqsweep.result import SimulatorInfo
from duqsweep.seams import EagerPolicy, Environment, Policy
from duqsweep.spec import PolicySpec, QuantSpec, SuiteSpec, TrialSpec
from duqsweep.worker.fidelity import actions_of
from duqsweep.worker.ledger import LOOKED_AT_SEED
from duqsweep.worker.meter import Meter
from duqsweep.worker.noise import flow_noise
from duqsweep.worker.observations import (
    FixedObservations,
    fixed_observations,
    recorded_observations,
    shared_file,
)
from duqsweep.worker.remote_simulator import RemoteSimulator
from duqsweep.worker.shared_gpu import SharedGpu
from duqsweep.worker.simulator import check_node
from duqsweep.worker.simulator_pool import SimulatorPool

if TYPE_CHECKING:
    from duqsweep.worker.prepare import Prepared

log = logging.getLogger(__name__)

HANG_S = 1800.0  # without an answer, after which a simulator is ended


@dataclass(frozen=True)
class ReferencePolicy:
    """The unquantized, eager policy with its default number of steps."""

    spec: PolicySpec
    device: str
    policy: EagerPolicy
    id: str  # hash of its weights


class WorkerCache:
    """Loads what trials share once, and keeps the latest of each kind."""

    def __init__(
        self,
        load: Callable[[PolicySpec, str], EagerPolicy] = load_policy,
        simulators: int = 1,
        hang_s: float = HANG_S,
        open_simulator: Callable[[SuiteSpec], Environment] | None = None,
    ) -> None:
        """Nothing is loaded before it is asked for.

        Args:
            load: Gives the policy of a spec on a device.
            simulators: How many simulate at once, each in a process of its own.
            hang_s: A simulator that gives no answer for so long is ended.
            open_simulator: Gives the environment of a suite, which then is the only one and runs in
                this process.
        """
        self._load, self._open = load, open_simulator
        self._count, self._hang_s = simulators, hang_s
        self.prepared: tuple[TrialSpec, Prepared] | None = None  # the latest, for more episodes
        self.meter: Meter | None = None  # of the trial whose episodes are played now or were last
        self._reference: ReferencePolicy | None = None
        self._gpu: tuple[str, SharedGpu] | None = None
        self._pool: tuple[SuiteSpec, SimulatorPool] | None = None
        self._simulators: dict[tuple[Path, SuiteSpec], SimulatorInfo | None] = {}
        self._observations: dict[tuple[str, SuiteSpec, Path], FixedObservations] = {}
        self._replayed: tuple[ReferencePolicy, Policy] | None = None
        self._actions: tuple[object, Sequence[NDArray[np.float32]]] | None = None
        self._statistics: dict[str, tuple[object, dict[str, LayerStats]]] = {}

    def reference(self, spec: PolicySpec, device: str) -> ReferencePolicy:
        """The unquantized form of `spec`'s policy; its denoising steps are not taken over."""
        if not self.has_reference(spec, device):
            self._observations.clear()
            self._statistics.clear()
            unquantized = reference_policy(spec)
            identity = begin_to_identify(spec)
            try:
                policy = self._load(unquantized, device)
                self._reference = ReferencePolicy(unquantized, device, policy, identity.result())
            finally:
                forget_identity()
        assert self._reference is not None
        return self._reference

    def has_reference(self, spec: PolicySpec, device: str) -> bool:
        """Whether the unquantized form of `spec`'s policy is loaded."""
        kept = self._reference
        return kept is not None and (kept.spec, kept.device) == (reference_policy(spec), device)

    def kept(self, spec: TrialSpec) -> Prepared | None:
        """The latest policy that was prepared, if it is that of `spec`.

        How an episode is replanned is not in a policy: such trials share one.
        """
        latest = self.prepared
        if latest is None or _without_plan(latest[0]) != _without_plan(spec):
            return None
        return latest[1]

    def gpu(self, device: str) -> SharedGpu:
        """This process's turns on a device."""
        if self._gpu is None or self._gpu[0] != device:
            self._gpu = device, SharedGpu.of(device)
        return self._gpu[1]

    def simulator(self, sweep_dir: Path, suite: SuiteSpec) -> SimulatorInfo | None:
        """What plays the episodes of a sweep here; see `worker.simulator.check_node`."""
        key = (sweep_dir, suite)
        if key not in self._simulators:
            self._simulators[key] = check_node(sweep_dir, suite)
        return self._simulators[key]

    def resize(self, simulators: int) -> None:
        """Change how many simulators there are; those of now end."""
        self._close_simulators()
        self._count = simulators

    def simulators(self, suite: SuiteSpec) -> SimulatorPool:
        """The simulators of `suite`; when an episode ends or is replanned is not their business."""
        wanted = _unplanned(suite)
        if self._pool is None or self._pool[0] != wanted:
            self._close_simulators()
            self._pool = wanted, self._new_pool(wanted)
        return self._pool[1]

    def _new_pool(self, suite: SuiteSpec) -> SimulatorPool:
        if self._open is not None:
            return SimulatorPool.in_process(partial(self._open, suite))
        drawn = replace(suite, renderer=resolve_renderer(suite.renderer))
        return SimulatorPool([RemoteSimulator(drawn) for _ in range(self._count)], self._hang_s)

    def observations(
        self,
        reference: ReferencePolicy,
        suite: SuiteSpec,
        cache_dir: Path,
        meanwhile: Callable[[], None] | None = None,
    ) -> FixedObservations:
        """The fixed observations, from memory, from a file, or rolled out now.

        Args:
            reference: The policy that acts.
            suite: The suite in which it does.
            cache_dir: Existing folder in the sweep's folder.
            meanwhile: Called while simulators build their tasks, where they have to.
        """
        key = (reference.id, replace(suite, replan_steps=1), cache_dir)
        if key not in self._observations and suite.name == RECORDED:
            path = find_recording(suite)
            self._observations[key] = recorded_observations(path, suite.image_px)
        elif key not in self._observations:
            self._observations[key] = fixed_observations(
                self._quick(reference),
                reference.id,
                suite,
                lambda: self.simulators(suite),
                cache_dir,
                self._shared(reference, suite, cache_dir.parent),
                meanwhile,
            )
        return self._observations[key]

    def _quick(self, reference: ReferencePolicy) -> Policy:
        """The reference as it acts fast, which takes memory for each length of prompt."""
        if self._replayed is None or self._replayed[0] is not reference:
            self._replayed = reference, replayed(reference.policy)
        return self._replayed[1]

    def _shared(
        self, reference: ReferencePolicy, suite: SuiteSpec, sweep_dir: Path
    ) -> Callable[[], Path] | None:
        if self._open is not None:
            return None  # what another environment shows is nobody else's
        return lambda: shared_file(
            reference.id, suite, self.simulator(sweep_dir, suite), reference.device
        )

    def reference_actions(
        self, reference: ReferencePolicy, observations: FixedObservations
    ) -> Sequence[NDArray[np.float32]]:
        """What the reference does on the measured observations; made once for all trials."""
        key = (reference.id, observations.id)
        if self._actions is None or self._actions[0] != key:
            quick = self._quick(reference)
            self._actions = key, actions_of(quick, observations.measured, LOOKED_AT_SEED)
            self._replayed = None  # frees its memory
        return self._actions[1]

    def statistics(
        self,
        reference: ReferencePolicy,
        observations: FixedObservations,
        bits: Mapping[str, Bits],
        quant: QuantSpec,
        layers: Mapping[str, tuple[int, int]],
    ) -> dict[str, LayerStats]:
        """What the inputs of the layers in `bits` look like on the calibration observations.

        Without static scales the statistics depend on nothing in `quant` but on whether the
        rotation looks at samples: all `layers` are watched once, for every trial to come.
        """
        kind = "samples" if quant.rotation == "greedy" else "maxima"
        key: object = observations.id
        watched = dict.fromkeys(layers, (2, 2))
        if quant.act_scale == "static":
            kind, watched = "static", dict(bits)
            key = (observations.id, quant, tuple(bits.items()))
        kept = self._statistics.get(kind)
        if kept is None or kept[0] != key:
            # What is watched but for maxima takes new memory in each call.
            policy = replayed(reference.policy) if kind == "maxima" else reference.policy

            def run() -> None:
                for number, observation in enumerate(observations.calibration):
                    noise = flow_noise((0, number), policy.horizon, policy.action_dim)
                    policy.act(observation, noise)

            kept = key, calibrate(reference.policy.module, watched, quant, run)
            self._statistics[kind] = kept
        return kept[1]

    def close(self) -> None:
        """Free the simulators and the GPU; policies go with the process."""
        self._close_simulators()
        if self._gpu is not None:
            kept, self._gpu = self._gpu[1], None
            kept.close()

    def _close_simulators(self) -> None:
        if self._pool is not None:
            kept, self._pool = self._pool[1], None
            kept.close()


def _unplanned(suite: SuiteSpec) -> SuiteSpec:
    """The suite but for when an episode ends or is replanned."""
    return replace(suite, max_steps=1, nominal_steps=1, replan_steps=1)


def _without_plan(spec: TrialSpec) -> TrialSpec:
    return replace(spec, suite=_unplanned(spec.suite))
