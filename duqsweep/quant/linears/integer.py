"""Kernels `int8` and `w4a8`: the layer multiplies integers, on the GPU's tensor cores."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from duqsweep.errors import EvaluationError
from duqsweep.kernels.projection_weights import ProjectionWeights, pack_int4
from duqsweep.quant.linear import LinearParts, QuantizedLinear
from duqsweep.quant.rotation import hadamard
from duqsweep.quant.select import PACKED_BITS

MAX_BITS = 8


class IntegerLinear(QuantizedLinear):
    """Replaces a linear layer; computes the same as kernel `fake`, up to rounding.

    The input is permuted, rotated and quantized with one scale per token, in float32; `fake` rounds
    to the layer's dtype between these stages.
    """

    codes: Tensor
    scales: Tensor
    permutation: Tensor | None
    bias: Tensor | None

    def __init__(self, parts: LinearParts, packed: bool) -> None:
        """Store the codes.

        Args:
            parts: The layer.
            packed: Whether to store two int4 codes per byte.

        Raises:
            EvaluationError: Integer kernels do not support the layer's settings.
        """
        super().__init__()
        # Imported here: an installation without a GPU has no Triton.
        from duqsweep.kernels.products import integer_linear

        self.multiply = integer_linear
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
            (..., out), in the dtype of x.

        Raises:
            EvaluationError: x is not on a GPU, or of another dtype.
        """
        rows = x.reshape(-1, self.in_features)
        product = self.multiply(rows, self.projection_weights())
        return product.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Widths and bits, for `print(policy.module)`."""
        widths = f"{self.in_features} -> {self.out_features}"
        return f"{widths}, W{self.weight_bits}A{self.act_bits}, {self.codes.dtype} codes"


def build_int8(parts: LinearParts) -> nn.Module:
    """The layer with one int8 code per byte."""
    return IntegerLinear(parts, packed=False)


def build_w4a8(parts: LinearParts) -> nn.Module:
    """The layer with two codes per byte if weights have 4 bits or fewer, otherwise one."""
    return IntegerLinear(parts, packed=parts.weight_bits <= PACKED_BITS)


def _check(parts: LinearParts) -> None:
    pack = parts.pack
    if max(parts.weight_bits, parts.act_bits) > MAX_BITS or pack.scales is None:
        raise EvaluationError(
            f"kernels int8 and w4a8 take 2 to {MAX_BITS} bits for weights and activations, got "
            f"W{parts.weight_bits}A{parts.act_bits}"
        )
    check_methods(parts, "kernels int8 and w4a8")


def check_methods(parts: LinearParts, kernels: str) -> None:
    """Raise EvaluationError unless codes of tokens and weights can be multiplied as they are.

    Args:
        parts: The layer.
        kernels: Who asks, for the message.
    """
    pack = parts.pack
    if parts.act_scale is not None:
        raise EvaluationError(f"{kernels} take act_scale per_token, got static")
    if pack.row_rotation is not None or pack.factors is not None:
        raise EvaluationError(f"{kernels} support neither row_rotation nor smoothing")
    if pack.rotation is not None:
        expected = hadamard(pack.rotation.shape[-1]).to(pack.rotation)
        if len(pack.rotation) > 1 or not torch.equal(pack.rotation[0], expected):
            raise EvaluationError(f"{kernels} take rotation hadamard or none")
