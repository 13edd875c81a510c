"""The prototype's settings give the prototype's arithmetic, computed here in plain numpy loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from quant_parts import TinyPolicy, inputs, tiny_policy

from duqsweep.quant.calibrate import calibrate
from duqsweep.quant.freeze import freeze
from duqsweep.spec import QuantSpec

Array = NDArray[np.float64]
CLIPS = (0.5, 0.75, 1.0, 1.25, 1.5)


def round_clipped(values: Array, scale: Array | float, bits: int) -> Array:
    top = 2 ** (bits - 1) - 1
    return np.clip(np.rint(values / scale), -top - 1, top) * scale


def left_singular_vectors(block: Array) -> Array:
    """U with the largest entry of each column positive: the free sign decides what is clipped."""
    u = np.linalg.svd(block)[0]
    return u * np.sign(u[np.argmax(np.abs(u), axis=0), np.arange(u.shape[1])])


def prototype_forward(
    x: Array, weight: Array, bias: Array, bits: tuple[int, int], block: int
) -> Array:
    """x (tokens, in), W (out, in): interleave, rotate, round statically, rotate rows, restore."""
    ranked = list(np.argsort(-np.mean(weight**2, axis=0), kind="stable"))
    order = []
    while ranked:
        order.append(ranked.pop(0))
        ranked.reverse()
    x, folded = x[:, order].copy(), weight[:, order].copy()
    for start in range(0, x.shape[1], block):
        columns = slice(start, start + block)
        u = left_singular_vectors(folded[:, columns].T)
        x[:, columns] = x[:, columns] @ u
        folded[:, columns] = folded[:, columns] @ u
    row_rotations = []
    for start in range(0, len(folded), block):
        rows = slice(start, start + block)
        u = left_singular_vectors(weight[rows])
        folded[rows] = u @ folded[rows]
        row_rotations.append(u)
    for i, row in enumerate(folded):
        base = np.abs(row).max() / (2 ** (bits[0] - 1) - 1)
        tries = [round_clipped(row, base / clip, bits[0]) for clip in CLIPS]
        folded[i] = min(tries, key=lambda t, row=row: np.mean((t - row) ** 2))
    scale = np.percentile(np.abs(x), 99.9, axis=0) / (2 ** (bits[1] - 1) - 1)
    y = round_clipped(x, scale, bits[1]) @ folded.T
    for start, u in zip(range(0, len(folded), block), row_rotations, strict=True):
        y[:, start : start + block] = y[:, start : start + block] @ u
    return y + bias


@pytest.mark.parametrize("bits", [(4, 8), (8, 8), (4, 4)])
@pytest.mark.parametrize("block", [16, 64])
@pytest.mark.parametrize("kernel", ["fake", "loop"])
def test_prototype_settings_reproduce_its_arithmetic(
    bits: tuple[int, int], block: int, kernel: str
) -> None:
    policy: TinyPolicy = tiny_policy().double()
    layer = policy.layers[0].up_proj
    weight, bias = layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()
    x = inputs().double()
    quant = QuantSpec(
        rotation="svd",
        block_size=block,
        permutation="prototype",
        row_rotation=True,
        act_scale="static",
        kernel=kernel,
    )
    chosen = {"layers.0.up_proj": bits}
    stats = calibrate(policy, chosen, quant, lambda: policy(x))
    freeze(policy, chosen, quant, stats, None, "tiny")
    with torch.no_grad():
        found = policy.layers[0].up_proj(x).reshape(-1, 128).numpy()
    wanted = prototype_forward(x.reshape(-1, 64).numpy(), weight, bias, bits, block)
    assert np.linalg.norm(found - wanted) < 1e-5 * np.linalg.norm(wanted)
