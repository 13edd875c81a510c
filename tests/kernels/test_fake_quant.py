"""The kernels of fake quantization against float64, at widths and blocks in use."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.inference.fake_quant import KernelFakeQuant, TorchFakeQuant
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.quant.rotation import hadamard

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
QMAX = 127
SHAPES = [(1, 64, 16), (10, 1024, 16), (3, 128, 32), (50, 128, 64), (2, 256, 128), (3, 64, 1)]


@pytest.fixture(scope="module", autouse=True)
def operators() -> None:
    """Not while tests are collected: every process does that, and it loads torch._inductor."""
    import duqsweep.kernels.expert.fake_quant  # noqa: F401


def expected(rows: Tensor, permutation: Tensor, block: int) -> Tensor:
    """Permuted, rotated and rounded, in float64."""
    rotation = hadamard(block).to(rows) if block > 1 else torch.ones(1, 1).to(rows)
    rotated = (rows[:, permutation.long()].unflatten(1, (-1, block)) @ rotation).flatten(1)
    scale = rotated.abs().amax(-1, keepdim=True) / QMAX
    return torch.round(rotated / scale) * scale


def transform(width: int, block: int) -> tuple[Tensor, Tensor]:
    rotation = hadamard(block).float() if block > 1 else torch.ones(1, 1)
    return torch.randperm(width).short().to(DEVICE), rotation.to(DEVICE)


def assert_same_but_for_ties(found: Tensor, reference: Tensor) -> None:
    """In float32, a value halfway between two codes may be rounded the other way."""
    step = reference.abs().amax(-1, keepdim=True) / QMAX
    error = (found.double() - reference).abs() / step
    assert (error <= 1e-3).double().mean() > 0.999
    assert error.max() <= 1.001


@pytest.mark.parametrize(("tokens", "width", "block"), SHAPES)
def test_norm_fake_quant_is_that_of_float64(tokens: int, width: int, block: int) -> None:
    torch.manual_seed(width + block)
    x, update = torch.randn(2, tokens, width, device=DEVICE)
    gate, factor, shift = torch.randn(3, width, device=DEVICE)
    permutation, rotation = transform(width, block)
    stream, rows = torch.ops.duqsweep.norm_fake_quant(
        x, update, gate, factor, shift, permutation, rotation, QMAX
    )
    total = x.double() + update.double() * gate.double()
    normed = F.rms_norm(total, (width,), eps=1e-6) * factor.double() + shift.double()
    torch.testing.assert_close(stream.double(), total, rtol=1e-6, atol=1e-6)
    assert_same_but_for_ties(rows, expected(normed, permutation, block))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("tokens", "width", "block"), SHAPES)
def test_act_fake_quant_is_that_of_float64(
    tokens: int, width: int, block: int, gated: bool
) -> None:
    torch.manual_seed(width + block)
    rows = torch.randn(tokens, 2 * width if gated else width, device=DEVICE)
    permutation, rotation = transform(width, block)
    given = rows.double()
    if gated:
        gate, up = given.chunk(2, dim=-1)
        given = F.gelu(gate, approximate="tanh") * up
    found = torch.ops.duqsweep.act_fake_quant(rows, permutation, rotation, QMAX, gated)
    assert_same_but_for_ties(found, expected(given, permutation, block))


def test_a_token_of_zeros_stays_zero() -> None:
    permutation, rotation = transform(64, 16)
    assert not torch.ops.duqsweep.act_fake_quant(
        torch.zeros(2, 64, device=DEVICE), permutation, rotation, QMAX, False
    ).any()


def test_the_kernels_compute_what_torch_computes() -> None:
    torch.manual_seed(0)
    permutation, rotation = transform(128, 16)
    weights = ProjectionWeights(
        rotation.new_zeros(1, 128),
        permutation=permutation.long(),
        block=16,
        act_bits=8,
        rotation=rotation,
    )
    both = [made(weights) for made in (KernelFakeQuant, TorchFakeQuant)]
    x, update = torch.randn(2, 20, 128, device=DEVICE)
    vectors = torch.randn(3, 128, device=DEVICE).unbind()
    found, reference = (quant.norm_fake_quant(x, update, *vectors)[1] for quant in both)
    assert_same_but_for_ties(found, reference.double())
    found, reference = (quant.fake_quant(x) for quant in both)
    assert_same_but_for_ties(found, reference.double())
    found, reference = (quant.gated_fake_quant(torch.cat((x, update), 1)) for quant in both)
    assert_same_but_for_ties(found, reference.double())


@pytest.mark.parametrize(("width", "block"), [(96, 16), (64, 8)])
def test_a_width_without_a_kernel_is_refused(width: int, block: int) -> None:
    shape = ProjectionWeights(torch.zeros(1, width), block=block, act_bits=8)
    with pytest.raises(EvaluationError, match=f"width {width} and block {block}"):
        KernelFakeQuant(shape)
