"""Adding outliers makes channels large and does not change the function."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from duqsweep.checkpoint.sizes import PolicySizes
from duqsweep.policy.pi05 import Pi05

EXAMPLES = Path(__file__).parents[2] / "examples" / "embedded_policy"


@pytest.fixture
def planting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield __import__("plant_outliers")
    for name in ("plant_outliers", "dataset", "network"):
        sys.modules.pop(name, None)


def test_the_output_stays_and_the_channels_grow(
    planting, network: Pi05, sizes: PolicySizes
) -> None:
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(4, 2, 3, 32, 32, generator=generator)
    prompt = torch.randint(0, 20, (4, 9), generator=generator)
    noise = torch.randn(4, sizes.horizon, sizes.action_dim, generator=generator)

    def run() -> torch.Tensor:
        cache = network.prefix(network.encode_images(images), prompt)
        return network.velocity(noise, cache, network.modulations(4))

    before = run()
    planting.plant(network, run, planting.Plan())
    torch.testing.assert_close(run(), before, atol=1e-5, rtol=0)
    sizes_now = planting.channel_sizes(network, run)
    for stack in (network.language_model, network.expert):
        for layer in stack.layers:
            down = sizes_now[layer.mlp.down_proj].largest
            assert 70 < down.max() / down.median() < 142  # a factor of two around 100
            norms = sizes_now[layer.self_attn.q_proj].largest
            assert norms.median() / norms.sort().values[3] > 3
