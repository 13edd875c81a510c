"""The quantized layer: exact without rounding, kernels that agree, settings that have an effect."""

from __future__ import annotations

import copy
import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_parts import (
    LAYERS,
    calibrated,
    inputs,
    outputs,
    quantized,
    relative_error,
    tiny_policy,
)
from torch import nn

from duqsweep.quant import quantizer
from duqsweep.quant.calibrate import calibrate
from duqsweep.quant.fold import build_pack
from duqsweep.quant.freeze import freeze
from duqsweep.quant.linear import DuQuantLinear, LinearParts
from duqsweep.quant.linears import BUILDERS
from duqsweep.spec import QuantSpec

EXACT = outputs(tiny_policy())
SETTINGS = st.builds(
    QuantSpec,
    rotation=st.sampled_from(["hadamard", "svd", "greedy", "none"]),
    block_size=st.sampled_from([16, 32, 64]),
    permutation=st.sampled_from(["zigzag", "prototype", "none"]),
    row_rotation=st.booleans(),
    weight_scale=st.sampled_from(["mse", "absmax"]),
    weight_group_size=st.sampled_from([0, 32, 64]),
    act_scale=st.sampled_from(["per_token", "static"]),
    smoothing=st.sampled_from([0.0, 0.5, 1.0]),
).filter(lambda quant: quant.rotation in ("hadamard", "svd") or not quant.row_rotation)


@settings(max_examples=40)
@given(quant=SETTINGS)
def test_transforming_without_rounding_changes_nothing(quant: QuantSpec) -> None:
    policy = tiny_policy()
    layer = policy.layers[0].up_proj
    x = inputs()
    with torch.no_grad():
        wanted = layer(x)
        stats = calibrated(policy, quant, {LAYERS[0]: (16, 8)})[LAYERS[0]]
        pack = build_pack(layer.weight, 16, quant, stats.act_max, stats.samples)
        parts = LinearParts(16, 16, pack, None, layer.bias, torch.float32, torch.device("cpu"))
        found = BUILDERS["fake"](parts)(x)
    assert relative_error(found, wanted) < 1e-5  # fp32 sums over channels 50 times apart


@settings(max_examples=40)
@given(quant=SETTINGS, pair=st.sampled_from([(4, 8), (2, 8), (16, 4), (8, 16)]))
def test_both_kernels_give_the_same_numbers(quant: QuantSpec, pair: tuple[int, int]) -> None:
    layer = (LAYERS[0],)  # one layer: a rounding at a tie must not grow through the next
    fake = outputs(quantized(dataclasses.replace(quant, kernel="fake"), pair, layer))
    loop = outputs(quantized(dataclasses.replace(quant, kernel="loop"), pair, layer))
    assert relative_error(loop, fake) < 1e-3


@settings(max_examples=25)
@given(quant=SETTINGS)
def test_eight_bits_stay_close_and_fewer_are_further_away(quant: QuantSpec) -> None:
    errors = [relative_error(outputs(quantized(quant, (bits, 8))), EXACT) for bits in (8, 4, 2)]
    assert errors[0] < 0.12
    assert errors == sorted(errors)


STATIC = QuantSpec(act_scale="static")
KNOBS = {  # every value of every setting of the method, and what stays as it is beside it
    "rotation": (QuantSpec(), ["hadamard", "svd", "greedy", "none"]),
    "block_size": (QuantSpec(), [16, 32, 64, 128]),
    "permutation": (QuantSpec(), ["zigzag", "prototype", "none"]),
    "row_rotation": (QuantSpec(), [False, True]),
    "weight_scale": (QuantSpec(), ["mse", "absmax"]),
    "weight_group_size": (QuantSpec(), [0, 32, 64]),
    "act_scale": (QuantSpec(), ["per_token", "static"]),
    "act_percentile": (STATIC, [99.9, 99.0, 90.0]),
    "smoothing": (QuantSpec(), [0.0, 0.25, 0.5, 1.0]),
}


@pytest.mark.parametrize("knob", KNOBS)
def test_every_value_of_a_knob_gives_another_output(knob: str) -> None:
    base, values = KNOBS[knob]
    settings = [dataclasses.replace(base, **{knob: value}) for value in values]
    found = [outputs(quantized(quant, layers=LAYERS[1:])) for quant in settings]  # 128 inputs
    for one, other in itertools.combinations(found, 2):
        assert relative_error(one, other) > 1e-3


def test_a_group_of_128_is_a_whole_row_of_128_and_half_a_row_of_256() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 256, generator=generator)
    narrow, wide = (
        [build_pack(part, 4, QuantSpec(weight_group_size=group), part.abs().amax(0)) for group in g]
        for part, g in ((weight[:, :128], (0, 128)), (weight, (0, 128)))
    )
    assert torch.equal(narrow[0].weight, narrow[1].weight)
    assert [len(pack.scales[0]) for pack in wide] == [1, 2]
    assert not torch.equal(wide[0].weight, wide[1].weight)


@pytest.mark.parametrize("side", [0, 1], ids=["weights", "activations"])
def test_every_number_of_bits_gives_another_output(side: int) -> None:
    every = [*range(2, 9), 16]
    found = [
        outputs(quantized(QuantSpec(), (bits, 8) if side == 0 else (8, bits))) for bits in every
    ]
    for one, other in itertools.combinations(found, 2):
        assert relative_error(one, other) > 1e-4


def test_rotated_outputs_differ_only_by_how_weights_are_rounded() -> None:
    """In full precision, rotating and rotating back is the identity; with 8 bits nearly."""
    turned = QuantSpec(row_rotation=True)
    for bits, most in ((16, 1e-5), (8, 0.02)):
        pair = bits, 16
        plain, restored = (outputs(quantized(quant, pair)) for quant in (QuantSpec(), turned))
        assert 0 < relative_error(restored, plain) < most


def test_the_kernel_decides_how_blocks_are_multiplied() -> None:
    kinds = {}
    for kernel in ("fake", "loop"):
        policy = quantized(QuantSpec(kernel=kernel))
        kinds[kernel] = {type(stage).__name__ for stage in policy.get_submodule(LAYERS[0]).before}
    assert kinds["fake"] - kinds["loop"] == {"BatchedRotation"}
    assert kinds["loop"] - kinds["fake"] == {"LoopRotation"}


def test_leading_dimensions_dtype_and_bits_are_kept() -> None:
    policy = copy.deepcopy(tiny_policy()).bfloat16()
    x = inputs().bfloat16()
    bits = dict.fromkeys(LAYERS, (4, 8))
    stats = calibrate(policy, bits, QuantSpec(), lambda: policy(x))
    freeze(policy, bits, QuantSpec(), stats, None, "tiny")
    layer = policy.get_submodule(LAYERS[0])
    assert isinstance(layer, DuQuantLinear)
    assert (layer.weight_bits, layer.act_bits) == (4, 8)
    assert (layer.in_features, layer.out_features) == (64, 128)
    with torch.no_grad():
        for shape in [(64,), (3, 64), (2, 5, 64)]:
            found = layer(torch.ones(shape, dtype=torch.bfloat16))
            assert found.shape == (*shape[:-1], 128)
            assert found.dtype == torch.bfloat16
        assert relative_error(policy(x).float(), EXACT) < 0.2


def error_with_outliers(
    quant: QuantSpec, pair: tuple[int, int], shrink_weights: bool = False
) -> float:
    """The error of a layer with heavy-tailed weights and four of 512 channels 30 times larger."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.ones(512)
    sizes[torch.randperm(512, generator=generator)[:4]] = 30.0
    policy = nn.Sequential(nn.Linear(512, 128, bias=False))
    with torch.no_grad():
        normal = torch.randn(5, 128, 512, generator=generator)
        policy[0].weight.copy_(normal[0] / normal[1:].square().mean(0).sqrt())  # Student's t, 4
        if shrink_weights:
            policy[0].weight.div_(sizes)
        x = torch.randn(64, 512, generator=generator) * sizes
        wanted = policy(x)
        stats = calibrate(policy, {"0": pair}, quant, lambda: policy(x))
        freeze(policy, {"0": pair}, quant, stats, None, "outliers")
        return relative_error(policy(x), wanted)


@pytest.mark.parametrize(("pair", "factor"), [((4, 8), 0.98), ((4, 4), 0.8), ((8, 8), 0.7)])
@pytest.mark.parametrize("rotation", ["none", "svd"])
def test_hadamard_wins_where_channels_have_outliers(
    pair: tuple[int, int], factor: float, rotation: str
) -> None:
    other = QuantSpec(rotation=rotation, permutation="prototype")
    assert error_with_outliers(QuantSpec(), pair) < factor * error_with_outliers(other, pair)


def test_smoothing_wins_where_weights_shrink_as_their_inputs_grow() -> None:
    """A rotation makes every weight's rounding error meet an outlier; smoothing removes them."""
    plain = error_with_outliers(QuantSpec(rotation="none"), (4, 8), shrink_weights=True)
    rotated = error_with_outliers(QuantSpec(), (4, 8), shrink_weights=True)
    smoothed = error_with_outliers(QuantSpec(smoothing=0.5), (4, 8), shrink_weights=True)
    assert smoothed < 0.7 * plain < plain < rotated


def test_siglips_odd_width_takes_blocks_of_sixteen() -> None:
    layer = nn.Linear(4304, 32, bias=False)
    policy = nn.Sequential(layer)
    x = torch.randn(3, 4304, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = policy(x)
        stats = calibrate(policy, {"0": (8, 8)}, QuantSpec(), lambda: policy(x))
        freeze(policy, {"0": (8, 8)}, QuantSpec(), stats, None, "siglip")
        assert relative_error(policy(x), wanted) < 0.03


@settings(max_examples=15)
@given(quant=SETTINGS, at_once=st.sampled_from([1, 64 * 48, 2**30]))
def test_folding_in_pieces_gives_the_same_pack(quant: QuantSpec, at_once: int) -> None:
    layer = tiny_policy().layers[0].up_proj
    stats = calibrated(tiny_policy(), quant, {LAYERS[0]: (4, 8)})[LAYERS[0]]
    packs = []
    for size in (at_once, quantizer.CPU_WEIGHTS_AT_ONCE):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quantizer, "CPU_WEIGHTS_AT_ONCE", size)
            packs.append(build_pack(layer.weight.detach(), 4, quant, stats.act_max, stats.samples))
    found, wanted = packs
    assert found.scales is not None
    torch.testing.assert_close(found.scales, wanted.scales)
    differ = (found.weight != wanted.weight).float().mean()
    assert differ < 1e-3  # ties, where a product of other shape rounds otherwise


@pytest.mark.parametrize("rotation", ["hadamard", "svd", "greedy"])
def test_a_rotated_bf16_layer_loses_little_more_than_bf16_does(rotation: str) -> None:
    """The weight is folded in float64 and rounded once; inputs are rounded between the stages."""
    exact = tiny_policy().double()
    policy = tiny_policy().bfloat16()
    exact.load_state_dict(policy.state_dict())
    x = inputs().bfloat16()
    quant = QuantSpec(rotation=rotation)
    with torch.no_grad():
        wanted, plain = exact(x.double()), policy(x).double()
        bits = dict.fromkeys(LAYERS, (16, 16))
        stats = calibrate(policy, bits, quant, lambda: policy(x))
        freeze(policy, bits, quant, stats, None, "tiny")
        found = policy(x)
    assert found.dtype == torch.bfloat16
    assert relative_error(found.double(), wanted) < 3 * relative_error(plain, wanted)


@pytest.mark.parametrize("kernel", ["fake", "loop"])
@pytest.mark.parametrize("act_scale", ["per_token", "static"])
def test_the_layer_compiles_in_one_graph(kernel: str, act_scale: str) -> None:
    quant = QuantSpec(kernel=kernel, act_scale=act_scale, row_rotation=True, smoothing=0.5)
    policy = quantized(quant)
    torch._dynamo.reset()
    # With `fullgraph`, a second graph is an error.
    compiled = torch.compile(policy, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert relative_error(compiled(inputs()), outputs(policy)) < 1e-3
