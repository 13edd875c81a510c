"""Integer products of a compiled prefix, two kernels each: norm and quantization; product.

On Hopper they run on its warp groups (`gemm_products.py`), elsewhere in Triton's kernel.
Two changes of the weights are exact: the permutation of an MLP's last layer is applied to the
outputs of the first, and hidden channels that are added to fill cache lines are zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from duqsweep.inference.gemm_products import GemmProduct, on_warp_groups
from duqsweep.kernels.epilogue import Epilogue, EpilogueKind
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.projection_weights import (
    ProjectionWeights,
    pad_inputs,
    pad_outputs,
    permuted,
    take_rows,
)
from duqsweep.kernels.rotary import Rotary, Table
from duqsweep.kernels.unfinished import Rows

CACHE_LINE = 128  # bytes; SigLIP's 4304 hidden channels become 4352
ROTARY_CHANNELS = 8  # of a head, which a thread of a warp group rotates at once


def integer_norm(
    norm: Norm, weights: ProjectionWeights, dtype: torch.dtype, rotary: Rotary | None
) -> nn.Module:
    """One module: x → the product of its norm; see `prefix_products.norm_linear`."""
    if rotary is None:
        return _product(weights, norm, "nothing", dtype)
    pairs = rotary.interleaved(weights.out_features).to(weights.values.device)
    return _product(take_rows(weights, pairs), norm, "rotary", dtype, rotary)


def integer_linear_residual(weights: ProjectionWeights, dtype: torch.dtype) -> nn.Module:
    """One module: (rows, x) → x plus the product of rows."""
    return _product(weights, None, "nothing", dtype)


def adds_up_parts(product: nn.Module) -> bool:
    """Whether the product takes unfinished rows."""
    return isinstance(product, IntegerProduct) or (
        isinstance(product, GemmProduct) and product.is_integer
    )


def quantized_mlp(
    norm: Norm, first: ProjectionWeights, last: ProjectionWeights, gated: bool, dtype: torch.dtype
) -> nn.Module:
    """One module: x, of dtype, → x plus the MLP of its norm. The activation is an epilogue.

    Integer weights of any size, or weights in e4m3 that run on warp groups.
    """
    hidden = torch.arange(last.in_features, device=last.values.device)
    if last.permutation is not None:
        hidden = last.permutation
    # Outputs 2i and 2i + 1 are a gate and its up.
    each = 2 if gated else 1
    rows = [hidden + i * last.in_features for i in range(each)]
    first = take_rows(first, torch.stack(rows, dim=1).flatten())
    last = replace(last, permutation=None)
    if last.groups == 1:
        more = -last.in_features % CACHE_LINE
        first, last = pad_outputs(first, each * more), pad_inputs(last, more)
    kind: EpilogueKind = "gated" if gated else "gelu"
    products = _product(first, norm, kind, dtype), _product(last, None, "nothing", dtype)
    return QuantizedMlp(*products, last.in_features)


class IntegerProduct(nn.Module):
    """Norm, quantization, product and epilogue, in two kernels."""

    def __init__(
        self,
        weights: ProjectionWeights,
        norm: Norm | None = None,
        kind: EpilogueKind = "nothing",
        rotary: Rotary | None = None,
    ) -> None:
        super().__init__()
        # Imported here: an installation without a GPU has no Triton.
        from duqsweep.kernels.products import integer_linear

        self.multiply = integer_linear
        self.kind, self.rotary = kind, rotary
        self.weights, self.norm = weights, None if norm is None else permuted(norm, weights)
        # The same tensors again, so that `buffers()` lists what a call reads.
        tensors = [*weights.tensors(), *([] if self.norm is None else self.norm.tensors())]
        for i, tensor in enumerate(tensors):
            self.register_buffer(f"tensor_{i}", tensor)

    def forward(
        self, rows: Rows, residual: Tensor | None = None, table: Table | None = None
    ) -> Tensor:
        """(tokens, in) → (tokens, out), plus the residual (tokens, out) if there is one."""
        epilogue = Epilogue(self.kind, residual, self.rotary, table)
        return self.multiply(rows, self.weights, self.norm, epilogue)


class QuantizedMlp(nn.Module):
    """Two products and the residual connection."""

    def __init__(self, first: nn.Module, last: nn.Module, hidden: int) -> None:
        super().__init__()
        self.first, self.last, self.hidden = first, last, hidden

    def forward(self, x: Tensor) -> Rows:
        """(tokens, width) → the same shape; of integers, it may be in parts."""
        return self.last_of(self.first(x), x)

    def parts(self, x: Tensor) -> list[Callable[[], object]]:
        """See `FusedPrefix.parts`."""
        return [lambda: self.first(x), lambda: self.last_of(x.new_zeros(len(x), self.hidden), x)]

    def last_of(self, hidden: Tensor, x: Tensor) -> Rows:
        """X plus the last product."""
        if isinstance(self.last, GemmProduct) and self.last.is_integer:
            return self.last.in_parts(hidden, x)
        added: Tensor = self.last(hidden, x)
        return added


def _product(
    weights: ProjectionWeights,
    norm: Norm | None,
    kind: EpilogueKind,
    dtype: torch.dtype,
    rotary: Rotary | None = None,
) -> nn.Module:
    even = rotary is None or rotary.head_dim % ROTARY_CHANNELS == 0
    if even and on_warp_groups(weights, dtype):
        normed = None if norm is None else permuted(norm, weights)
        return GemmProduct(weights, normed, kind, rotary)
    return IntegerProduct(weights, norm, kind, rotary)
