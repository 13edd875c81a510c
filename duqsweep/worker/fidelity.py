"""How far a policy's actions lie from the unquantized policy's; needs no simulator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
    squares: list[float] = []
    for number, observation in enumerate(observations):
        noise = flow_noise((seed, number), policy.horizon, policy.action_dim)
        actions = policy.act_normalised(observation, noise)
        if not np.isfinite(actions).all():
            raise EvaluationError("the policy's actions are not finite on a fixed observation")
        difference = actions.astype(np.float64) - reference.act_normalised(observation, noise)
        squares.append(float(np.mean(difference**2)))
    return float(np.sqrt(np.mean(squares)))
