"""Large products on warp groups: against float64, and against Triton's kernel."""

from __future__ import annotations

import shutil
import subprocess
from functools import partial
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
    CODE_FACTOR,
    GROUP,
    KINDS,
    LARGE,
    WIDEST_PACKED,
    WIDEST_TILE,
    Division,
    definitions,
    division_for,
    fragments,
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
small = partial(Division, output_groups=1)
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


def test_a_thread_holds_its_registers_of_two_instructions() -> None:
    outputs, channels = 3 * GROUP, 128
    codes = torch.randint(-8, 8, (outputs, channels), dtype=torch.int8)
    packed = fragments(codes)
    assert packed.shape == (outputs, channels // 2)
    # Of group, block of channels, slab, warp, row of eight, quad, instruction, register / 2, byte.
    found = packed.view(3, channels // 64, 2, 4, 8, 4, 2, 2, 4)
    rows = codes.view(3, 2, 4, 2, 8, channels)  # of group, slab, warp, half, row of eight
    for instruction in range(channels // 32):
        for register in range(4):
            for quad in range(4):
                first = 32 * instruction + register // 2 * 16 + 4 * quad
                wanted = rows[:, :, :, register % 2, :, first : first + 4]
                block, place = divmod(instruction, 2)
                byte = found[:, block, :, :, :, quad, place, register // 2]
                half = byte & 0xF0 if register % 2 == 0 else byte << 4
                assert torch.equal(half.view(torch.int8), CODE_FACTOR * wanted)


@given(
    tokens=st.integers(1, 2000),
    outputs=st.integers(1, 400).map(lambda n: n * GROUP),
    channels=st.integers(1, 600).map(lambda n: 32 * n),
    multiprocessors=st.integers(1, 200),
    packed=st.booleans(),
    kind=st.sampled_from(KINDS),
)
def test_a_division_covers_the_product_and_fits(
    tokens: int,
    outputs: int,
    channels: int,
    multiprocessors: int,
    packed: bool,
    kind: EpilogueKind,
) -> None:
    division = division_for(tokens, outputs, channels, packed, multiprocessors, kind)
    tiles = -(-tokens // division.tile_tokens) * -(-outputs // division.outputs)
    assert division.tile_tokens % (16 * division.token_groups) == 0
    assert division.group_tokens <= (WIDEST_PACKED if packed else WIDEST_TILE)
    assert division.stages(packed) >= (5 if packed and division.ctas == 1 else 3)
    if division.output_groups == 1:
        assert outputs * channels < LARGE
        assert division.split == 1
        assert (division.ctas - 1) * multiprocessors < tiles <= division.ctas * multiprocessors
    if division.split > 1:
        assert tiles * division.split <= multiprocessors
        assert 128 * (division.split - 1) < channels  # no CTA without a channel


@pytest.mark.parametrize(
    ("tokens", "outputs", "channels", "packed", "fastest"),
    [  # as measured on an H200
        (534, 32768, 2048, False, [Division(192)]),
        (790, 32768, 2048, False, [Division(160)]),
        (1024, 32768, 2048, False, [Division(208)]),
        (534, 32768, 2048, True, [Division(192)]),
        (790, 32768, 2048, True, [Division(160)]),
        (1024, 32768, 2048, True, [Division(176), Division(128)]),
        (534, 2048, 16384, False, [Division(144, 4), Division(112, 3)]),
        (790, 2048, 16384, False, [Division(160, 3)]),
        (1024, 2048, 16384, False, [Division(128, 2)]),
        (534, 2048, 16384, True, [Division(144, 4), Division(112, 3)]),
        (790, 2048, 16384, True, [Division(160, 3)]),
        (1024, 2048, 16384, True, [Division(128, 2)]),
        (512, 3456, 1152, False, [small(128)]),
        (512, 1152, 1152, False, [small(48), small(64)]),
        (512, 4352, 1152, False, [small(80, ctas=2)]),
        (768, 3456, 1152, False, [small(96, ctas=2)]),
        (768, 1152, 1152, False, [small(64)]),
        (768, 4352, 1152, False, [small(112, ctas=2)]),
        (534, 2048, 2048, False, [small(80)]),
        (790, 2048, 2048, False, [small(112)]),
    ],
)
def test_the_division_is_the_fastest_one(
    tokens: int, outputs: int, channels: int, packed: bool, fastest: list[Division]
) -> None:
    assert division_for(tokens, outputs, channels, packed, 132) in fastest


def test_the_reason_names_what_is_missing() -> None:
    weight = ProjectionWeights(torch.zeros(256, 64, dtype=torch.int8), torch.ones(256, 1))
    assert unsupported_reason(weight, torch.bfloat16) == "warp groups are a feature of Hopper"


EPILOGUES: dict[EpilogueKind, Epilogue] = {
    "nothing": Epilogue("nothing", torch.empty(0)),
    "gelu": Epilogue("gelu"),
    "gated": Epilogue("gated", torch.empty(0)),
    "rotary": Epilogue("rotary", None, Rotary(head_dim=256, heads=9)),
}


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@pytest.mark.parametrize(
    ("values", "division", "kind"),
    [
        ("int8", Division(208), "gated"),
        ("e4m3", Division(208, split=5), "nothing"),
        ("int8", Division(16), "rotary"),
        ("int4", Division(192), "gated"),
        ("int4", Division(192, split=5), "nothing"),
        ("int8", small(112), "nothing"),
        ("int8", small(128), "nothing"),
        ("int8", small(112, ctas=2), "gelu"),
        ("int8", small(144, token_groups=3), "rotary"),
        ("int8", small(96, token_groups=2, ctas=2), "rotary"),
        ("int4", small(112), "nothing"),
        ("int4", small(112, ctas=2), "gelu"),
        ("int4", small(144, token_groups=3), "rotary"),
    ],
)
def test_it_compiles_without_a_warning_or_a_spill(
    values: str, division: Division, kind: EpilogueKind, tmp_path: Path
) -> None:
    fp8 = values == "e4m3"
    (tmp_path / "wgmma.cuh").write_text(wgmma_header(division.group_tokens, fp8))
    defined = definitions(division, EPILOGUES[kind], fp8, values == "int4", kind != "rotary")
    command = [str(NVCC), "-std=c++17", "-gencode=arch=compute_90a,code=sm_90a", "-cubin"]
    command += ["-Werror=all-warnings", "-Xptxas=-v,-warn-spills", f"-I{tmp_path}"]
    command += [*(f"-D{key}={value}" for key, value in defined.items())]
    command += ["-o", str(tmp_path / "out"), str(SOURCES / "gemm.cu")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "serialized" not in done.stderr, done.stderr
    assert done.stderr.count("0 bytes spill stores") == 2, done.stderr


def codes_of(rows: int, channels: int, values: str) -> Tensor:
    if values == "e4m3":
        return (40 * torch.randn(rows, channels, device="cuda")).to(torch.float8_e4m3fn)
    least, most = (-8, 7) if values == "int4" else (-127, 127)
    return torch.randint(least, most + 1, (rows, channels), dtype=torch.int8, device="cuda")


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
    # tokens, channels, outputs, values of the weight, epilogue, bias, residual, division
    (534, 2048, 512, "int8", "nothing", False, False, Division(192)),
    (534, 2048, 512, "int8", "nothing", True, True, Division(192, split=5)),
    (534, 2048, 2048, "e4m3", "nothing", True, True, Division(192, split=5)),
    (533, 2048, 1024, "int8", "gated", False, False, Division(192)),
    (790, 2048, 1280, "e4m3", "gated", False, False, Division(208)),
    (1024, 544, 1152, "int8", "gelu", True, False, Division(208)),
    (512, 1152, 4352, "int8", "gelu", True, False, Division(176, split=2)),
    (512, 4352, 1152, "int8", "nothing", True, True, Division(176, split=8)),
    (534, 2048, 1280, "int8", "rotary", False, False, Division(192)),
    (17, 2048, 1280, "e4m3", "rotary", False, False, Division(32, split=3)),
    (1, 32, 128, "int8", "nothing", False, False, Division(16)),
    (534, 2048, 512, "int4", "gated", False, False, Division(192)),
    (534, 2048, 32768, "int4", "gated", False, False, Division(192)),
    (534, 16384, 2048, "int4", "nothing", False, True, Division(192, split=5)),
    (790, 2048, 1280, "int4", "gated", False, False, Division(160)),
    (1024, 2176, 1536, "int4", "gelu", True, False, Division(176)),
    (1024, 4352, 2304, "int4", "nothing", True, True, Division(128, split=2)),
    (534, 2048, 1280, "int4", "rotary", False, False, Division(192)),
    (1, 128, 128, "int4", "nothing", False, False, Division(16)),
    (300, 256, 1152, "int4", "nothing", False, False, Division(64)),
    (512, 1152, 3456, "int8", "nothing", True, False, small(128)),
    (512, 1152, 1152, "int8", "nothing", True, True, small(48)),
    (512, 1152, 4352, "int8", "gelu", True, False, small(80, ctas=2)),
    (512, 4352, 1152, "int8", "nothing", True, True, small(48)),
    (768, 4352, 1152, "int8", "nothing", True, True, small(64)),
    (790, 2048, 2048, "int8", "nothing", False, True, small(112)),
    (534, 2048, 2560, "int8", "rotary", False, False, small(96, token_groups=2)),
    (534, 2048, 512, "int8", "rotary", False, False, small(48)),
    (1023, 2048, 2560, "int8", "rotary", False, False, small(96, token_groups=2, ctas=2)),
    (2000, 544, 2560, "int8", "rotary", False, False, small(112)),
    (300, 544, 17024, "int8", "gated", False, False, small(64, ctas=2)),
    (512, 1152, 1152, "int4", "nothing", True, True, small(48)),
    (790, 2048, 2560, "int4", "rotary", False, False, small(144, token_groups=3)),
    (768, 1152, 4352, "int4", "gelu", True, False, small(112, ctas=2)),
]


@pytest.mark.gpu
@HOPPER
@pytest.mark.parametrize(
    ("tokens", "channels", "outputs", "values", "kind", "biased", "added", "division"), CASES
)
@torch.no_grad()
def test_a_product_is_that_of_float64(
    tokens: int,
    channels: int,
    outputs: int,
    values: str,
    kind: EpilogueKind,
    biased: bool,
    added: bool,
    division: Division,
) -> None:
    torch.manual_seed(tokens + outputs)
    codes = codes_of(tokens, channels, "int8" if values == "int4" else values)
    weight_codes = codes_of(outputs, channels, values)
    token_scales = torch.rand(tokens, device="cuda") / 100 + 1e-3
    scales = torch.rand(outputs, 1, device="cuda") / 1000 + 1e-4
    bias = torch.randn(outputs, device="cuda").bfloat16() if biased else None
    width = outputs // 2 if kind == "gated" else outputs
    residual = torch.randn(tokens, width, device="cuda").bfloat16() if added else None
    table = (torch.randn(tokens, 128, device="cuda"), torch.randn(tokens, 128, device="cuda"))
    epilogue = Epilogue(kind, residual)
    if kind == "rotary":
        epilogue = Epilogue(kind, residual, ROTARY, table)
    product = codes.double() @ weight_codes.double().T * token_scales[:, None].double()
    wanted = expected(product * scales.T.double(), bias, epilogue, table)
    order = row_order(outputs, kind in ("gated", "rotary")).cuda()
    turned = weight_codes.view(torch.int8)[order].view(weight_codes.dtype)
    if values == "int4":
        turned, scales = fragments(turned), scales / CODE_FACTOR
    weight = (turned, scales[order], None if bias is None else bias[order])
    poison(tokens * width // 2, division.split * tokens * outputs)
    found = finished(gemm(codes, token_scales, *weight, division, epilogue))
    assert (found.double() - wanted).norm() <= BOUND * wanted.norm()
    for _ in range(3):
        again = finished(gemm(codes, token_scales, *weight, division, epilogue))
        assert torch.equal(again, found)


@pytest.mark.gpu
@HOPPER
@pytest.mark.parametrize("tokens", [70, 534, 790, 1024])
@torch.no_grad()
def test_sums_of_int4_codes_are_exact(tokens: int) -> None:
    torch.manual_seed(tokens)
    values = torch.randint(-8, 8, (512, 16384), dtype=torch.int8, device="cuda")
    codes = torch.randint(-127, 128, (tokens, 16384), dtype=torch.int8, device="cuda")
    values[0], codes[0] = -8, 127  # the largest sum
    order = row_order(512, pairs=False).cuda()
    scales = torch.ones(512, 1, device="cuda") / CODE_FACTOR
    division = Division(division_for(tokens, 2048, 16384, True, 132).tile_tokens, split=5)
    made = gemm(
        codes, torch.ones(tokens, device="cuda"), fragments(values[order]), scales, None, division
    )
    assert isinstance(made, ProductParts)
    sums = (codes.double() @ values.double().T).long()
    assert torch.equal(made.parts.sum(0), CODE_FACTOR * sums)


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
@torch.no_grad()
def test_kernels_that_overlap_read_what_was_written_before() -> None:
    """In a graph, each starts before those before it have ended; buffers are used again."""
    torch.manual_seed(0)
    norm = Norm(torch.ones(1152, device="cuda"), torch.zeros(1152, device="cuda"))
    products = [GemmProduct(random_codes(1152, 1152, 8, 16, False), norm) for _ in range(12)]
    rows = torch.randn(512, 1152, device="cuda").bfloat16()

    def run(one_by_one: bool) -> Tensor:
        x = rows
        for product in products:
            x = product(x, x)
            if one_by_one:
                torch.cuda.synchronize()
        return x

    wanted = run(one_by_one=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run(one_by_one=False)
    for _ in range(50):
        found.zero_()
        graph.replay()
        assert torch.equal(found, wanted)


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
    assert unsupported_reason(small, torch.bfloat16) is None
    e4m3 = large.values[:1024].to(torch.float8_e4m3fn)
    small = ProjectionWeights(e4m3, torch.ones(1024, 1).cuda())
    assert unsupported_reason(small, torch.bfloat16) == (
        "torch multiplies weights of this size in e4m3, and adds more exactly"
    )
