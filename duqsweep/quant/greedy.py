"""DuQuant's greedy rotation: orthogonal steps, each applied to the currently largest channel."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_STEPS = 256  # `max_rotation_step` of the official scripts
# Of the random part of a step; one for all layers, so that layers with equal inputs rotate alike.
SEED = 0


def greedy_rotation(rows: Tensor, block_size: int) -> Tensor:
    """The rotation, shared by all blocks, that makes the largest |x| of the rows small.

    Each step swaps the channel (of a block) that holds the largest |x| with channel 0, multiplies
    by `spreading_matrix`, and swaps back. The result is the product of the first n steps, for
    the n after which the largest |x| is smallest; n is 0 if every step makes it larger.

    Source: DuQuant, arXiv:2406.01721, section 3.2, and quantize/quantizer.py of Hsu1023/DuQuant
    (62c5844), where all blocks of a layer share one matrix, too. Two things follow the paper, not
    that code: the channel of the largest |x| is swapped (in the code: the number of its row modulo
    the block), and the measure is |x| (in the code: max - min; codes are symmetric here).

    Args:
        rows: (n, width) inputs of a layer; width is a multiple of block_size.
        block_size: Channels per block.

    Returns:
        float64, (1, block, block), orthogonal.
    """
    runs = _relevant(rows.double().reshape(-1, block_size))
    steps = _steps(block_size).to(runs.device)
    matrix = best = torch.eye(block_size).to(runs)
    least, channel = _amax(runs)
    for _ in range(MAX_STEPS):  # no step waits for the device
        step = steps.index_select(0, channel.view(1))[0]
        runs, matrix = runs @ step, matrix @ step
        amax, channel = _amax(runs)
        best = torch.where(amax < least, matrix, best)
        least = torch.minimum(amax, least)
    return best[None]


def _amax(runs: Tensor) -> tuple[Tensor, Tensor]:
    """The largest |x| and its channel; several times as fast as with `abs`."""
    amax, channel = torch.maximum(runs.amax(0), -runs.amin(0)).max(0)
    return amax, channel


def _steps(size: int) -> Tensor:
    """The step for each channel, (size, size, size): `spreading_matrix` with its axes swapped."""
    swaps = torch.arange(size).repeat(size, 1)
    swaps.fill_diagonal_(0)
    swaps[:, 0] = torch.arange(size)
    return spreading_matrix(size)[swaps[:, :, None], swaps[:, None, :]]


def spreading_matrix(size: int) -> Tensor:
    """An orthogonal float64 matrix whose product spreads channel 0 over all others.

    R·Q: R is the reflection that exchanges the first axis with the uniform direction, so that its
    first row is 1/sqrt(size) throughout; Q rotates all channels but the first at random.
    """
    uniform = torch.full((size,), size**-0.5, dtype=torch.float64)
    normal = torch.eye(size, dtype=torch.float64)[0] - uniform
    reflection = torch.eye(size, dtype=torch.float64) - 2 * torch.outer(normal, normal) / (
        normal @ normal
    )
    generator = torch.Generator().manual_seed(SEED)
    gaussian = torch.randn(size - 1, size - 1, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    spreading = reflection.clone()
    spreading[:, 1:] = reflection[:, 1:] @ (q * r.diagonal().sign())  # the sign makes Q uniform
    return spreading


def _relevant(runs: Tensor) -> Tensor:
    """The runs of channels that can have the largest |x| after some rotation.

    A rotation keeps a run's norm s, so its largest |x| is between s / sqrt(block) and s.
    """
    norms = runs.norm(dim=1)
    return runs[norms >= norms.max() * runs.shape[1] ** -0.5]
