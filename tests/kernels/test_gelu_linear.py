"""The product followed by GELU against float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from duqsweep.kernels.gelu_linear import gelu_linear

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(
    ("tokens", "width", "out", "dtype"),
    [(7, 48, 96, torch.float32)]
    + [(512, 1152, 4352, torch.bfloat16), (256, 1152, 4352, torch.bfloat16)] * (DEVICE == "cuda"),
)
def test_the_product_and_tanh_gelu_are_those_of_float64(
    tokens: int, width: int, out: int, dtype: torch.dtype
) -> None:
    rows = torch.randn(tokens, width, device=DEVICE).to(dtype)
    weight = (torch.randn(out, width, device=DEVICE) * 2 / width**0.5).to(dtype)
    bias = torch.randn(out, device=DEVICE).to(dtype)
    wanted = F.gelu(F.linear(rows.double(), weight.double(), bias.double()), approximate="tanh")
    found = gelu_linear(rows, weight, bias).double()
    # The other GELU, with erf, is 2e-4 of the largest value away.
    bound = 4e-3 if dtype == torch.bfloat16 else 2e-6
    assert (found - wanted).norm() <= bound * wanted.norm()


def test_torch_compile_takes_the_product_as_it_is() -> None:
    rows, weight, bias = (torch.randn(shape, device=DEVICE) for shape in ((6, 16), (32, 16), (32,)))
    torch.library.opcheck(gelu_linear, (rows, weight, bias))
