"""Whatever stands in a checkpoint's JSON: it is read rightly, or one line names file and key."""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pi05_parts import LAYOUTS, TINY, change_config, spec

from duqsweep.checkpoint.json_file import read_object
from duqsweep.checkpoint.locate import SHIPPED, check_checkpoint, policy_sizes
from duqsweep.checkpoint.parameters import parameter_shapes
from duqsweep.checkpoint.pi05_config import AFTER, BEFORE, CONFIG_JSON
from duqsweep.checkpoint.pi05_folder import WEIGHTS, read_folder
from duqsweep.checkpoint.vocabulary import check_words
from duqsweep.errors import ConfigError
from duqsweep.policy.random_pi05 import RandomPi05, write_random
from duqsweep.spec import PolicySpec

STATS = "assets/random/norm_stats.json"
DOCUMENTS = {
    "openpi": (CONFIG_JSON, STATS, WEIGHTS),
    "lerobot": (CONFIG_JSON, BEFORE, AFTER),
    "embedded": (CONFIG_JSON,),
}
EACH = [(layout, name) for layout, names in DOCUMENTS.items() for name in names]
LONG = "x" * 5000
JUNK = (
    *(None, True, False, 0, -1, 3, 1e308, -1e308, math.nan, math.inf, 10**400, 2**63, 0.5),
    *("", "false", "word", "\ud800", "a\nb", LONG, "../../etc/passwd", "n" * 300),
    *([], {}, [[]], [1, [2]], [None], {"a": {}}, [0.0] * 8, [1] * 7, [[0.0] * 8] * 2),
)
BYTES = (b"", b"\xff\xfe", b"\x80", b"null", b"{", b"[" * 100_000, b"\xef\xbb\xbf{}", b"\x00" * 64)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    for layout in LAYOUTS:
        write_random(root / layout, RandomPi05(TINY, layout, torch.float32))
    shutil.copytree(SHIPPED, root / "embedded")
    return {layout: root / layout for layout in DOCUMENTS}


def places(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON document."""
    yield at
    if isinstance(data, (dict, list)):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from places(value, (*at, key))


def changed(data: Any, at: tuple[Any, ...], change: Any) -> Any:
    """A copy in which the value at a place is `change(it)`; KeyError takes it away."""
    if not at:
        return change(data)
    copy = dict(data) if isinstance(data, dict) else list(data)
    try:
        copy[at[0]] = changed(data[at[0]], at[1:], change)
    except KeyError:
        del copy[at[0]]
    return copy


def value_at(data: Any, at: tuple[Any, ...]) -> Any:
    for key in at:
        data = data[key]
    return data


def renamed(value: dict[str, Any]) -> dict[str, Any]:
    """All keys with a long end."""
    return {f"{key}{LONG}": below for key, below in value.items()}


def drop(value: Any) -> Any:
    raise KeyError


def header(path: Path) -> tuple[Any, bytes]:
    """What a safetensors file has as JSON, and the rest of it."""
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8:end]), content[end:]


def with_header(data: bytes, rest: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data + rest


def refusal(folder: Path) -> str | None:
    """Why a checkpoint is refused; anything but one line about it fails the test."""
    policy = spec(folder)
    if folder.name == "embedded":
        policy = PolicySpec("embedded", str(folder))
    try:
        check_checkpoint(policy)
        policy_sizes(policy)
        check_words(policy, "duq_mini", ["put the red cube in the tray"])
    except ConfigError as error:
        reason = str(error)
    else:
        return None
    if "does not know" in reason:  # a word that the damage took away
        return reason
    assert "\n" not in reason
    assert str(folder) in reason
    assert len(reason) < 1500
    return reason


@contextmanager
def restored(path: Path) -> Iterator[None]:
    """Put the file back as it was: all tests of a layout share one folder."""
    original = path.read_bytes()
    try:
        yield
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize(("layout", "name"), EACH)
@settings(max_examples=100)
@given(data=st.data())
def test_a_damaged_document_is_read_or_refused_in_one_line(
    written: dict[str, Path], layout: str, name: str, data: st.DataObject
) -> None:
    path = written[layout] / name
    document, rest = header(path) if name == WEIGHTS else (read_object(path), b"")
    at = data.draw(st.sampled_from(list(places(document))))
    junk = data.draw(st.sampled_from(JUNK))
    kinds = {
        "replaced": lambda value: junk,
        "taken away": drop if at else lambda value: junk,
        "in a list": lambda value: [value],
        "as a word": str,
        "twice": lambda value: value * 2 if isinstance(value, (list, str)) else [value, junk],
        "with another key": lambda value: {**value, "k": junk} if isinstance(value, dict) else junk,
    }
    change = kinds[data.draw(st.sampled_from(list(kinds)))]
    text = json.dumps(changed(document, at, change)).encode()
    with restored(path):
        path.write_bytes(with_header(text, rest) if name == WEIGHTS else text)
        refusal(written[layout])
    assert refusal(written[layout]) is None


@pytest.mark.parametrize(("layout", "name"), EACH)
def test_a_long_word_is_not_repeated_whole(
    written: dict[str, Path], layout: str, name: str
) -> None:
    path = written[layout] / name
    document, rest = header(path) if name == WEIGHTS else (read_object(path), b"")
    texts = [at for at in places(document) if isinstance(value_at(document, at), str)]
    objects = [at for at in places(document) if isinstance(value_at(document, at), dict)]
    damaged = [changed(document, at, lambda value: LONG) for at in texts[:40]]
    damaged += [changed(document, at, renamed) for at in objects[:40]]
    for content in damaged:
        text = json.dumps(content).encode()
        with restored(path):
            path.write_bytes(with_header(text, rest) if name == WEIGHTS else text)
            refusal(written[layout])


@pytest.mark.parametrize("content", BYTES)
@pytest.mark.parametrize(("layout", "name"), EACH)
def test_bytes_that_are_no_json_are_refused_in_one_line(
    written: dict[str, Path], layout: str, name: str, content: bytes
) -> None:
    path = written[layout] / name
    with restored(path):
        path.write_bytes(content)
        assert refusal(written[layout]) is not None


def typos(word: str) -> Iterator[str]:
    """Every word with one letter missing, doubled or exchanged with the next, and in capitals."""
    for i in range(len(word)):
        yield word[:i] + word[i + 1 :]
        yield word[: i + 1] + word[i:]
        yield word[:i] + word[i : i + 2][::-1] + word[i + 2 :]
    yield word.upper()
    yield word.replace("_", "-")


@pytest.mark.parametrize(
    ("layout", "key", "value"),
    [
        ("openpi", "use_quantile_norm", False),
        ("openpi", "discrete_state_input", True),
        ("openpi", "action_horizon", 6),
        ("openpi", "sizes", None),
        ("lerobot", "use_relative_actions", True),
        ("lerobot", "chunk_size", 6),
        ("lerobot", "tokenizer_max_length", 100),
    ],
)
def test_a_misspelt_key_is_refused_and_not_ignored(
    written: dict[str, Path], layout: str, key: str, value: object
) -> None:
    folder = written[layout]
    path = folder / CONFIG_JSON
    config = read_object(path)
    held = config.pop(key, value)
    with restored(path):
        for typo in set(typos(key)) - {key}:
            path.write_text(json.dumps({**config, typo: held}))
            reason = refusal(folder)
            assert reason is not None, typo
            assert f"unknown key {typo!r} (did you mean {key!r}?)" in reason


@pytest.mark.parametrize("word", ["false", 0, None, [], "no"])
@pytest.mark.parametrize("key", ["use_quantile_norm", "discrete_state_input"])
def test_a_switch_is_true_or_false(written: dict[str, Path], key: str, word: object) -> None:
    path = written["openpi"] / CONFIG_JSON
    with restored(path):
        change_config(written["openpi"], **{key: word})
        assert f"{path}: {key} must be bool, got {word!r}" in str(refusal(written["openpi"]))


# Of published checkpoints: openpi's converter, and LeRobot 0.4 and 0.6.1.
OPENPI = """{"action_dim": 32, "action_horizon": 10, "paligemma_variant": "gemma_2b",
"action_expert_variant": "gemma_300m", "precision": "bfloat16"}"""
LEROBOT_04 = """{"type": "pi05", "n_obs_steps": 1, "input_features": {"observation.images.image":
{"type": "VISUAL", "shape": [3, 256, 256]}, "observation.images.image2": {"type": "VISUAL",
"shape": [3, 256, 256]}, "observation.state": {"type": "STATE", "shape": [8]},
"observation.images.empty_camera_0": {"type": "VISUAL", "shape": [3, 224, 224]}},
"output_features": {"action": {"type": "ACTION", "shape": [7]}}, "empty_cameras": 1,
"device": "mps", "use_amp": false, "push_to_hub": true, "repo_id": null, "private": null,
"tags": null, "license": null, "paligemma_variant": "gemma_2b",
"action_expert_variant": "gemma_300m", "dtype": "float32", "chunk_size": 50, "n_action_steps": 50,
"max_action_dim": 32, "max_state_dim": 32, "num_inference_steps": 10,
"time_sampling_beta_alpha": 1.5, "time_sampling_beta_beta": 1.0, "min_period": 0.004,
"max_period": 4.0, "image_resolution": [224, 224], "gradient_checkpointing": false,
"compile_model": false, "compile_mode": "max-autotune", "optimizer_lr": 2.5e-05,
"optimizer_betas": [0.9, 0.95], "optimizer_eps": 1e-08, "optimizer_weight_decay": 0.01,
"optimizer_grad_clip_norm": 1.0, "scheduler_warmup_steps": 1000, "scheduler_decay_steps": 30000,
"scheduler_decay_lr": 2.5e-06, "tokenizer_max_length": 200}"""
LEROBOT_MORE = (
    *("use_peft", "pretrained_path", "pretrained_revision", "time_sampling_scale", "rtc_config"),
    *("time_sampling_offset", "normalization_mapping", "optimizer_fused", "freeze_vision_encoder"),
    *("train_expert_only", "relative_exclude_joints", "action_feature_names"),
)


def test_published_configurations_are_read(written: dict[str, Path]) -> None:
    newer = {**json.loads(LEROBOT_04), "use_relative_actions": False}
    newer |= dict.fromkeys(LEROBOT_MORE)
    configurations = {"openpi": [json.loads(OPENPI)], "lerobot": [json.loads(LEROBOT_04), newer]}
    for layout, published in configurations.items():
        path = written[layout] / CONFIG_JSON
        sizes = read_object(path)["sizes"]
        with restored(path):
            for config in published:
                # The weights are small, so their sizes are added to what was published.
                path.write_text(json.dumps({**config, "sizes": sizes}))
                assert refusal(written[layout]) is None
                path.write_text(json.dumps(config))
                horizon = 10 if layout == "openpi" else 50
                assert policy_sizes(spec(written[layout])).horizon == horizon


def test_a_full_pi05_with_a_small_tokenizer_is_refused(
    written: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(written["openpi"], tmp_path / "full"))
    (folder / CONFIG_JSON).write_text(OPENPI)
    entries, end = {}, 0
    for name, shape in parameter_shapes(policy_sizes(spec(folder))).items():
        begin, end = end, end + 2 * math.prod(shape)
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    content = with_header(json.dumps(entries).encode(), b"")
    with (folder / WEIGHTS).open("wb") as file:
        file.write(content)
        file.truncate(len(content) + end)  # 6.7 GB that take no space
    assert re.search("not the policy's tokenizer: it has .* for 257152", str(refusal(folder)))


def test_what_was_written_is_read_whole(written: dict[str, Path]) -> None:
    assert read_object(written["openpi"] / CONFIG_JSON)["action_horizon"] == TINY.horizon
    assert read_folder(written["lerobot"], None).io_spec.state_in_prompt
