"""Attention from merged products against float64: shared key heads, odd lengths, odd widths.

In parts too: the parts, what adds them up, and the quantization of the result.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from duqsweep.inference.prefix_attention import attend_in_torch
from duqsweep.kernels.attention import LOG2_E, attend, attend_in_parts
from duqsweep.kernels.attention_parts import combine
from duqsweep.kernels.launches import counted
from duqsweep.kernels.nvrtc import SOURCES
from duqsweep.kernels.per_token_quant import per_token_quant
from duqsweep.kernels.split_attention import KEYS, parts_for, wgmma_header
from duqsweep.kernels.split_attention import attend as attend_by_warp_groups
from duqsweep.kernels.unfinished import AttentionParts

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NVCC = shutil.which("nvcc")
HOPPER = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0),
    reason="needs a Hopper GPU",
)

# (sequences, tokens, heads, heads of keys and values, channels of a head, dtype)
SMALL = [
    (2, 9, 3, 3, 24, torch.float32),
    (1, 21, 4, 1, 32, torch.float32),
    (1, 70, 4, 2, 16, torch.float32),
]
FULL_SIZE = [
    (2, 256, 16, 16, 72, torch.bfloat16),
    (1, 200, 16, 16, 72, torch.bfloat16),
    (3, 256, 16, 16, 72, torch.bfloat16),
    (1, 534, 8, 1, 256, torch.bfloat16),
    (1, 777, 8, 1, 256, torch.bfloat16),
    (1, 513, 8, 1, 256, torch.bfloat16),
]


def expected(qkv: Tensor, sequences: int, kv_heads: int, head_dim: int) -> Tensor:
    heads = qkv.double().view(sequences, -1, qkv.shape[1] // head_dim, head_dim).transpose(1, 2)
    count = heads.shape[1] - 2 * kv_heads
    q, k, v = torch.split(heads, [count, kv_heads, kv_heads], dim=1)
    k, v = (part.repeat_interleave(count // kv_heads, 1) for part in (k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(qkv), -1)


@pytest.mark.parametrize(
    ("sequences", "tokens", "heads", "kv_heads", "head_dim", "dtype"),
    SMALL + FULL_SIZE * (DEVICE == "cuda"),
)
def test_attention_is_that_of_float64(
    sequences: int, tokens: int, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype
) -> None:
    width = (heads + 2 * kv_heads) * head_dim
    qkv = (torch.randn(sequences * tokens, width, device=DEVICE) * 2).to(dtype)
    wanted = expected(qkv, sequences, kv_heads, head_dim)
    bound = 1e-2 if dtype == torch.bfloat16 else 1e-6
    for found in (
        function(qkv, sequences, kv_heads, head_dim) for function in (attend, attend_in_torch)
    ):
        assert found.shape == wanted.shape
        assert (found.double() - wanted).norm() <= bound * wanted.norm()


def test_torch_compile_takes_the_kernel_as_it_is() -> None:
    torch.library.opcheck(attend, (torch.randn(6, 96, device=DEVICE), 2, 1, 16))


def in_parts(tokens: int, heads: int, head_dim: int, parts: int) -> tuple[AttentionParts, Tensor]:
    """Random results in parts, of which the last has no key, and the result in float64."""
    values = torch.randn(parts, tokens, heads * head_dim, device=DEVICE)
    logs = torch.randn(parts, tokens, heads, device=DEVICE) * 3
    logs[-1] = -1e30
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    out = torch.full((tokens, heads * head_dim), torch.nan, device=DEVICE, dtype=dtype)
    shares = torch.softmax(logs.double() / LOG2_E, 0)
    split = values.double().view(parts, tokens, heads, head_dim)
    wanted = (split * shares[..., None]).sum(0).flatten(1)
    made = AttentionParts(
        out=out, parts=values, logs=logs, add_up=lambda: combine(values, logs, out)
    )
    return made, wanted


@pytest.mark.parametrize(
    ("tokens", "heads", "head_dim", "parts"), [(5, 3, 24, 2), (3, 8, 256, 4), (7, 1, 16, 3)]
)
def test_parts_add_up_to_the_result(tokens: int, heads: int, head_dim: int, parts: int) -> None:
    made, wanted = in_parts(tokens, heads, head_dim, parts)
    with counted() as launched:
        found = made.finished()
        assert made.finished() is found
    assert launched == {"attend_combine": 1}
    bound = 4e-3 if DEVICE == "cuda" else 1e-6
    assert (found.double() - wanted).norm() <= bound * wanted.norm()


@pytest.mark.parametrize(("heads", "head_dim"), [(8, 256), (2, 16)])
def test_a_result_in_parts_is_quantized_as_the_whole_one(heads: int, head_dim: int) -> None:
    width = heads * head_dim
    made, wanted = in_parts(70, heads, head_dim, 3)
    order = torch.randperm(width, device=DEVICE).int()
    codes, scales = per_token_quant(made, order, 16, 8)
    whole, whole_scales = per_token_quant(wanted.to(made.out.dtype), order, 16, 8)
    torch.testing.assert_close(scales, whole_scales, rtol=1e-2, atol=0)
    assert (codes.int() - whole.int()).abs().max() <= 2
    assert (codes != whole).double().mean() < 0.05


def test_every_part_has_a_key() -> None:
    for tokens in range(1, 1100):
        parts = parts_for(tokens, 8, 1, 132)
        per_part = -(-tokens // (KEYS * parts)) * KEYS
        assert per_part * (parts - 1) < tokens
    assert [parts_for(tokens, 8, 1, 132) for tokens in (70, 278, 534, 790, 968)] == [1, 3, 3, 2, 2]


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
def test_it_compiles_without_a_warning_or_a_spill(tmp_path: Path) -> None:
    (tmp_path / "wgmma.cuh").write_text(wgmma_header())
    command = [str(NVCC), "-std=c++17", "-gencode=arch=compute_90a,code=sm_90a", "-cubin"]
    command += ["-Werror=all-warnings", "-Xptxas=-v,-warn-spills", f"-I{tmp_path}"]
    command += ["-DGROUP=8", "-DKV_HEADS=1", "-DPARTS=3", "-o", str(tmp_path / "out")]
    command += [str(SOURCES / "split_attention.cu")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("0 bytes spill stores") == 1, done.stderr


@pytest.mark.gpu
@HOPPER
@pytest.mark.parametrize(
    ("sequences", "tokens", "heads", "kv_heads", "parts"),
    [
        (1, 278, 8, 1, None),
        (1, 534, 8, 1, None),
        (1, 790, 8, 1, None),
        (1, 819, 8, 1, None),
        (1, 968, 8, 1, None),
        (1, 513, 8, 1, 2),
        (2, 100, 4, 2, 2),
        (3, 97, 2, 2, 5),  # three parts without a key
    ],
)
def test_parts_by_warp_groups_are_those_of_float64(
    sequences: int, tokens: int, heads: int, kv_heads: int, parts: int | None
) -> None:
    torch.manual_seed(tokens)
    width = (heads + 2 * kv_heads) * 256
    qkv = (torch.randn(sequences * tokens, width, device="cuda") * 2).bfloat16()
    torch.full((1 << 24,), torch.nan, device="cuda")  # in the memory of the next tensors
    factor = 256**-0.5 * LOG2_E
    found = attend_by_warp_groups(qkv, sequences, kv_heads, 256, factor, parts)
    wanted = expected(qkv, sequences, kv_heads, 256)
    assert len(found.parts) == (parts or parts_for(tokens, heads // kv_heads, kv_heads, 132))
    assert (found.finished().double() - wanted).norm() <= 4e-3 * wanted.norm()
    for _ in range(3):
        again = attend_by_warp_groups(qkv, sequences, kv_heads, 256, factor, parts)
        assert torch.equal(again.finished(), found.out)
    if parts is None:
        assert isinstance(attend_in_parts(qkv, sequences, kv_heads, 256), AttentionParts)
