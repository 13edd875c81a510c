"""How far a policy's actions lie from the unquantized policy's; needs no simulator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from duqsweep.errors import EvaluationError
from duqsweep.seams import Observation, Policy
from duqsweep.worker.noise import flow_noise


def action_error(
    policy: Policy, reference: Policy, observations: Sequence[Observation], seed: int
) -> float:
    """Root mean square difference of normalised actions, both flows starting from the same noise.

    The reference makes its own number of steps (10), so that a policy with fewer differs by what
    the coarser integration costs, quantized or not. Exactly 0 for the reference itself.

    Raises:
        EvaluationError: The policy's actions are not finite.
    """
    return error_to(actions_of(reference, observations, seed), policy, observations, seed)


def actions_of(
    policy: Policy, observations: Sequence[Observation], seed: int
) -> list[NDArray[np.float32]]:
    """Normalised actions on each observation, noise keyed by the seed and its number."""
    return [
        policy.act_normalised(observation, _noise(policy, seed, number))
        for number, observation in enumerate(observations)
    ]


def error_to(
    expected: Sequence[NDArray[np.float32]],
    policy: Policy,
    observations: Sequence[Observation],
    seed: int,
) -> float:
    """`action_error` to actions that `actions_of` gave for the same observations and seed."""
    squares: list[float] = []
    for actions, wanted in zip(actions_of(policy, observations, seed), expected, strict=True):
        if not np.isfinite(actions).all():
            raise EvaluationError("the policy's actions are not finite on a fixed observation")
        difference = actions.astype(np.float64) - wanted
        squares.append(float(np.mean(difference**2)))
    return float(np.sqrt(np.mean(squares)))


def _noise(policy: Policy, seed: int, number: int) -> NDArray[np.float32]:
    return flow_noise((seed, number), policy.horizon, policy.action_dim)
