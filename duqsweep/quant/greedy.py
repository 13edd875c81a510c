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
    turns = _turns(block_size).to(runs.device)
    matrix = best = torch.eye(block_size).to(runs)
    least, channel = _peak(runs)
    for _ in range(MOST_STEPS):  # nothing here waits for the device
        turn = turns.index_select(0, channel.view(1))[0]
        runs, matrix = runs @ turn, matrix @ turn
        peak, channel = _peak(runs)
        best = torch.where(peak < least, matrix, best)
        least = torch.minimum(peak, least)
    return best[None]


def _peak(runs: Tensor) -> tuple[Tensor, Tensor]:
    """The largest |x| and its channel; several times as fast as through `abs`."""
    peak, channel = torch.maximum(runs.amax(0), -runs.amin(0)).max(0)
    return peak, channel


def _turns(size: int) -> Tensor:
    """The step for each channel, (size, size, size): `spreading_matrix` with its axes swapped."""
    swaps = torch.arange(size).repeat(size, 1)
    swaps.fill_diagonal_(0)
    swaps[:, 0] = torch.arange(size)
    return spreading_matrix(size)[swaps[:, :, None], swaps[:, None, :]]


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
