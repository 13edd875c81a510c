"""The norm before a product, as tensors that a kernel reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

NORM_EPS = 1e-6  # in Gemma's RMS norm and in SigLIP's layer norm


@dataclass(frozen=True)
class Norm:
    """An RMS norm; with a bias, a layer norm."""

    weight: Tensor  # (in,) float32: factor of each normed channel
    bias: Tensor | None = None  # (in,) float32

    def tensors(self) -> list[Tensor]:
        """The tensors that are not None."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def apply(self, x: Tensor) -> Tensor:
        """Norm (..., in) in float32; the result has the dtype of x."""
        shape, wide = self.weight.shape, x.float()
        if self.bias is None:
            return F.rms_norm(wide, shape, self.weight, NORM_EPS).to(x.dtype)
        return F.layer_norm(wide, shape, self.weight, self.bias, NORM_EPS).to(x.dtype)
