"""Compiled code takes weights as arguments: trials of a worker whose layers are alike share it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from duqsweep.inference import compile as compile_
from duqsweep.inference import compiled_layer
from duqsweep.inference.compile import compile_policy
from duqsweep.inference.compiled_layer import CompiledLayer
from duqsweep.policy.load import load_policy
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.policy.random_pi05 import RandomPi05, small_sizes, write_random
from duqsweep.quant.calibrate import LayerStats
from duqsweep.quant.freeze import freeze
from duqsweep.seams import Observation, Policy
from duqsweep.spec import PolicySpec, QuantSpec

EXPERT = "paligemma_with_expert.gemma_expert.model.layers"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[GraphModule]:
    """What torch was to compile, all layers; the operations run as they were traced."""
    graphs: list[GraphModule] = []

    def keep(graph: GraphModule, examples: list[Tensor], options: object) -> GraphModule:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(compile_, "cpp_layer", lambda layer: None)
    monkeypatch.setattr(compile_, "has_cpp_expert", lambda module: False)
    monkeypatch.setattr(torch._inductor, "compile", keep)
    monkeypatch.setattr(compiled_layer, "FORMS", {})
    monkeypatch.setattr(compiled_layer, "CODES", {})
    return graphs


def loaded(folder: Path, seed: int) -> Pi05Policy:
    write_random(folder, RandomPi05(small_sizes(), seed=seed))
    return load_policy(PolicySpec("pi05_libero", str(folder), num_steps=2), "cpu")


def quantized(policy: Pi05Policy, weight_bits: int) -> Pi05Policy:
    eager = policy.copy(policy.num_steps)
    names = [f"{EXPERT}.{i}.mlp.down_proj" for i in range(small_sizes().expert.depth)]
    stats = {name: LayerStats(torch.ones(small_sizes().expert.mlp), None) for name in names}
    bits = dict.fromkeys(names, (weight_bits, 8))
    freeze(eager.module, bits, QuantSpec(kernel="fake"), stats, None, "id")
    return eager


def act(policy: Policy) -> np.ndarray:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    seen = Observation(
        images={"agentview": pixels[0], "wrist": pixels[1]},
        eef_pos=np.array([0.1, -0.2, 0.9]),
        eef_quat=np.array([0.98, 0.1, -0.1, 0.14]),
        gripper_qpos=np.array([0.03, -0.03]),
        instruction="pick up the red cube",
    )
    noise = generator.standard_normal((policy.horizon, policy.action_dim)).astype(np.float32)
    return policy.act_normalised(seen, noise)


def test_only_another_kind_of_layer_is_compiled_anew(
    compiled: list[GraphModule], tmp_path: Path
) -> None:
    first, second = loaded(tmp_path / "first", 0), loaded(tmp_path / "second", 1)
    made = []
    for eager in (first, second, quantized(first, 4), quantized(second, 3), first.copy(1)):
        before = len(compiled)
        assert np.allclose(act(compile_policy(eager)), act(eager), atol=1e-6)
        made.append(len(compiled) - before)
    # Three stacks; the same with other weights; the expert's quantized layers.
    assert made == [3, 0, 1, 0, 0]


class Scale(nn.Module):
    """Has a setting."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor]]:
        return x * self.factor, (pair[0] - pair[1],)


class Shift(nn.Module):
    """Has a tensor that is no buffer: its values would be in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.amounts = [torch.ones(3)]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.amounts[0]


def test_settings_are_in_the_code_and_tensors_are_not(compiled: list[GraphModule]) -> None:
    x, pair = torch.ones(3), (torch.ones(3), torch.zeros(3))
    for factor in (2.0, 3.0, 2.0):
        scaled, (difference,) = CompiledLayer(Scale(factor))(x, pair)
        assert torch.equal(scaled, factor * x)
        assert torch.equal(difference, torch.ones(3))
    assert len(compiled) == 2
    with pytest.raises(AssertionError, match="FakeTensor"):
        CompiledLayer(Shift())(x)


def test_inputs_of_another_shape_or_order_are_compiled_anew(compiled: list[GraphModule]) -> None:
    layer = CompiledLayer(nn.Linear(4, 4))
    square = torch.randn(4, 4)
    for x in (square, square + 1, square.T, torch.randn(2, 4)):
        assert torch.equal(layer(x), layer._layer(x))
    assert len(compiled) == 3
