"""Permutations: DuQuant's zigzag balances the blocks, the prototype's does not."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from duqsweep.quant.permutation import interleave, zigzag


def slow_zigzag(magnitude: list[float], block_size: int) -> list[int]:
    ranked = sorted(range(len(magnitude)), key=lambda i: -magnitude[i])
    blocks: list[list[int]] = [[] for _ in range(len(magnitude) // block_size)]
    forth = list(range(len(blocks)))
    while ranked:
        for block in forth:
            blocks[block].append(ranked.pop(0))
        forth.reverse()
    return [channel for block in blocks for channel in block]


@given(data=st.data(), blocks=st.integers(1, 6))
def test_zigzag_deals_channels_back_and_forth(data: st.DataObject, blocks: int) -> None:
    width = 16 * blocks
    magnitude = data.draw(st.lists(st.floats(0, 1e6), min_size=width, max_size=width))
    order = zigzag(torch.tensor(magnitude, dtype=torch.float64), 16)
    assert order.tolist() == slow_zigzag(magnitude, 16)


@given(energy=st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_the_prototypes_order_takes_from_both_ends(energy: list[float]) -> None:
    ranked = sorted(range(len(energy)), key=lambda i: -energy[i])
    expected = []
    while ranked:
        expected.append(ranked.pop(0))
        ranked.reverse()
    assert interleave(torch.tensor(energy, dtype=torch.float64)).tolist() == expected


def test_only_zigzag_gives_each_block_its_share_of_outliers() -> None:
    magnitude = torch.rand(512, generator=torch.Generator().manual_seed(0))
    magnitude[torch.arange(0, 512, 64)] += 100.0  # eight outliers, for eight blocks
    means = magnitude[zigzag(magnitude, 64)].view(8, 64).mean(1)
    assert means.max() / means.min() < 1.05
    means = magnitude[interleave(magnitude)].view(8, 64).mean(1)
    assert means.max() / means.min() > 9.0  # all eight in the first block
