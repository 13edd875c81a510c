"""Layers with the same input are merged into one record, and stay unchanged themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from duqsweep.errors import EvaluationError
from duqsweep.inference.weights import merged, weights_of
from duqsweep.kernels.projection_weights import ProjectionWeights, concat, concat_reason
from duqsweep.policy.load import load_policy
from duqsweep.policy.random_pi05 import RandomPi05, small_sizes, write_random
from duqsweep.spec import PolicySpec


def plain(rows: int, width: int = 4, bias: bool = False) -> ProjectionWeights:
    values = torch.randn(rows, width)
    return ProjectionWeights(values, bias=torch.randn(rows) if bias else None)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans())
def test_merged_outputs_lie_one_after_the_other(rows: list[int], bias: bool) -> None:
    parts = [plain(row, bias=bias) for row in rows]
    found, x = concat(parts), torch.randn(3, 4)
    expected = [nn.functional.linear(x, part.values, part.bias) for part in parts]
    product = nn.functional.linear(x, found.values, found.bias)
    torch.testing.assert_close(product, torch.cat(expected, dim=1))


@given(st.lists(st.integers(1, 5), min_size=2, max_size=4))
def test_neighbours_in_memory_are_merged_without_a_copy(rows: list[int]) -> None:
    together = torch.randn(sum(rows), 4)
    parts = [ProjectionWeights(part) for part in torch.split(together, rows)]
    found = concat(parts).values
    assert torch.equal(found, together)
    assert found.data_ptr() == together.data_ptr()
    # Those of a larger piece are copied: a view would keep all of it.
    apart = concat([ProjectionWeights(part) for part in torch.split(torch.randn(9, 4), 3)[1:]])
    assert apart.values.untyped_storage().nbytes() == 6 * 4 * 4
    backwards = concat(parts[::-1]).values
    assert torch.equal(backwards, torch.cat([part.values for part in parts[::-1]]))


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (plain(2, bias=True), "some have a bias"),
        (ProjectionWeights(torch.ones(2, 4), act_bits=8), "some are quantized"),
        (ProjectionWeights(torch.ones(2, 4, dtype=torch.bfloat16)), "different formats"),
    ],
)
def test_why_layers_are_not_merged_is_said(other: ProjectionWeights, why: str) -> None:
    reason = concat_reason([plain(2), other])
    assert reason is not None
    assert why in reason
    with pytest.raises(EvaluationError, match=why):
        concat([plain(2), other])


def test_layers_that_read_their_input_differently_are_not_merged() -> None:
    one = ProjectionWeights(torch.ones(2, 4), act_bits=8, permutation=torch.arange(4))
    other = ProjectionWeights(torch.ones(2, 4), act_bits=8, permutation=torch.arange(4).flip(0))
    assert concat_reason([one, one]) is None
    assert concat_reason([one, other]) == "they transform their input in different ways"


def test_only_linear_layers_have_weights() -> None:
    with pytest.raises(EvaluationError, match="expected a linear layer, got a Identity"):
        weights_of(nn.Identity())


def test_a_loaded_pi05_is_merged_without_a_copy(tmp_path: Path) -> None:
    write_random(tmp_path, RandomPi05(small_sizes()))
    module = load_policy(PolicySpec("pi05_libero", str(tmp_path)), "cpu").module
    vision = module.paligemma_with_expert.paligemma.model.vision_tower.vision_model
    for layer in module.layers():
        mlp, attention = layer.get_submodule("mlp"), layer.get_submodule("self_attn")
        groups = [[attention.get_submodule(f"{name}_proj") for name in "qkv"]]
        if layer not in list(vision.encoder.layers):
            groups.append([mlp.get_submodule(f"{name}_proj") for name in ("gate", "up")])
        for group in groups:
            found = merged(group, ("plain",))
            assert found is not None
            assert found.values.data_ptr() == group[0].weight.data_ptr()
