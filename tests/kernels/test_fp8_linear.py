"""Layers of kernel fp8: against float64, and against the same packs under kernel `fake`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.kernels import e4m3_linear as module
from duqsweep.kernels.e4m3 import round_to_e4m3
from duqsweep.kernels.e4m3_linear import e4m3_linear, quantize_rows
from duqsweep.kernels.launches import counted
from duqsweep.kernels.per_token_quant import per_token_quant
from duqsweep.quant.fold import build_pack
from duqsweep.quant.linear import LinearParts
from duqsweep.quant.linears import BUILDERS
from duqsweep.quant.rotation import hadamard, rotate_blocks
from duqsweep.spec import QuantSpec

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FULL = DEVICE == "cuda"
HOPPER = FULL and torch.cuda.get_device_capability() >= module.CAPABILITY
pytestmark = pytest.mark.skipif(FULL and not HOPPER, reason="e4m3 takes a Hopper GPU")

PLAIN = QuantSpec(kernel="fp8", rotation="none", permutation="none")
SMALL = [
    (QuantSpec(kernel="fp8"), (48, 128), 10),
    (QuantSpec(kernel="fp8", block_size=128, permutation="prototype"), (32, 256), 3),
    (QuantSpec(kernel="fp8", block_size=64, weight_scale="absmax"), (16, 192), 65),
    (PLAIN, (80, 96), 1),
]
# SigLIP's, Gemma's and the expert's widths; few tokens and many
LARGE = [
    (QuantSpec(kernel="fp8", block_size=block), shape, tokens)
    for block, shape in (
        (64, (2560, 1024)),
        (32, (2048, 16384)),
        (16, (4304, 1152)),
        (16, (1152, 4304)),
    )
    for tokens in (1, 10, 50, 534, 790)
] + [(PLAIN, (32768, 2048), 534)]


def parts(
    quant: QuantSpec, shape: tuple[int, int], dtype: torch.dtype, bits: tuple[int, int] = (8, 8)
) -> LinearParts:
    weight = torch.randn(shape) / shape[1] ** 0.5
    pack = build_pack(weight, bits[0], quant, torch.rand(shape[1]) * 10)
    bias = torch.randn(shape[0])
    return LinearParts(*bits, pack, None, bias, dtype, torch.device(DEVICE), "e4m3")


def expected(made: LinearParts, x: Tensor) -> Tensor:
    """The layer in float64, from its pack; only what is rounded to e4m3 is rounded."""
    pack, values = made.pack, x.double().cpu()
    if pack.order is not None:
        values = values[:, pack.order]
    if pack.rotation is not None:
        values = rotate_blocks(values, hadamard(pack.rotation.shape[-1])[None])
    scale = (values.abs().amax(1, keepdim=True) / 448).clamp_min(1e-8)
    codes = round_to_e4m3(values / scale)
    assert pack.scales is not None
    return (codes * scale) @ (pack.weight.double() * pack.scales.double()).T + made.bias.double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("quant", "shape", "tokens"), SMALL + LARGE * FULL)
def test_a_layer_is_that_of_float64(
    quant: QuantSpec, shape: tuple[int, int], tokens: int, dtype: torch.dtype
) -> None:
    made = parts(quant, shape, dtype)
    made.bias.copy_(made.bias.to(dtype))
    layer = BUILDERS["fp8"](made)
    x = torch.randn(tokens, shape[1]).to(dtype).to(DEVICE)
    with counted() as counts:
        found = layer(x)
    assert found.dtype == dtype
    assert counts["product_e4m3"] == 1
    wanted = expected(made, x)
    errors = (found.double().cpu() - wanted).norm(dim=1) / wanted.norm(dim=1)
    # Where float32 and float64 lie on two sides of the border of two codes, a token differs.
    rounded = {torch.float32: 1e-3 if FULL else 1e-6, torch.bfloat16: 4e-3}[dtype]
    assert (errors > rounded).sum() <= max(1, tokens // 10)
    assert errors.max() <= 2e-2


@pytest.mark.skipif(FULL, reason="a GPU's tensor cores add in fewer bits")
def test_a_product_on_a_cpu_is_exact() -> None:
    """Numbers of all sizes, whose sum float32 cannot hold: 448 * 448 + 2**-9 * 2**-9."""
    values = torch.zeros(16, 64)
    values[0, :3] = torch.tensor([448.0, 2.0**-9, -448.0])
    rows = torch.zeros(1, 64)
    rows[0, :3] = torch.tensor([448.0, 2.0**-9, 448.0])
    made = e4m3_linear(rows, values.to(torch.float8_e4m3fn), torch.ones(16, 1), None, None, block=1)
    assert made[0, 0].item() == 2.0**-18


@pytest.mark.parametrize(("quant", "shape", "tokens"), SMALL)
def test_fake_with_e4m3_simulates_it(quant: QuantSpec, shape: tuple[int, int], tokens: int) -> None:
    made = parts(quant, shape, torch.float32)
    x = torch.randn(tokens, shape[1], device=DEVICE)
    wanted = BUILDERS["fake"](made)(x)
    errors = (BUILDERS["fp8"](made)(x) - wanted).norm(dim=1) / wanted.norm(dim=1)
    assert (errors > (1e-3 if FULL else 1e-5)).sum() <= max(1, tokens // 10)
    assert errors.max() <= 2e-2


@pytest.mark.parametrize("block", [1, 16, 128])
def test_the_gpu_kernel_makes_the_same_codes(block: int) -> None:
    rows = torch.randn(5, 256, device=DEVICE) * torch.logspace(-4, 4, 256, device=DEVICE)
    order = torch.randperm(256, device=DEVICE).int()
    codes, scales = per_token_quant(rows, order, block, 8, e4m3=True)
    assert codes.dtype == torch.float8_e4m3fn
    wanted, wanted_scales = quantize_rows(rows, order, block)
    torch.testing.assert_close(scales[:, None], wanted_scales, rtol=1e-6, atol=0)
    exact = (codes.float() - wanted).abs()
    assert (exact > 0).float().mean() <= 0.01  # values on the border of two codes
    assert (exact <= wanted.abs() / 8 + 2**-9).all()


def test_zeros_and_small_tokens_give_the_bias_and_not_a_number_gives_not_a_number() -> None:
    made = parts(PLAIN, (16, 32), torch.float32)
    layer = BUILDERS["fp8"](made)
    x = torch.randn(4, 32, device=DEVICE)
    x[0] = 0
    x[1] = 1e-20
    x[2, 5] = torch.nan
    x[3, 7] = torch.inf
    found = layer(x)
    bias = made.bias.to(DEVICE)
    assert torch.equal(found[0], bias)
    assert torch.equal(found[1], bias)
    assert found[2:].isnan().all()


def test_a_row_of_zero_weights_gives_its_bias() -> None:
    weight = torch.randn(16, 32)
    weight[3] = 0
    pack = build_pack(weight, 8, PLAIN, torch.ones(32))
    made = LinearParts(
        8, 8, pack, None, torch.ones(16), torch.float32, torch.device(DEVICE), "e4m3"
    )
    found = BUILDERS["fp8"](made)(torch.randn(3, 32, device=DEVICE))
    assert torch.equal(found[:, 3], torch.ones(3, device=DEVICE))


def test_a_layer_takes_any_batch_of_tokens() -> None:
    layer = BUILDERS["fp8"](parts(QuantSpec(kernel="fp8"), (16, 32), torch.float32))
    x = torch.randn(2, 3, 32, device=DEVICE)
    assert torch.equal(layer(x), torch.stack([layer(part) for part in x]))
    assert "32 -> 16, e4m3" in repr(layer)
    with pytest.raises(EvaluationError, match=r"bfloat16 or float32 inputs, got torch\.float16"):
        layer(x.half())


@pytest.mark.parametrize(
    ("quant", "bits", "why"),
    [
        (QuantSpec(number_format="e4m3", row_rotation=True), (8, 8), "row_rotation"),
        (QuantSpec(number_format="e4m3", smoothing=0.5), (8, 8), "smoothing"),
        (QuantSpec(number_format="e4m3", rotation="svd"), (8, 8), "hadamard or none"),
        (QuantSpec(number_format="e4m3", weight_group_size=32), (8, 8), "one weight scale"),
        (QuantSpec(), (8, 8), "torch.int8"),
        (QuantSpec(number_format="e4m3"), (16, 8), "torch.float32"),
        (QuantSpec(number_format="e4m3"), (8, 16), "16 bits"),
    ],
)
def test_settings_without_such_a_product_are_refused(
    quant: QuantSpec, bits: tuple[int, int], why: str
) -> None:
    with pytest.raises(EvaluationError, match=why):
        BUILDERS["fp8"](parts(quant, (32, 64), torch.float32, bits))


def test_an_older_gpu_and_odd_widths_on_a_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "an A100")
    reason = module.device_reason(torch.device("cuda"))
    assert reason is not None
    assert reason.endswith("compute capability 9.0 or higher, got an A100 with 8.0")
    assert module.device_reason(torch.device("cpu")) is None


@pytest.mark.skipif(not FULL, reason="a CPU takes any width")
def test_widths_that_the_gpu_cannot_multiply_are_refused() -> None:
    with pytest.raises(EvaluationError, match="widths that 16 divides on a GPU, got 40"):
        BUILDERS["fp8"](parts(PLAIN, (32, 40), torch.bfloat16))
