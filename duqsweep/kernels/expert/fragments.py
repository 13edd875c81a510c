"""Weights in the operand order of the tensor-core instruction `mma.m16n8k32` (fragments).

A tile is 8 outputs and a step is 32 input channels: the operand of one instruction. Lane 4·g + q of
a warp holds output g and, of each half of the step, channels 4·q to 4·q + 3. A chunk is the 16
bytes that a lane loads at once: two steps of int8 or e4m3, or four steps of int4, where each byte
holds a value of the first half of the step in its low bits and one of the second half in its high
bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

TILE = 8  # outputs
STEP = 32  # input channels
LANES = 32
CHUNK_BYTES = 16  # per lane


def fragments(values: Tensor) -> Tensor:
    """Reorder a weight into fragments.

    Args:
        values: (out, in) int8 or e4m3, or (out, in / 2) uint8 of `pack_int4`; out is a multiple of
            8, in of 64, or of 128 for `pack_int4`.

    Returns:
        (out / 8, chunks, 32, 16) uint8: tile, chunk, lane, byte.
    """
    packed = values.dtype == torch.uint8
    octets = _paired_in_steps(values) if packed else values.contiguous().view(torch.uint8)
    halves, together = (1, 4) if packed else (2, 2)
    # tile, output, chunk, step, half, quarter, byte → tile, chunk, output, quarter, and the rest
    split = octets.view(len(octets) // TILE, TILE, -1, together, halves, 4, 4)
    ordered = split.permute(0, 2, 1, 5, 3, 4, 6)
    return ordered.reshape(len(split), split.shape[2], LANES, CHUNK_BYTES)


def _paired_in_steps(packed: Tensor) -> Tensor:
    """Bytes that pair channels j and j + in / 2 → bytes that pair j and j + 16 of the same step."""
    first, second = packed.unflatten(1, (-1, 2, STEP // 2)).unbind(2)
    low = (first & 15) | (second << 4)
    high = (first >> 4) | (second & 0xF0)
    return torch.cat((low, high), dim=1).flatten(1)
