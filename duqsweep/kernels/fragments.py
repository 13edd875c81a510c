"""Weights in the order in which the lanes of a warp hand them to the tensor cores.

A tile is eight outputs, a step 32 input channels: what one matrix instruction multiplies with. Lane
4·g + q of it holds output g and, of each half of the step, channels 4·q to 4·q + 3. A chunk is the
16 bytes that a lane loads at a time: two steps of it, or four where two int4 codes share a byte,
the first half's in the low bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

TILE = 8  # outputs
STEP = 32  # channels
LANES = 32
CHUNK_BYTES = 16  # of a lane


def fragments(codes: Tensor, packed: bool) -> Tensor:
    """Reorder a weight.

    Args:
        codes: (out, in) int8; out is a multiple of eight, in of 128, or of 64 where not packed.
        packed: The codes have four bits, and two of them shall share a byte.

    Returns:
        (out / 8, chunks, 32, 16) uint8: tile, chunk of its channels, lane, byte.
    """
    outputs, steps = codes.shape[0], codes.shape[1] // STEP
    octets = codes.contiguous().view(torch.uint8).view(outputs // TILE, TILE, steps, 2, 4, 4)
    if packed:
        first, second = octets.unbind(3)
        octets = ((first & 15) | (second << 4)).unsqueeze(3)
    together = 4 if packed else 2
    # tile, output, chunk, step, half, quarter, byte → tile, chunk, output, quarter, and the rest
    split = octets.view(outputs // TILE, TILE, -1, together, *octets.shape[3:])
    ordered = split.permute(0, 2, 1, 5, 3, 4, 6)
    return ordered.reshape(outputs // TILE, steps // together, LANES, CHUNK_BYTES)
