"""The bytes that lanes load of a weight are the operands of the matrix instruction."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from duqsweep.kernels.expert.fragments import fragments
from duqsweep.kernels.projection_weights import pack_int4


def as_multiplied(loaded: Tensor, packed: bool) -> Tensor:
    """The codes, (out, in), read lane by lane like `cuda/products.cuh`."""
    tiles, chunks = loaded.shape[:2]
    steps = 4 if packed else 2
    codes = torch.zeros(tiles, 8, chunks, steps, 2, 4, 4, dtype=torch.int8)
    for lane in range(32):
        output, quarter = lane // 4, lane % 4
        words = loaded[:, :, lane].view(torch.int8).unflatten(-1, (steps, -1, 4))
        for half in range(2):
            if packed:  # the first half's codes lie in the low bits
                part = (words[..., 0, :] << 4) >> 4 if half == 0 else words[..., 0, :] >> 4
            else:
                part = words[..., half, :]
            codes[:, output, :, :, half, quarter] = part
    return codes.flatten(2).flatten(0, 1)


@given(tiles=st.integers(1, 3), chunks=st.integers(1, 3), packed=st.booleans(), seed=st.integers())
def test_a_lane_finds_its_channels(tiles: int, chunks: int, packed: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed % 2**32)
    low, high, width = (-8, 8, 128 * chunks) if packed else (-128, 128, 64 * chunks)
    codes = torch.randint(low, high, (8 * tiles, width), generator=generator).to(torch.int8)
    loaded = fragments(pack_int4(codes) if packed else codes)
    assert loaded.shape == (tiles, chunks, 32, 16)
    assert torch.equal(as_multiplied(loaded, packed), codes)
