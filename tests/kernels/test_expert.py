"""The expert's fused kernels against float64: small in Triton's interpreter, full size on a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from expert_reference import DEVICE, DTYPE, error, normed, random_weight, times, turned
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.kernels.expert.buffers import Buffers, allocate_buffers
from duqsweep.kernels.expert.launch import ExpertKernels
from duqsweep.kernels.expert.tiling import (
    TILE_CONFIGS,
    AttentionTileConfig,
    ExpertShape,
    LayerTileConfigs,
    TileConfig,
)
from duqsweep.kernels.expert.weights import LayerProjections, merge_layer
from duqsweep.kernels.launches import counted
from duqsweep.kernels.projection_weights import ProjectionWeights, concat

# The interpreter computes the rows behind the tokens, which hold NaN here, with numpy.
pytestmark = pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")

GPU = torch.cuda.is_available()
# Relative to the norm of the result. The integers are exact; what differs is where the inputs are
# rounded: to bf16 between the stages, and to another code where a value lies between two.
BOUND = 1e-2 if GPU else 1e-3
FULL = ExpertShape(10, width=1024, hidden=4096, heads=8, kv_heads=1, head_dim=256, action_dim=32)
SMALL = ExpertShape(10, width=64, hidden=128, heads=4, kv_heads=2, head_dim=32, action_dim=7)
SIZES = FULL if GPU else SMALL
WIDE = TileConfig(32, 2, 4)  # few programs: the interpreter runs them one by one
CUT = (
    TILE_CONFIGS
    if GPU
    else dict.fromkeys((16, 8, 4), LayerTileConfigs(TileConfig(16, 2, 4), WIDE, WIDE, WIDE))
)
CHUNKS = 32 if GPU else 4
CASES = [
    # tokens, bits of the weights, block, groups of 32
    (1, 4, 16, False),
    (10, 4, 32, True),
    (16, 16, 1, False),
    (51, 8, 64, False),
]
PREFIXES = [(1, 1), (10, 534), (50, 77)]
if GPU:
    CASES += [(10, 4, 16, False), (16, 4, 128, False), (50, 4, 16, False), (64, 4, 16, False)]
    CASES += [(1, 8, 1, True), (10, 8, 16, False), (10, 16, 1, False), (50, 16, 1, False)]
    PREFIXES += [(16, 77), (50, 534), (51, 64), (64, 960), (50, 790), (64, 1024), (10, 1984)]


@dataclass
class Kit:
    """Kernels with poisoned buffers."""

    shape: ExpertShape
    buffers: Buffers
    kernels: ExpertKernels

    def rows(self, columns: int) -> Tensor:
        """Random tokens, NaN in the rows behind them."""
        rows = torch.full((self.shape.padded, columns), torch.nan, dtype=DTYPE, device=DEVICE)
        rows[: self.shape.tokens] = torch.randn(self.shape.tokens, columns)
        return rows

    def real(self, rows: Tensor) -> Tensor:
        """The tokens in float64."""
        return rows[: self.shape.tokens].double()


def kit(tokens: int) -> Kit:
    shape = replace(SIZES, tokens=tokens)
    buffers = allocate_buffers(shape, CHUNKS, torch.empty(0, dtype=DTYPE, device=DEVICE))
    for name, value in vars(buffers).items():
        for tensor in value if isinstance(value, tuple) else (value,):
            tensor.fill_(torch.nan if name != "codes" else 77)
    return Kit(shape, buffers, ExpertKernels(shape, buffers, CHUNKS, interpreted=not GPU))


def modulation(width: int) -> Tensor:
    return torch.stack((1 + 0.2 * torch.randn(width), 0.2 * torch.randn(width))).to(DEVICE, DTYPE)


@pytest.mark.parametrize(("tokens", "bits", "block", "grouped"), CASES)
def test_queries_keys_and_values_are_those_of_float64(
    tokens: int, bits: int, block: int, grouped: bool
) -> None:
    torch.manual_seed(tokens)
    k = kit(tokens)
    heads, dim = SIZES.heads + 2 * SIZES.kv_heads, SIZES.head_dim
    weight = random_weight(heads * dim, SIZES.width, bits, block, grouped)
    stream, mod = k.rows(SIZES.width), modulation(SIZES.width)
    angles = torch.rand(k.shape.padded, dim // 2, device=DEVICE)
    table = (angles.cos(), angles.sin())
    k.kernels.qkv(stream, mod, weight, table, CUT[bits].qkv)
    expected = times(normed(k.real(stream), mod), weight).view(tokens, heads, dim)
    split = [SIZES.heads, SIZES.kv_heads, SIZES.kv_heads]
    q, keys, values = torch.split(expected, split, dim=1)
    assert error(k.real(k.buffers.queries), turned(q, table).flatten(1)) < BOUND
    assert error(k.buffers.keys[:, :tokens], turned(keys, table).transpose(0, 1)) < BOUND
    assert error(k.buffers.values[:, :tokens], values.transpose(0, 1)) < BOUND


@pytest.mark.parametrize(("tokens", "bits", "block", "grouped"), CASES)
def test_mlp_is_that_of_float64(tokens: int, bits: int, block: int, grouped: bool) -> None:
    torch.manual_seed(tokens)
    k = kit(tokens)
    gate = random_weight(SIZES.hidden, SIZES.width, bits, block, grouped)
    up = random_weight(SIZES.hidden, SIZES.width, bits, block, grouped)
    down = random_weight(SIZES.width, SIZES.hidden, bits, block, grouped)
    layer = merge_layer(LayerProjections((gate,), down, (gate, up), down))
    stream, mod = k.rows(SIZES.width), modulation(SIZES.width)
    residual, factor = k.rows(SIZES.width), modulation(SIZES.width)[0]
    before = k.real(residual)
    with counted() as counts:
        k.kernels.gate_up(stream, mod, layer.gate_up, CUT[bits].gate_up)
        k.kernels.down(layer.down, factor, residual, CUT[bits].down)
    products = {"expert_gate_up_" + gate.format: 1, "expert_linear_residual_" + down.format: 1}
    codes = {} if bits == 16 else {"expert_norm_quant": 1, "expert_quant": 1}
    assert dict(counts) == {**products, **codes}
    x = normed(k.real(stream), mod)
    hidden = F.gelu(times(x, gate), approximate="tanh") * times(x, up)
    expected = before + times(hidden, down) * factor.double()
    assert error(k.real(residual), expected) < BOUND


def attended(k: Kit, prefix: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """A random prefix and random inputs of attention; its result in float64."""
    tokens, dim = k.shape.tokens, SIZES.head_dim
    k.buffers.queries[:] = k.rows(SIZES.heads * dim)
    for own in (k.buffers.keys, k.buffers.values):
        own[:, :tokens] = torch.randn(SIZES.kv_heads, tokens, dim)
    # As a prefix leaves them: not contiguous.
    shape = (prefix, SIZES.kv_heads, dim)
    cache = [torch.randn(shape).to(DEVICE, DTYPE).transpose(0, 1) for _ in range(2)]
    q = k.real(k.buffers.queries).view(tokens, SIZES.kv_heads, -1, dim).permute(1, 2, 0, 3)
    keys, values = (
        torch.cat((part, own[:, :tokens]), dim=1).double()[:, None]
        for part, own in zip(cache, (k.buffers.keys, k.buffers.values), strict=True)
    )
    mixed = (q @ keys.mT / dim**0.5).softmax(-1) @ values
    return (cache[0], cache[1]), mixed.permute(2, 0, 1, 3).flatten(1)


ATTENTION = (
    AttentionTileConfig()
    if GPU
    else AttentionTileConfig(rows=64, keys=256, channels=SIZES.head_dim)
)


@pytest.mark.parametrize(("tokens", "prefix"), PREFIXES)
def test_attention_is_that_of_float64_and_repeats_to_the_bit(tokens: int, prefix: int) -> None:
    torch.manual_seed(tokens)
    k = kit(tokens)
    cache, expected = attended(k, prefix)
    results = []
    for _ in range(2):
        k.buffers.attn.fill_(torch.nan)
        k.kernels.combine_partials(
            k.kernels.attention(cache, ATTENTION), ProjectionWeights(torch.empty(1, 1))
        )
        results.append(k.buffers.attn[:tokens].clone())
    assert error(results[0], expected) < BOUND
    assert torch.equal(results[0], results[1])


@pytest.mark.parametrize(("tokens", "bits", "block", "grouped"), CASES)
def test_attention_and_its_output_product_are_those_of_float64(
    tokens: int, bits: int, block: int, grouped: bool
) -> None:
    torch.manual_seed(tokens)
    k = kit(tokens)
    cache, mixed = attended(k, prefix=33)
    weight = random_weight(SIZES.width, SIZES.heads * SIZES.head_dim, bits, block, grouped)
    stream, gate = k.rows(SIZES.width), modulation(SIZES.width)[0]
    expected = k.real(stream) + times(mixed, weight) * gate.double()
    k.kernels.combine_partials(k.kernels.attention(cache, ATTENTION), weight)
    k.kernels.o(weight, gate, stream, CUT[bits].o)
    assert error(k.real(stream), expected) < BOUND


def test_a_layer_of_int4_and_int8_products_is_stored_as_int8() -> None:
    narrow, wide = (random_weight(64, 64, bits, 16, False) for bits in (4, 8))
    layer = merge_layer(LayerProjections((narrow, wide, narrow), narrow, (wide, wide), narrow))
    assert layer.qkv.format == "w8a8"
    plain = concat([replace(narrow, values=narrow.unpacked), wide])
    assert torch.equal(layer.qkv.values[:128], plain.values)


def test_half_quantized_layers_are_refused() -> None:
    one, other = (random_weight(32, 64, bits, 16, False) for bits in (16, 8))
    with pytest.raises(EvaluationError, match="some are quantized and some are not"):
        merge_layer(LayerProjections((one, other, one), one, (one, one), one))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"tokens": 65}, "1 to 64 tokens, got 65"), ({"width": 96}, "width that is a power of two")],
)
def test_sizes_without_kernels_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        replace(SMALL, **change)
