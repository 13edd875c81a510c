"""The fused prefix with integer products against the same layers called one by one."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from duqsweep.checkpoint.sizes import PolicySizes, StackSizes, VisionSizes, linear_layers
from duqsweep.inference import integer_products
from duqsweep.inference.prefix import FusedPrefix
from duqsweep.kernels import gemm, nvrtc
from duqsweep.kernels.epilogue import NOTHING, Epilogue
from duqsweep.kernels.gemm import Division
from duqsweep.kernels.launches import counted
from duqsweep.policy.pi05 import Pi05
from duqsweep.quant.calibrate import calibrate
from duqsweep.quant.freeze import freeze
from duqsweep.quant.select import select_layers
from duqsweep.spec import LayerBits, LayerRule, QuantSpec

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STACK = StackSizes(width=32, depth=2, mlp=64, heads=4, kv_heads=1, head_dim=16)
SIZES = PolicySizes(
    vision=VisionSizes(width=48, depth=1, mlp=80, heads=2, patch_px=8, image_px=16),
    llm=STACK,
    expert=STACK,
    horizon=2,
    action_dim=3,
    vocabulary=20,
    prompt_tokens=8,
    cameras=2,
)
WIDE_STACK = StackSizes(width=128, depth=2, mlp=128, heads=4, kv_heads=1, head_dim=64)
WIDE = replace(  # all outputs are multiples of 128, once hidden channels fill cache lines
    SIZES,
    vision=VisionSizes(width=128, depth=2, mlp=240, heads=2, patch_px=8, image_px=16),
    llm=WIDE_STACK,
    expert=WIDE_STACK,
)
PROJECTIONS = r"(vision_tower|language_model)\..*(proj|fc\d)$"
SOME = r"(vision_tower|language_model)\..*(q|v|up|down|out)_proj$"


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@torch.no_grad()
def random_policy(sizes: PolicySizes) -> Pi05:
    torch.manual_seed(0)
    module = Pi05(sizes).to(DEVICE)
    for value in module.parameters():
        value.normal_(std=0.2 if value.ndim == 1 else value[0].numel() ** -0.5)
    return module


@pytest.fixture(scope="module")
def policy() -> Pi05:
    return random_policy(SIZES)


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    images = torch.rand(1, 2, 3, 16, 16, device=DEVICE) * 2 - 1
    return images, torch.randint(20, (1, 3), device=DEVICE)


@torch.no_grad()
def quantized(policy: Pi05, inputs: tuple[Tensor, Tensor], quant: QuantSpec) -> Pi05:
    module = copy.deepcopy(policy)
    bits = select_layers(quant, linear_layers(policy.sizes))

    def run() -> None:
        module.prefix(module.encode_images(inputs[0]), inputs[1])

    freeze(module, bits, quant, calibrate(module, bits, quant, run), None, "random")
    return module


def rules(include: str = PROJECTIONS, weight_bits: int = 8) -> tuple[LayerRule, ...]:
    return (LayerRule(include=include, weight_bits=weight_bits, act_bits=8),)


LAYERS = SIZES.vision.depth + SIZES.llm.depth
SHARED = 4 * (LAYERS - 1) + 1  # of the last layer only keys and values are computed


@pytest.mark.parametrize(
    ("quant", "kernels"),
    [
        (QuantSpec(rules(), kernel="int8"), {"per_token_quant": SHARED, "product_w8a8": SHARED}),
        (
            QuantSpec(rules(weight_bits=4), kernel="w4a8"),
            {"per_token_quant": SHARED, "product_w4a8": SHARED},
        ),
        # Only the language model: images take the unquantized path.
        (QuantSpec(rules(r"language_model\..*proj$"), kernel="int8"), {"product_w8a8": 5}),
        # Layers that read the same norm, of which one is not quantized: called one by one.
        (QuantSpec(rules(SOME), kernel="int8"), {"product_w8a8": 3 + 5}),
        # Two widths of codes side by side.
        (
            QuantSpec(
                rules(r"language_model.*proj$", 4),
                layer_bits=(LayerBits("k_proj", 8),),
                kernel="w4a8",
            ),
            {"product_w8a8": 2, "product_w4a8": 6},
        ),
    ],
)
@torch.no_grad()
def test_the_fused_prefix_gives_the_cache_of_its_layers(
    policy: Pi05, inputs: tuple[Tensor, Tensor], quant: QuantSpec, kernels: dict[str, int]
) -> None:
    module = quantized(policy, inputs, quant)
    expected = module.prefix(module.encode_images(inputs[0]), inputs[1])
    prefix = FusedPrefix(module)
    with counted() as counts:
        cache = prefix(inputs[0][0], inputs[1][0])
    assert kernels.items() <= counts.items()
    unquantized = policy.prefix(policy.encode_images(inputs[0]), inputs[1])
    for pair, wanted_pair, plain_pair in zip(cache, expected, unquantized, strict=True):
        for value, wanted, plain in zip(pair, wanted_pair, plain_pair, strict=True):
            # Sums in another order may send a value on the border of two codes the other way.
            assert (value - wanted).norm() <= 0.2 * (wanted - plain).norm()


@torch.no_grad()
def test_simulated_layers_are_called_one_by_one(
    policy: Pi05, inputs: tuple[Tensor, Tensor]
) -> None:
    module = quantized(policy, inputs, QuantSpec(rules(), kernel="fake"))
    expected = module.prefix(module.encode_images(inputs[0]), inputs[1])
    prefix = FusedPrefix(module)
    assert prefix.traceable == (True, True)
    unquantized = policy.prefix(policy.encode_images(inputs[0]), inputs[1])
    for pair, wanted_pair, plain_pair in zip(
        prefix(inputs[0][0], inputs[1][0]), expected, unquantized, strict=True
    ):
        for value, wanted, plain in zip(pair, wanted_pair, plain_pair, strict=True):
            assert (value - wanted).norm() <= 0.2 * (wanted - plain).norm()


def gemm_in_float64(
    codes: Tensor,
    token_scales: Tensor,
    values: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    division: Division,
    epilogue: Epilogue = NOTHING,
) -> Tensor:
    """`gemm`, of rows in the order of its kernel."""
    product = codes.double() @ values.double().T * token_scales[:, None] * scales.T
    if bias is not None:
        product = product + bias
    made = torch.empty_like(product)
    made[:, gemm.row_order(len(values), epilogue.kind in ("gated", "rotary"))] = product
    if epilogue.kind == "gelu":
        made = F.gelu(made, approximate="tanh")
    if epilogue.kind == "gated":
        made = F.gelu(made[:, ::2], approximate="tanh") * made[:, 1::2]
    if epilogue.kind == "rotary":
        assert epilogue.rotary is not None
        assert epilogue.table is not None
        pairs = made.view(len(made), -1, epilogue.rotary.head_dim // 2, 2)
        made = epilogue.rotary.apply(pairs.mT.flatten(1), epilogue.table)
    return (made if epilogue.residual is None else made + epilogue.residual).float()


@torch.no_grad()
def test_kernels_on_warp_groups_are_given_what_they_read(
    inputs: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = random_policy(WIDE)
    module = quantized(policy, inputs, QuantSpec(rules(), kernel="int8"))
    expected = module.prefix(module.encode_images(inputs[0]), inputs[1])
    monkeypatch.setattr(gemm, "gemm", gemm_in_float64)
    monkeypatch.setattr(nvrtc, "multiprocessors", lambda: 132)
    monkeypatch.setattr(integer_products, "on_warp_groups", lambda weights, dtype: True)
    with counted() as counts:
        cache = FusedPrefix(module)(inputs[0][0], inputs[1][0])
    assert counts["gemm_w8a8"] == 4 * (WIDE.vision.depth + WIDE.llm.depth - 1) + 1
    unquantized = policy.prefix(policy.encode_images(inputs[0]), inputs[1])
    for pair, wanted_pair, plain_pair in zip(cache, expected, unquantized, strict=True):
        for value, wanted, plain in zip(pair, wanted_pair, plain_pair, strict=True):
            assert (value - wanted).norm() <= 0.2 * (wanted - plain).norm()
