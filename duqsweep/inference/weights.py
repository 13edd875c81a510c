"""The weights of a policy's linear layers, single or merged, in one form for all kinds."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import nn

from duqsweep.errors import EvaluationError
from duqsweep.kernels.projection_weights import (
    Numerics,
    ProjectionWeights,
    concat,
    concat_reason,
)
from duqsweep.quant.linear import QuantizedLinear

log = logging.getLogger(__name__)


def weights_of(linear: nn.Module) -> ProjectionWeights | None:
    """A layer's weights, sharing its tensors; None: `ProjectionWeights` cannot express the layer.

    Raises:
        EvaluationError: The module is not a linear layer.
    """
    if isinstance(linear, nn.Linear):
        bias = None if linear.bias is None else linear.bias.detach()
        return ProjectionWeights(linear.weight.detach(), bias=bias)
    if isinstance(linear, QuantizedLinear):
        return linear.projection_weights()
    raise EvaluationError(f"expected a linear layer, got a {type(linear).__name__}")


def merged(linears: Sequence[nn.Module], numerics: Sequence[Numerics]) -> ProjectionWeights | None:
    """Layers with the same input, merged; None: they must be called one by one.

    Args:
        linears: The layers.
        numerics: What the caller can compute; with other layers, the result is None.
    """
    parts = [weights_of(linear) for linear in linears]
    found = [part for part in parts if part is not None and part.numerics in numerics]
    if len(found) < len(parts):
        return None
    reason = concat_reason(found)
    if reason is not None:
        log.debug("layers are not merged: %s", reason)
        return None
    return concat(found)


def has_integers(stack: nn.Module) -> bool:
    """Whether any layer multiplies integers, which torch.compile cannot trace."""
    quantized = [layer for layer in stack.modules() if isinstance(layer, QuantizedLinear)]
    parts = [layer.projection_weights() for layer in quantized]
    return any(part is not None and part.is_integer for part in parts)
