"""Kernel `fp8`: the layer multiplies numbers of e4m3; on a GPU, on its tensor cores."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from duqsweep.errors import EvaluationError
from duqsweep.kernels import e4m3_linear
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.quant.linear import LinearParts, QuantizedLinear
from duqsweep.quant.linears.integer import check_methods


class Fp8Linear(QuantizedLinear):
    """Replaces a linear layer; computes what kernel `fake` does with e4m3, up to rounding.

    The input is permuted, rotated and quantized with one scale per token, in float32; the product
    is scaled and rounded to the layer's dtype once.
    """

    codes: Tensor
    scales: Tensor
    permutation: Tensor | None
    bias: Tensor | None

    def __init__(self, parts: LinearParts) -> None:
        """Store the codes.

        Args:
            parts: The layer.

        Raises:
            EvaluationError: The kernel does not support the layer's settings, its widths, or the
                device.
        """
        super().__init__()
        pack = parts.pack
        if pack.weight.dtype != torch.float8_e4m3fn or parts.act_bits != e4m3_linear.E4M3_BITS:
            raise EvaluationError(
                "kernel fp8 takes weights and activations of e4m3, got "
                f"{pack.weight.dtype} and {parts.act_bits} bits"
            )
        check_methods(parts, "products of kernel fp8")
        self.out_features, self.in_features = pack.weight.shape
        self.block = 1 if pack.rotation is None else pack.rotation.shape[-1]
        permutation = None if pack.order is None else pack.order.to(torch.int32)
        bias = None if parts.bias is None else parts.bias.detach().to(parts.dtype)
        stored = {"codes": pack.weight, "scales": pack.scales, "permutation": permutation}
        for name, tensor in {**stored, "bias": bias}.items():
            self.register_buffer(name, None if tensor is None else tensor.to(parts.device))
        weights = self.projection_weights()
        reason = e4m3_linear.unsupported_reason(weights)
        if reason is not None:
            raise EvaluationError(reason)
        if weights.groups > 1:
            raise EvaluationError(
                f"kernel fp8 takes one weight scale per output, got {weights.groups}"
            )

    def projection_weights(self) -> ProjectionWeights:
        """See `QuantizedLinear`."""
        return ProjectionWeights(
            self.codes,
            self.scales,
            self.bias,
            self.permutation,
            self.block,
            e4m3_linear.E4M3_BITS,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Approximate x·Wᵀ + b.

        Args:
            x: (..., in), bf16 or float32.

        Returns:
            (..., out), in the dtype of x.

        Raises:
            EvaluationError: x has another dtype.
        """
        rows = x.reshape(-1, self.in_features)
        product: Tensor = e4m3_linear.e4m3_linear(
            rows, self.codes, self.scales, self.bias, self.permutation, self.block
        )
        return product.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Widths and format, for `print(policy.module)`."""
        return f"{self.in_features} -> {self.out_features}, e4m3"


def build(parts: LinearParts) -> nn.Module:
    """The layer with codes of one byte."""
    return Fp8Linear(parts)
