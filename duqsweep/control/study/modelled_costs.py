"""What arithmetic says of a point's objectives before it is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from duqsweep.checkpoint.locate import policy_sizes
from duqsweep.checkpoint.sizes import EXPERT, rows_a_pass
from duqsweep.control.config.parameters import Params
from duqsweep.control.config.space import Space
from duqsweep.control.explain.cost import CAMERAS_SEEN, FULL_BYTES, PROMPT_TOKENS
from duqsweep.control.front.measures import (
    CALL_MS,
    EPISODE_TIME_S,
    MEAN_WEIGHT_BITS,
    MODELLED_TIME_S,
    SPEEDUP,
    WEIGHTS_MB,
    Measure,
)
from duqsweep.errors import ConfigError
from duqsweep.quant.cost import H200, Work, mean_weight_bits, modelled, modelled_seconds, weights_mb
from duqsweep.quant.select import Bits
from duqsweep.spec import FEW_BIT_KERNELS, TrialSpec

Floats = NDArray[np.float64]

MEASURED_TIMES = (EPISODE_TIME_S.name, CALL_MS.name, SPEEDUP.name)
OF_EPISODE = (EPISODE_TIME_S.name, MODELLED_TIME_S.name)


class ModelledCosts:
    """Logarithms of the costs of points by the cost model (`quant.cost`), up to a factor each.

    Only how points differ counts: the search learns the factor, and how far the model can be
    trusted, from the trials that were measured.
    """

    def __init__(self, space: Space, measures: Sequence[Measure]) -> None:
        """Of the points of `space`; `measures` are the objectives beside the success rate."""
        self._space, self._names = space, [measure.name for measure in measures]
        self._policy = space.base.policy.name
        sizes = policy_sizes(space.base.policy)
        pictures = min(sizes.cameras, CAMERAS_SEEN)
        self._rows = rows_a_pass(sizes, pictures, PROMPT_TOKENS.get(self._policy, 0))
        self._numbers = sum(rows * columns for rows, columns in space.base.layers.values())

    def __call__(self, points: Sequence[Params]) -> Floats:
        """(points, measures), nan where nothing is modelled or the point is impossible."""
        found = [self._row(point) for point in points]
        return np.array(found).reshape(len(points), len(self._names))

    def _row(self, point: Params) -> list[float]:
        try:
            spec = self._space.spec(point)
            bits = self._space.bits(spec)
        except ConfigError:
            return [math.nan] * len(self._names)
        values = [self._value(name, spec, bits) for name in self._names]
        return [math.nan if value is None else math.log(value) for value in values]

    def _value(self, name: str, spec: TrialSpec, bits: dict[str, Bits]) -> float | None:
        layers, quant = self._space.base.layers, spec.quant
        if name == MEAN_WEIGHT_BITS.name:
            return mean_weight_bits(layers, bits)
        if self._policy not in FULL_BYTES:
            return None
        full_bytes = FULL_BYTES[self._policy]
        if name == WEIGHTS_MB.name:
            return weights_mb(layers, bits, quant, self._numbers, full_bytes)
        if name not in (*MEASURED_TIMES, MODELLED_TIME_S.name):
            return None
        steps = spec.policy.num_steps
        work = {root: Work(steps if root == EXPERT else 1, n) for root, n in self._rows.items()}
        if name == MODELLED_TIME_S.name or quant.kernel in FEW_BIT_KERNELS:
            time = modelled_seconds(layers, bits, quant, work, H200)
        else:
            # Simulated bits make nothing faster: it computes in full precision.
            time = modelled(layers, bits, quant, work, full_bytes)["flops_per_call"]
        return time * (spec.suite.nominal_calls if name in OF_EPISODE else 1)
