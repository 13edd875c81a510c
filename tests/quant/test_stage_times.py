"""The time of rotations and of rounding, clocked inside a real call."""

from __future__ import annotations

import time

import pytest
import torch
from quant_parts import LAYERS, outputs, quantized
from torch import Tensor, nn

from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.quant.linear import DuQuantLinear, QuantizedLinear, RoundTokens
from duqsweep.quant.stage_times import separable, timed_stages
from duqsweep.spec import Kernel, QuantSpec

SLOW_S = 0.005
CPU = torch.device("cpu")


class OneKernel(QuantizedLinear):
    """Rotates, rounds and multiplies at once, as integer kernels do."""

    def projection_weights(self) -> ProjectionWeights | None:
        return None


def clocked(policy: nn.Module) -> dict[str, float]:
    with timed_stages(policy, CPU) as stages:
        outputs(policy)
    return stages.milliseconds()


@pytest.mark.parametrize("kernel", ["fake", "loop"])
def test_a_stage_that_waits_counts_for_its_own_kind_alone(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = quantized(QuantSpec(kernel=kernel))
    rounded = RoundTokens.forward

    def slowly(stage: RoundTokens, rows: Tensor) -> Tensor:
        time.sleep(SLOW_S)
        return rounded(stage, rows)

    monkeypatch.setattr(RoundTokens, "forward", slowly)
    found = clocked(policy)
    assert found["rounding"] >= 1e3 * SLOW_S * len(LAYERS)
    assert 0 < found["rotations"] < found["rounding"]


def test_every_pass_counts_and_no_clock_stays_behind() -> None:
    policy = quantized(QuantSpec())
    before = outputs(policy)
    with timed_stages(policy, CPU) as stages:
        assert torch.equal(outputs(policy), before)
        once = stages.milliseconds()
        outputs(policy)
    twice = stages.milliseconds()
    assert all(twice[kind] > once[kind] > 0 for kind in once)
    outputs(policy)
    assert stages.milliseconds() == twice


def test_rotated_outputs_are_rotations_too(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = quantized(QuantSpec(rotation="none", permutation="none"))
    assert clocked(policy)["rotations"] == 0
    policy = quantized(QuantSpec(rotation="svd", permutation="none", row_rotation=True))
    for layer in policy.modules():
        if isinstance(layer, DuQuantLinear):
            layer.before = nn.Sequential()
    assert clocked(policy)["rotations"] > 0


def test_layers_that_do_all_at_once_have_no_stages() -> None:
    assert separable(quantized(QuantSpec()))
    assert not separable(nn.Sequential(quantized(QuantSpec()), OneKernel()))
