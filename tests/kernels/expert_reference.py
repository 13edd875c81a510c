"""Float64 products and norms of the expert, with tokens and weights quantized as kernels do."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from duqsweep.kernels.projection_weights import ProjectionWeights, pack_int4
from duqsweep.quant.quantizer import decode_weight, quantize_tokens
from duqsweep.quant.rotation import hadamard, rotate_blocks

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if torch.cuda.is_available() else torch.float32


def random_weight(out: int, width: int, bits: int, block: int, grouped: bool) -> ProjectionWeights:
    """Random codes; the permutation depends only on the width, so that layers can be merged."""
    if bits == 16:
        plain: Tensor = torch.randn(out, width) / width**0.5
        return ProjectionWeights(plain.to(DEVICE, DTYPE))
    return random_codes(out, width, bits, block, grouped)


def random_codes(out: int, width: int, bits: int, block: int, grouped: bool) -> ProjectionWeights:
    top = (1 << (bits - 1)) - 1
    codes = torch.randint(-top - 1, top + 1, (out, width)).to(torch.int8).to(DEVICE)
    scales = (torch.rand(out, width // 32 if grouped else 1) + 0.5) / width**0.5 / top
    order = torch.randperm(width, generator=torch.Generator().manual_seed(width)).int()
    stored = pack_int4(codes) if bits == 4 else codes
    return ProjectionWeights(stored, scales.to(DEVICE), None, order.to(DEVICE), block, 8)


def random_e4m3(out: int, width: int, block: int) -> ProjectionWeights:
    """The same in e4m3."""
    values = (100 * torch.randn(out, width)).clamp(-448, 448).to(torch.float8_e4m3fn)
    return replace(random_codes(out, width, 8, block, False), values=values.to(DEVICE))


def rounded(rows: Tensor, weight: ProjectionWeights) -> Tensor:
    """Tokens, permuted and rotated, rounded to the codes that a weight's kernel multiplies."""
    return quantize_tokens(rows, weight.act_bits, "e4m3" if weight.is_e4m3 else "integer")


def times(rows: Tensor, weight: ProjectionWeights) -> Tensor:
    """The product in float64, with the input transformed and quantized as the weight says."""
    if weight.scales is None:
        return rows @ weight.values.double().T
    if weight.permutation is not None:
        rows = rows[:, weight.permutation.long()]
    if weight.block > 1:
        rows = rotate_blocks(rows, hadamard(weight.block).to(rows)[None])
    if weight.is_e4m3:
        decoded = weight.values.double() * weight.scales.double()
    else:
        decoded = decode_weight(weight.unpacked, weight.scales.double())
    return rounded(rows, weight) @ decoded.T


def error(result: Tensor, expected: Tensor) -> float:
    return float((result.double() - expected).norm() / expected.norm())


def normed(rows: Tensor, mod: Tensor) -> Tensor:
    return F.rms_norm(rows, rows.shape[-1:], eps=1e-6) * mod[0].double() + mod[1].double()


def turned(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions on (tokens, heads, head_dim)."""
    cos, sin = (part[: len(x), None].double() for part in table)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
