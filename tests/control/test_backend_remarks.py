"""What `plan` says of the expert's backend is what compiling finds."""

from __future__ import annotations

import pytest

from duqsweep.checkpoint.sizes import linear_layers, sizes_of
from duqsweep.control.explain.backends import expert_remark
from duqsweep.quant.select import select_layers
from duqsweep.spec import (
    LayerBits,
    LayerRule,
    PolicySpec,
    QuantSpec,
    RuntimeSpec,
    SuiteSpec,
    TrialSpec,
)

DIT = (LayerRule("gemma_expert", 4, 8),)
SUITE = SuiteSpec("recorded", 6, 2, 16, 10, 10, 0, 5)


def remark(quant: QuantSpec, policy: str = "pi05_libero", compiled: bool = True) -> str | None:
    sizes = sizes_of(policy)
    spec = TrialSpec(PolicySpec(policy, "folder"), quant, RuntimeSpec(compile=compiled), SUITE)
    layers = linear_layers(sizes)
    return expert_remark(spec, select_layers(quant, layers), layers, sizes)


def test_one_format_in_the_sizes_of_pi05_is_one_kernel() -> None:
    for kernel in ("int8", "w4a8"):
        found = remark(QuantSpec(rules=DIT, kernel=kernel))
        assert found == "the expert runs as one kernel where the GPU can (Hopper or newer)"


@pytest.mark.parametrize(
    ("quant", "why"),
    [
        (QuantSpec(rules=DIT, kernel="w4a8", weight_group_size=64), "group of channels"),
        (
            QuantSpec(rules=DIT, kernel="w4a8", layer_bits=(LayerBits("layers.0", 8),)),
            "several formats",
        ),
        (
            QuantSpec(rules=(LayerRule("gemma_expert.*mlp", 4, 8),), kernel="w4a8"),
            "36 of 72 products do not multiply integers or e4m3",
        ),
    ],
)
def test_what_stands_against_one_kernel_is_said(quant: QuantSpec, why: str) -> None:
    found = remark(quant)
    assert found is not None
    assert found.startswith("the expert runs as several kernels per layer, because ")
    assert why in found


@pytest.mark.parametrize(
    ("regex", "said"),
    [
        ("gemma_expert", "as one kernel where the GPU can (Hopper or newer)"),
        ("gemma_expert.*mlp", "on torch.compile, because 36 of 72 products do not multiply"),
        ("gemma_expert.*q_proj", "on torch.compile, because only some of "),
    ],
)
def test_e4m3_runs_as_one_kernel_or_on_the_compiler(regex: str, said: str) -> None:
    found = remark(QuantSpec(rules=(LayerRule(regex, 8, 8),), kernel="fp8"))
    assert found is not None
    assert found.startswith(f"the expert runs {said}")


def test_layers_that_no_backend_can_merge_are_named() -> None:
    found = remark(QuantSpec(rules=(LayerRule("gemma_expert.*q_proj", 4, 8),), kernel="int8"))
    assert found is not None
    assert "no backend" in found
    assert "k_proj" in found


def test_nothing_is_said_of_experts_without_integers_or_that_are_not_compiled() -> None:
    assert remark(QuantSpec()) is None
    assert remark(QuantSpec(rules=DIT)) is None
    assert remark(QuantSpec(rules=DIT, kernel="int8"), compiled=False) is None
    only_llm = QuantSpec(rules=(LayerRule("language_model", 8, 8),), kernel="int8")
    assert remark(only_llm) is None
