"""Rules, layer paths and widths: what is selected, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from duqsweep.errors import ConfigError
from duqsweep.quant.select import check_layer, is_under, select_layers
from duqsweep.spec import LayerBits, LayerRule, QuantSpec

LAYERS = {
    f"{stack}.layers.{n}.{site}": (64, 128)
    for stack in ("language_model", "gemma_expert")
    for n in range(12)
    for site in ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")
}
DIT = LayerRule(include="gemma_expert", weight_bits=4, act_bits=8)


def test_no_rules_select_nothing() -> None:
    assert select_layers(QuantSpec(layer_bits=(LayerBits("layers.0", 8),)), LAYERS) == {}


def test_a_rule_selects_every_layer_its_regex_is_found_in() -> None:
    selected = select_layers(QuantSpec(rules=(DIT,)), LAYERS)
    assert list(selected) == [name for name in LAYERS if "gemma_expert" in name]
    assert set(selected.values()) == {(4, 8)}


def test_first_matching_rule_wins() -> None:
    down = LayerRule(r"mlp\.down_proj", 8, 8)
    selected = select_layers(QuantSpec(rules=(down, DIT)), LAYERS)
    assert selected["gemma_expert.layers.3.mlp.down_proj"] == (8, 8)
    assert selected["gemma_expert.layers.3.mlp.up_proj"] == (4, 8)
    assert "language_model.layers.3.mlp.up_proj" not in selected


def test_a_full_precision_rule_spares_layers_from_later_rules() -> None:
    spared = LayerRule(r"layers\.0\.", 16, 16)
    quant = QuantSpec(rules=(spared, DIT), layer_bits=(LayerBits("layers.0", 2),))
    selected = select_layers(quant, LAYERS)
    assert not [name for name in selected if ".layers.0." in name]


def test_layer_paths_match_whole_components() -> None:
    quant = QuantSpec(rules=(DIT,), layer_bits=(LayerBits("layers.1", 8),))
    selected = select_layers(quant, LAYERS)
    assert {n for n, pair in selected.items() if pair == (8, 8)} == {
        f"gemma_expert.layers.1.{s}" for s in ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")
    }
    assert is_under("a.layers.1.b", "layers.1")
    assert not is_under("a.layers.11.b", "layers.1")
    assert not is_under("a.layers.1.b", "ayers.1")


def test_last_layer_path_wins() -> None:
    paths = (LayerBits("gemma_expert.layers.2", 8), LayerBits("layers.2.mlp", 3))
    selected = select_layers(QuantSpec(rules=(DIT,), layer_bits=paths), LAYERS)
    assert selected["gemma_expert.layers.2.self_attn.q_proj"] == (8, 8)
    assert selected["gemma_expert.layers.2.mlp.up_proj"] == (3, 8)


def test_sixteen_weight_bits_keep_a_layer_with_quantized_activations() -> None:
    path = (LayerBits("layers.0", 16),)
    assert select_layers(QuantSpec(rules=(DIT,), layer_bits=path), LAYERS)[
        "gemma_expert.layers.0.mlp.up_proj"
    ] == (16, 8)
    weights_only = LayerRule("gemma_expert", 4, 16)
    selected = select_layers(QuantSpec(rules=(weights_only,), layer_bits=path), LAYERS)
    assert "gemma_expert.layers.0.mlp.up_proj" not in selected


def test_a_rule_without_layers_names_three_that_exist() -> None:
    rule = LayerRule(r"layers\.\d+\.gate_proj", 4, 8)  # the seed's: `.mlp.` is missing
    with pytest.raises(ConfigError, match="gate_proj") as caught:
        select_layers(QuantSpec(rules=(DIT, rule)), LAYERS)
    assert sum(repr(name) in str(caught.value) for name in LAYERS) == 3


def test_a_layer_path_without_layers_names_three_that_exist() -> None:
    quant = QuantSpec(rules=(DIT,), layer_bits=(LayerBits("layers.99", 4),))
    with pytest.raises(ConfigError, match=r"layers\.99") as caught:
        select_layers(quant, LAYERS)
    assert sum(repr(name) in str(caught.value) for name in LAYERS) == 3


@pytest.mark.parametrize("shape", [(64, 4304), (4304, 64)])
def test_a_block_must_divide_the_widths_it_rotates(shape: tuple[int, int]) -> None:
    layers = {"vision.fc": shape}
    rules = (LayerRule("fc", 4, 8),)
    assert select_layers(QuantSpec(rules=rules, block_size=16, row_rotation=True), layers)
    with pytest.raises(
        ConfigError, match=r"block_size 32 .*4304.*vision\.fc'; choose block_size 16, or keep"
    ):
        select_layers(QuantSpec(rules=rules, block_size=32, row_rotation=True), layers)
    plain = QuantSpec(rules=rules, block_size=32, rotation="none", permutation="none")
    assert select_layers(plain, layers)


def test_a_width_that_no_block_divides_can_only_be_left_out() -> None:
    odd = {"vision.fc": (64, 100)}
    with pytest.raises(ConfigError, match=r"input width 100 .*vision\.fc'; keep that layer at 16"):
        select_layers(QuantSpec(rules=(LayerRule("fc", 4, 8),)), odd)


def test_a_group_must_divide_the_input_width_of_quantized_weights() -> None:
    layers = {"vision.fc2": (64, 4304)}
    quant = QuantSpec(rules=(LayerRule("fc2", 4, 8),), weight_group_size=64)
    with pytest.raises(
        ConfigError, match=r"size 64 .*4304.*choose weight_group_size 0 \(one scale per row\), or"
    ):
        select_layers(quant, layers)
    weights_kept = QuantSpec(rules=(LayerRule("fc2", 16, 8),), weight_group_size=64)
    assert select_layers(weights_kept, layers) == {"vision.fc2": (16, 8)}


@pytest.mark.parametrize("rotation", ["none", "greedy"])
def test_rotating_outputs_needs_a_rotation_for_weights(rotation: str) -> None:
    quant = QuantSpec(rules=(DIT,), rotation=rotation, row_rotation=True)
    with pytest.raises(ConfigError, match=f"row_rotation.*hadamard or svd.*rotation is {rotation}"):
        select_layers(quant, LAYERS)


def test_selecting_and_costing_import_no_torch() -> None:
    code = (
        "import sys, duqsweep.quant.cost, duqsweep.quant.select; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_packed_codes_need_groups_that_divide_half_a_row() -> None:
    quant = QuantSpec(rules=(LayerRule("fc1", 4, 8),), weight_group_size=128, kernel="w4a8")
    with pytest.raises(ConfigError, match="128 must divide half of its input width 1152"):
        check_layer(quant, "fc1", (4304, 1152), (4, 8))
    check_layer(quant, "fc1", (4304, 1152), (8, 8))  # one code per byte
    check_layer(quant, "up_proj", (4096, 1024), (4, 8))
