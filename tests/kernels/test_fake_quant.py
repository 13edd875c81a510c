"""The kernels of fake quantization against float64, at widths and blocks in use."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.inference.rounding import KernelRounding, TorchRounding
from duqsweep.kernels.expert.fake_quant import enter, leave
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.quant.rotation import hadamard

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOP = 127
SHAPES = [(1, 64, 16), (10, 1024, 16), (3, 128, 32), (50, 128, 64), (2, 256, 128), (3, 64, 1)]


def expected(rows: Tensor, order: Tensor, block: int) -> Tensor:
    """Permuted, rotated and rounded, in float64."""
    matrix = hadamard(block).to(rows) if block > 1 else torch.ones(1, 1).to(rows)
    rotated = (rows[:, order.long()].unflatten(1, (-1, block)) @ matrix).flatten(1)
    scale = rotated.abs().amax(-1, keepdim=True) / TOP
    return torch.round(rotated / scale) * scale


def transform(width: int, block: int) -> tuple[Tensor, Tensor]:
    matrix = hadamard(block).float() if block > 1 else torch.ones(1, 1)
    return torch.randperm(width).short().to(DEVICE), matrix.to(DEVICE)


def assert_same_but_for_ties(found: Tensor, reference: Tensor) -> None:
    """Rounding in float32 may send a value at the border of two codes the other way."""
    step = reference.abs().amax(-1, keepdim=True) / TOP
    error = (found.double() - reference).abs() / step
    assert (error <= 1e-3).double().mean() > 0.999
    assert error.max() <= 1.001


@pytest.mark.parametrize(("tokens", "width", "block"), SHAPES)
def test_entry_is_residual_norm_permutation_rotation_and_rounding(
    tokens: int, width: int, block: int
) -> None:
    torch.manual_seed(width + block)
    x, update = torch.randn(2, tokens, width, device=DEVICE)
    gate, factor, shift = torch.randn(3, width, device=DEVICE)
    order, matrix = transform(width, block)
    stream, rows = enter(x, update, gate, factor, shift, order, matrix, TOP)
    total = x.double() + update.double() * gate.double()
    normed = F.rms_norm(total, (width,), eps=1e-6) * factor.double() + shift.double()
    torch.testing.assert_close(stream.double(), total, rtol=1e-6, atol=1e-6)
    assert_same_but_for_ties(rows, expected(normed, order, block))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("tokens", "width", "block"), SHAPES)
def test_exit_is_gate_permutation_rotation_and_rounding(
    tokens: int, width: int, block: int, gated: bool
) -> None:
    torch.manual_seed(width + block)
    rows = torch.randn(tokens, 2 * width if gated else width, device=DEVICE)
    order, matrix = transform(width, block)
    given = rows.double()
    if gated:
        gate, up = given.chunk(2, dim=-1)
        given = F.gelu(gate, approximate="tanh") * up
    found = leave(rows, order, matrix, TOP, gated)
    assert_same_but_for_ties(found, expected(given, order, block))


def test_a_token_of_zeros_stays_zero() -> None:
    order, matrix = transform(64, 16)
    assert not leave(torch.zeros(2, 64, device=DEVICE), order, matrix, TOP, False).any()


def test_the_kernels_stand_for_the_stages_in_torch() -> None:
    torch.manual_seed(0)
    order, matrix = transform(128, 16)
    weights = ProjectionWeights(
        matrix.new_zeros(1, 128),
        permutation=order.long(),
        block=16,
        act_bits=8,
        rotation=matrix,
    )
    both = [made(weights) for made in (KernelRounding, TorchRounding)]
    x, update = torch.randn(2, 20, 128, device=DEVICE)
    vectors = torch.randn(3, 128, device=DEVICE).unbind()
    found, reference = (rounding.enter(x, update, *vectors)[1] for rounding in both)
    assert_same_but_for_ties(found, reference.double())
    found, reference = (rounding.leave(x) for rounding in both)
    assert_same_but_for_ties(found, reference.double())
    found, reference = (rounding.leave_gated(torch.cat((x, update), 1)) for rounding in both)
    assert_same_but_for_ties(found, reference.double())


@pytest.mark.parametrize(("width", "block"), [(96, 16), (64, 8)])
def test_a_width_without_a_kernel_is_refused(width: int, block: int) -> None:
    shape = ProjectionWeights(torch.zeros(1, width), block=block, act_bits=8)
    with pytest.raises(EvaluationError, match=f"width {width} and block {block}"):
        KernelRounding(shape)
