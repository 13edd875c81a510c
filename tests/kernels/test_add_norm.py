"""A residual connection and the norm after it against float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from duqsweep.kernels.add_norm import add_norm
from duqsweep.kernels.add_norm_kernel import launch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(3, 16, torch.float32), (2, 72, torch.float32)]
FULL_SIZE = [(512, 1152, torch.bfloat16), (768, 1152, torch.bfloat16), (534, 2048, torch.bfloat16)]


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize(("tokens", "width", "dtype"), SHAPES + FULL_SIZE * (DEVICE == "cuda"))
def test_sum_and_norm_are_those_of_float64(
    tokens: int, width: int, dtype: torch.dtype, layer_norm: bool
) -> None:
    x = (torch.randn(tokens, width, device=DEVICE) * 3 + 1).to(dtype)
    added = torch.randn(tokens, width, device=DEVICE).to(dtype)
    weight = torch.rand(width, device=DEVICE) + 0.5
    bias = torch.randn(width, device=DEVICE) if layer_norm else None
    total = x + added
    wide = total.double()
    if bias is None:
        wanted = F.rms_norm(wide, (width,), weight.double(), 1e-6)
    else:
        wanted = F.layer_norm(wide, (width,), weight.double(), bias.double(), 1e-6)
    bound = 4e-3 if dtype == torch.bfloat16 else 1e-6
    torch.full((2 * tokens * width,), torch.nan, device=DEVICE)  # where the results will be
    for function in (add_norm, launch):
        found, normed = function(x, added, weight, bias)
        assert found.dtype == normed.dtype == dtype
        assert torch.equal(found, total)
        assert (normed.double() - wanted).norm() <= bound * wanted.norm()


def test_torch_compile_takes_it_as_it_is() -> None:
    x, added = torch.randn(2, 6, 16, device=DEVICE)
    weight = torch.rand(16, device=DEVICE)
    torch.library.opcheck(add_norm, (x, added, weight, None))
    torch.library.opcheck(add_norm, (x, added, weight, weight))
