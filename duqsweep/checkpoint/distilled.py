"""Which denoising steps a checkpoint runs with; needs no torch.

A student that was distilled to few steps has learnt these and no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from duqsweep.checkpoint.pi05_config import read_config
from duqsweep.errors import ConfigError
from duqsweep.spec import UNIFORM, PolicySpec


def distilled_steps(policy: PolicySpec) -> tuple[int, ...]:
    """The numbers of steps that the policy's checkpoint was distilled for; empty: it was not.

    Raises:
        ConfigError: As `pi05_config.read_config`.
    """
    if policy.name == "embedded" or policy.checkpoint is None:
        return ()
    return tuple(sorted(set(read_config(Path(policy.checkpoint)).distilled_steps)))


def check_steps(policy: PolicySpec, distilled: Sequence[int]) -> None:
    """Raise ConfigError unless a policy whose checkpoint has these `distilled_steps` can run."""
    if not distilled:
        return
    if policy.num_steps not in distilled:
        steps = " or ".join(map(str, distilled))
        raise ConfigError(
            f"checkpoint {policy.checkpoint} is distilled for {steps} denoising "
            f"step{'s' * (distilled[-1] > 1)}: policy.num_steps must be {steps}, "
            f"got {policy.num_steps}"
        )
    if policy.num_steps > 1 and policy.schedule != UNIFORM.kind:
        raise ConfigError(
            f"checkpoint {policy.checkpoint} is distilled for equal steps: policy.schedule must be "
            f"{UNIFORM.kind}, got {policy.schedule}"
        )


def reference_policy(policy: PolicySpec) -> PolicySpec:
    """The policy called as the reference is: with the default steps, or a student's most."""
    steps = max(distilled_steps(policy), default=PolicySpec.num_steps)
    plain = replace(policy, schedule=UNIFORM.kind, schedule_shift=UNIFORM.shift)
    return replace(plain, num_steps=steps, reuse_images=False)
