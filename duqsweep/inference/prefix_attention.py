"""Attention of the fused prefix: a Triton kernel on a GPU, torch elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from duqsweep.kernels.unfinished import Rows

# (merged queries, keys and values; sequences; heads of keys and values; channels per head)
Attend = Callable[[Tensor, int, int, int], Rows]


def attention_on(device: torch.device, in_parts: bool = False) -> Attend:
    """Attention without a mask on (sequences * tokens, (heads + 2 * kv_heads) * head_dim) rows.

    It returns (sequences * tokens, heads * head_dim).

    Args:
        device: Where it runs.
        in_parts: What reads the result also takes an unfinished one.
    """
    if device.type != "cuda":
        return attend_in_torch
    return attend_in_parts_on_gpu if in_parts else attend_on_gpu


def attend_on_gpu(qkv: Tensor, sequences: int, kv_heads: int, head_dim: int) -> Tensor:
    """`kernels.attention.attend`; a plain function, so that deep copies of a module work."""
    from duqsweep.kernels.attention import attend  # needs Triton

    mixed: Tensor = attend(qkv, sequences, kv_heads, head_dim)
    return mixed


def attend_in_parts_on_gpu(qkv: Tensor, sequences: int, kv_heads: int, head_dim: int) -> Rows:
    """`kernels.attention.attend_in_parts`; a plain function, as above."""
    from duqsweep.kernels.attention import attend_in_parts  # needs Triton

    return attend_in_parts(qkv, sequences, kv_heads, head_dim)


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
