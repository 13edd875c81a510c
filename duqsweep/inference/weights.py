"""Weights of an expert that `freeze` quantized, as the fused expert's kernels read them."""

from __future__ import annotations

from torch import nn

from duqsweep.errors import EvaluationError
from duqsweep.kernels.expert_weights import Weight
from duqsweep.quant.kernels.integer import IntegerLinear


def expert_weight(linear: nn.Module) -> Weight:
    """A layer's integer weight, or that of a layer that is not quantized.

    Raises:
        EvaluationError: The layer is quantized, but not in integers.
    """
    if isinstance(linear, IntegerLinear):
        return linear.weight()
    if isinstance(linear, nn.Linear):
        return linear.weight.detach()
    raise EvaluationError(
        f"the expert's kernels take kernel int8 or w4a8, or a plain layer, got a "
        f"{type(linear).__name__}"
    )
