"""Attention from merged products against float64: shared key heads, odd lengths, odd widths."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from duqsweep.inference.prefix_attention import attend_in_torch
from duqsweep.kernels.attention import attend

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# (sequences, tokens, heads, heads of keys and values, channels of a head, dtype)
SMALL = [
    (2, 9, 3, 3, 24, torch.float32),
    (1, 21, 4, 1, 32, torch.float32),
    (1, 70, 4, 2, 16, torch.float32),
]
FULL_SIZE = [
    (2, 256, 16, 16, 72, torch.bfloat16),
    (1, 534, 8, 1, 256, torch.bfloat16),
    (1, 777, 8, 1, 256, torch.bfloat16),
    (1, 513, 8, 1, 256, torch.bfloat16),
]


def expected(qkv: Tensor, sequences: int, kv_heads: int, head_dim: int) -> Tensor:
    heads = qkv.double().view(sequences, -1, qkv.shape[1] // head_dim, head_dim).transpose(1, 2)
    count = heads.shape[1] - 2 * kv_heads
    q, k, v = torch.split(heads, [count, kv_heads, kv_heads], dim=1)
    k, v = (part.repeat_interleave(count // kv_heads, 1) for part in (k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(qkv), -1)


@pytest.mark.parametrize(
    ("sequences", "tokens", "heads", "kv_heads", "head_dim", "dtype"),
    SMALL + FULL_SIZE * (DEVICE == "cuda"),
)
def test_attention_is_that_of_float64(
    sequences: int, tokens: int, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype
) -> None:
    width = (heads + 2 * kv_heads) * head_dim
    qkv = (torch.randn(sequences * tokens, width, device=DEVICE) * 2).to(dtype)
    wanted = expected(qkv, sequences, kv_heads, head_dim)
    bound = 1e-2 if dtype == torch.bfloat16 else 1e-6
    for found in (
        function(qkv, sequences, kv_heads, head_dim) for function in (attend, attend_in_torch)
    ):
        assert found.shape == wanted.shape
        assert (found.double() - wanted).norm() <= bound * wanted.norm()


def test_torch_compile_takes_the_kernel_as_it_is() -> None:
    torch.library.opcheck(attend, (torch.randn(6, 96, device=DEVICE), 2, 1, 16))
