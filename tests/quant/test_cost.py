"""The cost model against sums computed by hand."""

from __future__ import annotations

import pytest

from duqsweep.errors import ConfigError
from duqsweep.quant.cost import (
    Machine,
    Work,
    mean_weight_bits,
    modelled,
    modelled_seconds,
    weights_mb,
)
from duqsweep.spec import QuantSpec

LLM, DIT = "language_model.layers.0.q", "gemma_expert.layers.0.q"
LAYERS = {LLM: (64, 32), DIT: (16, 48)}
WORK = {"language_model": Work(1, 100), "gemma_expert": Work(10, 5)}
BITS = {DIT: (4, 8)}


def cost(quant: QuantSpec, bits: dict[str, tuple[int, int]] = BITS) -> dict[str, float]:
    return modelled(LAYERS, bits, quant, WORK, full_bytes=4)


def test_an_unquantized_policy_reads_its_weights_once_a_forward() -> None:
    assert cost(QuantSpec(), {}) == {
        "expert_forwards_per_call": 10,
        "rotations_per_call": 0,
        "flops_per_call": 2 * 100 * 64 * 32 + 10 * 2 * 5 * 16 * 48,
        "bytes_per_call": 4 * 64 * 32 + 10 * 4 * 16 * 48,
    }


def test_rotations_count_blocks_of_inputs_and_of_rotated_outputs() -> None:
    assert cost(QuantSpec())["rotations_per_call"] == 10 * 3
    assert cost(QuantSpec(row_rotation=True))["rotations_per_call"] == 10 * (3 + 1)
    assert cost(QuantSpec(rotation="greedy"))["rotations_per_call"] == 10 * 2 * 3
    ordered = QuantSpec(rotation="greedy", permutation="none")
    assert cost(ordered)["rotations_per_call"] == 10 * 3
    assert cost(QuantSpec(rotation="none"))["rotations_per_call"] == 0


def test_rotations_cost_flops() -> None:
    plain = cost(QuantSpec(rotation="none"))["flops_per_call"]
    assert cost(QuantSpec())["flops_per_call"] - plain == 10 * 2 * 5 * 48 * 16
    greedy = cost(QuantSpec(rotation="greedy"))["flops_per_call"]
    assert greedy - plain == 2 * 10 * 2 * 5 * 48 * 16


@pytest.mark.parametrize(
    ("quant", "weight_bytes"),
    [
        (QuantSpec(rotation="none", permutation="none"), 0),
        (QuantSpec(permutation="none"), 4 * 16 * 16),  # all blocks share one matrix
        (QuantSpec(rotation="svd", permutation="none"), 4 * 3 * 16 * 16),
        (QuantSpec(rotation="svd", permutation="none", row_rotation=True), 4 * 4 * 16 * 16),
        (QuantSpec(), 4 * 16 * 16 + 4 * 48),
        (QuantSpec(rotation="greedy"), 2 * 4 * 16 * 16 + 4 * 48),
        (QuantSpec(rotation="none", permutation="none", smoothing=0.5), 2 * 48),
        (QuantSpec(rotation="none", permutation="none", act_scale="static"), 2 * 48),
    ],
    ids=str,
)
def test_bytes_are_packed_weights_scales_and_transforms(
    quant: QuantSpec, weight_bytes: int
) -> None:
    packed = 16 * 48 * 4 / 8 + 16 * 2
    assert cost(quant)["bytes_per_call"] == 4 * 64 * 32 + 10 * (packed + weight_bytes)


def test_stored_megabytes_replace_only_quantized_layers() -> None:
    quant = QuantSpec(rotation="none", permutation="none", weight_group_size=0)
    parameters = 10_000
    assert weights_mb(LAYERS, {}, quant, parameters, 2) == parameters * 2 / 1e6
    expected = (parameters - 16 * 48) * 2 + 16 * 48 * 4 / 8 + 16 * 2
    assert weights_mb(LAYERS, BITS, quant, parameters, 2) == expected / 1e6


def test_groups_store_more_scales() -> None:
    quant = QuantSpec(rotation="none", permutation="none", weight_group_size=32)
    bits = {LLM: (4, 8)}
    one_scale_a_row = QuantSpec(rotation="none", permutation="none")
    wide = {LLM: (64, 128)}
    found = weights_mb(wide, bits, quant, 64 * 128, 4)
    assert found - weights_mb(wide, bits, one_scale_a_row, 64 * 128, 4) == pytest.approx(
        64 * 3 * 2 / 1e6
    )


def test_mean_bits_weigh_layers_by_size() -> None:
    assert mean_weight_bits(LAYERS, {}) == 16
    assert mean_weight_bits(LAYERS, {DIT: (4, 8)}) == 4
    both = mean_weight_bits(LAYERS, {LLM: (8, 8), DIT: (4, 8)})
    assert both == (8 * 64 * 32 + 4 * 16 * 48) / (64 * 32 + 16 * 48)


def test_a_layer_of_no_known_part_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"vision\.fc1"):
        modelled({"vision.fc1": (8, 8)}, {}, QuantSpec(), WORK, 4)


def test_modelled_seconds_take_each_layers_slower_limit() -> None:
    plain = QuantSpec(rotation="none", permutation="none")
    machine = Machine(bytes_per_s=1000.0, flops_per_s=10_000.0, int8_ops_per_s=20_000.0)
    llm = 2 * 100 * 64 * 32 / 10_000  # its operations, 40.96 s, take longer than its bytes, 4.1 s
    dit = (
        10 * 2 * 16 * 48 / 1000
    )  # its bytes, 1.54 s a pass, take longer than its operations, 0.77 s
    assert modelled_seconds(LAYERS, {}, plain, WORK, machine) == pytest.approx(llm + dit)
    packed = 10 * (16 * 48 * 4 / 8 + 16 * 2) / 1000  # four bits and a scale of a row
    assert modelled_seconds(LAYERS, BITS, plain, WORK, machine) == pytest.approx(llm + packed)


def test_modelled_seconds_use_the_rate_of_int8_only_where_both_sides_fit_it() -> None:
    plain = QuantSpec(rotation="none", permutation="none")
    machine = Machine(bytes_per_s=1e9, flops_per_s=10_000.0, int8_ops_per_s=20_000.0)
    full = modelled_seconds(LAYERS, {}, plain, WORK, machine)
    both = modelled_seconds(LAYERS, {LLM: (4, 8), DIT: (8, 4)}, plain, WORK, machine)
    weights_alone = modelled_seconds(LAYERS, {LLM: (4, 16), DIT: (8, 16)}, plain, WORK, machine)
    assert both == pytest.approx(full / 2)
    assert weights_alone == pytest.approx(full)
