"""A policy of two linear layers with outlier channels, and the steps from it to a quantized one."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from duqsweep.quant.calibrate import LayerStats, calibrate
from duqsweep.quant.freeze import freeze
from duqsweep.spec import QuantSpec

WIDTH = 64
HIDDEN = 128


class TinyPolicy(nn.Module):
    """Two layers, as `layers.0.up_proj` and `layers.0.down_proj`."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Module()
        layer.up_proj = nn.Linear(WIDTH, HIDDEN)
        layer.down_proj = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.layers = nn.ModuleList([layer])

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layers[0]
        return layer.down_proj(torch.relu(layer.up_proj(x)))


LAYERS = ("layers.0.up_proj", "layers.0.down_proj")


def tiny_policy(seed: int = 0) -> TinyPolicy:
    """Gaussian weights; some channels of `inputs()` are outliers."""
    generator = torch.Generator().manual_seed(seed)
    policy = TinyPolicy()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    return policy


def channel_sizes() -> Tensor:
    sizes = torch.ones(WIDTH)
    sizes[[3, 17, 18, 40]] = 50.0
    return sizes


def inputs(tokens: int = 48, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, tokens, WIDTH, generator=generator) * channel_sizes()


def calibrated(
    policy: nn.Module, quant: QuantSpec, bits: dict[str, tuple[int, int]]
) -> dict[str, LayerStats]:
    return calibrate(policy, bits, quant, lambda: policy(inputs()))


def quantized(
    quant: QuantSpec,
    pair: tuple[int, int] = (4, 8),
    layers: tuple[str, ...] = LAYERS,
    pack_dir: Path | None = None,
) -> nn.Module:
    """A quantized tiny policy, calibrated on `inputs()`."""
    policy = copy.deepcopy(tiny_policy())
    bits = dict.fromkeys(layers, pair)
    freeze(policy, bits, quant, calibrated(policy, quant, bits), pack_dir, "tiny")
    return policy


@torch.no_grad()
def outputs(policy: nn.Module) -> Tensor:
    return policy(inputs())


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()
