"""DuQuant's greedy rotation: orthogonal steps, each aimed at the largest channel that is left."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_STEPS = 256  # `max_rotation_step` of the official scripts
SEED = 0  # of the random part of a step; one for all layers, so that equal inputs turn alike


def greedy_rotation(rows: Tensor, block_size: int) -> Tensor:
    """One matrix for all blocks that makes the largest |x| of the rows small.

    Each step swaps the channel (of a block) that holds the largest |x| with channel 0, multiplies
    by `spreading_matrix`, and swaps back. Of all prefixes of the steps, the one after which the
    largest |x| is smallest is kept; none, where every step makes it larger.

    Source: DuQuant, arXiv:2406.01721, section 3.2, and quantize/quantizer.py of Hsu1023/DuQuant
    (62c5844), where all blocks of a layer share one matrix, too. As in the paper and other than
    there, the peak's channel is swapped (there: the number of its row, modulo the block) and the
    peak is |x| (there: max - min; codes are symmetric here).

    Args:
        rows: (n, width) inputs of a layer; width is a multiple of block_size.
        block_size: Channels that the matrix mixes.

    Returns:
        float64, (1, block, block), orthogonal.
    """
    runs = _that_matter(rows.double().reshape(-1, block_size))
    step = spreading_matrix(block_size).to(runs)
    identity = torch.eye(block_size).to(runs)
    matrix = best = identity
    sizes = runs.abs().amax(0)
    least = sizes.max()
    for _ in range(MOST_STEPS):
        swap = _swap_with_first(sizes.argmax(), block_size)
        turn = step.index_select(0, swap).index_select(1, swap)
        runs, matrix = runs @ turn, matrix @ turn
        sizes = runs.abs().amax(0)
        peak = sizes.max()
        best = torch.where(peak < least, matrix, best)
        least = torch.minimum(peak, least)
    return best[None]


def spreading_matrix(size: int) -> Tensor:
    """An orthogonal float64 matrix whose product spreads channel 0 over all others.

    R·Q: R is the reflection that exchanges the first axis with the uniform direction, so that its
    first row is 1/sqrt(size) throughout, and Q turns all channels but the first at random.
    """
    uniform = torch.full((size,), size**-0.5, dtype=torch.float64)
    normal = torch.eye(size, dtype=torch.float64)[0] - uniform
    reflection = torch.eye(size, dtype=torch.float64) - 2 * torch.outer(normal, normal) / (
        normal @ normal
    )
    generator = torch.Generator().manual_seed(SEED)
    gaussian = torch.randn(size - 1, size - 1, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    turned = reflection.clone()
    turned[:, 1:] = reflection[:, 1:] @ (q * r.diagonal().sign())  # the sign makes Q uniform
    return turned


def _that_matter(runs: Tensor) -> Tensor:
    """The runs of channels that can ever hold the largest |x|, however they are turned.

    A run of norm s keeps its norm, so its largest |x| lies between s / sqrt(block) and s.
    """
    norms = runs.norm(dim=1)
    return runs[norms >= norms.max() * runs.shape[1] ** -0.5]


def _swap_with_first(channel: Tensor, size: int) -> Tensor:
    """The order that exchanges channel 0 and `channel`, without waiting for the device."""
    order = torch.arange(size, device=channel.device)
    order = torch.where(order == channel, 0, order)
    order[0] = channel
    return order
