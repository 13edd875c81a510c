"""Compiled code takes weights as arguments: trials of a worker whose layers are alike share it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from duqsweep.inference import compile as compiling
from duqsweep.policy.load import load_policy
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.policy.random_pi05 import RandomPi05, small_sizes, write_random
from duqsweep.quant.calibrate import LayerStats
from duqsweep.quant.freeze import freeze
from duqsweep.seams import Observation, Policy
from duqsweep.spec import PolicySpec, QuantSpec

if TYPE_CHECKING:
    from torch._dynamo.testing import CompileCounter

EXPERT = "paligemma_with_expert.gemma_expert.model.layers"


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """Counts what is compiled; the code that it makes is torch's own."""
    from torch._dynamo.testing import CompileCounter  # two seconds, in each process that collects

    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    monkeypatch.setattr(compiling, "cpu_options", lambda: None)  # inductor's
    compiling._compiled_forward.cache_clear()
    yield counter
    compiling._compiled_forward.cache_clear()
    torch.compiler.reset()


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
    counter: CompileCounter, tmp_path: Path
) -> None:
    first, second = loaded(tmp_path / "first", 0), loaded(tmp_path / "second", 1)
    made = []
    for eager in (first, second, quantized(first, 4), quantized(second, 3), first.copy(1)):
        before = counter.frame_count
        assert np.allclose(act(compiling.compile_policy(eager)), act(eager), atol=1e-6)
        made.append(counter.frame_count - before)
    # Three stacks; the same with other weights; the expert's quantized layers.
    assert made == [3, 0, 1, 0, 0]
