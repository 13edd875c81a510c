"""The norm that stands before a product, as tensors that a kernel can read."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

NORM_EPS = 1e-6  # of Gemma's RMS norm and of SigLIP's layer norm


@dataclass(frozen=True)
class Norm:
    """An RMS norm, or with a bias a layer norm."""

    weight: Tensor  # (in,) float32: what a normed channel is multiplied by
    bias: Tensor | None = None  # (in,) float32

    def apply(self, x: Tensor) -> Tensor:
        """Norm (..., in) in float32; the dtype is kept."""
        shape, wide = self.weight.shape, x.float()
        if self.bias is None:
            return F.rms_norm(wide, shape, self.weight, NORM_EPS).to(x.dtype)
        return F.layer_norm(wide, shape, self.weight, self.bias, NORM_EPS).to(x.dtype)
