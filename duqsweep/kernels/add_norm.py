"""A residual connection and the norm after it, in one kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from duqsweep.kernels.norms import Norm
from duqsweep.kernels.torch_operator import fake_of, operator


@operator
def add_norm(
    x: Tensor, added: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The sum, rounded to its dtype, and its norm.

    A custom operator, which torch.compile does not trace into.

    Args:
        x: (tokens, width), contiguous.
        added: Of the same shape.
        weight: (width,) float32, see `Norm`.
        bias: (width,) float32, see `Norm`.

    Returns:
        Two tensors like x.
    """
    if x.is_cuda:
        from duqsweep.kernels.add_norm_kernel import launch  # needs Triton

        return launch(x, added, weight, bias)
    total = x + added
    return total, Norm(weight, bias).apply(total)


@fake_of(add_norm)
def _(x: Tensor, added: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)
