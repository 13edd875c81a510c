"""Permutations of input channels, which decide the channels that share a rotation block."""

from __future__ import annotations

import torch
from torch import Tensor


def zigzag(magnitude: Tensor, block_size: int) -> Tensor:
    """Permutation that distributes large channels evenly over the blocks.

    Channels, largest first, are assigned to the blocks in zigzag order, so that the blocks' means
    are close. Source: DuQuant, arXiv:2406.01721, section 3.3.

    Args:
        magnitude: (width,) size of each channel; width is a multiple of block_size.
        block_size: Channels per block.

    Returns:
        (width,) int64; position i of the new order takes channel `order[i]`.
    """
    rounds = torch.argsort(magnitude, descending=True, stable=True).view(block_size, -1)
    rounds = rounds.clone()
    rounds[1::2] = rounds[1::2].flip(1)
    return rounds.T.reshape(-1)


def interleave(energy: Tensor) -> Tensor:
    """The prototype's order: the largest, the smallest, the second largest, and so on.

    It was meant to balance the blocks but does not: all of the largest channels are in the first.

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
