"""Attention of the fused prefix: a Triton kernel on a GPU, torch elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# (merged queries, keys and values; sequences; heads of keys and values; channels per head)
Attend = Callable[[Tensor, int, int, int], Tensor]


def attention_on(device: torch.device) -> Attend:
    """Attention without a mask on (sequences * tokens, (heads + 2 * kv_heads) * head_dim) rows.

    It returns (sequences * tokens, heads * head_dim).
    """
    return attend_on_gpu if device.type == "cuda" else attend_in_torch


def attend_on_gpu(qkv: Tensor, sequences: int, kv_heads: int, head_dim: int) -> Tensor:
    """`kernels.attention.attend`; a plain function, so that deep copies of a module work."""
    from duqsweep.kernels.attention import attend  # needs Triton

    mixed: Tensor = attend(qkv, sequences, kv_heads, head_dim)
    return mixed


def attend_in_torch(qkv: Tensor, sequences: int, kv_heads: int, head_dim: int) -> Tensor:
    """`kernels.attention.attend`, computed by torch."""
    tokens = len(qkv) // sequences
    heads = qkv.view(sequences, tokens, -1, head_dim).transpose(1, 2)
    parts = [heads.shape[1] - 2 * kv_heads, kv_heads, kv_heads]
    q, k, v = torch.split(heads, parts, dim=1)
    # Query heads that share a key head are adjacent: fold them into the token axis.
    folded = q.reshape(sequences, kv_heads, -1, head_dim)
    mixed = F.scaled_dot_product_attention(folded, k, v)
    return mixed.reshape(sequences, -1, tokens, head_dim).transpose(1, 2).flatten(0, 1).flatten(1)
