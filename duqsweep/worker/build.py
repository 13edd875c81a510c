"""A trial's policy from the unquantized one and what calibration found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from duqsweep.inference.compile import compile_policy
from duqsweep.quant.calibrate import LayerStats
from duqsweep.quant.freeze import freeze
from duqsweep.quant.select import Bits
from duqsweep.seams import EagerPolicy, Policy
from duqsweep.spec import QuantSpec, TrialSpec
from duqsweep.worker.cache import ReferencePolicy
from duqsweep.worker.phases import phase


def quantized(
    spec: TrialSpec,
    reference: ReferencePolicy,
    bits: Mapping[str, Bits],
    stats: Mapping[str, LayerStats],
    cache_dir: Path,
) -> EagerPolicy:
    """The policy that `spec` describes, layer by layer; without `bits`, the unquantized one.

    Args:
        spec: The trial.
        reference: Whose weights it has.
        bits: The layers to quantize.
        stats: Of their inputs.
        cache_dir: Existing folder for packs.
    """
    called = spec.policy
    policy = reference.policy.copy(called.num_steps, called.times, called.reuse_images)
    if bits:
        with phase("freeze"):
            packs = None if is_quick(spec.quant, reference.device) else cache_dir / "packs"
            freeze(policy.module, bits, spec.quant, stats, packs, reference.id)
    return policy


def compiled(policy: EagerPolicy) -> Policy:
    """A fast policy that acts as `policy`; its first call compiles what is not compiled yet."""
    with phase("compile"):
        return compile_policy(policy)


def is_quick(quant: QuantSpec, device: str) -> bool:
    """Whether making a pack takes less time than reading its file.

    On a GPU the 252 layers of pi0.5's LLM and DiT are folded in 1 s with a Hadamard matrix; hashing
    them, and writing and reading 2 GB, took 14 s.
    """
    return device == "cuda" and quant.rotation in ("hadamard", "none")
