"""A floating-point product followed by tanh-GELU, in one cuBLASLt kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from duqsweep.kernels.torch_operator import fake_of, operator


@operator
def gelu_linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """tanh-GELU of rows·weightᵀ + bias: (tokens, in), (out, in), (out,) → (tokens, out).

    A custom operator, because torch.compile would split it again.
    """
    if rows.is_cuda:  # only on CUDA is this GELU the tanh form
        return torch._addmm_activation(bias, rows, weight.T, use_gelu=True)
    return F.gelu(F.linear(rows, weight, bias), approximate="tanh")


@fake_of(gelu_linear)
def _(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return rows.new_empty(len(rows), len(weight))
