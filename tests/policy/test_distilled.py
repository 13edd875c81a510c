"""Students that were distilled to one or two denoising steps: loaded, run, and held to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pi05_parts import LAYOUTS, TINY, change_config, change_weights, noise, observation, spec

from duqsweep.checkpoint.distilled import distilled_steps, reference_policy
from duqsweep.errors import ConfigError
from duqsweep.inference.compiled_expert import CompiledExpert
from duqsweep.policy.load import load_policy
from duqsweep.policy.pi05 import Pi05, time_features
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.policy.random_pi05 import Layout, RandomPi05, write_random
from duqsweep.spec import PolicySpec

SNAPFLOW = replace(TINY, target_time=True)


def student(folder: Path, layout: Layout = "openpi", steps: tuple[int, ...] = (1, 2)) -> PolicySpec:
    asked = RandomPi05(SNAPFLOW, layout, torch.float32, distilled_steps=steps)
    write_random(folder, asked)
    return replace(spec(folder), num_steps=1)


def loaded(asked: PolicySpec) -> Pi05Policy:
    policy = load_policy(asked, "cpu")
    assert isinstance(policy, Pi05Policy)
    return policy


def condition(module: Pi05, time: float, target: float) -> torch.Tensor:
    width = SNAPFLOW.expert.width
    state = dict(module.named_parameters())

    def layer(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    now, then = (time_features(torch.tensor([value]), width) for value in (time, target))
    base = F.silu(layer("time_mlp_out", F.silu(layer("time_mlp_in", now))))
    added = layer("target_time_mlp_out", F.silu(layer("target_time_mlp_in", then)))
    return base + added


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_a_student_knows_where_each_of_its_steps_ends(tmp_path: Path, layout: Layout) -> None:
    asked = student(tmp_path, layout)
    assert distilled_steps(asked) == (1, 2)
    policy = loaded(asked)
    module = policy.module
    for steps, ends in ((1, [0.0]), (2, [0.5, 0.0])):
        found = module.modulations(steps)
        for i, end in enumerate(ends):
            given = condition(module, 1 - i / steps, end)
            wanted = module.expert.norm.modulation(given)
            torch.testing.assert_close(found[-1, i], wanted[0])


@torch.no_grad()
def test_one_step_goes_from_noise_to_actions_eager_and_compiled(tmp_path: Path) -> None:
    policy = loaded(student(tmp_path))
    module, seen, start = policy.module, observation(), noise()
    inputs = policy.frontend.inputs(seen, start)
    pictures = torch.from_numpy(np.stack(inputs.pictures))
    encoded = module.encode_images(policy.preprocessing.pixels(pictures)[None])
    cache = module.prefix(encoded, torch.from_numpy(inputs.prompt())[None])
    begin = torch.from_numpy(start)[None]
    one, zero = torch.ones(1), torch.zeros(1)
    wanted = begin - module.velocity(begin, cache, module.modulation(one, zero))
    local = begin - module.velocity(begin, cache, module.modulation(one))
    found = policy.act_normalised(seen, start)
    np.testing.assert_allclose(found, wanted[0, :, :7].numpy(), atol=1e-5)
    assert (wanted - local).abs().max() > 1e-3
    fused = CompiledExpert(module, num_steps=1)
    torch.testing.assert_close(
        fused.denoise(begin[0], fused.prepare(cache)), wanted[0], rtol=0, atol=1e-5
    )


@torch.no_grad()
def test_a_target_time_of_zero_weights_leaves_the_teacher(tmp_path: Path) -> None:
    asked = student(tmp_path)
    width = SNAPFLOW.expert.width
    names = {"weight": torch.zeros(width, width), "bias": torch.zeros(width)}
    change_weights(tmp_path, **{f"target_time_mlp_out.{n}": v for n, v in names.items()})
    module = loaded(asked).module
    times, targets = torch.tensor([1.0, 0.4]), torch.tensor([0.0, 0.1])
    assert torch.equal(module.modulation(times, targets), module.modulation(times))


def test_other_steps_and_schedules_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    asked = student(tmp_path)
    with pytest.raises(ConfigError, match=r"distilled for 1 or 2 denoising steps: .* got 10"):
        load_policy(replace(asked, num_steps=10), "cpu")
    with pytest.raises(ConfigError, match="schedule must be uniform, got shifted"):
        load_policy(replace(asked, num_steps=2, schedule="shifted"), "cpu")
    load_policy(replace(asked, num_steps=1, schedule="shifted"), "cpu")  # one step is one step
    assert reference_policy(replace(asked, schedule="cosine")) == replace(asked, num_steps=2)
    assert reference_policy(PolicySpec("embedded", num_steps=3)).num_steps == 10


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"distilled_steps": []}, "target_time needs distilled_steps"),
        ({"distilled_steps": [0]}, "distilled_steps must be 1 to 100, got 0"),
        ({"distilled_steps": 1}, "distilled_steps"),
        ({"distilled_steps": [1], "target_time": False}, "unexpected: target_time_mlp_in"),
        ({"distiled_steps": [1], "distilled_steps": None}, "distilled_steps"),
    ],
)
def test_a_damaged_student_is_refused(tmp_path: Path, changes: dict[str, object], why: str) -> None:
    asked = student(tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(ConfigError, match=why):
        load_policy(asked, "cpu")


def test_a_student_without_its_target_time_is_refused(tmp_path: Path) -> None:
    write_random(tmp_path, RandomPi05(TINY, dtype=torch.float32, distilled_steps=(1,)))
    asked = replace(spec(tmp_path), num_steps=1)
    assert loaded(asked).act(observation(), noise()).shape == (TINY.horizon, 7)
    change_config(tmp_path, target_time=True)
    with pytest.raises(ConfigError, match="missing: target_time_mlp_in"):
        load_policy(asked, "cpu")
