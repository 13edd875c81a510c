"""The greedy rotation against a loop in numpy, and the inputs that it depends on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from quant_parts import LAYERS, calibrated, inputs, outputs, quantized, tiny_policy
from torch import nn

from duqsweep.errors import EvaluationError
from duqsweep.quant.calibrate import SAMPLES, calibrate
from duqsweep.quant.fold import build_pack, input_transform
from duqsweep.quant.greedy import greedy_rotation, spreading_matrix
from duqsweep.quant.linear import DuQuantLinear
from duqsweep.quant.rotation import hadamard, rotate_blocks
from duqsweep.spec import QuantSpec

Array = NDArray[np.float64]
GREEDY = QuantSpec(rotation="greedy")


def heavy_rows(tokens: int, width: int, seed: int) -> torch.Tensor:
    """Gaussian inputs; every eighth channel is up to 60 times larger."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.ones(width)
    sizes[::8] = 60 * torch.rand(len(sizes[::8]), generator=generator)
    return torch.randn(tokens, width, generator=generator, dtype=torch.float64) * sizes


def slow_greedy(rows: Array, block: int, step: Array) -> Array:
    """Compute all steps, then the product of the best number of them."""
    runs = rows.reshape(-1, block)
    peaks, turns = [np.abs(runs).max()], []
    for _ in range(256):
        channel = int(np.argmax(np.abs(runs).max(0)))
        swap = np.eye(block)
        swap[[0, channel]] = swap[[channel, 0]]
        turns.append(swap @ step @ swap)
        runs = runs @ turns[-1]
        peaks.append(np.abs(runs).max())
    matrix = np.eye(block)
    for turn in turns[: int(np.argmin(peaks))]:
        matrix = matrix @ turn
    return matrix


@settings(max_examples=12)
@given(
    tokens=st.integers(1, 9),
    block=st.sampled_from([16, 32]),
    blocks=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_it_is_the_best_prefix_of_steps_at_the_largest_channel(
    tokens: int, block: int, blocks: int, seed: int
) -> None:
    rows = heavy_rows(tokens, block * blocks, seed)
    found = greedy_rotation(rows, block)
    wanted = slow_greedy(rows.numpy(), block, spreading_matrix(block).numpy())
    assert found.shape == (1, block, block)
    np.testing.assert_allclose(found[0].numpy(), wanted, atol=1e-9)
    np.testing.assert_allclose(wanted @ wanted.T, np.eye(block), atol=1e-10)
    assert rotate_blocks(rows, found).abs().max() <= rows.abs().max() * (1 + 1e-12)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_a_step_spreads_its_first_channel(size: int) -> None:
    step = spreading_matrix(size)
    torch.testing.assert_close(step @ step.T, torch.eye(size).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(step[:, 0], torch.full((size,), size**-0.5).double())
    assert step[0].abs().max() < 0.75  # of an outlier in one channel, this much is left in any


def test_it_makes_outliers_as_small_as_a_hadamard_matrix_does() -> None:
    rows = heavy_rows(64, 512, 3)
    raw = rows.abs().max()
    rotated = rotate_blocks(rows, greedy_rotation(rows, 64)).abs().max()
    assert rotated < 0.4 * raw
    assert rotated < 1.2 * rotate_blocks(rows, hadamard(64)[None]).abs().max()


def test_inputs_that_are_even_already_are_left_alone() -> None:
    even = torch.ones(1, 32) * torch.tensor([1.0, -1.0]).repeat(16)
    assert torch.equal(greedy_rotation(even, 16)[0], torch.eye(16).double())


def test_inputs_that_can_never_hold_the_peak_do_not_count() -> None:
    rows = heavy_rows(8, 64, 5)
    small = rows / 1e4
    found = greedy_rotation(torch.cat([small, rows]), 16)
    torch.testing.assert_close(found, greedy_rotation(rows, 16), atol=1e-9, rtol=0)


def test_inputs_are_rotated_reordered_and_rotated() -> None:
    stats = calibrated(tiny_policy(), GREEDY, {LAYERS[0]: (4, 8)})[LAYERS[0]]
    weight = tiny_policy().layers[0].up_proj.weight.detach()
    transform = input_transform(weight, GREEDY, stats.act_max, stats.samples)
    rows = inputs().reshape(-1, 64).double()
    first = rotate_blocks(rows, greedy_rotation(stats.samples, 16))
    means = first.abs().amax(0)[transform.order].view(4, 16).mean(1)
    assert means.max() < 1.2 * means.min()  # zigzag, by the rotated inputs
    unfinished = dataclasses.replace(transform, rotation=None)
    second = greedy_rotation(unfinished.of_inputs(stats.samples), 16)
    assert torch.equal(second, transform.rotation)
    wanted = rotate_blocks(first[:, transform.order], transform.rotation)
    torch.testing.assert_close(transform.of_inputs(rows), wanted)


def test_the_layer_has_both_rotations_and_without_an_order_one() -> None:
    def stages(quant: QuantSpec) -> list[str]:
        layer = quantized(quant, layers=LAYERS[:1]).get_submodule(LAYERS[0])
        assert isinstance(layer, DuQuantLinear)
        return [type(stage).__name__ for stage in layer.before]

    assert stages(GREEDY) == ["BatchedRotation", "Reorder", "BatchedRotation", "RoundTokens"]
    assert stages(QuantSpec(rotation="greedy", permutation="none")) == [
        "BatchedRotation",
        "RoundTokens",
    ]


def test_layers_that_read_the_same_input_share_a_transform() -> None:
    """As k and v reuse the transform of q, and up that of gate, in the official code."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj = nn.Linear(64, 64)
            self.k_proj = nn.Linear(64, 32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.q_proj(x)[..., :32] + self.k_proj(x)

    torch.manual_seed(0)
    module = Attention()
    bits = dict.fromkeys(("q_proj", "k_proj"), (4, 8))
    stats = calibrate(module, bits, GREEDY, lambda: module(inputs()))
    q, k = (
        build_pack(linear.weight.detach(), 4, GREEDY, stats[name].act_max, stats[name].samples)
        for name, linear in module.named_children()
    )
    for name in ("first_rotation", "order", "rotation"):
        assert torch.equal(q.tensors()[name], k.tensors()[name])


def test_calibration_keeps_the_inputs_with_the_largest_values() -> None:
    policy = tiny_policy()
    batches = [inputs(seed=seed) for seed in range(3)]

    def run() -> None:
        for batch in batches:
            policy(batch)

    stats = calibrate(policy, {LAYERS[0]: (4, 8)}, GREEDY, run)[LAYERS[0]]
    rows = torch.stack(batches).reshape(-1, 64)
    assert len(rows) > SAMPLES
    wanted = sorted(rows.abs().amax(1).tolist())[-SAMPLES:]
    assert sorted(stats.samples.abs().amax(1).tolist()) == wanted
    assert calibrate(policy, {LAYERS[0]: (4, 8)}, QuantSpec(), run)[LAYERS[0]].samples is None


def test_static_scales_belong_to_the_rotated_channels() -> None:
    quant = QuantSpec(rotation="greedy", act_scale="static", act_percentile=100.0)
    policy = tiny_policy()
    stats = calibrated(policy, quant, {LAYERS[0]: (4, 8)})[LAYERS[0]]
    weight = policy.layers[0].up_proj.weight.detach()
    transform = input_transform(weight, quant, stats.act_max, stats.samples)
    wanted = transform.of_inputs(inputs().reshape(-1, 64)).abs().amax(0)
    torch.testing.assert_close(stats.percentile.double(), wanted)


def test_it_is_deterministic_and_needs_samples() -> None:
    assert torch.equal(outputs(quantized(GREEDY)), outputs(quantized(GREEDY)))
    weight = tiny_policy().layers[0].up_proj.weight.detach()
    with pytest.raises(EvaluationError, match="greedy needs samples"):
        build_pack(weight, 4, GREEDY, torch.ones(64))
