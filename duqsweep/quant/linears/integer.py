"""Kernels `int8` and `w4a8`: the layer's product in integers, by the GPU's integer units."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from duqsweep.errors import EvaluationError
from duqsweep.kernels.projection_weights import ProjectionWeights, pack_int4
from duqsweep.quant.linear import LinearParts, QuantizedLinear
from duqsweep.quant.rotation import hadamard
from duqsweep.quant.select import PACKED_BITS

WIDEST_CODE = 8  # bits


class IntegerLinear(QuantizedLinear):
    """Stands where a linear layer stood; its numbers are those of kernel `fake`.

    A layer's input is reordered, rotated and rounded with one scale a token in float32, where
    `fake` rounds to the layer's dtype between the stages.
    """

    codes: Tensor
    scales: Tensor
    permutation: Tensor | None
    bias: Tensor | None

    def __init__(self, parts: LinearParts, packed: bool) -> None:
        """Store the codes.

        Args:
            parts: The layer.
            packed: Two int4 codes per byte.

        Raises:
            EvaluationError: The layer's settings have no integer product.
        """
        super().__init__()
        _check(parts)
        pack = parts.pack
        self.weight_bits, self.act_bits = parts.weight_bits, parts.act_bits
        self.out_features, self.in_features = pack.weight.shape
        codes = pack_int4(pack.weight) if packed else pack.weight
        self.block = 1 if pack.rotation is None else pack.rotation.shape[-1]
        permutation = None if pack.order is None else pack.order.to(torch.int32)
        bias = None if parts.bias is None else parts.bias.detach().to(parts.dtype)
        stored = {"codes": codes, "scales": pack.scales, "permutation": permutation}
        for name, tensor in {**stored, "bias": bias}.items():
            self.register_buffer(name, None if tensor is None else tensor.to(parts.device))

    def projection_weights(self) -> ProjectionWeights:
        """See `QuantizedLinear`."""
        return ProjectionWeights(
            self.codes, self.scales, self.bias, self.permutation, self.block, self.act_bits
        )

    def forward(self, x: Tensor) -> Tensor:
        """Approximate x·Wᵀ + b.

        Args:
            x: (..., in), bf16 or float32, on a GPU.

        Returns:
            (..., out), of the dtype of x.

        Raises:
            EvaluationError: There is no GPU kernel for this tensor.
        """
        # Imported here, so that layers can be made and looked at where Triton is missing.
        from duqsweep.kernels.products import integer_linear

        rows = x.reshape(-1, self.in_features)
        return integer_linear(rows, self.projection_weights()).view(
            *x.shape[:-1], self.out_features
        )

    def extra_repr(self) -> str:
        """Widths and bits, for `print(policy.module)`."""
        widths = f"{self.in_features} -> {self.out_features}"
        return f"{widths}, W{self.weight_bits}A{self.act_bits}, {self.codes.dtype} codes"


def build_int8(parts: LinearParts) -> nn.Module:
    """The layer with a code a byte."""
    return IntegerLinear(parts, packed=False)


def build_w4a8(parts: LinearParts) -> nn.Module:
    """The layer with two codes a byte where they have 4 bits or fewer."""
    return IntegerLinear(parts, packed=parts.weight_bits <= PACKED_BITS)


def _check(parts: LinearParts) -> None:
    pack = parts.pack
    if max(parts.weight_bits, parts.act_bits) > WIDEST_CODE or pack.scales is None:
        raise EvaluationError(
            f"an integer product takes 2 to {WIDEST_CODE} bits on both sides, got "
            f"W{parts.weight_bits}A{parts.act_bits}"
        )
    if parts.act_scale is not None:
        raise EvaluationError("an integer product takes one activation scale a token, got static")
    if pack.row_rotation is not None or pack.factors is not None:
        raise EvaluationError("an integer product takes neither row_rotation nor smoothing")
    if pack.rotation is not None:
        expected = hadamard(pack.rotation.shape[-1]).to(pack.rotation)
        if len(pack.rotation) > 1 or not torch.equal(pack.rotation[0], expected):
            raise EvaluationError("an integer product takes rotation hadamard or none")
