"""Block-diagonal rotations: the matrices, and their product with rows of channels."""

from __future__ import annotations

import torch
from torch import Tensor

from duqsweep.spec import Rotation


def block_rotations(kind: Rotation, weight: Tensor, block_size: int) -> Tensor:
    """Orthogonal matrices for the blocks of a weight's input channels.

    Args:
        kind: "hadamard" or "svd"; `greedy` has the greedy rotation, which depends on inputs.
        weight: (out, in); in is a multiple of block_size.
        block_size: Channels per block.

    Returns:
        float64, (1, block, block) if all blocks share one matrix, else (in / block, block, block).
    """
    if kind == "hadamard":
        return hadamard(block_size)[None]
    return svd_rotations(weight, block_size)


def hadamard(size: int) -> Tensor:
    """The (size, size) Walsh-Hadamard matrix over sqrt(size), float64; size is a power of two.

    Orthogonal and symmetric; every entry is ±1/sqrt(size), so it spreads an outlier evenly.
    """
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while matrix.shape[0] < size:
        top = torch.cat([matrix, matrix], dim=1)
        bottom = torch.cat([matrix, -matrix], dim=1)
        matrix = torch.cat([top, bottom])
    normalised: Tensor = matrix / size**0.5
    return normalised


def svd_rotations(weight: Tensor, block_size: int) -> Tensor:
    """The prototype's rotations: left singular vectors of each block of input channels.

    The block's weights, read as (block, out), are U·S·Vᵀ; the block's rotation is U. So the rotated
    channels are the principal axes of the weights, strongest first; activations are not used. The
    sign of a singular vector is arbitrary, but changes the rounding: codes reach one further below
    zero. Its largest entry is made positive, so that every machine computes the same matrices.

    Returns:
        float64, (in / block, block, block).
    """
    blocks = weight.double().T.reshape(-1, block_size, weight.shape[0])
    # The eigenvectors of block·blockᵀ are the same vectors, and several times faster in float64.
    left: Tensor = torch.linalg.eigh(blocks @ blocks.mT).eigenvectors.flip(-1)
    largest = left.gather(1, left.abs().argmax(1, keepdim=True))
    return left * largest.sign()


def rotate_blocks(rows: Tensor, matrices: Tensor) -> Tensor:
    """Multiply each block of channels by its matrix, all blocks at once.

    Args:
        rows: (n, width).
        matrices: (blocks, block, block) with blocks * block == width, or (1, block, block) shared.

    Returns:
        (n, width); norms are unchanged where the matrices are orthogonal.
    """
    block = matrices.shape[-1]
    if matrices.shape[0] == 1:
        return (rows.reshape(-1, block) @ matrices[0]).view(rows.shape)
    parts = rows.reshape(rows.shape[0], -1, block).transpose(0, 1)
    return torch.bmm(parts, matrices).transpose(0, 1).flatten(-2)
