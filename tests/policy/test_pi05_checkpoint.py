"""Checkpoints of openpi and LeRobot are read, and each fault has its own message."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pi05_parts import (
    LAYOUTS,
    TINY,
    change_config,
    change_json,
    change_weights,
    noise,
    observation,
    spec,
)
from safetensors.torch import load_file, save_file

from duqsweep.checkpoint.locate import check_checkpoint, policy_sizes
from duqsweep.checkpoint.parameters import (
    EMBEDDING,
    KEPT_FLOAT32,
    LLM_HEAD,
    UNUSED,
    parameter_shapes,
)
from duqsweep.checkpoint.pi05_config import AFTER, BEFORE
from duqsweep.checkpoint.pi05_folder import WEIGHTS
from duqsweep.checkpoint.safetensors_header import read_header
from duqsweep.checkpoint.sizes import LLM, PolicySizes, sizes_of
from duqsweep.checkpoint.weights_id import READERS, weights_id
from duqsweep.errors import ConfigError, EvaluationError
from duqsweep.policy.load import load_pi05, load_policy
from duqsweep.policy.pi05 import Pi05
from duqsweep.policy.random_pi05 import Layout, RandomPi05, write_random
from duqsweep.policy.weight_loading import (
    BUFFERS,
    PIECE_BYTES,
    bytes_free,
    bytes_needed,
    check_memory,
)

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random checkpoint in each layout, with the same weights."""
    root = tmp_path_factory.mktemp("checkpoints")
    layouts: tuple[Layout, ...] = ("openpi", "lerobot")
    for layout in layouts:
        write_random(root / layout, RandomPi05(TINY, layout, torch.float32))
    return {layout: root / layout for layout in layouts}


@pytest.fixture
def openpi(written: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(written["openpi"], tmp_path / "openpi"))


@pytest.fixture
def lerobot(written: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(written["lerobot"], tmp_path / "lerobot"))


@pytest.mark.parametrize("sizes", [TINY, sizes_of("pi05_libero"), sizes_of("embedded")])
def test_parameters_are_known_without_torch(sizes: PolicySizes) -> None:
    with torch.device("meta"):
        state = Pi05(sizes).state_dict()
    assert parameter_shapes(sizes) == {name: tuple(value.shape) for name, value in state.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_written_is_what_is_loaded(written: dict[str, Path], layout: str) -> None:
    folder = written[layout]
    check_checkpoint(spec(folder))
    assert policy_sizes(spec(folder)) == TINY
    held = load_file(folder / WEIGHTS)
    loaded = load_policy(spec(folder), "cpu").module.state_dict()
    assert len(held) == len(loaded)
    for name, value in loaded.items():
        stored = LLM_HEAD if layout == "openpi" and name == EMBEDDING else name
        assert torch.equal(value, held[f"model.{stored}" if layout == "lerobot" else stored])


def test_both_layouts_act_alike_on_the_same_prompt(openpi: Path, lerobot: Path) -> None:
    change_config(openpi, discrete_state_input=True)
    shutil.copyfile(lerobot / "paligemma_tokenizer.model", openpi / "paligemma_tokenizer.model")
    seen = observation(TINY.vision.image_px)  # the two resize differently
    one, other = (
        load_policy(spec(folder), "cpu").act(seen, noise()) for folder in (openpi, lerobot)
    )
    assert one.shape == (6, 7)
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_state_reaches_the_actions_where_it_is_in_the_prompt(
    written: dict[str, Path], layout: str
) -> None:
    policy, seen = load_policy(spec(written[layout]), "cpu"), observation()
    moved = replace(seen, eef_pos=seen.eef_pos + 0.3)
    same = np.array_equal(policy.act(seen, noise()), policy.act(moved, noise()))
    assert same == (layout == "openpi")


def test_norms_and_projections_stay_in_float32_beside_bfloat16(openpi: Path) -> None:
    policy = load_pi05(spec(openpi), "cpu", torch.bfloat16)
    for name, value in policy.module.named_parameters():
        kept = any(part in name for part in KEPT_FLOAT32)
        assert value.dtype == (torch.float32 if kept else torch.bfloat16), name
    exact = load_policy(spec(openpi), "cpu").act_normalised(observation(), noise())
    error = np.abs(policy.act_normalised(observation(), noise()) - exact).max()
    assert 0 < error < 0.03 * np.abs(exact).max()


def test_heads_that_play_no_part_are_left_on_the_disk(lerobot: Path) -> None:
    change_weights(lerobot, **{f"model.{name}": torch.ones(1) for name in UNUSED})
    state = load_policy(spec(lerobot), "cpu").module.state_dict()
    assert not set(UNUSED) & set(state)


def test_missing_and_unexpected_tensors_are_listed_and_counted(openpi: Path) -> None:
    gone = {f"{LLM}.layers.{i}.input_layernorm.weight": None for i in range(3)}
    change_weights(openpi, **gone, **{"action_in_proj.bias": None, "adapter.weight": torch.ones(2)})
    rule = r"missing: action_in_proj.bias, .*layers.0.*, .*layers.1.* and 1 more; "
    with pytest.raises(ConfigError, match=rule + "unexpected: adapter.weight"):
        check_checkpoint(spec(openpi))


def test_a_pi0_is_named(openpi: Path) -> None:
    change_weights(openpi, **{"state_proj.weight": torch.ones(2, 2)})
    with pytest.raises(ConfigError, match=r"a pi0 and no pi0\.5: it holds state_proj\.weight"):
        check_checkpoint(spec(openpi))


def test_other_sizes_are_named(openpi: Path) -> None:
    change_weights(openpi, **{"time_mlp_in.bias": torch.ones(16)})
    with pytest.raises(ConfigError, match=r"time_mlp_in.bias is \[16\] and not \[32\]"):
        check_checkpoint(spec(openpi))


def without_sizes(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({"action_horizon": 10}))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda folder: (folder / WEIGHTS).unlink(), r"has no model\.safetensors$"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"weights"), "not a safetensors file"),
        (lambda folder: (folder / WEIGHTS).write_bytes(bytes(100)), "not a safetensors file"),
        (
            lambda folder: (folder / WEIGHTS).write_bytes(b"\x09" + bytes(7) + b'{"a": {}}' + b"."),
            "not a safetensors file: 'dtype'",
        ),
        (without_sizes, "of another shape"),  # of the full size, which the weights are not
        (lambda folder: change_config(folder, sizes={}), "lacks the key 'vision'"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "must hold an object"),
        (lambda folder: shutil.rmtree(folder / "assets"), r"statistics, .*norm_stats.json; .*none"),
        (
            lambda folder: shutil.copytree(folder / "assets/random", folder / "assets/other"),
            r"other/norm_stats.json, assets/random/norm_stats.json",
        ),
        (lambda folder: (folder / "paligemma_tokenizer.model").unlink(), r"policy.tokenizer=FILE"),
        (
            lambda folder: (folder / "paligemma_tokenizer.model").write_bytes(b"no"),
            "not a sentencepiece model",
        ),
    ],
)
def test_each_fault_of_openpis_folder_is_found_without_torch(
    openpi: Path, change: Change, rule: str
) -> None:
    change(openpi)
    with pytest.raises(ConfigError, match=rule):
        check_checkpoint(spec(openpi))


def change_stats(folder: Path, of: str, entry: object) -> None:
    path = folder / "assets/random/norm_stats.json"
    stats = json.loads(path.read_text())["norm_stats"]
    change_json(path, norm_stats={**stats, of: entry})


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        (None, "no statistics of 'state'"),
        ({"mean": [0.0] * 8, "std": [1.0] * 8, "q01": None, "q99": None}, "no 'q01', only"),
        ({"q01": [0.0] * 7, "q99": [1.0] * 7}, "'q01' must hold 8 values"),
        ({"q01": [2.0] * 8, "q99": [1.0] * 8}, "no negative spread"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(openpi: Path, entry: object, rule: str) -> None:
    change_stats(openpi, "state", entry)
    with pytest.raises(ConfigError, match=rule):
        check_checkpoint(spec(openpi))


def test_mean_and_deviation_are_taken_where_the_configuration_says_so(openpi: Path) -> None:
    change_stats(openpi, "actions", {"mean": [0.25] * 7, "std": [0.0] * 7})
    change_stats(openpi, "state", {"mean": [0.0] * 32, "std": [1.0] * 32})  # padded
    change_config(openpi, use_quantile_norm=False)
    actions = load_policy(spec(openpi), "cpu").act(observation(), noise())
    np.testing.assert_allclose(actions, 0.25, atol=1e-4)


def drop_step(path: Path, name: str) -> None:
    steps = json.loads(path.read_text())["steps"]
    change_json(path, steps=[step for step in steps if step["registry_name"] != name])


def cameras(*names: str) -> dict[str, object]:
    return {name: {"type": "VISUAL", "shape": [3, 56, 56]} for name in names}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda folder: change_config(folder, type="pi0"), "is a 'pi0'"),
        (lambda folder: change_config(folder, use_relative_actions=True), "use_relative_actions"),
        (lambda folder: (folder / AFTER).unlink(), r"has no policy_postprocessor\.json"),
        (lambda folder: drop_step(folder / BEFORE, "normalizer_processor"), "no normalizer_pro"),
        (
            lambda folder: drop_step(
                folder / BEFORE, "pi05_prepare_state_tokenizer_processor_step"
            ),
            "no step that writes pi0.5's prompt",
        ),
        (
            lambda folder: (
                folder / "policy_preprocessor_step_0_normalizer_processor.safetensors"
            ).unlink(),
            "no normalisation statistics",
        ),
        (
            lambda folder: change_config(
                folder, input_features=cameras("observation.images.image", "observation.side")
            ),
            "cameras of input_features",
        ),
        (
            lambda folder: change_config(
                folder, input_features=cameras("observation.images.empty_camera_0")
            ),
            "cameras of input_features",
        ),
    ],
)
def test_each_fault_of_lerobots_folder_is_found_without_torch(
    lerobot: Path, change: Change, rule: str
) -> None:
    change(lerobot)
    with pytest.raises(ConfigError, match=rule):
        check_checkpoint(spec(lerobot))


def test_lerobots_cameras_keep_their_order_and_masked_ones_are_dropped(lerobot: Path) -> None:
    names = ("observation.images.image2", "observation.images.image", "observation.empty_camera_0")
    change_config(lerobot, input_features=cameras(*names))
    policy, seen = load_policy(spec(lerobot), "cpu"), observation(56)
    pixels = policy.preprocessing.pixels(
        torch.from_numpy(np.stack(policy.preprocessing.pictures(seen)))
    )
    assert pixels.shape == (2, 3, 56, 56)
    first = torch.from_numpy(seen.images["wrist"][:, ::-1].copy()).permute(2, 0, 1)
    torch.testing.assert_close(pixels[0], first / 127.5 - 1)


def test_lerobots_renamed_cameras_are_found(lerobot: Path) -> None:
    renamed = {
        "observation.images.image": "observation.images.base_0_rgb",
        "observation.images.image2": "observation.images.left_wrist_0_rgb",
    }
    masked = "observation.images.right_wrist_0_rgb"
    change_config(lerobot, input_features=cameras(*renamed.values(), masked))
    with pytest.raises(ConfigError, match="cameras of input_features"):
        check_checkpoint(spec(lerobot))
    steps = json.loads((lerobot / BEFORE).read_text())["steps"]
    rename = {"registry_name": "rename_observations_processor", "config": {"rename_map": renamed}}
    change_json(lerobot / BEFORE, steps=[rename, *steps])
    check_checkpoint(spec(lerobot))


def test_the_variants_of_gemma_that_openpi_names_are_known(openpi: Path) -> None:
    named = {"paligemma_variant": "gemma_2b", "action_expert_variant": "gemma_300m"}
    (openpi / "config.json").write_text(json.dumps({**named, "action_horizon": 50}))
    assert policy_sizes(spec(openpi)) == replace(sizes_of("pi05_libero"), horizon=50)
    (openpi / "config.json").unlink()  # openpi's trainer writes none
    assert policy_sizes(spec(openpi)) == sizes_of("pi05_libero")
    (openpi / "config.json").write_text(json.dumps({**named, "paligemma_variant": "gemma_9b"}))
    with pytest.raises(ConfigError, match=r"one of \['gemma_2b', 'gemma_300m'\], got 'gemma_9b'"):
        policy_sizes(spec(openpi))


def test_a_file_that_is_cut_short_says_by_how_much(openpi: Path) -> None:
    data = (openpi / WEIGHTS).read_bytes()
    (openpi / WEIGHTS).write_bytes(data[:-100])
    with pytest.raises(ConfigError, match=f"{len(data) - 100} bytes of {len(data)}"):
        check_checkpoint(spec(openpi))


def test_weights_of_another_kind_are_refused(openpi: Path) -> None:
    save_file({"action_in_proj.bias": torch.ones(2, dtype=torch.int8)}, openpi / WEIGHTS)
    with pytest.raises(ConfigError, match="is 'I8'; allowed are F32, BF16, F16"):
        check_checkpoint(spec(openpi))


@pytest.mark.parametrize(
    ("files", "hint"),
    [(("params/x",), "JAX form"), (("model.safetensors.index.json",), "pieces")],
)
def test_other_forms_of_a_checkpoint_are_named(
    openpi: Path, files: tuple[str, ...], hint: str
) -> None:
    (openpi / WEIGHTS).unlink()
    for name in files:
        (openpi / name).parent.mkdir(exist_ok=True)
        (openpi / name).touch()
    with pytest.raises(ConfigError, match=hint):
        check_checkpoint(spec(openpi))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(openpi: Path, value: float) -> None:
    bias = torch.zeros(32)
    bias[3] = value
    change_weights(openpi, **{"time_mlp_in.bias": bias})
    check_checkpoint(spec(openpi))
    with pytest.raises(EvaluationError, match=r"time_mlp_in.bias holds NaN or infinity"):
        load_policy(spec(openpi), "cpu")


def test_too_little_memory_is_told_before_loading(openpi: Path) -> None:
    stored = read_header(openpi / WEIGHTS)
    numbers = sum(np.prod(shape) for shape in parameter_shapes(TINY).values())
    needed = bytes_needed(stored, torch.float32)
    assert needed == 4 * numbers + READERS * BUFFERS * PIECE_BYTES
    assert bytes_needed(stored, torch.bfloat16) < needed
    rule = r"model.safetensors need 28.00 GB on cuda, where 24.00 GB are free"
    with pytest.raises(EvaluationError, match=rule):
        check_memory(openpi / WEIGHTS, 28 * 10**9, 24 * 10**9, "cuda")
    check_memory(openpi / WEIGHTS, needed, bytes_free("cpu"), "cpu")
    check_memory(openpi / WEIGHTS, needed, None, "cpu")


def test_a_tokenizer_elsewhere_is_taken_and_identifies_the_policy(
    openpi: Path, tmp_path: Path
) -> None:
    before = weights_id(spec(openpi))
    elsewhere = tmp_path / "words.model"
    shutil.move(openpi / "paligemma_tokenizer.model", elsewhere)
    load_policy(spec(openpi, elsewhere), "cpu")
    assert weights_id(spec(openpi, elsewhere)) == before
    change_stats(openpi, "actions", {"q01": [0.0] * 7, "q99": [1.0] * 7})
    assert weights_id(spec(openpi, elsewhere)) != before
    with pytest.raises(ConfigError, match=r"none at .*nowhere"):
        check_checkpoint(spec(openpi, tmp_path / "nowhere"))


def test_the_embedded_policy_takes_no_tokenizer(tmp_path: Path) -> None:
    named = replace(spec(tmp_path, tmp_path), name="embedded")
    with pytest.raises(ConfigError, match="words of its own"):
        check_checkpoint(named)
