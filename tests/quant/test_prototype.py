"""The prototype's settings reproduce its arithmetic: a numpy loop, and recorded outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prototype_arithmetic import (
    RECORDED,
    RECORDED_BITS,
    RECORDED_BLOCK,
    Array,
    prototype_forward,
    record,
)
from quant_parts import TinyPolicy, inputs, tiny_policy
from torch import nn

from duqsweep.quant.calibrate import calibrate
from duqsweep.quant.freeze import freeze
from duqsweep.spec import QuantSpec


def as_the_prototype(block: int, kernel: str = "fake") -> QuantSpec:
    return QuantSpec(
        rotation="svd",
        block_size=block,
        permutation="prototype",
        row_rotation=True,
        act_scale="static",
        kernel=kernel,
    )


def recorded() -> dict[str, Array]:
    with np.load(RECORDED) as file:
        return dict(file)


@pytest.mark.parametrize("bits", [(4, 8), (8, 8), (4, 4)])
@pytest.mark.parametrize("block", [16, 64])
@pytest.mark.parametrize("kernel", ["fake", "loop"])
def test_prototype_settings_reproduce_its_arithmetic(
    bits: tuple[int, int], block: int, kernel: str
) -> None:
    policy: TinyPolicy = tiny_policy().double()
    layer = policy.layers[0].up_proj
    weight, bias = layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()
    x = inputs().double()
    quant = as_the_prototype(block, kernel)
    chosen = {"layers.0.up_proj": bits}
    stats = calibrate(policy, chosen, quant, lambda: policy(x))
    freeze(policy, chosen, quant, stats, None, "tiny")
    with torch.no_grad():
        found = policy.layers[0].up_proj(x).reshape(-1, 128).numpy()
    wanted = prototype_forward(x.reshape(-1, 64).numpy(), weight, bias, bits, block)
    assert np.linalg.norm(found - wanted) < 1e-5 * np.linalg.norm(wanted)


@pytest.mark.parametrize("bits", RECORDED_BITS)
def test_recorded_outputs_are_reproduced(bits: tuple[int, int]) -> None:
    arrays = recorded()
    layer = nn.Linear(48, 32).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(arrays["weight"]))
        layer.bias.copy_(torch.from_numpy(arrays["bias"]))
    policy = nn.Sequential(layer)
    x = torch.from_numpy(arrays["x"])
    quant = as_the_prototype(RECORDED_BLOCK)
    stats = calibrate(policy, {"0": bits}, quant, lambda: policy(x))
    freeze(policy, {"0": bits}, quant, stats, None, "recorded")
    with torch.no_grad():
        found = policy(x).numpy()
    wanted = arrays[f"w{bits[0]}a{bits[1]}"]
    assert np.linalg.norm(found - wanted) < 1e-5 * np.linalg.norm(wanted)


def test_the_recorded_outputs_are_what_the_script_makes() -> None:
    again = record()
    for name, array in recorded().items():
        np.testing.assert_allclose(array, again[name], atol=1e-9)
