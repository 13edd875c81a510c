"""Messages for a checkpoint that is missing, damaged or of another policy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from duqsweep.checkpoint.locate import WEIGHTS, check_checkpoint, policy_sizes
from duqsweep.checkpoint.pi05_config import CONFIG_JSON
from duqsweep.checkpoint.sizes import PolicySizes, sizes_of
from duqsweep.checkpoint.weights_id import weights_id
from duqsweep.errors import ConfigError, EvaluationError
from duqsweep.policy.load import load_policy, save_random
from duqsweep.spec import PolicySpec


def spec(folder: Path) -> PolicySpec:
    return PolicySpec("embedded", str(folder))


def change_weights(folder: Path, **tensors: torch.Tensor | None) -> None:
    held = {**load_file(folder / WEIGHTS), **tensors}
    save_file({k: v for k, v in held.items() if v is not None}, folder / WEIGHTS)


def test_what_was_saved_is_what_is_loaded(checkpoint: Path) -> None:
    check_checkpoint(spec(checkpoint))
    held = load_file(checkpoint / WEIGHTS)
    loaded = load_policy(spec(checkpoint), "cpu").module.state_dict()
    assert set(held) == set(loaded)
    assert all(torch.equal(held[name], loaded[name]) for name in held)


def test_its_sizes_are_those_that_its_config_states(checkpoint: Path, sizes: PolicySizes) -> None:
    assert policy_sizes(spec(checkpoint)) == sizes != sizes_of("embedded")
    (checkpoint / CONFIG_JSON).unlink()
    assert policy_sizes(spec(checkpoint)) == sizes_of("embedded")


def test_missing_and_unexpected_keys_are_listed(checkpoint: Path) -> None:
    key = "action_in_proj.bias"
    change_weights(checkpoint, **{key: None, "state_proj.weight": torch.ones(2)})
    with pytest.raises(
        EvaluationError, match=r"missing: action_in_proj.bias; unexpected: state_proj.weight"
    ):
        load_policy(spec(checkpoint), "cpu")


def test_a_tensor_of_another_shape_is_named(checkpoint: Path) -> None:
    change_weights(checkpoint, **{"time_mlp_in.bias": torch.ones(3)})
    with pytest.raises(EvaluationError, match=r"of another shape: time_mlp_in.bias"):
        load_policy(spec(checkpoint), "cpu")


def test_weights_that_are_not_finite_are_named(checkpoint: Path) -> None:
    change_weights(checkpoint, **{"time_mlp_in.bias": torch.full((32,), float("nan"))})
    with pytest.raises(EvaluationError, match=r"not finite: time_mlp_in.bias"):
        load_policy(spec(checkpoint), "cpu")


def test_a_damaged_file_is_named(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS).write_bytes(b"weights")
    with pytest.raises(EvaluationError, match=r"weights.safetensors"):
        load_policy(spec(checkpoint), "cpu")


def test_an_unknown_key_in_the_configuration_is_an_error(checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "flavour": 1}))
    with pytest.raises(ConfigError, match="flavour"):
        load_policy(spec(checkpoint), "cpu")


def test_a_missing_folder_or_file_is_found_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        check_checkpoint(spec(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"config.json"):
        check_checkpoint(spec(tmp_path))


def test_a_policy_without_shipped_weights_needs_a_folder() -> None:
    with pytest.raises(ConfigError, match=r"policy.checkpoint=FOLDER"):
        check_checkpoint(PolicySpec("pi05_libero"))


def test_the_weights_id_follows_the_weights(tmp_path: Path, sizes: PolicySizes) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_random(tmp_path / name, ["push"], sizes, seed)
    a, b, c = (weights_id(spec(tmp_path / name)) for name in "abc")
    assert a == b != c
