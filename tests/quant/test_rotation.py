"""Rotations are orthogonal; rotating all blocks at once equals one after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duqsweep.quant.rotation import block_rotations, hadamard, rotate_blocks, svd_rotations

BLOCKS = st.sampled_from([16, 32, 64, 128])
KINDS = st.sampled_from(["hadamard", "svd"])


def random_matrix(rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


@given(
    kind=KINDS,
    block=BLOCKS,
    blocks=st.integers(1, 4),
    rows=st.integers(1, 90),
    seed=st.integers(0, 99),
)
def test_rotations_are_orthogonal(kind: str, block: int, blocks: int, rows: int, seed: int) -> None:
    matrices = block_rotations(kind, random_matrix(rows, block * blocks, seed), block)
    assert matrices.shape == (1 if kind == "hadamard" else blocks, block, block)
    identity = torch.eye(block, dtype=torch.float64).expand_as(matrices)
    torch.testing.assert_close(matrices @ matrices.mT, identity, atol=1e-12, rtol=0)


@given(kind=KINDS, block=BLOCKS, blocks=st.integers(1, 4), seed=st.integers(0, 99))
def test_rotating_and_rotating_back_is_the_identity(
    kind: str, block: int, blocks: int, seed: int
) -> None:
    rows = random_matrix(5, block * blocks, seed)
    matrices = block_rotations(kind, random_matrix(40, block * blocks, seed + 1), block)
    rotated = rotate_blocks(rows, matrices)
    torch.testing.assert_close(rotated.norm(dim=1), rows.norm(dim=1))
    torch.testing.assert_close(rotate_blocks(rotated, matrices.mT), rows)


@given(block=BLOCKS, blocks=st.integers(1, 4), tokens=st.integers(1, 7), shared=st.booleans())
def test_rotating_blocks_equals_multiplying_by_the_block_diagonal_matrix(
    block: int, blocks: int, tokens: int, shared: bool
) -> None:
    rows = random_matrix(tokens, block * blocks, 0)
    matrices = random_matrix((1 if shared else blocks) * block, block, 1).view(-1, block, block)
    dense = np.zeros((block * blocks, block * blocks))
    for i in range(blocks):
        part = slice(i * block, (i + 1) * block)
        dense[part, part] = matrices[0 if shared else i].numpy()
    found = rotate_blocks(rows, matrices).numpy()
    np.testing.assert_allclose(found, rows.numpy() @ dense, atol=1e-10)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_hadamard_spreads_an_outlier_evenly(size: int) -> None:
    outlier = torch.zeros(1, size, dtype=torch.float64)
    outlier[0, 5] = 100.0
    spread = rotate_blocks(outlier, hadamard(size)[None])
    torch.testing.assert_close(spread.abs(), torch.full_like(spread, 100.0 / size**0.5))


@pytest.mark.parametrize("rows", [7, 16, 50])  # fewer rows than the block has channels, and more
def test_svd_turns_channels_into_principal_axes(rows: int) -> None:
    weight = random_matrix(rows, 32, 3)
    rotated = rotate_blocks(weight, svd_rotations(weight, 16)).view(rows, 2, 16)
    for block in range(2):
        gram = rotated[:, block].T @ rotated[:, block]
        off_diagonal = gram - torch.diag(gram.diagonal())
        assert off_diagonal.abs().max() < 1e-10 * gram.max()
        assert (gram.diagonal().diff() < 1e-10).all()
