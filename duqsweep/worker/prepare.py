"""From a trial's spec to a warm policy: select, calibrate, freeze, compile, warm up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from duqsweep.checkpoint.distilled import check_steps, distilled_steps
from duqsweep.checkpoint.locate import policy_sizes
from duqsweep.checkpoint.sizes import linear_layers
from duqsweep.errors import EvaluationError
from duqsweep.inference.replayed_call import replayed
from duqsweep.quant.select import Bits, select_layers
from duqsweep.seams import Policy
from duqsweep.spec import TrialSpec
from duqsweep.worker.build import compiled, quantized
from duqsweep.worker.cache import ReferencePolicy, WorkerCache
from duqsweep.worker.hardware import allocated_bytes, check_kernel, resolve_device
from duqsweep.worker.noise import flow_noise
from duqsweep.worker.observations import FixedObservations
from duqsweep.worker.phases import phase
from duqsweep.worker.rehearsal import Rehearsal, dark
from duqsweep.worker.timing import warm_up

WARM_UP_CALLS = 2  # the second shows whether the first has paid for everything


@dataclass(frozen=True)
class Prepared:
    """A trial's policy, warm, with what it is compared to."""

    policy: Policy  # what is timed
    playing: Policy  # plays episodes: acts as `policy` does, to the bit, maybe in less time
    reference: ReferencePolicy
    observations: FixedObservations
    expected: Sequence[NDArray[np.float32]]  # the reference's normalised actions on the measured
    bits: dict[str, Bits]  # quantized layers
    warm_up_ms: list[float]  # of its first calls; none where it was warm already
    allocated_mb: float | None  # GPU memory of the policy beside the reference's; None on a CPU
    module: torch.nn.Module | None  # that the policy runs layer by layer; None: it is compiled


def prepare(spec: TrialSpec, bench: WorkerCache, cache_dir: Path) -> Prepared:
    """Build the policy that `spec` describes, or give it again, warm, if it was the last one.

    Args:
        spec: The trial.
        bench: Has the unquantized policy, or loads it.
        cache_dir: Existing folder for fixed observations and packs.

    Raises:
        ConfigError: The checkpoint is missing, or a rule does not fit the policy's layers.
        EvaluationError: The policy cannot be built or run as specified.
    """
    kept = bench.kept(spec)
    if kept is not None:
        _check_plan(spec, kept.reference)
        return replace(kept, warm_up_ms=[])
    bench.prepared = None  # its memory is free before the next policy is built
    prepared = _prepare(spec, bench, cache_dir)
    bench.prepared = spec, prepared
    return prepared


def _prepare(spec: TrialSpec, bench: WorkerCache, cache_dir: Path) -> Prepared:
    torch.set_num_threads(spec.runtime.threads)
    check_steps(spec.policy, distilled_steps(spec.policy))
    layers = linear_layers(policy_sizes(spec.policy))
    bits = select_layers(spec.quant, layers)
    with phase("load"):
        device = resolve_device(spec.runtime.device)
        is_first = not bench.has_reference(spec.policy, device)
        reference = bench.reference(spec.policy, device)
    _check_plan(spec, reference)
    if bits:
        check_kernel(spec.quant.kernel, reference.device)
    rehearsal = Rehearsal(spec, reference, bits, layers, cache_dir)
    with phase("observations"):

        def meanwhile() -> None:
            rehearsal.play(dark(spec.suite))

        observations = bench.observations(reference, spec.suite, cache_dir, meanwhile)
    if is_first:
        rehearsal.play(observations.measured[0])
    with phase("reference actions"):
        expected = bench.reference_actions(reference, observations)
    before = allocated_bytes(reference.device)
    stats = {}
    if bits:
        with phase("calibrate"):
            stats = bench.statistics(reference, observations, bits, spec.quant, layers)
    eager = quantized(spec, reference, bits, stats, cache_dir)
    policy: Policy = compiled(eager) if spec.runtime.compile else eager
    playing = policy if spec.runtime.compile else replayed(eager)
    module = None if spec.runtime.compile else eager.module
    del eager  # its unmerged weights, where the compiled policy owns merged ones
    allocated = allocated_bytes(reference.device)
    with phase("warm up"):
        warm_up_ms = _warm_up(policy, observations)
    beside_mb = None if before is None or allocated is None else (allocated - before) / 1e6
    return Prepared(
        policy,
        playing,
        reference,
        observations,
        expected,
        bits,
        warm_up_ms,
        beside_mb,
        module,
    )


def _check_plan(spec: TrialSpec, reference: ReferencePolicy) -> None:
    horizon = reference.policy.horizon
    if spec.suite.replan_steps > horizon:
        raise EvaluationError(
            f"replan_steps must not exceed the policy's horizon of {horizon} actions, got "
            f"{spec.suite.replan_steps}"
        )


def _warm_up(policy: Policy, observations: FixedObservations) -> list[float]:
    noise = flow_noise((0,), policy.horizon, policy.action_dim)
    first = observations.measured[0]
    return warm_up(lambda _: policy.act(first, noise), WARM_UP_CALLS, policy.synchronize)
