"""Orders of input channels: which channels share a rotation block."""

from __future__ import annotations

import torch
from torch import Tensor


def zigzag(magnitude: Tensor, block_size: int) -> Tensor:
    """Order that gives every block its share of large channels.

    Channels, largest first, are dealt over the blocks back and forth, so that the blocks' means are
    close. Source: DuQuant, arXiv:2406.01721, section 3.3.

    Args:
        magnitude: (width,) size of each channel; width is a multiple of block_size.
        block_size: Channels a block.

    Returns:
        (width,) int64; position i of the new order takes channel `order[i]`.
    """
    rounds = torch.argsort(magnitude, descending=True, stable=True).view(block_size, -1)
    rounds = rounds.clone()
    rounds[1::2] = rounds[1::2].flip(1)
    return rounds.T.reshape(-1)


def interleave(energy: Tensor) -> Tensor:
    """The prototype's order: the largest, the smallest, the second largest, and so on.

    It was meant to balance blocks and does not: the largest channels all land in the first one.

    Args:
        energy: (width,) size of each channel.

    Returns:
        (width,) int64, as in `zigzag`.
    """
    ranked = torch.argsort(energy, descending=True, stable=True)
    order = torch.empty_like(ranked)
    large = (len(ranked) + 1) // 2
    order[0::2] = ranked[:large]
    order[1::2] = ranked[large:].flip(0)
    return order
