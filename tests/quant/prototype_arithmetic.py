"""The prototype's quantized layer in plain numpy, and the script that recorded prototype.npz.

python tests/quant/prototype_arithmetic.py    # writes the same file again

Made from what the prototype does (openpi_duquant, duquant_preprocess.py and duquant_layers.py) and
from nothing of duqsweep.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RECORDED = Path(__file__).with_name("prototype.npz")
RECORDED_BLOCK = 16
RECORDED_BITS = ((4, 8), (8, 8), (4, 4), (3, 8))  # weights, activations
CLIPS = (0.5, 0.75, 1.0, 1.25, 1.5)
LOW_BIT_CLIPS = (*CLIPS, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0)  # ours; the prototype has no 3 bits


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
    clips = CLIPS if bits[0] >= 4 else LOW_BIT_CLIPS
    for i, row in enumerate(folded):
        base = np.abs(row).max() / (2 ** (bits[0] - 1) - 1)
        tries = [round_clipped(row, base / clip, bits[0]) for clip in clips]
        folded[i] = min(tries, key=lambda t, row=row: np.mean((t - row) ** 2))
    scale = np.percentile(np.abs(x), 99.9, axis=0) / (2 ** (bits[1] - 1) - 1)
    y = round_clipped(x, scale, bits[1]) @ folded.T
    for start, u in zip(range(0, len(folded), block), row_rotations, strict=True):
        y[:, start : start + block] = y[:, start : start + block] @ u
    return y + bias


def record() -> dict[str, Array]:
    """A layer of 48 inputs and 32 outputs, 24 tokens with two large channels, and its outputs."""
    generator = np.random.default_rng(2026)
    weight = generator.standard_normal((32, 48)) / 7
    bias = generator.standard_normal(32)
    sizes = np.ones(48)
    sizes[[5, 30]] = 25.0
    x = generator.standard_normal((24, 48)) * sizes
    arrays = {"weight": weight, "bias": bias, "x": x}
    for bits in RECORDED_BITS:
        arrays[f"w{bits[0]}a{bits[1]}"] = prototype_forward(x, weight, bias, bits, RECORDED_BLOCK)
    return arrays


if __name__ == "__main__":
    np.savez_compressed(RECORDED, **record())
