"""Measures what a prepared trial is and costs, before its first episode."""

from __future__ import annotations

import statistics
from pathlib import Path

import torch

from duqsweep.checkpoint.locate import policy_sizes
from duqsweep.checkpoint.sizes import EXPERT, linear_layers, rows_a_pass
from duqsweep.envs.rendering import resolve_renderer
from duqsweep.quant.cost import (
    H200,
    Work,
    mean_weight_bits,
    modelled,
    modelled_seconds,
    weights_mb,
)
from duqsweep.quant.stage_times import separable, timed_stages
from duqsweep.result import H200_SECONDS, PICTURES, PROMPT_TOKENS, SimulatorInfo, Vitals
from duqsweep.seams import Policy
from duqsweep.spec import TrialSpec
from duqsweep.worker.fidelity import error_to
from duqsweep.worker.hardware import describe_hardware, describe_versions, git_commit
from duqsweep.worker.launch_check import check_launches, multiplies_few_bits
from duqsweep.worker.ledger import LOOKED_AT_SEED
from duqsweep.worker.noise import flow_noise
from duqsweep.worker.observations import FixedObservations
from duqsweep.worker.phases import phase
from duqsweep.worker.prepare import Prepared
from duqsweep.worker.timing import Call, alternate, compile_seconds, latency

PARTS_CALLS = 3


def measure_vitals(spec: TrialSpec, prepared: Prepared, simulator: SimulatorInfo | None) -> Vitals:
    """Fidelity, latency beside the reference's, and the modelled cost of a trial.

    Args:
        spec: The trial.
        prepared: Its policy, warm.
        simulator: What will play its episodes; None: the suite has none.

    Raises:
        EvaluationError: The policy's actions are not finite.
    """
    policy, reference = prepared.policy, prepared.reference.policy
    seen = prepared.observations
    launched = _launched(policy, seen)
    check_launches(spec, prepared.bits, launched)
    with phase("fidelity"):
        error = error_to(prepared.expected, policy, seen.measured, LOOKED_AT_SEED)
    with phase("timing"):
        calls = [_call(policy, seen), _call(reference, seen)]
        trial_ms, reference_ms = alternate(calls, policy.synchronize)
        parts_ms = _parts_ms(policy, seen)
        stages_ms = _stages_ms(prepared)
    call_ms = latency(trial_ms)
    compile_s = compile_seconds(prepared.warm_up_ms, call_ms.p50)
    reference_call_ms = statistics.median(reference_ms)
    sizes = policy_sizes(spec.policy)
    layers = linear_layers(sizes)
    parameters = list(reference.module.parameters())
    # Of what is quantized: some parameters are kept in a wider type.
    number_bytes = min(parameter.element_size() for parameter in parameters)
    pictures, prompt_tokens = _reads(policy, seen)
    rows = rows_a_pass(sizes, pictures, prompt_tokens)
    steps = spec.policy.num_steps
    work = {part: Work(steps if part == EXPERT else 1, rows[part]) for part in rows}
    return Vitals(
        layers_quantized=len(prepared.bits),
        bits=prepared.bits,
        mean_weight_bits=mean_weight_bits(layers, prepared.bits),
        weights_mb=_stored_mb(policy)
        if multiplies_few_bits(spec, prepared.bits)
        else weights_mb(
            layers,
            prepared.bits,
            spec.quant,
            sum(parameter.numel() for parameter in parameters),
            number_bytes,
        ),
        modelled={
            **modelled(layers, prepared.bits, spec.quant, work, number_bytes),
            H200_SECONDS: modelled_seconds(layers, prepared.bits, spec.quant, work, H200),
            PICTURES: pictures,
            PROMPT_TOKENS: prompt_tokens,
        },
        call_ms=call_ms,
        parts_ms=parts_ms,
        stages_ms=stages_ms,
        reference_call_ms=reference_call_ms,
        speedup=reference_call_ms / call_ms.p50,
        compile_s=compile_s if spec.runtime.compile else 0.0,
        action_error=error,
        kernel=spec.quant.kernel if prepared.bits else "none",
        hardware=describe_hardware(prepared.reference.device, spec.runtime.threads),
        versions=describe_versions(),
        git=git_commit(Path.cwd()),
        launches=launched,
        allocated_mb=prepared.allocated_mb,
        simulator=simulator,
        renderer=resolve_renderer(spec.suite.renderer) if simulator else None,
    )


def _stored_mb(policy: Policy) -> float:
    """What the weights that a call reads take in memory, tensors that share it counted once."""
    storages = {
        storage.data_ptr(): storage.nbytes()
        for storage in (tensor.untyped_storage() for tensor in policy.weights())
    }
    return sum(storages.values()) / 1e6


def _launched(policy: Policy, seen: FixedObservations) -> dict[str, int]:
    noise = flow_noise((0,), policy.horizon, policy.action_dim)
    return dict(policy.launches(seen.measured[0], noise))


def _call(policy: Policy, seen: FixedObservations) -> Call:
    def call(number: int) -> object:
        observation = seen.measured[number % len(seen.measured)]
        noise = flow_noise((0, number), policy.horizon, policy.action_dim)
        return policy.act(observation, noise)

    return call


def _parts_ms(policy: Policy, seen: FixedObservations) -> dict[str, float]:
    noise = flow_noise((0,), policy.horizon, policy.action_dim)
    calls = [policy.time_parts(seen.measured[0], noise) for _ in range(PARTS_CALLS)]
    return {part: 1e3 * statistics.median(call[part] for call in calls) for part in calls[0]}


def _stages_ms(prepared: Prepared) -> dict[str, float] | None:
    """See `Vitals.stages_ms`; in calls of their own, because clocks inside a call take time."""
    if not prepared.bits:
        return {}
    policy, module = prepared.policy, prepared.module
    if module is None or not separable(module):
        return None
    call = _call(policy, prepared.observations)
    measured = []
    for _ in range(PARTS_CALLS):
        with timed_stages(module, torch.device(prepared.reference.device)) as stages:
            call(0)
            policy.synchronize()
        measured.append(stages.milliseconds())
    return {kind: statistics.median(times[kind] for times in measured) for kind in measured[0]}


def _reads(policy: Policy, seen: FixedObservations) -> tuple[int, int]:
    """Pictures and prompt tokens of a call, on average: instructions differ in length."""
    found = [policy.reads(observation) for observation in seen.measured]
    return found[0][0], round(statistics.mean(tokens for _, tokens in found))
