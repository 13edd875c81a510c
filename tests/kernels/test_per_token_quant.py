"""Per-token quantization against float64: norms, permutation, every block size, odd widths."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from duqsweep.kernels import hopper_quant
from duqsweep.kernels.launches import counted
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.nvrtc import SOURCES
from duqsweep.kernels.per_token_quant import per_token_quant
from duqsweep.quant.rotation import hadamard, rotate_blocks

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FULL = DEVICE == "cuda"
NVCC = shutil.which("nvcc")

# (tokens, width, block); 4304 and 1152 are SigLIP's, 2048 and 16384 Gemma's, 1024 the expert's
SMALL = [(1, 128, 16), (3, 128, 128), (5, 288, 32), (2, 4304, 16), (7, 192, 64), (4, 96, 1)]
FULL_SIZE = [(534, 2048, 64), (533, 16384, 128), (512, 1152, 128), (512, 4304, 16), (51, 1024, 32)]
SHAPES = SMALL + FULL_SIZE * FULL


def expected(rows: Tensor, order: Tensor | None, block: int, norm: Norm | None) -> Tensor:
    """The values to quantize, in float64."""
    if norm is not None:
        wide = rows.double()
        if norm.bias is not None:
            wide = wide - wide.mean(-1, keepdim=True)
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * norm.weight
        if norm.bias is not None:
            wide = wide + norm.bias
        rows = wide.to(rows.dtype)
    values = rows.double() if order is None else rows.double()[:, order.long()]
    return values if block == 1 else rotate_blocks(values, hadamard(block)[None].to(values))


@pytest.mark.parametrize("kind", ["nothing", "rms", "layer"])
@pytest.mark.parametrize(("tokens", "width", "block"), SHAPES)
def test_codes_and_scales_are_those_of_float64(
    tokens: int, width: int, block: int, kind: str
) -> None:
    rows = (torch.randn(tokens, width) * torch.rand(width) * 3).to(DEVICE)
    order = torch.randperm(width).int().to(DEVICE)
    bias = torch.randn(width, device=DEVICE) if kind == "layer" else None
    norm = None if kind == "nothing" else Norm(torch.rand(width, device=DEVICE) + 0.5, bias)
    reordered = norm and Norm(
        *(part if part is None else part[order] for part in vars(norm).values())
    )
    codes, scales = per_token_quant(rows, order, block, 8, reordered)
    values = expected(rows, order, block, norm)
    scale = values.abs().amax(-1) / 127
    assert ((scales.double() - scale).abs() <= 2e-6 * scale).all()
    exact = values / scale[:, None]
    # A value at the border of two codes may go either way.
    assert (codes.double() - exact).abs().max() <= 0.5 + 1e-3
    assert codes.abs().amax(-1).eq(127).all()


@pytest.mark.skipif(not FULL, reason="the interpreter cuts bf16 off instead of rounding it")
@pytest.mark.parametrize(("tokens", "width", "block"), FULL_SIZE)
def test_a_norm_in_bf16_is_rounded_as_the_unquantized_one(
    tokens: int, width: int, block: int
) -> None:
    rows = torch.randn(tokens, width, device=DEVICE).bfloat16()
    norm = Norm(torch.rand(width, device=DEVICE) + 0.5)
    codes, scales = per_token_quant(rows, None, block, 8, norm)
    values = expected(rows, None, block, norm)
    found = codes.double() * scales[:, None]
    # Half a code, and where float32 and float64 round the norm to two neighbours in bf16.
    assert (found - values).norm() <= 0.012 * values.norm()
    assert ((codes.double() - values / scales[:, None]).abs() <= 0.51).double().mean() > 0.99


@pytest.mark.gpu
@pytest.mark.skipif(not FULL, reason="needs a GPU")
@pytest.mark.parametrize("kind", ["nothing", "rms", "layer"])
@pytest.mark.parametrize("permuted", [False, True])
@pytest.mark.parametrize(
    ("tokens", "width", "block", "e4m3"),
    [
        (534, 2048, 16, False),
        (790, 2048, 128, False),
        (3, 2048, 1, True),
        (533, 16384, 16, False),
        (51, 16384, 64, True),
        (512, 1152, 16, False),
        (512, 1152, 128, False),
        (512, 4352, 16, False),
        (5, 4304, 16, True),
        (9, 1024, 32, False),
        (7, 48, 16, False),
        (2, 16, 1, False),
    ],
)
def test_cuda_gives_the_codes_of_triton(
    tokens: int,
    width: int,
    block: int,
    e4m3: bool,
    permuted: bool,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(width + block)
    rows = (torch.randn(tokens, width, device=DEVICE) * torch.rand(width, device=DEVICE)).bfloat16()
    rows[0] = 0
    order = torch.randperm(width, device=DEVICE).int() if permuted else None
    bias = torch.randn(width, device=DEVICE) if kind == "layer" else None
    norm = None if kind == "nothing" else Norm(torch.rand(width, device=DEVICE) + 0.5, bias)
    assert hopper_quant.can_quantize(rows, order, block, norm)
    torch.full((tokens * width // 4 + 1,), torch.nan, device=DEVICE)  # where the codes will be
    codes, scales = per_token_quant(rows, order, block, 8, norm, e4m3)
    again, same_scales = per_token_quant(rows, order, block, 8, norm, e4m3)
    assert torch.equal(codes.view(torch.int8), again.view(torch.int8))
    assert torch.equal(scales, same_scales)
    monkeypatch.setattr(hopper_quant, "can_quantize", lambda *given: False)
    wanted, wanted_scales = per_token_quant(rows, order, block, 8, norm, e4m3)
    # A norm may round to the neighbour in bf16: of a value in a block with the largest result.
    rtol = 1e-5 if norm is None else 2e-3
    torch.testing.assert_close(scales, wanted_scales, rtol=rtol, atol=0)
    found, expected_codes = codes.float(), wanted.float()
    apart = (found - expected_codes).abs()
    # A value at the border of two codes may go either way.
    assert (apart > 0).double().mean() < 1e-2
    assert (apart <= expected_codes.abs() * 0.126 + 1).all()


@pytest.mark.gpu
@pytest.mark.skipif(not FULL, reason="needs a GPU")
@pytest.mark.parametrize("block", [2, 4, 8])
def test_blocks_too_small_for_triton_are_those_of_float64(block: int) -> None:
    rows = torch.randn(20, 1152, device=DEVICE).bfloat16()
    codes, scales = per_token_quant(rows, None, block, 8)
    values = expected(rows, None, block, None)
    scale = values.abs().amax(-1) / 127
    torch.testing.assert_close(scales.double(), scale, rtol=2e-6, atol=0)
    assert (codes.double() - values / scale[:, None]).abs().max() <= 0.5 + 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not FULL, reason="needs a GPU")
def test_rows_that_cuda_takes_may_lie_apart() -> None:
    wide = torch.randn(30, 512, device=DEVICE).bfloat16()
    assert hopper_quant.can_quantize(wide[:, :256], None, 16, None)
    assert not hopper_quant.can_quantize(wide[:, 4:260], None, 16, None)
    for start in (0, 4):
        rows = wide[:, start : start + 256]
        codes, scales = per_token_quant(rows, None, 16, 8)
        same, same_scales = per_token_quant(rows.contiguous(), None, 16, 8)
        assert (codes != same).double().mean() < 1e-3
        torch.testing.assert_close(scales, same_scales, rtol=1e-6, atol=0)


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@pytest.mark.parametrize(
    ("width", "warps", "tiles", "block", "permuted", "norm", "e4m3", "source"),
    [
        (2048, 8, 1, 16, 1, 1, 0, 0),
        (2048, 8, 1, 128, 1, 0, 0, 1),
        (2048, 8, 1, 16, 1, 1, 0, 2),
        (16384, 8, 8, 16, 0, 0, 1, 0),
        (1152, 5, 1, 8, 1, 2, 0, 0),
    ],
)
def test_the_cuda_compiles_without_a_warning_or_a_spill(
    width: int,
    warps: int,
    tiles: int,
    block: int,
    permuted: int,
    norm: int,
    e4m3: int,
    source: int,
    tmp_path: Path,
) -> None:
    constants = {
        "WIDTH": width,
        "WARPS": warps,
        "TILES": tiles,
        "BLOCK": block,
        "PERMUTED": permuted,
        "NORM": norm,
        "E4M3": e4m3,
        "SOURCE": source,
        "PARTS": 5,
        "HEADS": 8,
    }
    command = [str(NVCC), "-std=c++17", "-gencode=arch=compute_90a,code=sm_90a", "-cubin"]
    command += ["-Werror=all-warnings", "-Xptxas=-v,-warn-spills"]
    command += [*(f"-D{key}={value}" for key, value in constants.items())]
    command += ["-o", str(tmp_path / "out"), str(SOURCES / "per_token_quant.cu")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("0 bytes spill stores") == 1, done.stderr


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_codes_use_the_bits_given(bits: int) -> None:
    rows = torch.randn(3, 64, device=DEVICE)
    codes, _ = per_token_quant(rows, None, 16, bits)
    assert codes.abs().max() == (1 << (bits - 1)) - 1


def test_a_token_of_zeros_is_zeros() -> None:
    codes, scales = per_token_quant(torch.zeros(2, 64, device=DEVICE), None, 16, 8)
    assert not codes.any()
    assert torch.equal(scales.cpu(), torch.full((2,), 1e-8))


def test_rows_may_lie_apart() -> None:
    wide = torch.randn(3, 128, device=DEVICE)
    codes, scales = per_token_quant(wide[:, :64], None, 16, 8)
    same, same_scales = per_token_quant(wide[:, :64].contiguous(), None, 16, 8)
    assert torch.equal(codes, same)
    assert torch.equal(scales, same_scales)


def test_launches_are_counted_by_kernel() -> None:
    with counted() as counts:
        for _ in range(2):
            per_token_quant(torch.randn(1, 32, device=DEVICE), None, 16, 8)
    per_token_quant(torch.randn(1, 32, device=DEVICE), None, 16, 8)
    assert counts == {"per_token_quant": 2}
