"""A floating-point product followed by tanh-GELU, in one cuBLASLt kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.library.custom_op("duqsweep::gelu_linear", mutates_args=())
def gelu_linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """tanh-GELU of rows·weightᵀ + bias: (tokens, in), (out, in), (out,) → (tokens, out).

    A custom operator, because torch.compile would split it again.
    """
    if rows.is_cuda:  # only on CUDA is this GELU the tanh form
        return torch._addmm_activation(bias, rows, weight.T, use_gelu=True)
    return F.gelu(F.linear(rows, weight, bias), approximate="tanh")


@gelu_linear.register_fake
def _(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return rows.new_empty(len(rows), len(weight))
