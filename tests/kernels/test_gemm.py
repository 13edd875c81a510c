"""Large products on warp groups: against float64, and against Triton's kernel."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from expert_reference import random_codes
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from duqsweep.inference.gemm_products import GemmProduct
from duqsweep.kernels.epilogue import Epilogue, EpilogueKind
from duqsweep.kernels.gemm import (
    GROUP,
    KINDS,
    OUTPUTS,
    WIDEST_TILE,
    Division,
    division_for,
    gemm,
    row_order,
    unsupported_reason,
    wgmma_header,
)
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.nvrtc import SOURCES
from duqsweep.kernels.per_token_quant import per_token_quant
from duqsweep.kernels.products import integer_linear
from duqsweep.kernels.projection_weights import ProjectionWeights, pack_int4
from duqsweep.kernels.rotary import Rotary
from duqsweep.kernels.unfinished import ProductParts, finished

NVCC = shutil.which("nvcc")
HOPPER = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0),
    reason="needs a Hopper GPU",
)
ROTARY = Rotary(head_dim=256, heads=3)
BOUND = 5e-3  # relative to the norm of the result, which is rounded to bf16, twice with a residual


@pytest.mark.parametrize("pairs", [False, True])
def test_a_lane_holds_neighbouring_outputs(pairs: bool) -> None:
    rows = row_order(2 * GROUP, pairs).view(2, 2, 4, 2, 8)  # of group, slab, warp, half, row
    for group in range(2):
        for warp in range(4):
            for lane in range(4):
                mine = rows[group, :, warp, :, 2 * lane : 2 * lane + 2]  # of slab, half, neighbour
                if pairs:  # half 0: the first outputs of four pairs, half 1: their second ones
                    first = group * GROUP + 2 * (warp * 16 + lane * 4)
                    assert mine[:, 0].flatten().tolist() == [first + 2 * i for i in range(4)]
                    assert mine[:, 1].flatten().tolist() == [first + 2 * i + 1 for i in range(4)]
                else:
                    first = group * GROUP + warp * 32 + lane * 8
                    assert mine.flatten().tolist() == list(range(first, first + 8))
    assert sorted(rows.flatten().tolist()) == list(range(2 * GROUP))


@given(
    tokens=st.integers(1, 2000),
    outputs=st.integers(1, 400).map(lambda n: n * GROUP),
    channels=st.integers(1, 600).map(lambda n: 32 * n),
    multiprocessors=st.integers(1, 200),
)
def test_a_division_covers_the_product_and_fits(
    tokens: int, outputs: int, channels: int, multiprocessors: int
) -> None:
    division = division_for(tokens, outputs, channels, multiprocessors)
    tiles = -(-tokens // division.tile_tokens)
    assert division.tile_tokens % 16 == 0
    assert division.tile_tokens <= WIDEST_TILE
    assert tiles == -(-tokens // WIDEST_TILE)
    assert division.stages >= 3
    assert division.shared_by == 1 or division.split == 1
    if division.split > 1:
        assert tiles * -(-outputs // OUTPUTS) * division.split <= multiprocessors
        assert 128 * (division.split - 1) < channels  # no CTA without a channel


def test_the_reason_names_what_is_missing() -> None:
    weight = ProjectionWeights(torch.zeros(256, 64, dtype=torch.int8), torch.ones(256, 1))
    assert unsupported_reason(weight, torch.bfloat16) == "warp groups are a feature of Hopper"


CONSTANTS = {"STAGES": 4, "BIASED": 1, "RESIDUAL": 1, "HEAD_DIM": 256, "ROTARY_HEADS": 9}


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@pytest.mark.parametrize(
    ("fp8", "tokens", "shared_by", "split", "kind"),
    [(0, 192, 2, 1, "gated"), (1, 208, 1, 5, "nothing"), (0, 16, 1, 1, "rotary")],
)
def test_it_compiles_without_a_warning_or_a_spill(
    fp8: int, tokens: int, shared_by: int, split: int, kind: EpilogueKind, tmp_path: Path
) -> None:
    (tmp_path / "wgmma.cuh").write_text(wgmma_header(tokens, bool(fp8)))
    constants = {
        **CONSTANTS,
        "FP8": fp8,
        "TILE_TOKENS": tokens,
        "SHARED_BY": shared_by,
        "SPLIT": split,
        "EPILOGUE": KINDS.index(kind),
        "CONSTANT_WEIGHT": 1,
    }
    command = [str(NVCC), "-std=c++17", "-gencode=arch=compute_90a,code=sm_90a", "-cubin"]
    command += ["-Werror=all-warnings", "-Xptxas=-v,-warn-spills", f"-I{tmp_path}"]
    command += [*(f"-D{key}={value}" for key, value in constants.items())]
    command += ["-o", str(tmp_path / "out"), str(SOURCES / "gemm.cu")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("0 bytes spill stores") == 2, done.stderr


def codes_of(rows: int, channels: int, fp8: bool) -> Tensor:
    if fp8:
        return (40 * torch.randn(rows, channels, device="cuda")).to(torch.float8_e4m3fn)
    return torch.randint(-127, 128, (rows, channels), dtype=torch.int8, device="cuda")


def poison(*sizes: int) -> None:
    """Leave NaN in the memory that the next tensors of these sizes are given."""
    for size in sizes:
        torch.full((size,), torch.nan, device="cuda")


def expected(
    product: Tensor, bias: Tensor | None, epilogue: Epilogue, table: tuple[Tensor, Tensor]
) -> Tensor:
    """The epilogue in float64; the kernel rounds a product to bf16 before it is rotated."""
    if bias is not None:
        product = product + bias.double()
    if epilogue.kind == "gelu":
        product = F.gelu(product, approximate="tanh")
    if epilogue.kind == "gated":
        product = F.gelu(product[:, ::2], approximate="tanh") * product[:, 1::2]
    if epilogue.kind == "rotary":
        halves = product.bfloat16().double().view(len(product), -1, ROTARY.head_dim // 2, 2)
        straight = halves.mT.reshape(len(product), -1)
        product = ROTARY.apply(straight, (table[0].double(), table[1].double()))
    if epilogue.residual is not None:
        product = product + epilogue.residual.double()
    return product


CASES = [
    # tokens, channels, outputs, FP8, epilogue, bias, residual, division
    (534, 2048, 512, False, "nothing", False, False, Division(192)),
    (534, 2048, 512, False, "nothing", True, True, Division(192, split=5)),
    (534, 2048, 2048, True, "nothing", True, True, Division(192, split=5)),
    (533, 2048, 1024, False, "gated", False, False, Division(192, shared_by=2)),
    (790, 2048, 1280, True, "gated", False, False, Division(208, shared_by=2)),
    (1024, 544, 1152, False, "gelu", True, False, Division(208, shared_by=2)),
    (512, 1152, 4352, False, "gelu", True, False, Division(176, split=2)),
    (512, 4352, 1152, False, "nothing", True, True, Division(176, split=8)),
    (534, 2048, 1280, False, "rotary", False, False, Division(192)),
    (17, 2048, 1280, True, "rotary", False, False, Division(32, split=3)),
    (1, 32, 128, False, "nothing", False, False, Division(16)),
]


@pytest.mark.gpu
@HOPPER
@pytest.mark.parametrize(
    ("tokens", "channels", "outputs", "fp8", "kind", "biased", "added", "division"), CASES
)
@torch.no_grad()
def test_a_product_is_that_of_float64(
    tokens: int,
    channels: int,
    outputs: int,
    fp8: bool,
    kind: EpilogueKind,
    biased: bool,
    added: bool,
    division: Division,
) -> None:
    torch.manual_seed(tokens + outputs)
    codes, values = codes_of(tokens, channels, fp8), codes_of(outputs, channels, fp8)
    token_scales = torch.rand(tokens, device="cuda") / 100 + 1e-3
    scales = torch.rand(outputs, 1, device="cuda") / 1000 + 1e-4
    bias = torch.randn(outputs, device="cuda").bfloat16() if biased else None
    width = outputs // 2 if kind == "gated" else outputs
    residual = torch.randn(tokens, width, device="cuda").bfloat16() if added else None
    table = (torch.randn(tokens, 128, device="cuda"), torch.randn(tokens, 128, device="cuda"))
    epilogue = Epilogue(kind, residual)
    if kind == "rotary":
        epilogue = Epilogue(kind, residual, ROTARY, table)
    product = codes.double() @ values.double().T * token_scales[:, None].double()
    wanted = expected(product * scales.T.double(), bias, epilogue, table)
    order = row_order(outputs, kind in ("gated", "rotary")).cuda()
    turned = values.view(torch.int8)[order].view(values.dtype)
    weight = (turned, scales[order], None if bias is None else bias[order])
    poison(tokens * width // 2, division.split * tokens * outputs)
    found = finished(gemm(codes, token_scales, *weight, division, epilogue))
    assert (found.double() - wanted).norm() <= BOUND * wanted.norm()
    for _ in range(3):
        again = finished(gemm(codes, token_scales, *weight, division, epilogue))
        assert torch.equal(again, found)


@pytest.mark.gpu
@HOPPER
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("tokens", [70, 534])
@torch.no_grad()
def test_it_agrees_with_the_triton_kernel(tokens: int, packed: bool) -> None:
    torch.manual_seed(tokens)
    bits = 4 if packed else 8
    weight = random_codes(16384, 2048, bits, 16, False)
    assert unsupported_reason(weight, torch.bfloat16) is None
    norm = Norm(1 + torch.randn(2048, device="cuda") / 10)
    rows = torch.randn(tokens, 2048, device="cuda").bfloat16()
    wanted = integer_linear(rows, weight, norm, Epilogue("gated")).float()
    product = GemmProduct(weight, norm, "gated")
    assert (product(rows).float() - wanted).norm() <= BOUND * wanted.norm()
    compiled = torch.compile(product, fullgraph=True)
    assert torch.equal(compiled(rows), product(rows))


@pytest.mark.gpu
@HOPPER
@pytest.mark.parametrize("tokens", [70, 534, 790])
@pytest.mark.parametrize("packed", [False, True])
@torch.no_grad()
def test_quantization_finishes_a_product_as_its_own_kernel_does(tokens: int, packed: bool) -> None:
    torch.manual_seed(tokens)
    weight = random_codes(2048, 16384, 4 if packed else 8, 16, False)
    following = random_codes(2560, 2048, 8, 16, True)
    norm = Norm(1 + torch.randn(2048, device="cuda") / 10)
    rows = torch.randn(tokens, 16384, device="cuda").bfloat16()
    residual = torch.randn(tokens, 2048, device="cuda").bfloat16()
    product = GemmProduct(weight, None)
    whole = product(rows, residual)
    wanted, wanted_scales = per_token_quant(whole, following.permutation, 16, 8, norm)
    poison(tokens * 2048 // 2, tokens * 2048 // 4)
    parts = product.in_parts(rows, residual)
    assert isinstance(parts, ProductParts)
    codes, scales = per_token_quant(parts, following.permutation, 16, 8, norm)
    assert parts.is_finished
    assert torch.equal(parts.finished(), whole)
    assert torch.equal(codes, wanted)
    assert torch.equal(scales, wanted_scales)


@pytest.mark.gpu
@HOPPER
def test_the_reasons_on_a_gpu() -> None:
    large = ProjectionWeights(
        torch.zeros(32768, 1024, dtype=torch.int8, device="cuda"), torch.ones(32768, 1).cuda()
    )
    assert unsupported_reason(large, torch.bfloat16) is None
    assert unsupported_reason(large, torch.float32) == "it stores bfloat16, not float32"
    packed = pack_int4(large.values[:1024].cpu()).cuda()
    small = ProjectionWeights(packed, torch.ones(1024, 1).cuda())
    assert unsupported_reason(small, torch.bfloat16) == (
        "Triton's kernel is faster for a weight of this size"
    )
