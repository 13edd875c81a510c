"""Writes a pi0.5 checkpoint with random weights, in the layout of openpi or LeRobot.

Its actions are random, but it uses the same code, memory and time as a trained one.
"""

from __future__ import annotations

import json
import math
import string
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import sentencepiece
import torch
from safetensors.numpy import save_file
from torch import Tensor

from duqsweep.checkpoint.io_spec import ACTIONS, STATE_VALUES
from duqsweep.checkpoint.layouts import LEROBOT_CAMERAS, NORM_STATS
from duqsweep.checkpoint.parameters import (
    EMBEDDING,
    LEROBOT_PREFIX,
    LLM_HEAD,
    Shape,
    parameter_shapes,
)
from duqsweep.checkpoint.pi05_config import AFTER, BEFORE, CONFIG_JSON, NAME
from duqsweep.checkpoint.pi05_folder import WEIGHTS
from duqsweep.checkpoint.sizes import PolicySizes, StackSizes, VisionSizes, sizes_of
from duqsweep.checkpoint.tokenizer import NAMES
from duqsweep.codec import encode
from duqsweep.files import write_json

Layout = Literal["openpi", "lerobot"]
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class RandomPi05:
    """The checkpoint to write."""

    sizes: PolicySizes
    layout: Layout = "openpi"
    dtype: torch.dtype = torch.bfloat16
    device: str = "cpu"  # on which the numbers are generated
    seed: int = 0
    distilled_steps: tuple[int, ...] = ()  # what a distilled student's config says; `Distilled`


def small_sizes() -> PolicySizes:
    """Sizes of a pi0.5 with all parts that is small enough for a test: 3 million parameters."""
    stack = StackSizes(width=128, depth=3, mlp=256, heads=4, kv_heads=1, head_dim=32)
    return replace(
        sizes_of(NAME),
        vision=VisionSizes(width=96, depth=2, mlp=192, heads=3, patch_px=14, image_px=224),
        llm=replace(stack, width=256, mlp=512),
        expert=stack,
        vocabulary=2048,
    )


def write_random(folder: Path, asked: RandomPi05) -> None:
    """Write weights, config, statistics and a tokenizer; the folder is created if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    if asked.layout == "openpi":
        config = _write_openpi(folder, asked.sizes)
    else:
        config = _write_lerobot(folder, asked.sizes)
    if asked.distilled_steps:
        config["distilled_steps"] = list(asked.distilled_steps)
        config["target_time"] = asked.sizes.target_time
    write_json(folder / CONFIG_JSON, {**config, "sizes": encode(asked.sizes)})
    train_tokenizer(folder / NAMES[0])
    # openpi's converter saves the embedding under the name of the head that it is tied to.
    names = {EMBEDDING: LLM_HEAD} if asked.layout == "openpi" else {}
    prefix = "" if asked.layout == "openpi" else LEROBOT_PREFIX
    shapes = {
        prefix + names.get(name, name): shape
        for name, shape in parameter_shapes(asked.sizes).items()
    }
    _write_tensors(folder / WEIGHTS, shapes, asked)


def train_tokenizer(path: Path) -> None:
    """Write a sentencepiece model of letters, digits and some words of LIBERO."""
    nouns = ("bowl", "plate", "basket", "soup", "milk", "red cube", "tray", "cabinet", "stove")
    sentences = [f"pick up the {thing} and place it in the {other}"
                 for thing in nouns for other in nouns]  # fmt: skip
    sentences += [f"Task: {text}, State: {i} {255 - i} {i * 7 % 256};\nAction: "
                  for i, text in enumerate(sentences)]  # fmt: skip
    sentences += [" ".join(string.printable[:95])]
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=180,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        byte_fallback=False,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        user_defined_symbols=["\n"],
        bos_id=2,
        eos_id=1,
        unk_id=3,
        pad_id=0,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())


def _write_openpi(folder: Path, sizes: PolicySizes) -> dict[str, Any]:
    """Write the statistics; returns the configuration."""
    stats = {
        of: {name: values.tolist() for name, values in _stats(count).items()}
        for of, count in (("state", STATE_VALUES), ("actions", ACTIONS))
    }
    assets = folder / "assets" / "random"
    assets.mkdir(parents=True, exist_ok=True)
    write_json(assets / NORM_STATS, {"norm_stats": stats})
    return {"action_dim": sizes.action_dim, "action_horizon": sizes.horizon}


def _write_lerobot(folder: Path, sizes: PolicySizes) -> dict[str, Any]:
    """Write the processors and statistics; returns the configuration."""
    side = sizes.vision.image_px
    picture = {"type": "VISUAL", "shape": [3, side, side]}
    config = {
        "type": "pi05",
        "chunk_size": sizes.horizon,
        "max_action_dim": sizes.action_dim,
        "tokenizer_max_length": sizes.prompt_tokens,
        "input_features": {
            **dict.fromkeys(LEROBOT_CAMERAS, picture),
            "observation.state": {"type": "STATE", "shape": [STATE_VALUES]},
        },
    }
    stats = {
        f"{feature}.{name}": values
        for feature, count in (("observation.state", STATE_VALUES), ("action", ACTIONS))
        for name, values in _stats(count).items()
    }
    prompt = {"registry_name": "pi05_prepare_state_tokenizer_processor_step", "config": {}}
    for path, step, more in (
        (folder / BEFORE, "normalizer_processor", [prompt]),
        (folder / AFTER, "unnormalizer_processor", []),
    ):
        file = f"{path.stem}_step_0_{step}.safetensors"
        save_file(stats, folder / file)
        modes = {"STATE": "QUANTILES", "ACTION": "QUANTILES", "VISUAL": "IDENTITY"}
        settings: dict[str, Any] = {"eps": 1e-8, "norm_map": modes}
        entry = {"registry_name": step, "config": settings, "state_file": file}
        write_json(path, {"name": path.stem, "steps": [entry, *more]})
    return config


def _stats(count: int) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    ones = np.ones(count, np.float32)
    return {"mean": 0 * ones, "std": ones, "q01": -ones, "q99": ones}


def _write_tensors(path: Path, shapes: dict[str, Shape], asked: RandomPi05) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * asked.dtype.itemsize
        header[name] = {
            "dtype": DTYPES[asked.dtype],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for value in _random_tensors(shapes, asked):
            file.write(value.contiguous().view(torch.uint8).cpu().numpy().data)


def _random_tensors(shapes: dict[str, Shape], asked: RandomPi05) -> Iterator[Tensor]:
    """Random values, scaled so that activations stay near 1; biases and norms are random, too."""
    generator = torch.Generator(asked.device).manual_seed(asked.seed)
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator, device=asked.device)
        if len(shape) == 1:
            scale = 0.2
        elif "position_embedding" in name:
            scale = 0.1
        elif ("embed" in name and "patch" not in name) or "lm_head" in name:
            scale = shape[1] ** -0.5
        else:
            scale = math.prod(shape[1:]) ** -0.5
        yield (value * scale).to(asked.dtype).flatten()
