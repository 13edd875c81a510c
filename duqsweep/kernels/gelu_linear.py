"""A product in floating point with tanh-GELU behind it, in one kernel of the GPU's library."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.library.custom_op("duqsweep::gelu_linear", mutates_args=())
def gelu_linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """tanh-GELU of rows·weightᵀ + bias: (tokens, in), (out, in), (out,) → (tokens, out).

    An operator of its own, because torch.compile would take it apart again.
    """
    if rows.is_cuda:  # there, and only there, this GELU is the tanh form
        return torch._addmm_activation(bias, rows, weight.T, use_gelu=True)
    return F.gelu(F.linear(rows, weight, bias), approximate="tanh")


@gelu_linear.register_fake
def _(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return rows.new_empty(len(rows), len(weight))
