"""Integer products against float64: odd sizes, groups, packed codes, and epilogues."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.kernels.epilogue import Epilogue, EpilogueKind
from duqsweep.kernels.products import GemmConfig, integer_product
from duqsweep.kernels.projection_weights import (
    ProjectionWeights,
    concat,
    pack_int4,
    pad_inputs,
    pad_outputs,
    take_rows,
    unpack_int4,
)
from duqsweep.kernels.rotary import Rotary

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FULL = DEVICE == "cuda"

# (tokens, in, out, groups, packed, epilogue, dtype)
SMALL = [
    (1, 128, 48, 1, False, "nothing", torch.float32),
    (10, 288, 40, 1, False, "gelu", torch.float32),
    (16, 256, 96, 1, True, "gated", torch.float32),
    (17, 304, 33, 1, True, "nothing", torch.float32),
    (50, 128, 32, 4, False, "gated", torch.float32),
    (51, 256, 64, 2, True, "gelu", torch.float32),
    (65, 256, 136, 8, True, "nothing", torch.float32),
    (131, 144, 140, 1, False, "nothing", torch.float32),
    (70, 160, 136, 1, False, "gated", torch.float32),
    (66, 128, 33, 1, True, "nothing", torch.float32),
]
GEMMA = [
    (tokens, *shape, groups, packed, after, torch.bfloat16)
    for tokens in (534, 777)
    for packed in (False, True)
    for (*shape, groups, after) in (
        (2048, 2560, 1, "nothing"),
        (2048, 2048, 16, "nothing"),
        (2048, 32768, 1, "gated"),
        (2048, 32768, 32, "gated"),
        (16384, 2048, 1, "nothing"),
        (16384, 2048, 512, "nothing"),
    )
]
SIGLIP = [
    (512, *shape, 1, packed, after, torch.bfloat16)
    for packed in (False, True)
    for (*shape, after) in (
        (1152, 3456, "nothing"),
        (1152, 1152, "nothing"),
        (1152, 4304, "gelu"),
        (4304, 1152, "nothing"),
    )
]
EXPERT = [
    (tokens, *shape, 1, packed, "nothing", torch.bfloat16)
    for tokens in (1, 10, 16, 50, 51, 64)
    for packed in (False, True)
    for shape in ((1024, 2560), (2048, 1024), (1024, 4096), (4096, 1024))
]


def random_weight(out: int, width: int, groups: int, packed: bool, bias: bool) -> ProjectionWeights:
    top = 8 if packed else 128
    codes = torch.randint(-top, top, (out, width), dtype=torch.int8)
    scales = (torch.rand(out, groups) + 0.5) / (width**0.5 * top)
    return ProjectionWeights(
        values=(pack_int4(codes) if packed else codes).to(DEVICE),
        scales=scales.to(DEVICE),
        bias=torch.randn(out, device=DEVICE) if bias else None,
        permutation=None,
        block=16,
        act_bits=8,
    )


def decoded(weight: ProjectionWeights) -> Tensor:
    codes = weight.unpacked
    grouped = codes.double().unflatten(1, (weight.groups, -1))
    return (grouped * weight.scales.double()[..., None]).flatten(1)


def expected(
    codes: Tensor, scales: Tensor, weight: ProjectionWeights, kind: EpilogueKind
) -> Tensor:
    result = (codes.double() * scales.double()[:, None]) @ decoded(weight).T
    if weight.bias is not None:
        result = result + weight.bias.double()
    if kind == "gelu":
        return F.gelu(result, approximate="tanh")
    if kind == "gated":
        return F.gelu(result[:, 0::2], approximate="tanh") * result[:, 1::2]
    return result


@pytest.mark.parametrize(
    ("tokens", "width", "out", "groups", "packed", "kind", "dtype"),
    SMALL + (GEMMA + SIGLIP + EXPERT) * FULL,
)
def test_products_are_those_of_float64(
    tokens: int,
    width: int,
    out: int,
    groups: int,
    packed: bool,
    kind: EpilogueKind,
    dtype: torch.dtype,
) -> None:
    weight = random_weight(out, width, groups, packed, bias=kind != "gated")
    codes = torch.randint(-127, 128, (tokens, width), dtype=torch.int8, device=DEVICE)
    scales = torch.rand(tokens, device=DEVICE) / 32
    wanted = expected(codes, scales, weight, kind)
    residual = torch.randn(wanted.shape, device=DEVICE).to(dtype) if kind == "nothing" else None
    if residual is not None:
        wanted = wanted + residual.double()
    target = torch.full(wanted.shape, torch.nan, dtype=dtype, device=DEVICE)
    found = integer_product(codes, scales, weight, dtype, Epilogue(kind, residual), out=target)
    assert found is target
    assert found.isfinite().all()
    bound = 4e-3 if dtype == torch.bfloat16 else 1e-6
    assert (found.double() - wanted).norm() <= bound * wanted.norm()


@pytest.mark.parametrize("packed", [False, True])
def test_stacked_tiles_give_the_same(packed: bool) -> None:
    weight = random_weight(40, 96, 1, packed, bias=True)
    codes = torch.randint(-127, 128, (200, 96), dtype=torch.int8, device=DEVICE)
    scales = torch.rand(200, device=DEVICE) / 32
    target = torch.full((200, 20), torch.nan, device=DEVICE)
    config = GemmConfig(64, 32, 32, warps=4, stages=3, stacked=3)
    integer_product(
        codes, scales, weight, torch.float32, Epilogue("gated"), config=config, out=target
    )
    wanted = expected(codes, scales, weight, "gated")
    assert (target.double() - wanted).norm() <= 1e-6 * wanted.norm()


@pytest.mark.parametrize(
    ("tokens", "head_dim", "heads", "rotated", "dtype"),
    [(7, 32, 3, 2, torch.float32), (18, 16, 6, 5, torch.float32)]
    + [(534, 256, 10, 9, torch.bfloat16), (535, 256, 2, 1, torch.bfloat16)] * FULL,
)
def test_rotary_products_are_those_of_float64(
    tokens: int, head_dim: int, heads: int, rotated: int, dtype: torch.dtype
) -> None:
    rotary = Rotary(head_dim, rotated)
    weight = random_weight(heads * head_dim, 64, 1, packed=False, bias=True)
    codes = torch.randint(-127, 128, (tokens, 64), dtype=torch.int8, device=DEVICE)
    scales = torch.rand(tokens, device=DEVICE) / 32
    angles = torch.rand(tokens, head_dim // 2, device=DEVICE) * 6
    table = (angles.cos(), angles.sin())
    product = expected(codes, scales, weight, "nothing")
    wanted = product.view(tokens, heads, 2, -1).clone()
    first, second = product.view(tokens, heads, 2, -1)[:, :rotated].unbind(2)
    cosines, sines = (part.double()[:, None] for part in table)
    wanted[:, :rotated, 0] = first * cosines - second * sines
    wanted[:, :rotated, 1] = second * cosines + first * sines
    pairs = rotary.interleaved(heads * head_dim).to(DEVICE)
    target = torch.full(product.shape, torch.nan, dtype=dtype, device=DEVICE)
    epilogue = Epilogue("rotary", rotary=rotary, table=table)
    integer_product(codes, scales, take_rows(weight, pairs), dtype, epilogue, out=target)
    bound = 4e-3 if dtype == torch.bfloat16 else 1e-6
    assert (target.double() - wanted.flatten(1)).norm() <= bound * wanted.norm()
    torch.testing.assert_close(rotary.apply(product, table), wanted.flatten(1), rtol=0, atol=1e-5)


@given(st.integers(1, 5), st.integers(1, 6))
def test_packing_and_unpacking_give_the_codes_back(rows: int, half: int) -> None:
    codes = torch.randint(-8, 8, (rows, 2 * half), dtype=torch.int8)
    packed = pack_int4(codes)
    assert packed.dtype == torch.uint8
    assert packed.shape == (rows, half)
    assert torch.equal(unpack_int4(packed), codes)


def test_a_byte_holds_channel_j_low_and_channel_j_plus_half_high() -> None:
    packed = pack_int4(torch.tensor([[1, 2, -1, -8]], dtype=torch.int8))
    assert packed.tolist() == [[0xF1, 0x82]]


@settings(max_examples=5)
@given(st.booleans())
def test_merged_layers_give_their_outputs_side_by_side(packed: bool) -> None:
    parts = [random_weight(out, 64, 2, packed, bias=True) for out in (8, 16)]
    merged = concat(parts)
    assert torch.equal(decoded(merged), torch.cat([decoded(part) for part in parts]))
    rows = torch.tensor([20, 3, 9], device=DEVICE)
    assert torch.equal(decoded(take_rows(merged, rows)), decoded(merged)[rows])


@pytest.mark.parametrize("packed", [False, True])
def test_added_channels_are_zero(packed: bool) -> None:
    weight = random_weight(8, 48, 1, packed, bias=True)
    wider = pad_inputs(weight, 16)
    assert torch.equal(decoded(wider)[:, :48], decoded(weight))
    assert not decoded(wider)[:, 48:].any()
    taller = pad_outputs(weight, 4)
    assert torch.equal(decoded(taller)[:8], decoded(weight))
    assert not decoded(taller)[8:].any()
    assert taller.bias is not None
    assert not taller.bias[8:].any()


def test_layers_that_differ_cannot_be_merged() -> None:
    wide, packed = (random_weight(8, 64, 1, packed, bias=False) for packed in (False, True))
    with pytest.raises(EvaluationError, match="cannot be merged"):
        concat([wide, packed])
